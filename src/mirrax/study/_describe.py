r"""What was learned, as numbers: the rate of every parameter, for each component of a maximum.

A parameter's rate is `η` times the diagonal entry of the Jacobian of `∇ψ*`: the step along it for a
gradient of one in it. What of the Jacobian changes from point to point is left out.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from .._tree import leaf_names
from ..geometry import (
    ConvexPotential,
    Diagonal,
    Euclidean,
    Kronecker,
    MaxOfDiagonals,
    Transformed,
)

_BINS = 24


def describe_geometry(
    geometry: object,
    rate: float,
    roles: PyTree | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, Any]:
    """Summaries of the learned rates, leaf by leaf, in the form of `geometry.json`.

    **Arguments:**

    - `geometry`: the geometry; one whose rates are not known is described by name only.
    - `rate`: the step size `η`.
    - `roles`: axis roles of the parameters, a tree of tuples of names.
    - `shapes`: of the parameters by name, for geometries that fit any.

    **Returns:**

    A record of plain values.
    """
    leaves: list[dict[str, Any]] = []
    if isinstance(geometry, MaxOfDiagonals):
        for component in range(geometry.components):
            scale = jax.tree.map(lambda c, j=component: 1 / c[j], geometry.curvatures)
            leaves += _leaves(scale, rate, roles, f" [component {component + 1}]")
    else:
        leaves = _leaves(_scale(geometry, shapes or {}), rate, roles, "")
    return {"geometry": _name(geometry), "rate": rate, "leaves": leaves}


def _name(geometry: object) -> str:
    name = type(geometry).__name__
    return f"{name}({_name(geometry.geometry)})" if isinstance(geometry, Transformed) else name


def _scale(geometry: object, shapes: Mapping[str, tuple[int, ...]]) -> PyTree:
    """The diagonal of the Jacobian of `∇ψ*`, without what changes from point to point."""
    if isinstance(geometry, Diagonal):
        return jax.tree.map(lambda c: 1 / c, geometry.curvature)
    if isinstance(geometry, ConvexPotential | Kronecker):
        return geometry.rates
    if isinstance(geometry, Euclidean):
        return {name: np.ones(shape) for name, shape in shapes.items()}
    if isinstance(geometry, Transformed):
        inner = _scale(geometry.geometry, shapes)
        return geometry.diagonal(inner) if inner else {}
    return {}


def _leaves(scale: PyTree, rate: float, roles: PyTree | None, suffix: str) -> list[dict[str, Any]]:
    names = leaf_names(scale)
    by_name = {}
    if roles is not None:
        is_role = lambda node: isinstance(node, tuple)  # noqa: E731
        found = jax.tree.leaves(roles, is_leaf=is_role)
        by_name = dict(zip(leaf_names(roles, is_leaf=is_role), found, strict=True))
    described = []
    for name, leaf in zip(names, jax.tree.leaves(scale), strict=True):
        rates = rate * np.asarray(leaf, dtype=float).ravel()
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
