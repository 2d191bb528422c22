"""Figures of how learning went: curves, the meta-objective over rounds, bound beside regret.

Each function takes the plain data of a run folder and the stem of a path, and writes SVG and PNG.
`draw_…` makes the same figure without writing it, for the page.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._axes import heading, log_axis
from ._format import clean, words
from ._series import (
    any_finite,
    band,
    last,
    loss_limits,
    positive,
    span,
    thin,
    to_array,
    value_axis,
    whole_numbers,
)
from ._style import (
    BLUE,
    GREEN,
    VERMILLION,
    drawing,
    new_figure,
    save,
    series,
    strokes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(data: Mapping[str, Any], stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Loss against step on a logarithmic scale, one line an optimiser, with its band.

    **Arguments:**

    - `data`: the content of `curves.json`: `{"metric", "steps": (T,), "curves": {name: {"mean",
        "low", "high": (T,)}}}`; `null` where a run had diverged. A file of tasks held out in turn
        has such curves for each, under `"tasks"`; give those of one as `"curves"` and its name as
        `"task"`.
    - `stem`: the path without its ending.

    **Returns:**

    The paths of the SVG and the PNG.

    >>> import tempfile
    >>> data = {"metric": "training loss", "steps": [0, 1], "curves": {"SGD": {"mean": [2.0, 1.0]}}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in learning_curves(data, Path(folder) / "curves")]
    ['curves.svg', 'curves.png']
    """
    with drawing():
        return save(draw_learning_curves(data), stem)


def meta_progress(
    rounds: Sequence[Mapping[str, Any]], stem: str | os.PathLike[str]
) -> tuple[Path, Path]:
    """The meta-objective over meta-rounds, above the loss at the first and last inner step.

    **Arguments:**

    - `rounds`: the records of `metrics.jsonl`: `{"round", "value", "first_loss", "last_loss"}`.
    - `stem`: the path without its ending.

    **Returns:**

    The paths of the SVG and the PNG.

    >>> import tempfile
    >>> rounds = [{"round": i, "value": 3.0 - i, "last_loss": 1.0 / (i + 1)} for i in range(3)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(meta_progress(rounds, Path(folder) / "progress"))
    2
    """
    with drawing():
        return save(draw_meta_progress(rounds), stem)


