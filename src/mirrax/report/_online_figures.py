"""Figures of online optimisers on quadratics, in the manner of S002, Fig. 2."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._axes import label, log_axis
from ._format import clean
from ._series import loss_limits, positive, span, thin, to_array
from ._style import INK, drawing, new_figure, save, strokes

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = 5  # more problems than these are in the table only
_POINTS = 60  # of a line over the rates; fewer would pass over a narrow minimum
_TICKS = {1e-3: "0.001", 1.0: "1", 1e3: "1000"}


def online_figure(
    summary: Mapping[str, Any], minimiser: str, stem: str | os.PathLike[str]
) -> tuple[Path, Path]:
    """Loss per iteration, above the cumulative loss by learning rate; a column a problem.

    **Arguments:**

    - `summary`: the content of `summary.json` of `mirrax reproduce s002-fig2`; `null` where a run
        diverged.
    - `minimiser`: which of its settings.
    - `stem`: the path without its ending.

    **Returns:**

    The paths of the SVG and the PNG.

    >>> import tempfile
    >>> found = {"rates": [0.1, 1.0], "cumulative": [[9.0, 4.0]]}
    >>> row = {"method": "Momentum", "loss": [[3.0, 1.0]], "sensitivity": found}
    >>> setting = {"minimiser": "shifted", "problems": [{"condition": 10.0}], "methods": [row]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     summary = {"curve_steps": [0, 1], "settings": [setting]}
    ...     [path.name for path in online_figure(summary, "shifted", Path(folder) / "online")]
    ['online.svg', 'online.png']
    """
    with drawing():
        return save(draw_online(summary, minimiser), stem)


def draw_online(summary: Mapping[str, Any], minimiser: str) -> "Figure":
    """The figure that `online_figure` writes; call it within `drawing()`.

    **Arguments:**

    - `summary`, `minimiser`: as for `online_figure`.

    **Returns:**

    A matplotlib `Figure`.

    **Raises:**

    - `ValueError`: if there is no such setting.
    """
    setting = next((s for s in summary["settings"] if s["minimiser"] == minimiser), None)
    if setting is None:
        known = ", ".join(repr(s["minimiser"]) for s in summary["settings"])
        raise ValueError(f"draw_online: minimiser is {minimiser!r}; known are {known}.")
    problems, methods = setting["problems"][:_PANELS], setting["methods"]
    figure = new_figure(5.4, 1.6 + 1.75 * len(problems))
    panels = figure.subplots(2, len(problems), sharey="row", sharex="row", squeeze=False)
    styles = strokes([row["method"] for row in methods])
    steps = to_array(summary["curve_steps"])
    lines = _losses(panels[0], methods, steps, styles)
    _sensitivities(panels[1], methods, styles)
    for axes, problem in zip(panels[0], problems, strict=True):
        axes.set_title(f"Condition {problem['condition']:,.0f}", fontsize=9.5, pad=5)
    panels[0, 0].set_ylabel("Loss")
    panels[1, 0].set_ylabel("Cumulative loss")
    middle = len(problems) // 2
    panels[0, middle].set_xlabel("Step")
    panels[1, middle].set_xlabel("Rate or meta rate, in its own unit")
    figure.legend(
        lines,
        [label(row["method"]) for row in methods],
        loc="outside upper left",
        ncols=min(4, max(1, len(problems))),
        title=f"Rates learned online, minimiser {clean(minimiser)}",
        title_fontproperties={"weight": "bold", "size": 11},
        alignment="left",
    )
    return figure


def _losses(
    panels: "Sequence[Axes]",
    methods: Sequence[Mapping[str, Any]],
    steps: "np.ndarray",
    styles: Mapping[str, Any],
) -> list[Any]:
    """The loss of the best configuration of every method; returns the lines of the first panel."""
    from matplotlib.ticker import MaxNLocator

    curves = [[to_array(row["loss"][i]) for i in range(len(panels))] for row in methods]
    limits = loss_limits([curve for row in curves for curve in row])
    lines = []
    for i, axes in enumerate(panels):
        axes.set_xlim(*span(steps))
        axes.xaxis.set_major_locator(MaxNLocator(2, integer=True))
        _set_limits(axes, limits)
        for row, curve in zip(methods, curves, strict=True):
            shown = positive(curve[i], limits, floor=True)
            lines += axes.plot(steps, shown, **styles[row["method"]].line())
    return lines[: len(methods)]


def _sensitivities(
    panels: "Sequence[Axes]", methods: Sequence[Mapping[str, Any]], styles: Mapping[str, Any]
) -> None:
    """The cumulative loss against the swept rate, the best over the other hyper-parameters."""
    found = [row["sensitivity"] for row in methods]
    tables = [[to_array(one["cumulative"][i]) for i in range(len(panels))] for one in found]
    limits = loss_limits([values for table in tables for values in table])
    for i, axes in enumerate(panels):
        axes.set_xscale("log")
        _set_limits(axes, limits)
        for row, one, table in zip(methods, found, tables, strict=True):
            keep, line = thin(len(table[i]), _POINTS), styles[row["method"]].line()
            axes.plot(to_array(one["rates"])[keep], table[i][keep], **line)
        axes.set_xticks(list(_TICKS), labels=list(_TICKS.values()))
        axes.axvline(1.0, color=INK, linewidth=0.6, alpha=0.5, zorder=1)


def _set_limits(axes: "Axes", limits: tuple[float, float] | None) -> None:
    from matplotlib.ticker import LogLocator

    if limits:
        axes.set_ylim(*limits)
        log_axis(axes.yaxis)
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
    axes.minorticks_off()
    axes.grid(visible=False, axis="x")
