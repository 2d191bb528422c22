"""Figures of what was learned: rates by leaf, which components are active, paths on quadratics.

The last two are made like S000, Fig. 5 and Fig. 1.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._figures import thin, to_array
from ._format import clean, finite
from ._inspect import rate_range
from ._style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    WIDTH,
    drawing,
    heading,
    label,
    log_axis,
    new_figure,
    save,
    series,
    strokes,
)

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

_LEAVES = 40


def geometry_rates(data: Mapping[str, Any], stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    """The distribution of learned rates in every leaf, on one logarithmic scale.

    **Arguments:**

    - `data`: the content of `geometry.json`; the first 40 leaves are drawn.
    - `stem`: the path without its ending.

    **Returns:**

    The paths of the SVG and the PNG.

    >>> import tempfile
    >>> leaf = {"name": "w", "rate_low": 0.1, "rate_median": 0.2, "rate_high": 0.4}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(geometry_rates({"leaves": [leaf]}, Path(folder) / "rates"))
    2
    """
    with drawing():
        return save(draw_geometry_rates(data), stem)


def activation_by_round(
    rounds: Sequence[Mapping[str, Any]], stem: str | os.PathLike[str]
) -> tuple[Path, Path]:
    """How often each component of a mixture is active, over meta-rounds (S000, Fig. 5).

    **Arguments:**

    - `rounds`: the records of `metrics.jsonl`; those without `activation` are passed over.
    - `stem`: the path without its ending.

    **Returns:**

    The paths of the SVG and the PNG.

    >>> import tempfile
    >>> rounds = [{"round": 0, "activation": [0.6, 0.4]}, {"round": 1, "activation": [0.9, 0.1]}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(activation_by_round(rounds, Path(folder) / "activation"))
    2
    """
    with drawing():
        return save(draw_activation_by_round(rounds), stem)


def activation_by_step(
    shares: Sequence[Sequence[float]],
    stem: str | os.PathLike[str],
    steps: Sequence[float] | None = None,
) -> tuple[Path, Path]:
    """How often each component is active, over the steps of the inner run (S000, Fig. 5).

    **Arguments:**

    - `shares`: one row a step, one entry a component.
    - `stem`: the path without its ending.
    - `steps`: the number of each row's step; 1, 2, 3, … by default.

    **Returns:**

    The paths of the SVG and the PNG.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(activation_by_step([[0.5, 0.5], [1.0, 0.0]], Path(folder) / "activation"))
    2
    """
    with drawing():
        return save(draw_activation_by_step(shares, steps), stem)


def trajectories(data: Mapping[str, Any], stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    r"""Paths of optimisers over the contours of $\theta^\top Q\theta - b^\top\theta$ (S000, Fig. 1).

    **Arguments:**

    - `data`: `{"matrix": (2, 2), "vector": (2,), "trajectories": {name: (T, 2)},
        "steps": {name: int}}`.
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


def draw_geometry_rates(data: Mapping[str, Any]) -> "Figure":
    """The figure that `geometry_rates` writes; call it within `drawing()`.

    **Arguments:**

    - `data`: as for `geometry_rates`.

    **Returns:**

    A matplotlib `Figure`.

    >>> with drawing():
    ...     len(draw_geometry_rates({"leaves": []}).axes)
    1
    """
    leaves = list(data.get("leaves") or ())
    shown = leaves[:_LEAVES]
    span = rate_range({"leaves": shown})
    figure = new_figure(1.35 + 0.36 * max(len(shown), 2))
    axes = figure.subplots()
    axes.grid(visible=False, axis="y")
    median = bar = None
    for row, leaf in enumerate(shown):
        _violin(axes, leaf, row)
        low, middle, high = (finite(leaf.get(f"rate_{k}")) for k in ("low", "median", "high"))
        if low and high and low > 0:
            (bar,) = axes.plot([low, high], [row, row], color=BLUE, linewidth=1.3, zorder=4)
        if middle and middle > 0:
            (median,) = axes.plot(
                [middle],
                [row],
                marker="o",
                markersize=5.5,
                color=ORANGE,
                markeredgecolor=INK,
                markeredgewidth=0.8,
                linestyle="none",
                zorder=5,
            )
    axes.set_yticks(range(len(shown)), [_leaf_label(leaf) for leaf in shown])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(max(len(shown), 1) - 0.4, -0.6)
    if span:
        margin = max((span[1] / span[0]) ** 0.04, 1.12)
        axes.set_xlim(span[0] / margin, span[1] * margin)
        log_axis(axes.xaxis)
    axes.set_xlabel("Rate (step length per unit of gradient, log scale)")
    handles = [(h, n) for h, n in ((median, "median"), (bar, "lowest to highest")) if h is not None]
    more = f" (first {_LEAVES} of {len(leaves)})" if len(leaves) > _LEAVES else ""
    heading(axes, f"Learned rates, by parameter{more}", *zip(*handles, strict=True))
    return figure


def draw_activation_by_round(rounds: Sequence[Mapping[str, Any]]) -> "Figure":
    """The figure that `activation_by_round` writes; call it within `drawing()`.

    **Arguments:**

    - `rounds`: as for `activation_by_round`.

    **Returns:**

    A matplotlib `Figure`.

    >>> with drawing():
    ...     len(draw_activation_by_round([{"round": 0, "activation": [1.0]}]).axes)
    1
    """
    kept = [record for record in rounds if record.get("activation")]
    return _draw_shares(
        [record["round"] for record in kept],
        [record["activation"] for record in kept],
        ("Meta-round (number)", "Share of steps (%)"),
        "Which component is active, by meta-round",
    )


def draw_activation_by_step(
    shares: Sequence[Sequence[float]], steps: Sequence[float] | None = None
) -> "Figure":
    """The figure that `activation_by_step` writes; call it within `drawing()`.

    **Arguments:**

    - `shares`, `steps`: as for `activation_by_step`.

    **Returns:**

    A matplotlib `Figure`.

    >>> with drawing():
    ...     len(draw_activation_by_step([[1.0]]).axes)
    1
    """
    return _draw_shares(
        list(range(1, len(shares) + 1)) if steps is None else steps,
        shares,
        ("Step of the inner optimiser (number of updates)", "Share of runs (%)"),
        "Which component is active, by inner step",
    )


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
    import numpy as np

    matrix, vector = np.asarray(data["matrix"], float), np.asarray(data["vector"], float)
    paths = {name: np.asarray(path, float) for name, path in data["trajectories"].items()}
    if matrix.shape != (2, 2) or not paths:
        raise ValueError(
            f"trajectories: received a matrix of shape {matrix.shape} and {len(paths)} paths; "
            "give a 2 by 2 matrix and at least one path."
        )
    symmetric = (matrix + matrix.T) / 2
    optimum = np.linalg.solve(2 * symmetric, vector)
    columns = 1 if len(paths) == 1 else 2 if len(paths) <= 4 else 3
    rows = -(-len(paths) // columns)
    figure = new_figure(0.95 + rows * ((WIDTH - 0.85) / columns + 0.22))
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    centre, half = _window(list(paths.values()), optimum)
    styles = strokes(paths)
    handles: list[Any] = []
    for axes, (name, path) in zip(panels, paths.items(), strict=False):
        _contours(axes, symmetric, optimum, centre, half)
        handles = _path(axes, path, optimum, styles[name])
        steps = (data.get("steps") or {}).get(name)
        count = f": {steps:,} steps" if isinstance(steps, int) else ""
        axes.set_title(label(name) + count, fontsize=9.5, pad=5)
        axes.set_aspect("equal")
        axes.grid(visible=False)
    for axes in panels[len(paths) :]:
        axes.set_visible(False)
    figure.legend(
        handles,
        ["start", "minimum"],
        loc="outside upper left",
        ncols=2,
        title="Paths over the loss contours",
        title_fontproperties={"weight": "bold", "size": 11},
        alignment="left",
    )
    figure.supxlabel("θ₁ (first parameter)", fontsize=9.5)
    figure.supylabel("θ₂ (second parameter)", fontsize=9.5)
    return figure


def _violin(axes: Any, leaf: Mapping[str, Any], row: int) -> None:
    """The leaf's histogram as a shape around its row; equal height for every leaf."""
    histogram = leaf.get("histogram") or {}
    if not histogram:
        return
    edges, counts = to_array(histogram["edges"]), to_array(histogram["counts"])
    if not (len(counts) and (edges > 0).all()):
        return
    # Height is a density over log rate, so that bins of unequal width keep their weight.
    import numpy as np

    widths = np.maximum(np.diff(np.log(edges)), 1e-12)
    density = counts / widths
    if not density.max() > 0:
        return
    height = 0.42 * density / density.max()
    axes.stairs(row - height, edges, baseline=row + height, fill=True, color=BLUE, alpha=0.3)


def _leaf_label(leaf: Mapping[str, Any]) -> str:
    shape = " × ".join(str(n) for n in leaf.get("shape") or ())
    name = label(leaf["name"])
    name = "…" + name[-21:] if len(name) > 22 else name
    return f"{name}\n{shape}" if shape else name


def _draw_shares(
    where: Sequence[float],
    shares: Sequence[Sequence[float]],
    axis_labels: tuple[str, str],
    title: str,
) -> "Figure":
    """One line a component: how often it is active, in per cent."""
    components = max((len(row) for row in shares), default=0)
    if not components or any(len(row) != components for row in shares):
        raise ValueError(
            f"activation: received rows of {sorted({len(row) for row in shares})} entries; give one "
            "row a step (or round), each with one share a component."
        )
    positions, keep = to_array(where), thin(len(shares))
    figure = new_figure(3.2)
    axes = figure.subplots()
    lines = []
    dots = {"marker": "o", "markersize": 3.5} if len(shares) <= 40 else {}
    for i, stroke in enumerate(series(components)):
        values = 100 * to_array([row[i] for row in shares])
        lines += axes.plot(positions[keep], values[keep], **stroke.line(), **dots)
    axes.set_ylim(-3, 103)
    axes.set_yticks(range(0, 101, 25))
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if len(positions) == 1:
        axes.set_xlim(positions[0] - 1, positions[0] + 1)
    axes.set_xlabel(axis_labels[0])
    axes.set_ylabel(axis_labels[1])
    heading(axes, title, lines, [f"component {i + 1}" for i in range(components)])
    return figure


def _window(
    paths: Sequence["np.ndarray"], optimum: "np.ndarray"
) -> tuple["np.ndarray", float]:
    """A square that holds every path, but not the far end of one that diverges."""
    import numpy as np

    starts = np.stack([path[0] for path in paths])
    reach = 3 * max(float(np.abs(starts - optimum).max()), 1e-6)
    points = np.concatenate([optimum[None], *paths])
    points = points[np.isfinite(points).all(axis=1)]
    points = points[(np.abs(points - optimum) <= reach).all(axis=1)]
    low, high = points.min(axis=0), points.max(axis=0)
    return (low + high) / 2, 0.58 * max(float((high - low).max()), 1e-6)


def _contours(
    axes: Any, matrix: "np.ndarray", optimum: "np.ndarray", centre: "np.ndarray", half: float
) -> None:
    """Level sets of the quadratic, closer together near its minimum."""
    import numpy as np

    x, y = (np.linspace(c - half, c + half, 121) for c in centre)
    offset = np.stack(np.meshgrid(x, y), axis=-1) - optimum
    excess = np.einsum("...i,ij,...j->...", offset, matrix, offset)
    top = float(excess.max())
    levels = top * np.linspace(0.04, 1.0, 10) ** 2
    axes.contour(x, y, excess, levels=levels, colors=MUTED, linewidths=0.6, alpha=0.55, zorder=1)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])


def _path(axes: Any, path: "np.ndarray", optimum: "np.ndarray", stroke: Any) -> list[Any]:
    """One path with its start and the minimum; returns the handles of the two points."""
    import numpy as np

    # Long paths keep all of their first steps, where the eye looks, and fewer of the rest.
    many = np.unique(np.geomspace(1, len(path), min(len(path), 500)).round().astype(int)) - 1
    axes.plot(path[many, 0], path[many, 1], color=stroke.colour, linewidth=1.1, zorder=3)
    if len(path) <= 120:
        axes.plot(
            path[:, 0], path[:, 1], color=stroke.colour, marker=".", markersize=4, linestyle="none"
        )
    point = {"markeredgecolor": INK, "markeredgewidth": 0.8, "linestyle": "none", "zorder": 6}
    (start,) = axes.plot(*path[0], marker="o", markersize=7, color=GREEN, **point)
    (end,) = axes.plot(*optimum, marker="*", markersize=12, color=ORANGE, **point)
    return [start, end]
