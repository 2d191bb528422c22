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

from .._tree import leaf_names
from ..geometry import (
    AbstractGeometry,
    Blockwise,
    Diagonal,
    Euclidean,
    Kronecker,
    MaxOfDiagonals,
    NegativeEntropy,
    PNorm,
    Scaled,
    Transformed,
)
from ._fit import by_name
from ._layout import join
from ._state import to_dual


class Decay(NamedTuple):
    """What decays, and how fast.

    **Arguments:**

    - `rate`: `λ`.
    - `mask`: `True` or `False` for each parameter or branch of parameters, or a function of the
        parameters that says so; `None` where all decay. One for each parameter may be a tree of
        other containers with the same names.
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
        told, there = by_name(mask), by_name(params)
        for name, one in told.items():
            if not isinstance(one, bool | np.bool_):
                raise ValueError(f"{wanted}, got {one!r}{f' for {name!r}' if name else ''}.")
        if told.keys() == there.keys():
            leaves = [told[name] for name in leaf_names(params)]
            return jax.tree.unflatten(jax.tree.structure(params), leaves)
        try:
            return jax.tree.map(
                lambda one, branch: jax.tree.map(lambda _: one, branch), mask, params
            )
        except ValueError as error:
            raise ValueError(
                f"{wanted}, {', '.join(map(repr, there))}; got one for "
                f"{', '.join(map(repr, told)) or 'none'}."
            ) from error


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
    - `mask`: whether each parameter decays, as `check_mask` allows it.

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
    if not any(jax.tree.leaves(mask)):
        return dual
    if _is_homogeneous(geometry):
        return jax.tree.map(lambda one, z: kept * z if one else z, mask, dual)
    if isinstance(geometry, NegativeEntropy):
        added = 0 if geometry.domain == "simplex" else jnp.log(kept)
        return jax.tree.map(lambda one, z: z + added if one else z, mask, dual)
    shorter = jax.tree.map(lambda one, x: kept * x if one else x, mask, primal)
    return to_dual(geometry, shorter)


def check_mask(geometry: Any, mask: PyTree[bool], block: str = "") -> None:
    """Refuses masks that divide what a geometry mixes: what it keeps of them is of all together.

    **Arguments:**

    - `geometry`: `ψ`.
    - `mask`: whether each parameter decays, arranged as `ψ` takes its parameters.
    - `block`: the name of what they belong to, for messages.

    **Raises:**

    - `ValueError`: some that `ψ` mixes decay and some do not.

    >>> check_mask(PNorm(3.0), {"a": True, "b": True})
    >>> check_mask(PNorm(3.0, separable=True), {"a": True, "b": False})
    """
    while isinstance(geometry, Scaled | Transformed):
        geometry = geometry.geometry
    if isinstance(geometry, Blockwise):
        for name, inner in geometry.blocks.items():
            check_mask(inner, mask[name], join(block, name))
        return
    leafwise = isinstance(geometry, Euclidean | Diagonal | Kronecker | NegativeEntropy)
    if leafwise or (isinstance(geometry, PNorm) and geometry.separable):
        return
    named = {join(block, name): bool(one) for name, one in by_name(mask).items()}
    if len(set(named.values())) > 1:
        decay, rest = (
            ", ".join(repr(name) for name in named if named[name] is one) for one in (True, False)
        )
        raise ValueError(
            f"to_optax.decay_mask: the geometry mixes parameters of which {decay} shall decay "
            f"and {rest} shall not; give them one value."
        )


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
