r"""Negative entropy, `ψ(x) = Σ x log x`: mirror descent is exponentiated gradient.

The dual keeps log-weights, so `to_primal` is a softmax and nothing underflows. On the simplex the
dual is determined up to a constant only, and `to_dual` returns the representative `log x`. A weight
of zero has none that is finite; it stays zero, as `log 0` would have it stay, without derivative.
Source: Kivinen and Warmuth 1997; S000 §3.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import entr, kl_div, logsumexp
from jaxtyping import Array

from .._tree import Dual, Primal, Scalar, total
from ._base import AbstractGeometry

Domain = Literal["simplex", "orthant"]


class NegativeEntropy(AbstractGeometry):
    r"""The potential `Σ x log x` on products of simplices, or `Σ x log x − x` on the orthant.

    Every slice along the last axis of every leaf is one probability vector (`domain="simplex"`),
    or every entry is a free non-negative number (`domain="orthant"`). The divergence is the
    (generalised) Kullback–Leibler divergence.

    **Arguments:**

    - `domain`: `"simplex"` (default) or `"orthant"`.

    **Raises:**

    - `ValueError`: for another domain.

    >>> import jax.numpy as jnp
    >>> NegativeEntropy().to_primal(jnp.zeros(4)).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """

    domain: Domain = eqx.field(static=True, default="simplex")

    def __check_init__(self):
        if self.domain not in ("simplex", "orthant"):
            raise ValueError(
                f"NegativeEntropy.domain: expected 'simplex' or 'orthant', got {self.domain!r}."
            )

    @property
    def is_strongly_convex(self) -> bool:
        """True on the simplex; on the orthant the curvature `1/x` has no lower bound."""
        return self.domain == "simplex"

    def to_dual(self, primal: Primal) -> Dual:
        """`log x`; where a weight is zero a number so low that it stays zero."""
        return jax.tree.map(_log, primal)

    def to_primal(self, dual: Dual) -> Primal:
        """The softmax along the last axis, or `exp z` on the orthant."""
        inverse = jax.nn.softmax if self.domain == "simplex" else jnp.exp
        return jax.tree.map(inverse, dual)

    def potential(self, primal: Primal) -> Scalar:
        """`Σ x log x` (minus `Σ x` on the orthant)."""
        if self.domain == "simplex":
            return -total(entr, primal)
        return -total(lambda x: entr(x) + x, primal)

    def conjugate(self, dual: Dual) -> Scalar:
        """`Σ_slices log Σ exp z`, or `Σ exp z` on the orthant."""
        if self.domain == "simplex":
            return total(lambda z: logsumexp(z, axis=-1), dual)
        return total(jnp.exp, dual)

    def divergence(self, primal: Primal, reference: Primal) -> Scalar:
        """`Σ x log(x/y) − x + y`; the last two terms cancel on the simplex."""
        return total(kl_div, primal, reference)

    def strong_convexity(self) -> Scalar:
        """One on the simplex (Pinsker's inequality), zero on the orthant."""
        return jnp.asarray(1.0 if self.is_strongly_convex else 0.0)

    def norm_squared(self, displacement: Primal) -> Scalar:
        """`Σ_slices ‖v‖₁²`."""
        return total(lambda v: jnp.sum(jnp.abs(v), axis=-1) ** 2, displacement)

    def dual_norm_squared(self, gradient: Dual) -> Scalar:
        """`Σ_slices ‖g‖_∞²`."""
        return total(lambda g: jnp.max(jnp.abs(g), axis=-1) ** 2, gradient)

    def local_dual_norm_squared(self, gradient: Dual, primal: Primal) -> Scalar:
        """`Σ x_i (g_i − min g)²`, a valid bound because adding a constant moves nothing.

        It sees where the mass is, but it can exceed `‖g‖_∞²`, up to four times: where the mass
        lies on the largest entries of a gradient of both signs.
        """
        if not self.is_strongly_convex:
            return super().local_dual_norm_squared(gradient, primal)

        def slices(g: Array, x: Array) -> Array:
            return x * (g - jnp.min(g, axis=-1, keepdims=True)) ** 2

        return total(slices, gradient, primal)


def _log(x: Array) -> Array:
    """`log x`, finite at zero: infinite duals have no differences, and `0·∞` for derivatives."""
    lowest = -(float(jnp.finfo(x.dtype).max) ** 0.5)  # no sum of gradients brings it back
    return jnp.where(x == 0, lowest, jnp.log(jnp.where(x == 0, 1, x)))
