r"""Weights that decay before a step: the dual of `c x` from that of `x`, for `c = 1 − η λ`.

Decay acts on the parameters, so that they shrink alike whatever their learned rates. Where
`∇ψ(c x)` follows from `∇ψ(x)` the dual that is kept decays too: `c z` for quadratics, their maximum
and norms, `z + log c` for entropies, which is nothing on a simplex, where proportions alone count.
Elsewhere it is derived from the parameters. Source: Loshchilov & Hutter 2019, algorithm 1.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
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
from ._fit import by_name


class Decay(NamedTuple):
    """What decays, and how fast.

    **Arguments:**

    - `rate`: `λ`.
    - `mask`: `True` or `False` for each parameter or branch of parameters, or a function of the
        parameters that says so; `None` where all decay.
    """

    rate: Any
    mask: Any = None

    def of(self, params: PyTree) -> PyTree[bool]:
        """Whether each parameter decays.

        **Raises:**

        - `ValueError`: the mask is not `True` or `False` for each parameter or branch.

        >>> Decay(0.1, {"layer": True, "norm": False}).of({"layer": [1.0, 2.0], "norm": 3.0})
        {'layer': [True, True], 'norm': False}
        """
        mask = True if self.mask is None else self.mask
        # Modules of Equinox can be called, too, and as trees of booleans are masks.
        leaves = jax.tree.leaves(mask)
        is_tree = bool(leaves) and all(isinstance(one, bool | np.bool_) for one in leaves)
        mask = mask(params) if callable(mask) and not is_tree else mask
        wanted = "to_optax.decay_mask: expected True or False for each parameter or branch of them"
        for name, one in by_name(mask).items():
            if not isinstance(one, bool | np.bool_):
                raise ValueError(f"{wanted}, got {one!r} for {name!r}.")
        try:
            return jax.tree.map(
                lambda one, branch: jax.tree.map(lambda _: one, branch), mask, params
            )
        except ValueError as error:
            got = ", ".join(map(repr, by_name(mask)))
            there = ", ".join(map(repr, by_name(params)))
            raise ValueError(f"{wanted}, {there}; got one for {got}.") from error


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


def decayed(geometry: Any, dual: PyTree, primal: PyTree, kept: Array, mask: PyTree[bool]) -> PyTree:
    """`∇ψ(c x)`.

    **Arguments:**

    - `geometry`: `ψ`.
    - `dual`: `z = ∇ψ(x)`.
    - `primal`: `x`.
    - `kept`: `c`, positive.
    - `mask`: whether each parameter decays: all or none of those that `ψ` mixes.

    **Raises:**

    - `ValueError`: some that `ψ` mixes decay and some do not.

    >>> from mirrax.geometry import NegativeEntropy
    >>> entropy, dual, primal = NegativeEntropy("orthant"), jnp.array(0.0), jnp.array(1.0)
    >>> decayed(entropy, dual, primal, jnp.array(0.5), True).item()
    -0.6931...
    """
    if isinstance(geometry, Blockwise):
        return {
            name: decayed(block, dual[name], primal[name], kept, mask[name])
            for name, block in geometry.blocks.items()
        }
    if isinstance(geometry, Scaled):
        inner = jax.tree.map(lambda z: z / geometry.scale, dual)
        found = decayed(geometry.geometry, inner, primal, kept, mask)
        return jax.tree.map(lambda z: geometry.scale * z, found)
    if not _all_or_none(mask):
        return dual
    if _is_homogeneous(geometry):
        return jax.tree.map(lambda z: kept * z, dual)
    if isinstance(geometry, NegativeEntropy):
        simplex = geometry.domain == "simplex"
        return dual if simplex else jax.tree.map(lambda z: z + jnp.log(kept), dual)
    return geometry.to_dual(jax.tree.map(lambda x: kept * x, primal))


def _all_or_none(mask: PyTree[bool]) -> bool:
    """Whether the parameters that a geometry mixes decay; they do or do not together."""
    named = by_name(mask)
    if len(set(map(bool, named.values()))) > 1:
        groups = [
            ", ".join(repr(n) for n in named if bool(named[n]) is one) for one in (True, False)
        ]
        raise ValueError(
            f"to_optax.decay_mask: the geometry mixes parameters of which {groups[0]} shall decay "
            f"and {groups[1]} shall not; give them one value."
        )
    return all(named.values())


def _is_homogeneous(geometry: Any) -> bool:
    """Whether `∇ψ(c x) = c ∇ψ(x)`."""
    if isinstance(geometry, Scaled | Transformed):
        return _is_homogeneous(geometry.geometry)
    if isinstance(geometry, Blockwise):  # in learned coordinates
        return all(map(_is_homogeneous, geometry.blocks.values()))
    if isinstance(geometry, PNorm):
        return not geometry.separable or geometry.p == 2
    quadratic = isinstance(geometry, AbstractGeometry) and geometry.is_quadratic
    return quadratic or isinstance(geometry, MaxOfDiagonals)
