"""Figures of online optimisers on quadratics, in the manner of S002, Fig. 2."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._axes import label, log_axis
from ._format import clean
from ._series import loss_limits, positive, span, to_array
from ._style import INK, drawing, new_figure, save, strokes

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = 5  # more problems than these are in the table only
_POINTS = 60  # of a line over the rates, each the best of its neighbours
_RATE_TICKS = {1e-3: "0.001", 0.03: "0.03", 1.0: "1"}
_META_TICKS = {1e-3: "10⁻³", 1e2: "10²", 1e7: "10⁷"}


def online_figure(
    summary: Mapping[str, Any], minimiser: str, stem: str | os.PathLike[str]
) -> tuple[Path, Path]:
    """Loss per iteration, above the cumulative loss by first rate and by meta rate.

    A column a problem.

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
    figure = new_figure(7.4, 1.6 + 1.75 * len(problems))
    panels = figure.subplots(3, len(problems), sharey="row", sharex="row", squeeze=False)
    styles = strokes([row["method"] for row in methods])
    steps = to_array(summary["curve_steps"])
    lines = _losses(panels[0], methods, steps, styles)
    _sensitivities(panels[1], methods, styles, "sensitivity", _RATE_TICKS)
    _sensitivities(panels[2], methods, styles, "meta_sensitivity", _META_TICKS)
    for axes, problem in zip(panels[0], problems, strict=True):
        axes.set_title(f"Condition {problem['condition']:,.0f}", fontsize=9.5, pad=5)
    panels[0, 0].set_ylabel("Loss")
    middle = len(problems) // 2
    names = ("Step", "First rate, in its unit", "Meta rate, in its unit")
    for row, name in zip(panels, names, strict=True):
        row[middle].set_xlabel(name)
    for row in panels[1:]:
        row[0].set_ylabel("Cumulative loss")
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
    panels: "Sequence[Axes]",
    methods: Sequence[Mapping[str, Any]],
    styles: Mapping[str, Any],
    key: str,
    ticks: Mapping[float, str],
) -> None:
    """The cumulative loss against a rate, the best over the other hyper-parameters."""
    rows = [row for row in methods if row.get(key)]
    found = [row[key] for row in rows]
    tables = [[to_array(one["cumulative"][i]) for i in range(len(panels))] for one in found]
    limits = loss_limits([values for table in tables for values in table])
    for i, axes in enumerate(panels):
        axes.set_xscale("log")
        _set_limits(axes, limits)
        for row, one, table in zip(rows, found, tables, strict=True):
            line = styles[row["method"]].line()
            axes.plot(*_lowest(to_array(one["rates"]), table[i]), **line)
        axes.set_xticks(list(ticks), labels=list(ticks.values()))
        axes.axvline(1.0, color=INK, linewidth=0.6, alpha=0.5, zorder=1)


def _lowest(rates: "np.ndarray", values: "np.ndarray") -> "tuple[np.ndarray, np.ndarray]":
    """The lowest of each group of neighbours, so that no narrow minimum is passed over."""
    import numpy as np

    known = np.where(np.isnan(values), np.inf, values)
    groups = np.array_split(np.arange(len(rates)), min(len(rates), _POINTS))
    keep = np.array([group[np.argmin(known[group])] for group in groups])
    return rates[keep], values[keep]


def _set_limits(axes: "Axes", limits: tuple[float, float] | None) -> None:
    from matplotlib.ticker import LogLocator

    if limits:
        axes.set_ylim(*limits)
        log_axis(axes.yaxis)
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
    axes.minorticks_off()
    axes.grid(visible=False, axis="x")
