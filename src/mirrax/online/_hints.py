r"""Hints: guesses of the meta-gradient to come, made from what the round has shown.

| hint | `g̃_{t+1}` | with `Φ(x, w) = w` |
|---|---|---|
| `no_hint` | `0` | Heavy Ball (Algorithm 2) |
| `last_gradient` | `g_t` | close to Nesterov (N1, Corollary 1) |
| `same_weight` | `(α_t/α_{t+1}) g_t` | Nesterov as linear coupling (N2) |
| `Accelerated` | `(1 − 1/(β L α_{t+1})) g_t` | Nesterov with classical momentum (N3) |
| `FromTarget` | S002 eq. 11 | a bootstrapped meta-gradient (Theorem 3) |

Sources: S002 §5 and Theorem 3, corrected in spec C4 and C5.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax.numpy as jnp
import optax.tree as vector
from jaxtyping import Array, Int, PyTree

from .._tree import Dual, Primal, Scalar


class Seen(eqx.Module):
    """What round `t` has shown by the time a hint is asked for.

    **Arguments:**

    - `count`: `t`.
    - `weight`, `next_weight`: `α_t` and `α_{t+1}`.
    - `point`: `w_t`, which was played.
    - `average`: `x̄_t`.
    - `slope`: `∇f(x̄_t)`.
    - `pull`: `v ↦ DΦ(x̄_{t−1}, w_t)ᵀ v`.
    - `gradient`: `g_t = DΦᵀ ∇f(x̄_t)`.
    - `hint`: `g̃_t`, the hint of this round's gradient.
    """

    count: Int[Array, ""]
    weight: Scalar
    next_weight: Scalar
    point: PyTree
    average: Primal
    slope: Dual
    pull: Callable[[Dual], PyTree]
    gradient: PyTree
    hint: PyTree


Hint: TypeAlias = Callable[[Seen], PyTree | None]
"""A function of what was seen that returns `g̃_{t+1}`, shaped like `w`; `None` is zero."""


def no_hint(seen: Seen) -> None:
    """No hint: Algorithm 2."""
    del seen


def last_gradient(seen: Seen) -> PyTree:
    """`g̃_{t+1} = g_t`, the hint of Corollary 1."""
    return seen.gradient


def same_weight(seen: Seen) -> PyTree:
    """`α_{t+1} g̃_{t+1} = α_t g_t`, which makes Algorithm 4 Nesterov's method exactly (N2)."""
    return vector.scale(seen.weight / seen.next_weight, seen.gradient)


class Accelerated(eqx.Module):
    """`α_{t+1} g̃_{t+1} = (α_{t+1} − c) g_t`, for classical momentum (N3).

    **Arguments:**

    - `constant`: `c = 1/(β L)`, also that of `AcceleratedWeights`.
    """

    constant: Any

    def __call__(self, seen: Seen) -> PyTree:
        constant = jnp.asarray(self.constant, seen.weight.dtype)
        return vector.scale(1 - constant / seen.next_weight, seen.gradient)


class AcceleratedWeights(eqx.Module):
    """Weights with `α_t² = c α_{1:t}`, so that `α_1 = c` and `α_t` grows like `c t/2`.

    **Arguments:**

    - `constant`: `c = 1/(β L)`.

    >>> weights = AcceleratedWeights(2.0)
    >>> float(weights(jnp.array(1.0), jnp.array(0.0)))
    2.0
    """

    constant: Any

    def __call__(self, count: Scalar, before: Scalar) -> Scalar:
        del count
        constant = jnp.asarray(self.constant, before.dtype)
        return (constant + jnp.sqrt(constant**2 + 4 * constant * before)) / 2


class FromTarget(eqx.Module):
    """The hint whose interior steps are those of a bootstrapped meta-gradient.

    `α_{t+1} g̃_{t+1} = DΦᵀ (∇μ(x̄_t) − ∇μ(z_t) − α_t ∇f(x̄_t)) + α_t g̃_t`. With `w_1 = 0` they are
    `w_{t+1} = (β_t/β_{t−1}) w_t − β_t DΦᵀ (∇μ(x̄_t) − ∇μ(z_t))`. Source: S002 eq. 11 and Theorem 3,
    with the sign and the Jacobian that the printed step lacks (papers.md#s002-theorem-3).

    **Arguments:**

    - `target`: `z_t`, a function of what was seen.
    - `to_dual`: `∇μ`; a geometry's `to_dual`, or the gradient of any convex function.
    """

    target: Callable[[Seen], Primal]
    to_dual: Callable[[Primal], Dual]

    def __call__(self, seen: Seen) -> PyTree:
        apart = vector.sub(self.to_dual(seen.average), self.to_dual(self.target(seen)))
        pulled = seen.pull(vector.sub(apart, vector.scale(seen.weight, seen.slope)))
        total = vector.add(pulled, vector.scale(seen.weight, seen.hint))
        return vector.scale(1 / seen.next_weight, total)
