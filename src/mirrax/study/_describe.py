r"""What was learned, as numbers: rates and spectrum of every array, of each component of a maximum.

A parameter's rate is `η` times the diagonal entry of the Jacobian of `∇ψ*`: the step along it for a
gradient of one in it. The spectrum of an array is that of its block of `η ∇²ψ*`: the rates along
its eigenvectors, which for a diagonal are the rates themselves. What of the Jacobian changes from
point to point is left out.
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
_RANKS = 64  # eigenvalues of an array that are written down, at evenly spaced ranks


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
            leaves += _leaves(scale, scale, rate, roles, f" [component {component + 1}]")
    else:
        scale = _scale(geometry, shapes or {})
        leaves = _leaves(scale, _spectrum(geometry, scale), rate, roles, "")
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


def _spectrum(geometry: object, scale: PyTree) -> PyTree:
    """The eigenvalues of the same Jacobian, array by array; none where coordinates are learned."""
    if isinstance(geometry, Kronecker):
        return geometry.spectrum
    return {} if isinstance(geometry, Transformed) else scale


def _leaves(
    scale: PyTree, spectrum: PyTree, rate: float, roles: PyTree | None, suffix: str
) -> list[dict[str, Any]]:
    names = leaf_names(scale)
    spectra = dict(zip(leaf_names(spectrum), jax.tree.leaves(spectrum), strict=True))
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
        if name in spectra:
            described[-1]["spectrum"] = _ranked(rate * np.asarray(spectra[name], dtype=float))
    return described


def _ranked(values: np.ndarray) -> list[float]:
    """From the largest to the smallest, both included, at evenly spaced ranks."""
    falling = np.sort(values, axis=None)[::-1]
    ranks = np.linspace(0, falling.size - 1, min(falling.size, _RANKS)).round().astype(int)
    return falling[ranks].tolist()
