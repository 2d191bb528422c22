"""Every bound of a certificate beside the regret that was measured, on one logarithmic scale."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._axes import fit, heading, label, log_axis
from ._format import finite, words
from ._style import BLUE, INK, SLATE, VERMILLION, drawing, new_figure, save
from ._verdicts import verdicts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROOM = 120.0  # points that the name of a bound may take
_REGRETS = {"regret": (VERMILLION, "-"), "linearised_regret": (SLATE, (0, (5, 1.6)))}


def certificate_bounds(
    certificate: Mapping[str, Any], stem: str | os.PathLike[str]
) -> tuple[Path, Path]:
    """A point for every bound, and lines for the regret and its linearisation.

    A bound that holds lies right of the linearised regret.

    **Arguments:**

    - `certificate`: `{"regret", "linearised_regret", "bounds": {name: number}, "satisfied":
        {name: bool}}`; without the last the bounds are compared anew.
    - `stem`: the path without its ending.

    **Returns:**

    The paths of the SVG and the PNG.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     certificate = {"regret": 2.0, "bounds": {"local norm": 3.0}}
    ...     len(certificate_bounds(certificate, Path(folder) / "bounds"))
    2
    """
    with drawing():
        return save(draw_bounds(certificate), stem)


def draw_bounds(certificate: Mapping[str, Any]) -> "Figure":
    """The figure that `certificate_bounds` writes; call it within `drawing()`.

    **Arguments:**

    - `certificate`: as for `certificate_bounds`.

    **Returns:**

    A matplotlib `Figure`.

    >>> with drawing():
    ...     figure = draw_bounds({"regret": 2.0, "bounds": {"local norm": 1.0}})
    ...     [text.get_text() for text in figure.axes[0].texts]
    ['broken, 0.5 times the regret']
    """
    regrets = {key: finite(certificate.get(key)) for key in _REGRETS}
    regrets = {key: value for key, value in regrets.items() if value is not None}
    bounds = {name: finite(value) for name, value in (certificate.get("bounds") or {}).items()}
    figure = new_figure(1.5 + 0.36 * max(len(bounds), 2))
    axes = figure.subplots()
    lines = []
    for key, value in regrets.items():
        colour, dashes = _REGRETS[key]
        lines.append(axes.axvline(value, color=colour, linestyle=dashes, linewidth=1.8, zorder=3))
    judged = verdicts(certificate)
    for row, (name, value) in enumerate(bounds.items()):
        if value is not None:
            _point(axes, value, row, regrets.get("regret"), broken=judged[name] is False)
    axes.grid(visible=False, axis="y")
    axes.set_yticks(range(len(bounds)), [fit(label(words(name)), _ROOM) for name in bounds])
    axes.set_ylim(max(len(bounds), 1) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    known = [value for value in (*regrets.values(), *bounds.values()) if value is not None]
    scale = _scale(axes, known)
    axes.set_xlabel(f"Sum of losses over the run{scale}")
    axes.set_ylabel("Bound")
    heading(axes, "Bounds beside the measured regret", lines, [words(key) for key in regrets])
    return figure


def _point(axes: "Axes", value: float, row: int, regret: float | None, *, broken: bool) -> None:
    """One bound with its ratio in words; form and text too tell one that is broken."""
    axes.plot(
        [value],
        [row],
        marker="X" if broken else "o",
        markersize=8,
        color=VERMILLION if broken else BLUE,
        markeredgecolor=INK,
        markeredgewidth=0.8,
        linestyle="none",
        zorder=5,
    )
    said = "broken" if broken else ""
    if regret is not None and regret > 0:
        said = ", ".join(filter(None, (said, f"{value / regret:.3g} times the regret")))
    beside = {"xytext": (8, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
    axes.annotate(said, (value, row), **beside)


def _scale(axes: "Axes", values: list[float]) -> str:
    """Limits with room for what stands right of the last point; what to say of the axis."""
    if not values:
        return ""
    low, high = min(values), max(values)
    if low > 0:
        ratio = max(high / low, 1.5)
        axes.set_xlim(low / ratio**0.08, high * ratio**0.8)
        log_axis(axes.xaxis)
        return " (log scale)"
    width = (high - low) or 1.0
    axes.set_xlim(low - 0.05 * width, high + 0.8 * width)
    return ""
