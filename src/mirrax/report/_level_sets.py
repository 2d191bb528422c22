r"""Level sets of the learned divergence from the start of a run, beside Euclidean balls.

A step of mirror descent minimises $\langle g, \theta\rangle + D_\psi(\theta\|\theta_t)/\eta$: it
goes far where the divergence grows slowly. Both families of sets enclose the same areas.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._style import BLUE, VERMILLION, WIDTH, drawing, new_figure, save
from ._trajectories import Quadratic, contours, end_points, name_axes

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

_PANELS = {"Learned divergence": VERMILLION, "Euclidean distance": BLUE}


def level_sets(data: Mapping[str, Any], stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Level sets of the learned divergence and of the Euclidean distance over the loss contours.

    **Arguments:**

    - `data`: as for `trajectories`, with `"metric": (2, 2)`, the Hessian of the learned potential.
    - `stem`: the path without its ending.

    **Returns:**

    The paths of the SVG and the PNG.

    >>> import tempfile
    >>> data = {"matrix": [[2, 0], [0, 1]], "vector": [1, 1], "metric": [[2, 0], [0, 1]],
    ...         "trajectories": {"SGD": [[2, 2], [1, 1]]}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(level_sets(data, Path(folder) / "divergence"))
    2
    """
    with drawing():
        return save(draw_level_sets(data), stem)


def draw_level_sets(data: Mapping[str, Any]) -> "Figure":
    """The figure that `level_sets` writes; call it within `drawing()`.

    **Arguments:**

    - `data`: as for `level_sets`.

    **Returns:**

    A matplotlib `Figure`.

    **Raises:**

    - `ValueError`: if the metric is not a positive definite 2 by 2 matrix.
    """
    import numpy as np

    quadratic = Quadratic.read(data)
    metric = np.asarray(data["metric"], float)
    if metric.shape != (2, 2) or not np.linalg.det(metric) > 0 or not np.trace(metric) > 0:
        raise ValueError(
            "level_sets: give the learned metric as a positive definite 2 by 2 matrix."
        )
    start = next(iter(quadratic.paths.values()))[0]
    centre, half = (
        (start + quadratic.optimum) / 2,
        1.1 * max(float(np.abs(start - quadratic.optimum).max()), 1e-6),
    )
    metrics = (metric / np.sqrt(np.linalg.det(metric)), np.eye(2))
    figure = new_figure(0.95 + (WIDTH - 0.85) / 2 + 0.22)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    handles: list[Any] = []
    for axes, (name, colour), one in zip(panels, _PANELS.items(), metrics, strict=True):
        contours(axes, quadratic, centre, half)
        for radius in half * np.linspace(0.15, 0.9, 6):
            axes.plot(*_ellipse(one, start, radius), color=colour, linewidth=1.3, zorder=3)
        handles = end_points(axes, start, quadratic.optimum)
        axes.set_title(name, fontsize=9.5, pad=5)
    name_axes(figure, "Equally far from the start", handles)
    return figure


def _ellipse(metric: "np.ndarray", centre: "np.ndarray", radius: float) -> "np.ndarray":
    """The points with `(x − c)ᵀ M (x − c) = r²`, one column each."""
    import numpy as np

    angles = np.linspace(0, 2 * np.pi, 181)
    circle = radius * np.stack([np.cos(angles), np.sin(angles)])
    return centre[:, None] + np.linalg.solve(np.linalg.cholesky(metric).T, circle)
