r"""The p-norm geometry, `ψ(x) = ½‖x‖_p²` or `ψ(x) = (1/p) Σ|x_i|^p`.

With `1/p + 1/q = 1` the conjugates are `½‖z‖_q²` and `(1/q) Σ|z_i|^q`, so both mirror maps are
powers. For `1 < p ≤ 2` the first is `(p − 1)`-strongly convex in `‖·‖_p`.
Source: Gentile 2003; Shalev-Shwartz 2012, Lemma 2.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax.tree as vector
from jaxtyping import Array

from .._tree import Dual, Primal, Scalar, dot, total
from ._base import AbstractGeometry


def _signed_power(x: Array, exponent: float) -> Array:
    """`sign(x)|x|^a`, with derivative zero at zero, where for `a < 1` it would be infinite."""
    if exponent == 1:
        return x
    nonzero = jnp.where(x == 0, 1, x)
    return jnp.where(x == 0, 0, jnp.sign(nonzero) * jnp.abs(nonzero) ** exponent)


def _power_sum(x: Primal, exponent: float) -> Scalar:
    if exponent == 2:
        return dot(x, x)
    return total(lambda leaf: jnp.abs(_signed_power(leaf, exponent)), x)


def _norm(x: Primal, p: float) -> Scalar:
    # The largest entry is taken out first: the q of a p near 1 is large, and the powers of small
    # numbers would vanish. The norm does not depend on this scale, so neither do its derivatives.
    largest = jax.lax.stop_gradient(vector.norm(x, ord="inf"))
    scale = jnp.where(largest == 0, 1, largest)
    return scale * _signed_power(_power_sum(vector.scale(1 / scale, x), p), 1 / p)


def _norm_squared(x: Primal, p: float) -> Scalar:
    return dot(x, x) if p == 2 else _norm(x, p) ** 2


def _gradient_of_half_square(x: Primal, p: float) -> Dual:
    """`∇ ½‖x‖_p² = ‖x‖_p^{2−p} sign(x)|x|^{p−1}`, written so that no power overflows."""
    if p == 2:
        return x
    norm = _norm(x, p)
    safe = jnp.where(norm == 0, 1, norm)

    def scaled(leaf: Array) -> Array:
        one, size = safe.astype(leaf.dtype), norm.astype(leaf.dtype)
        return size * _signed_power(leaf / one, p - 1)

    return jax.tree.map(scaled, x)


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2 * (1 - _NODES) / 2


def _excess(change: Array, whole: Array, exponent: float) -> Array:
    """`(1 + ρ)^a − 1 − a ρ` of `ρ` and `1 + ρ`.

    Near zero it is taken as `a (a − 1) ρ² ∫₀¹ (1 − r)(1 + r ρ)^{a−2} dr`: the difference is of
    second order, and its terms, of first, cancel. Gauss' rule is exact to rounding there, since the
    pole of the power is at twice the length or further.
    """
    near = jnp.abs(change) < 0.5
    small = jnp.where(near, change, 0)
    nodes, weights = (jnp.asarray(part, change.dtype) for part in (_NODES, _WEIGHTS))
    bent = (1 + nodes * small[..., None]) ** (exponent - 2) @ weights
    direct = _signed_power(whole, exponent) - 1 - exponent * change
    return jnp.where(near, exponent * (exponent - 1) * small**2 * bent, direct)


def _entry_divergence(x: Array, y: Array, p: float) -> Array:
    """`(|x|^p − |y|^p)/p − sign(y)|y|^{p−1} (x − y)`."""
    near = jnp.abs(x - y) < jnp.abs(y) / 2
    there = jnp.where(near, y, 1)
    change = jnp.where(near, (x - y) / there, 0)
    power = lambda entry: jnp.abs(_signed_power(entry, p))  # noqa: E731
    direct = (power(x) - power(y)) / p - _signed_power(y, p - 1) * (x - y)
    return jnp.where(near, power(there) / p * _excess(change, 1 + change, p), direct)


def _half_square_divergence(x: Primal, y: Primal, p: float) -> Scalar:
    r"""That of `½‖·‖_p²`, of those of the powers and of one more power.

    With `Y = Σ|y|^p`, `S` the sum of the entries' divergences and `Σ|x|^p = Y (1 + ρ)` it is
    `Y^{2/p−1} S + ½ Y^{2/p} ((1 + ρ)^{2/p} − 1 − 2ρ/p)`.
    """
    # Scaled, no power vanishes or overflows; by a power of two, so that no difference is rounded.
    largest = jnp.maximum(*(vector.norm(tree, ord="inf") for tree in (x, y)))
    size = jnp.ldexp(jnp.ones_like(largest), jnp.frexp(jax.lax.stop_gradient(largest))[1])
    x, y = vector.scale(1 / size, x), vector.scale(1 / size, y)
    away = total(lambda a, b: _entry_divergence(a, b, p), x, y)
    slope = total(lambda a, b: _signed_power(b, p - 1) * (a - b), x, y)
    power = _power_sum(y, p)
    safe = jnp.where(power == 0, 1, power)
    found = _signed_power(safe, 2 / p - 1) * away
    change, whole = p * (slope + away) / safe, _power_sum(x, p) / safe
    found = found + _signed_power(safe, 2 / p) * _excess(change, whole, 2 / p) / 2
    return size**2 * jnp.where(power == 0, _norm_squared(x, p) / 2, found)


class PNorm(AbstractGeometry):
    r"""The potential `ψ(x) = ½‖x‖_p²` of all parameters taken as one vector.

    **Arguments:**

    - `p`: the exponent, above 1. Near 1 the geometry favours sparse solutions; 2 is Euclidean.
    - `separable`: take `ψ(x) = (1/p) Σ|x_i|^p` instead.

    **Raises:**

    - `ValueError`: if `p` is not a finite number above 1.

    >>> import jax.numpy as jnp
    >>> float(PNorm(2.0).potential(jnp.array([3.0, 4.0])))
    12.5
    """

    p: float = eqx.field(static=True)
    separable: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if not 1 < self.p < float("inf"):
            raise ValueError(f"PNorm.p: expected a finite number above 1, got {self.p!r}.")

    @property
    def q(self) -> float:
        """The conjugate exponent, `1/p + 1/q = 1`."""
        return self.p / (self.p - 1)

    @property
    def is_strongly_convex(self) -> bool:
        """True for `p ≤ 2`, and for the separable form at `p = 2` only."""
        return self.p == 2 if self.separable else self.p <= 2

    def to_dual(self, primal: Primal) -> Dual:
        """`‖x‖_p^{2−p} sign(x)|x|^{p−1}`, or `sign(x)|x|^{p−1}`."""
        if self.separable:
            return jax.tree.map(lambda x: _signed_power(x, self.p - 1), primal)
        return _gradient_of_half_square(primal, self.p)

    def to_primal(self, dual: Dual) -> Primal:
        """`‖z‖_q^{2−q} sign(z)|z|^{q−1}`, or `sign(z)|z|^{q−1}`."""
        if self.separable:
            return jax.tree.map(lambda z: _signed_power(z, self.q - 1), dual)
        return _gradient_of_half_square(dual, self.q)

    def potential(self, primal: Primal) -> Scalar:
        """`½‖x‖_p²`, or `(1/p) Σ|x_i|^p`."""
        if self.separable:
            return _power_sum(primal, self.p) / self.p
        return _norm_squared(primal, self.p) / 2

    def conjugate(self, dual: Dual) -> Scalar:
        """`½‖z‖_q²`, or `(1/q) Σ|z_i|^q`."""
        if self.separable:
            return _power_sum(dual, self.q) / self.q
        return _norm_squared(dual, self.q) / 2

    def divergence(self, primal: Primal, reference: Primal) -> Scalar:
        """As `AbstractGeometry` has it, to full relative precision where the points are close."""
        if self.p == 2:
            gap = vector.sub(primal, reference)
            return dot(gap, gap) / 2
        if self.separable:
            return total(lambda x, y: _entry_divergence(x, y, self.p), primal, reference)
        return _half_square_divergence(primal, reference, self.p)

    def strong_convexity(self) -> Scalar:
        """`p − 1` where the geometry is strongly convex, else zero."""
        return jnp.asarray(self.p - 1 if self.is_strongly_convex else 0.0)

    def norm_squared(self, displacement: Primal) -> Scalar:
        """`‖v‖_p²`."""
        return _norm_squared(displacement, self.p)

    def dual_norm_squared(self, gradient: Dual) -> Scalar:
        """`‖g‖_q²`."""
        return _norm_squared(gradient, self.q)
