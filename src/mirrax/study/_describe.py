r"""What was learned, as numbers: per-parameter rates of a diagonal or of each component."""

from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from .._tree import leaf_names
from ..geometry import Diagonal, MaxOfDiagonals

_BINS = 24


def describe_geometry(geometry: object, rate: float, roles: PyTree | None = None) -> dict[str, Any]:
    """Summaries of the learned rates `η/m²`, leaf by leaf, in the form of `geometry.json`.

    **Arguments:**

    - `geometry`: a `Diagonal` or `MaxOfDiagonals`; others are described by name only.
    - `rate`: the step size `η`.
    - `roles`: axis roles of the parameters, a tree of tuples of names.

    **Returns:**

    A record of plain values.
    """
    leaves: list[dict[str, Any]] = []
    if isinstance(geometry, Diagonal):
        leaves = _leaves(geometry.curvature, rate, roles, "")
    elif isinstance(geometry, MaxOfDiagonals):
        for component in range(geometry.components):
            curvature = jax.tree.map(lambda c, j=component: c[j], geometry.curvatures)
            leaves += _leaves(curvature, rate, roles, f" [component {component + 1}]")
    return {"geometry": type(geometry).__name__, "rate": rate, "leaves": leaves}


def _leaves(
    curvature: PyTree, rate: float, roles: PyTree | None, suffix: str
) -> list[dict[str, Any]]:
    names = leaf_names(curvature)
    by_name = {}
    if roles is not None:
        is_role = lambda node: isinstance(node, tuple)  # noqa: E731
        found = jax.tree.leaves(roles, is_leaf=is_role)
        by_name = dict(zip(leaf_names(roles, is_leaf=is_role), found, strict=True))
    described = []
    for name, leaf in zip(names, jax.tree.leaves(curvature), strict=True):
        rates = rate / np.asarray(leaf, dtype=float).ravel()
        logs = np.log10(rates)
        margin = 1e-3 if np.ptp(logs) == 0 else 0.0
        counts, edges = np.histogram(
            logs, bins=_BINS, range=(logs.min() - margin, logs.max() + margin)
        )
        described.append(
            {
                "name": name + suffix,
                "shape": list(np.shape(leaf)),
                "roles": list(by_name.get(name, ())),
                "rate_median": float(np.median(rates)),
                "rate_low": float(rates.min()),
                "rate_high": float(rates.max()),
                "histogram": {"edges": (10**edges).tolist(), "counts": counts.tolist()},
            }
        )
    return described