def regret_bounds(data: Mapping[str, Any], stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    """The measured regret and its bounds against the number of steps (S000, Theorem 3.1).

    **Arguments:**

    - `data`: `{"steps": (T,), "regret": (T,), "bounds": {name: (T,)}}`, all cumulative.
    - `stem`: the path without its ending.

    **Returns:**

    The paths of the SVG and the PNG.

    >>> import tempfile
    >>> data = {"steps": [1, 2], "regret": [1.0, 1.5], "bounds": {"local dual norm": [2.0, 2.5]}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(regret_bounds(data, Path(folder) / "certificate"))
    2
    """
    with drawing():
        return save(draw_regret_bounds(data), stem)


def draw_learning_curves(data: Mapping[str, Any]) -> "Figure":
    """The figure that `learning_curves` writes; call it within `drawing()`.

    **Arguments:**

    - `data`: as for `learning_curves`.

    **Returns:**

    A matplotlib `Figure`.

    >>> with drawing():
    ...     len(draw_learning_curves({"steps": [0], "curves": {}}).axes)
    1
    """
    metric = clean(data.get("metric") or "training loss")
    curves = data["curves"]
    steps = to_array(data["steps"])
    keep = thin(len(steps))
    figure = new_figure(3.6)
    axes = figure.subplots()
    means = {name: to_array(curve["mean"]) for name, curve in curves.items()}
    limits = loss_limits(list(means.values()))
    styles = strokes(curves)
    # The legend reads from the highest line to the lowest, as the lines end.
    lines = {}
    for name in sorted(curves, key=lambda name: -last(means[name])):
        curve, stroke = curves[name], styles[name]
        (lines[name],) = axes.plot(
            steps[keep], positive(means[name], limits)[keep], **stroke.line()
        )
        if curve.get("low") is not None and curve.get("high") is not None:
            low, high = (to_array(curve[k])[keep] for k in ("low", "high"))
            band(axes, steps[keep], low, high, stroke, limits)
    axes.set_xlim(*span(steps))
    axes.set_ylim(*(limits or (0.0, 1.0)))
    if limits:
        log_axis(axes.yaxis)
    axes.set_xlabel("Step of the inner optimiser (number of updates)")
    axes.set_ylabel(f"{metric[:1].upper()}{metric[1:]} (log scale)")
    task = data.get("task")
    where = "the held-out task" if task is None else f"{clean(task)}, held out"
    title = f"{metric[:1].upper()}{metric[1:]} on {where}"
    heading(axes, title, list(lines.values()), list(lines))
    return figure


def draw_meta_progress(rounds: Sequence[Mapping[str, Any]]) -> "Figure":
    """The figure that `meta_progress` writes; call it within `drawing()`.

    **Arguments:**

    - `rounds`: as for `meta_progress`.

    **Returns:**

    A matplotlib `Figure`.

    >>> with drawing():
    ...     len(draw_meta_progress([{"round": 0, "value": 1.0}]).axes)
    1
    """
    numbers = to_array([record["round"] for record in rounds])
    values = to_array([record.get("value") for record in rounds])
    losses = {
        "first step": to_array([record.get("first_loss") for record in rounds]),
        "last step": to_array([record.get("last_loss") for record in rounds]),
    }
    losses = {name: value for name, value in losses.items() if any_finite(value)}
    figure = new_figure(4.4 if losses else 2.9)
    panels = figure.subplots(2 if losses else 1, 1, sharex=True, squeeze=False)[:, 0]
    top = panels[0]
    top.plot(numbers, values, color=VERMILLION, marker="o", markersize=3.5)
    value_axis(top, [values])
    top.set_ylabel("Value of the objective")
    heading(top, "Meta-objective, by meta-round")
    if losses:
        bottom = panels[1]
        lines = [
            bottom.plot(numbers, value, color=colour, linestyle=dash, marker="o", markersize=3.5)[0]
            for value, colour, dash in zip(
                losses.values(), (BLUE, GREEN), ((0, (5, 1.6)), "-"), strict=False
            )
        ]
        value_axis(bottom, list(losses.values()))
        bottom.set_ylabel("Training loss")
        heading(bottom, "Training loss of the inner runs", lines, list(losses))
    whole_numbers(panels[-1], numbers)
    panels[-1].set_xlabel("Meta-round (number)")
    return figure


def draw_regret_bounds(data: Mapping[str, Any]) -> "Figure":
    """The figure that `regret_bounds` writes; call it within `drawing()`.

    **Arguments:**

    - `data`: as for `regret_bounds`.

    **Returns:**

    A matplotlib `Figure`.

    >>> with drawing():
    ...     len(draw_regret_bounds({"steps": [1], "regret": [1.0], "bounds": {}}).axes)
    1
    """
    steps, regret = to_array(data["steps"]), to_array(data["regret"])
    bounds = {name: to_array(values) for name, values in (data.get("bounds") or {}).items()}
    keep = thin(len(steps))
    figure = new_figure(3.6)
    axes = figure.subplots()
    (first,) = axes.plot(steps[keep], regret[keep], color=VERMILLION, linewidth=2.3, zorder=5)
    handles, names = [first], ["measured regret"]
    for (name, values), stroke in zip(bounds.items(), series(len(bounds) + 1)[1:], strict=True):
        (line,) = axes.plot(steps[keep], values[keep], **stroke.line())
        handles.append(line)
        names.append(f"bound, {words(name)}")
    value_axis(axes, [regret, *bounds.values()])
    axes.set_xlim(*span(steps))
    axes.set_xlabel("Step of the inner optimiser (number of updates)")
    axes.set_ylabel("Regret (sum of losses above the optimum)")
    heading(axes, "Regret and its bounds", handles, names)
    return figure
