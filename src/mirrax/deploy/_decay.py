r"""Weights that decay before a step: the dual of `c x` from that of `x`, for `c = 1 − η λ`.

Decay acts on the parameters, so that they shrink alike whatever their learned rates. Where
`∇ψ(c x)` follows from `∇ψ(x)` the dual that is kept decays too: `c z` for quadratics, their maximum
and norms, `z + log c` for entropies, which is nothing on a simplex, where proportions alone count.
Elsewhere it is derived from the parameters. Source: Loshchilov & Hutter 2019, algorithm 1.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..geometry import (
    AbstractGeometry,
    Blockwise,
    MaxOfDiagonals,
    NegativeEntropy,
    PNorm,
    Scaled,
    Transformed,
)


def kept_share(rate: Array, decay: Any) -> Array:
    """`c = 1 − η λ`; what a schedule may lead to is only seen while steps are made.

    **Arguments:**

    - `rate`: `η` at this step.
    - `decay`: `λ`.

    **Raises:**

    - `RuntimeError`: inside the program, where `c ≤ 0`, for which no dual need exist.

    >>> kept_share(jnp.array(0.5), 0.5).item()
    0.75
    """
    kept = 1 - rate * jnp.asarray(decay).astype(rate.dtype)
    message = "to_optax.weight_decay: a step would take away all of the weights or more; lower it."
    return eqx.error_if(kept, kept <= 0, message)


def decayed(geometry: Any, dual: PyTree, primal: PyTree, kept: Array) -> PyTree:
    """`∇ψ(c x)`.

    **Arguments:**

    - `geometry`: `ψ`.
    - `dual`: `z = ∇ψ(x)`.
    - `primal`: `x`.
    - `kept`: `c`, positive.

    >>> from mirrax.geometry import NegativeEntropy
    >>> decayed(NegativeEntropy("orthant"), jnp.array(0.0), jnp.array(1.0), jnp.array(0.5)).item()
    -0.6931...
    """
    if _is_homogeneous(geometry):
        return jax.tree.map(lambda z: kept * z, dual)
    if isinstance(geometry, NegativeEntropy):
        simplex = geometry.domain == "simplex"
        return dual if simplex else jax.tree.map(lambda z: z + jnp.log(kept), dual)
    if isinstance(geometry, Scaled):
        inner = jax.tree.map(lambda z: z / geometry.scale, dual)
        found = decayed(geometry.geometry, inner, primal, kept)
        return jax.tree.map(lambda z: geometry.scale * z, found)
    if isinstance(geometry, Blockwise):
        return {
            name: decayed(block, dual[name], primal[name], kept)
            for name, block in geometry.blocks.items()
        }
    return geometry.to_dual(jax.tree.map(lambda x: kept * x, primal))


def _is_homogeneous(geometry: Any) -> bool:
    """Whether `∇ψ(c x) = c ∇ψ(x)`."""
    if isinstance(geometry, Scaled | Transformed):
        return _is_homogeneous(geometry.geometry)
    if isinstance(geometry, Blockwise):
        return all(map(_is_homogeneous, geometry.blocks.values()))
    if isinstance(geometry, PNorm):
        return not geometry.separable or geometry.p == 2
    quadratic = isinstance(geometry, AbstractGeometry) and geometry.is_quadratic
    return quadratic or isinstance(geometry, MaxOfDiagonals)
