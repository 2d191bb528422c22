"""What surrounds the data of a figure: titles, legends, names that fit, logarithmic ticks."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._format import clean
from ._style import RC

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HANDLE = 40.0  # points that a legend entry takes besides its text
_LEGEND_ROOM = 300.0  # points above axes of the usual width, and the gap after the last entry


def heading(axes: "Axes", title: str, handles: Sequence[Any] = (), labels: Sequence[str] = ()):
    """A title on the left, and below it the legend, above the axes where it covers no data.

    **Arguments:**

    - `axes`: what is headed.
    - `title`: one line.
    - `handles`, `labels`: the entries of the legend, if there is one.

    >>> from mirrax.report._style import drawing, new_figure
    >>> with drawing():
    ...     heading(new_figure(2.0).subplots(), "Title")
    """
    pad = 8.0
    if handles:
        names = [fit(label(name), _LEGEND_ROOM - _HANDLE) for name in labels]
        columns = _legend_columns(names)
        rows = -(-len(names) // columns)
        figure: Any = axes.get_figure()
        figure.set_figheight(figure.get_figheight() + 0.19 * (rows - 1))
        axes.legend(
            handles,
            names,
            loc="lower left",
            bbox_to_anchor=(-0.01, 1.0),
            ncols=columns,
            borderaxespad=0.2,
            borderpad=0.2,
            columnspacing=1.4,
            labelspacing=0.35,
        )
        pad += 12.3 * rows + 4.5
    axes.set_title(clean(title, 80), pad=pad)


def _legend_columns(names: Sequence[str]) -> int:
    """The most columns of a legend whose entries fit side by side above the axes."""
    widths = [_text_width(name, RC["legend.fontsize"]) + _HANDLE for name in names]
    for columns in range(len(names), 1, -1):
        rows = -(-len(names) // columns)
        held = [widths[i : i + rows] for i in range(0, len(names), rows)]
        if sum(max(column) for column in held) <= _LEGEND_ROOM:
            return -(-len(names) // rows)  # the same number of rows, evenly filled
    return 1


def _text_width(text: str, size: float, weight: str = "normal") -> float:
    """The width of a line of text in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=RC["font.family"], size=size, weight=weight)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]


def fit(text: str, room: float, size: float = 9.0, weight: str = "normal") -> str:
    """A line of text cut to the points there are.

    **Arguments:**

    - `text`: one line.
    - `room`: its largest width, in points.
    - `size`, `weight`: of the font.

    **Returns:**

    The text, or its beginning and an ellipsis.

    >>> fit("MetaMD", 100), len(fit("m" * 40, 100)) < 15
    ('MetaMD', True)
    """
    if _text_width(text, size, weight) <= room:
        return text
    while len(text) > 1 and _text_width(text + "…", size, weight) > room:
        text = text[:-1]
    return text.rstrip() + "…"


def label(name: object) -> str:
    """A name fit for a legend: one line, not too long, and never hidden.

    **Arguments:**

    - `name`: any text.

    **Returns:**

    The text; matplotlib hides names that begin with an underscore, so they get a space.

    >>> label("_private")
    ' _private'
    """
    text = clean(name, 44) or "unnamed"
    return " " + text if text.startswith("_") else text


def log_axis(axis: Any) -> None:
    """A logarithmic axis whose ticks read 0.01, 0.1, 1 instead of powers.

    **Arguments:**

    - `axis`: `axes.xaxis` or `axes.yaxis`; its limits must be set already.

    >>> from mirrax.report._style import drawing, new_figure
    >>> with drawing():
    ...     axes = new_figure(2.0).subplots()
    ...     axes.set_ylim(0.5, 3.0)
    ...     log_axis(axes.yaxis)
    (0.5, 3.0)
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    low, high = axis.get_view_interval()
    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log")
    (axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim)(low, high)
    decades = math.log10(high / low)
    subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if decades < 0.9 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs if decades < 2.2 else (1.0,), numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    if decades < 2.2:
        axis.set_minor_locator(NullLocator())
