"""Figures of few-shot learning: adaptation to new tasks (S004, Fig. 1), and meta-training."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._axes import heading, log_axis
from ._format import finite
from ._labels import method_label
from ._series import (
    any_finite,
    band,
    last,
    loss_limits,
    positive,
    span,
    thin,
    to_array,
    whole_numbers,
)
from ._style import MUTED, drawing, new_figure, save, strokes

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WINDOWS = 25  # a line of training that is smoothed has about so many separate means
_CROWD = 5  # of more lines than this, only those in front have a band
_PANELS = {
    "support_loss": ("Support loss on new tasks", "Mean loss", "nats"),
    "gradient_norm": ("Norm of its gradient", "Euclidean norm", ""),
}


def adaptation_figure(
    summary: Mapping[str, Any], stem: str | os.PathLike[str]
) -> tuple[Path, Path]:
    """Support loss and gradient norm against the adaptation step (S004, Fig. 1).

    **Arguments:**

    - `summary`: the content of `summary.json` of a few-shot run; `adaptation` of each method is
        `{"steps", "support_loss", "support_loss_ci95", "gradient_norm", "gradient_norm_ci95"}`,
        lists of one length; methods without it make no line.
    - `stem`: the path without its ending.

    **Returns:**

    The paths of the SVG and the PNG.

    >>> import tempfile
    >>> row = {"method": "maml", "adaptation": {"steps": [0, 1], "support_loss": [1.6, 0.4]}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = adaptation_figure({"methods": [row]}, Path(folder) / "adaptation")
    ...     [path.name for path in paths]
    ['adaptation.svg', 'adaptation.png']
    """
    with drawing():
        return save(draw_adaptation(summary), stem)


def training_figure(
    summary: Mapping[str, Any], stem: str | os.PathLike[str], *, window: int | None = None
) -> tuple[Path, Path]:
    """The loss that meta-training minimises, against the meta-step, one line a method.

    **Arguments:**

    - `summary`: the content of `summary.json` of a few-shot run; `training` of each method is
        `{"steps", "loss"}`, lists of one length; methods without it make no line.
    - `stem`: the path without its ending.
    - `window`: each point is the mean of so many last records, and the figure says so; 1 draws
        them as they are. By default a twenty-fifth of the records.

    **Returns:**

    The paths of the SVG and the PNG.

    >>> import tempfile
    >>> row = {"method": "maml", "training": {"steps": [0, 1], "loss": [1.6, 1.2]}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(training_figure({"methods": [row]}, Path(folder) / "training"))
    2
    """
    with drawing():
        return save(draw_training(summary, window), stem)


def draw_adaptation(summary: Mapping[str, Any]) -> "Figure":
    """The figure that `adaptation_figure` writes; call it within `drawing()`.

    **Arguments:**

    - `summary`: as for `adaptation_figure`.

    **Returns:**

    A matplotlib `Figure`.

    >>> with drawing():
    ...     len(draw_adaptation({"methods": []}).axes)
    2
    """
    traces = _traces(summary, "adaptation")
    figure = new_figure(5.2)
    panels = figure.subplots(2, 1, sharex=True)
    found = {
        key: _trace_panel(axes, traces, key) for axes, key in zip(panels, _PANELS, strict=True)
    }
    inner = finite((summary.get("protocol") or {}).get("inner_steps"))
    steps = sorted({step for trace in traces.values() for step in trace["steps"]})
    low, high = span(to_array(steps))
    panels[1].set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
    whole_numbers(panels[1], to_array(steps))
    said = "Adaptation step k (gradient steps on the support set)"
    if inner is not None and steps and steps[0] <= inner <= steps[-1]:
        for axes in panels:
            axes.axvline(inner, color=MUTED, linewidth=1.0, linestyle=(0, (1, 2)), zorder=1)
        said = f"Adaptation step k (dotted: the {inner:g} steps of meta-training)"
    panels[1].set_xlabel(said)
    lines = found["support_loss"] or found["gradient_norm"]
    heading(panels[0], _PANELS["support_loss"][0], list(lines.values()), list(lines))
    heading(panels[1], _PANELS["gradient_norm"][0])
    return figure


def draw_training(summary: Mapping[str, Any], window: int | None = None) -> "Figure":
    """The figure that `training_figure` writes; call it within `drawing()`.

    **Arguments:**

    - `summary`, `window`: as for `training_figure`.

    **Returns:**

    A matplotlib `Figure`.

    **Raises:**

    - `ValueError`: if the window holds no record.

    >>> with drawing():
    ...     len(draw_training({"methods": []}).axes)
    1
    """
    traces = _traces(summary, "training")
    if window is None:
        window = smoothing(summary)
    if window < 1:
        raise ValueError(f"draw_training: window is {window}; give 1 for no smoothing, or more.")
    figure = new_figure(3.6)
    axes = figure.subplots()
    means = {
        name: running_mean(to_array(trace.get("loss") or ()), window)
        for name, trace in traces.items()
    }
    means = {name: mean for name, mean in means.items() if any_finite(mean)}
    limits = _scale(axes, list(means.values()))
    styles = strokes(list(means))
    lines = {}
    for name in sorted(means, key=lambda name: -last(means[name])):
        steps, keep = to_array(traces[name]["steps"]), thin(len(means[name]))
        shown = positive(means[name], limits) if limits else means[name]
        (lines[name],) = axes.plot(steps[keep], shown[keep], **styles[name].line())
    every = to_array(sorted({s for name in means for s in traces[name]["steps"]}))
    axes.set_xlim(*span(every))
    smoothed = f" (mean of the last {window} records)" if window > 1 else ""
    axes.set_xlabel(f"Meta-step{smoothed}")
    axes.set_ylabel("Objective of meta-training (nats)")
    heading(axes, "Loss of meta-training", list(lines.values()), list(lines))
    return figure


def smoothing(summary: Mapping[str, Any]) -> int:
    """How many records a point of the training figure averages unless it is told.

    **Arguments:**

    - `summary`: as for `training_figure`.

    **Returns:**

    A twenty-fifth of the records of the longest line, and at least 1.

    >>> smoothing({"methods": [{"method": "a", "training": {"steps": list(range(300))}}]})
    12
    """
    longest = max((len(t["steps"]) for t in _traces(summary, "training").values()), default=0)
    return max(1, longest // _WINDOWS)


def running_mean(values: "np.ndarray", window: int) -> "np.ndarray":
    """The mean of each value and those before it, of `window` in all where there are as many.

    **Arguments:**

    - `values`: an array; one NaN makes NaN of every mean it enters.
    - `window`: how many.

    **Returns:**

    An array of the same length.

    >>> import numpy as np
    >>> running_mean(np.array([1.0, 3.0, 5.0]), 2)
    array([1., 2., 4.])
    """
    import numpy as np

    if window == 1 or not len(values):
        return values
    sums = np.convolve(values, np.ones(window))[: len(values)]
    return sums / np.minimum(np.arange(1, len(values) + 1), window)


def _traces(summary: Mapping[str, Any], key: str) -> dict[str, Mapping[str, Any]]:
    """What each method recorded under `key`, by the name it is shown by."""
    rows = summary.get("methods") or ()
    return {method_label(row.get("method")): row[key] for row in rows if row.get(key)}


def _trace_panel(axes: "Axes", traces: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, Any]:
    """One quantity with its bands; returns its lines from the highest end to the lowest."""
    means = {name: to_array(trace.get(key) or ()) for name, trace in traces.items()}
    means = {name: mean for name, mean in means.items() if any_finite(mean)}
    limits = _scale(axes, list(means.values()))
    styles = strokes(list(traces))
    front = max((styles[name].order for name in means), default=0)
    lines = {}
    for name in sorted(means, key=lambda name: -last(means[name])):
        steps, mean, stroke = to_array(traces[name]["steps"]), means[name], styles[name]
        shown = positive(mean, limits) if limits else mean
        point = {"marker": stroke.marker, "markersize": 4.0} if len(steps) <= 30 else {}
        (lines[name],) = axes.plot(steps, shown, **stroke.line(), **point)
        banded = len(means) <= _CROWD or stroke.order == front
        if banded and traces[name].get(f"{key}_ci95"):
            error = to_array(traces[name][f"{key}_ci95"])
            band(axes, steps, mean - error, mean + error, stroke, limits)
    unit = [_PANELS[key][2], *(["log scale"] if limits else [])]
    axes.set_ylabel(f"{_PANELS[key][1]} ({', '.join(filter(None, unit))})".removesuffix(" ()"))
    return lines


def _scale(axes: "Axes", means: Sequence["np.ndarray"]) -> tuple[float, float] | None:
    """Limits which no line that diverges takes part in, returned where the axis is logarithmic."""
    limits = loss_limits(means)
    if not limits:
        return None
    low, high = limits
    if high / low > 10:
        axes.set_ylim(*limits)
        log_axis(axes.yaxis)
        return limits
    axes.set_ylim(0.0, high)
    return None
