"""Figures of what was learned: rates by leaf, and which components are active (S000, Fig. 5)."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._axes import fit, heading, label, log_axis
from ._format import finite
from ._inspect import rate_range
from ._labels import array_label
from ._series import thin, to_array
from ._style import (
    BLUE,
    INK,
    ORANGE,
    drawing,
    new_figure,
    save,
    series,
)

if TYPE_CHECKING:
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
    - `steps`: the step of each row, where rows are means over several; 1, 2, 3, … by default.

    **Returns:**

    The paths of the SVG and the PNG.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(activation_by_step([[0.5, 0.5], [1.0, 0.0]], Path(folder) / "activation"))
    2
    """
    with drawing():
        return save(draw_activation_by_step(shares, steps), stem)


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
    # Names of arrays leave little room below the axes, but there is some on their left.
    axes.set_xlabel("Rate (step length per unit of gradient, log scale)", loc="right")
    axes.set_ylabel("Array")
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
    """The name, and below it the shape and what the name holds in square brackets."""
    name, _, held = array_label(leaf["name"]).partition(" [")
    below = [" × ".join(str(n) for n in leaf.get("shape") or ()), label(held.removesuffix("]"))]
    below = [part for part, wanted in zip(below, (True, held), strict=True) if part and wanted]
    # The end of a path tells its leaf from its neighbours.
    first = fit(label(name)[::-1], 122.0)[::-1]
    return "\n".join([first, fit(", ".join(below), 122.0)] if below else [first])


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
            f"activation: received rows of {sorted({len(row) for row in shares})} entries; give "
            "one row a step (or round), each with one share a component."
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
