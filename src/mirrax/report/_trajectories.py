r"""Paths of optimisers on a two-dimensional quadratic, like S000, Fig. 1.

The loss is $\theta^\top Q\theta - b^\top\theta$; its minimum is at $\frac12 Q^{-1}b$.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._axes import fit, label
from ._style import GREEN, INK, MUTED, ORANGE, WIDTH, drawing, new_figure, save, strokes

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure


def trajectories(data: Mapping[str, Any], stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Paths of optimisers over the contours of a quadratic, a panel each (S000, Fig. 1).

    **Arguments:**

    - `data`: `{"matrix": (2, 2), "vector": (2,), "trajectories": {name: (T, 2)},
        "steps": {name: int}}`; `steps` is how many each needed, shown over its panel.
    - `stem`: the path without its ending.

    **Returns:**

    The paths of the SVG and the PNG.

    >>> import tempfile
    >>> data = {"matrix": [[2, 0], [0, 1]], "vector": [1, 1],
    ...         "trajectories": {"SGD": [[2, 2], [1, 1]]}, "steps": {"SGD": 2}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(trajectories(data, Path(folder) / "paths"))
    2
    """
    with drawing():
        return save(draw_trajectories(data), stem)


def draw_trajectories(data: Mapping[str, Any]) -> "Figure":
    """The figure that `trajectories` writes; call it within `drawing()`.

    **Arguments:**

    - `data`: as for `trajectories`.

    **Returns:**

    A matplotlib `Figure`.

    **Raises:**

    - `ValueError`: if the matrix is not 2 by 2 or there is no path.

    >>> data = {"matrix": [[1, 0], [0, 1]], "vector": [0, 0], "trajectories": {"A": [[1, 1]]}}
    >>> with drawing():
    ...     len(draw_trajectories(data).axes)
    1
    """
    quadratic = Quadratic.read(data)
    paths = quadratic.paths
    columns = 1 if len(paths) == 1 else 2 if len(paths) <= 4 else 3
    rows = -(-len(paths) // columns)
    figure = new_figure(0.95 + rows * ((WIDTH - 0.85) / columns + 0.38))
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    centre, half = _window(list(paths.values()), quadratic.optimum)
    styles = strokes(paths)
    handles: list[Any] = []
    for axes, (name, path) in zip(panels, paths.items(), strict=False):
        contours(axes, quadratic, centre, half)
        _path(axes, path, styles[name])
        handles = end_points(axes, path[0], quadratic.optimum)
        steps = (data.get("steps") or {}).get(name)
        count = f"\n{steps:,} steps" if isinstance(steps, int) else ""
        room = 72 * (WIDTH - 1.0) / columns
        axes.set_title(fit(label(name), room, 9.5, "bold") + count, fontsize=9.5, pad=5)
    for axes in panels[len(paths) :]:
        axes.set_visible(False)
    name_axes(figure, "Paths over the loss contours", handles)
    return figure


@dataclass(frozen=True)
class Quadratic:
    """The loss of `trajectories.json`, and what ran on it.

    **Arguments:**

    - `matrix`: the symmetric part of `Q`.
    - `optimum`: the minimiser.
    - `paths`: name to an array of points, one a row.
    """

    matrix: "np.ndarray"
    optimum: "np.ndarray"
    paths: "Mapping[str, np.ndarray]"

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "Quadratic":
        """The arrays of the plain data that `trajectories` takes."""
        import numpy as np

        matrix, vector = np.asarray(data["matrix"], float), np.asarray(data["vector"], float)
        paths = {name: np.asarray(path, float) for name, path in data["trajectories"].items()}
        if matrix.shape != (2, 2) or not paths:
            raise ValueError(
                f"trajectories: received a matrix of shape {matrix.shape} and {len(paths)} paths; "
                "give a 2 by 2 matrix and at least one path."
            )
        symmetric = (matrix + matrix.T) / 2
        return cls(symmetric, np.linalg.solve(2 * symmetric, vector), paths)


def contours(axes: Any, quadratic: Quadratic, centre: "np.ndarray", half: float) -> None:
    """Level sets of the loss within a square, closer together near its minimum."""
    import numpy as np

    x, y = (np.linspace(c - half, c + half, 121) for c in centre)
    offset = np.stack(np.meshgrid(x, y), axis=-1) - quadratic.optimum
    excess = np.einsum("...i,ij,...j->...", offset, quadratic.matrix, offset)
    top = float(excess.max())
    levels = top * np.linspace(0.04, 1.0, 10) ** 2
    axes.contour(x, y, excess, levels=levels, colors=MUTED, linewidths=0.6, alpha=0.55, zorder=1)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    axes.set_aspect("equal")
    axes.grid(visible=False)


def end_points(axes: Any, start: "np.ndarray", optimum: "np.ndarray") -> list[Any]:
    """The start of a run and the minimum; returns their handles."""
    point = {"markeredgecolor": INK, "markeredgewidth": 0.8, "linestyle": "none", "zorder": 6}
    (first,) = axes.plot(*start, marker="o", markersize=7, color=GREEN, **point)
    (end,) = axes.plot(*optimum, marker="*", markersize=12, color=ORANGE, **point)
    return [first, end]


def name_axes(figure: "Figure", title: str, handles: Sequence[Any]) -> None:
    """The title, what start and minimum look like, and the names of the two parameters."""
    figure.legend(
        handles,
        ["start", "minimum"],
        loc="outside upper left",
        ncols=2,
        title=title,
        title_fontproperties={"weight": "bold", "size": 11},
        alignment="left",
    )
    figure.supxlabel("θ₁ (first parameter)", fontsize=9.5)
    figure.supylabel("θ₂ (second parameter)", fontsize=9.5)


def _window(paths: Sequence["np.ndarray"], optimum: "np.ndarray") -> tuple["np.ndarray", float]:
    """A square that holds every path, but not the far end of one that diverges."""
    import numpy as np

    starts = np.stack([path[0] for path in paths])
    reach = 3 * max(float(np.abs(starts - optimum).max()), 1e-6)
    points = np.concatenate([optimum[None], *paths])
    points = points[np.isfinite(points).all(axis=1)]
    points = points[(np.abs(points - optimum) <= reach).all(axis=1)]
    low, high = points.min(axis=0), points.max(axis=0)
    return (low + high) / 2, 0.58 * max(float((high - low).max()), 1e-6)


def _path(axes: Any, path: "np.ndarray", stroke: Any) -> None:
    """One path; a short one has a point at every step."""
    import numpy as np

    # Long paths keep all of their first steps, where the eye looks, and fewer of the rest.
    many = np.unique(np.geomspace(1, len(path), min(len(path), 500)).round().astype(int)) - 1
    axes.plot(path[many, 0], path[many, 1], color=stroke.colour, linewidth=1.1, zorder=3)
    if len(path) <= 120:
        axes.plot(
            path[:, 0], path[:, 1], color=stroke.colour, marker=".", markersize=4, linestyle="none"
        )
