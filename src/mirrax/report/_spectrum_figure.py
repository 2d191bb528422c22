r"""The spectrum of what was learned: the rates along eigenvectors, $\eta/\lambda_i(\nabla^2\psi)$.

Gradient descent has one rate for all of them; the ratio of the largest to the smallest is the
condition number of the learned metric.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._axes import heading, log_axis
from ._format import number
from ._inspect import components_of, condition
from ._labels import array_label
from ._series import to_array
from ._style import drawing, new_figure, save, series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ARRAYS = 7  # as many lines as there are colours
_FEW = 16  # so many eigenvalues are shown one by one


def geometry_spectrum(data: Mapping[str, Any], stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    """The spectrum of the learned metric in every array, a panel a component.

    **Arguments:**

    - `data`: the content of `geometry.json`; of each component the seven arrays with the largest
        condition numbers are drawn, and those without `spectrum` are passed over.
    - `stem`: the path without its ending.

    **Returns:**

    The paths of the SVG and the PNG.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data = {"leaves": [{"name": "w", "spectrum": [0.4, 0.2, 0.1]}]}
    ...     len(geometry_spectrum(data, Path(folder) / "spectrum"))
    2
    """
    with drawing():
        return save(draw_spectrum(data), stem)


def draw_spectrum(data: Mapping[str, Any]) -> "Figure":
    """The figure that `geometry_spectrum` writes; call it within `drawing()`.

    **Arguments:**

    - `data`: as for `geometry_spectrum`.

    **Returns:**

    A matplotlib `Figure`.

    >>> with drawing():
    ...     len(draw_spectrum({"leaves": [{"name": "w", "spectrum": [0.4, 0.2]}]}).axes)
    1
    """
    components = {
        name: {base: leaf for base, leaf in arrays.items() if condition(leaf)}
        for name, arrays in components_of(data).items()
    }
    shown = _most_spread([leaf for arrays in components.values() for leaf in arrays.items()])
    figure = new_figure(1.7 + 1.6 * len(components))
    panels = figure.subplots(len(components), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    strokes = dict(zip(shown, series(len(shown)), strict=True))
    lines: dict[str, Any] = {}
    for axes, arrays in zip(panels, components.values(), strict=True):
        for base in filter(arrays.__contains__, shown):
            rates = to_array(arrays[base]["spectrum"])
            places = [100 * (i + 0.5) / len(rates) for i in range(len(rates))]
            dots = {"marker": "o", "markersize": 3.5} if len(rates) <= _FEW else {}
            (lines[base],) = axes.plot(places, rates, **strokes[base].line(), **dots)
        axes.set_ylabel("Rate (log scale)")
    low, high = _ends([leaf for arrays in components.values() for leaf in arrays.values()])
    panels[0].set_ylim(low / (high / low) ** 0.06, high * (high / low) ** 0.06)
    log_axis(panels[0].yaxis)
    panels[-1].set_xlim(0, 100)
    panels[-1].set_xlabel("Rank of the eigenvector (% of those of its array)")
    count = max((len(arrays) for arrays in components.values()), default=0)
    more = f" ({len(shown)} of {count} arrays)" if count > len(shown) else ""
    for i, (axes, name) in enumerate(zip(panels, components, strict=True)):
        title = f"Rates along eigenvectors{', ' if name else ''}{name}{more}"
        heading(axes, title, *((list(lines.values()), list(lines)) if i == 0 else ()))
    return figure


def spectrum_caption(data: Mapping[str, Any]) -> str:
    """What the figure shows, with the condition numbers in words.

    **Arguments:**

    - `data`: as for `geometry_spectrum`.

    **Returns:**

    Two or three sentences.

    >>> spectrum_caption({"leaves": [{"name": "w", "spectrum": [0.4, 0.1]}]}).split(". ")[1]
    'Its condition number, largest over smallest, is at most 4 within an array (w)'
    """
    leaves = data.get("leaves") or ()
    worst, name = max((condition(leaf) or 0.0, array_label(leaf["name"])) for leaf in leaves)
    return (
        "The spectrum of the learned metric: the rate along each eigenvector, which for a diagonal "
        "is that of a parameter. Its condition number, largest over smallest, is at most "
        f"{number(worst)} within an array ({name}). A level line is plain "
        "gradient descent with one rate."
    )


def _ends(leaves: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The smallest and the largest rate, never the same."""
    rates = [rate for leaf in leaves for rate in (leaf["spectrum"][0], leaf["spectrum"][-1])]
    low, high = min(rates, default=1.0), max(rates, default=1.0)
    return (low, high) if high > low else (low / 2, high * 2)


def _most_spread(arrays: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """The names of the arrays with the largest condition numbers, in the order of the file."""
    largest: dict[str, float] = {}
    for name, leaf in arrays:
        largest[name] = max(condition(leaf) or 0.0, largest.get(name, 0.0))
    kept = sorted(largest, key=lambda name: -largest[name])[:_ARRAYS]
    return [name for name in largest if name in kept]
