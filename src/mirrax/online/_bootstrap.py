r"""Bootstrapped meta-gradients: learn a rule by matching where it will be.

From `x_{t−1}` the rule makes `K` steps to `x_t`, then `A` further ones to `y_t`, and a target `z_t`
is made there, by default `y_t − ζ ∇f(y_t)`. With target and further steps held constant,

    w_{t+1} = Π_W(w_t − β_t D_w x_tᵀ (∇μ(x_t) − ∇μ(z_t))),

the gradient of the divergence `D_μ(x_t‖z_t)` with respect to `w`. S002 has `K = 1`, `A = 1` and
`ζ = 1`; the grid worlds of the original paper have `K = 7` and `A = 8`, and go on from `y_t`. With
`A = 0` and `μ = ½‖·‖²` it is `ζ` times the ordinary meta-gradient.
Sources: S002 Algorithm 3, eq. 10 and Theorem 3; Flennerhag et al. 2022.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as vector
from jaxtyping import Array, Int, PyTree

from .._tree import Dual, Primal, Scalar, all_finite, choose
from ..geometry import AbstractMirrorMap
from ..inner import Rate
from ..inner._descent import as_rate, rate_at
from ..inner._scan import repeat
from ._conditions import check_like, require
from ._convex import UpdateRule
from ._ftrl import Project, everywhere

Loss: TypeAlias = Callable[[Primal], Scalar]


class Ahead(eqx.Module):
    """What a target is made of.

    **Arguments:**

    - `count`: `t`.
    - `point`: `x_t`, which the rule reached.
    - `ahead`: `y_t`, after the further steps.
    - `meta`: `w_t`.
    - `loss`: `f`.
    """

    count: Int[Array, ""]
    point: Primal
    ahead: Primal
    meta: PyTree
    loss: Loss = eqx.field(static=True)


Target: TypeAlias = Callable[[Ahead], Primal]
"""A function that returns `z_t`; no derivative passes through it."""


class GradientStep(eqx.Module):
    """The target of S002, `z_t = y_t − ζ ∇f(y_t)`.

    **Arguments:**

    - `rate`: `ζ`.
    """

    rate: Any = 1.0

    def __call__(self, seen: Ahead) -> Primal:
        gradient = jax.grad(seen.loss)(seen.ahead)
        return jax.tree.map(
            lambda y, g: y - jnp.asarray(self.rate, y.dtype) * g, seen.ahead, gradient
        )


class FromHint(eqx.Module):
    """The target whose meta-gradient is that of Algorithm 4 with given hints.

    `z_t = ∇μ*(∇μ(x_t) − (α_{t+1} ỹ_{t+1} + α_t ∇f(x_t)))` makes
    `w_{t+1} = w_t − β (α_{t+1} g̃_{t+1} + α_t (Dᵀ∇f(x_t) − g̃_t))`, where the hints add up:
    `α_{t+1} g̃_{t+1} = α_{t+1} Dᵀ ỹ_{t+1} + α_t g̃_t`. For a constant `β`, without averages.
    Source: S002 Theorem 3.

    **Arguments:**

    - `guess`: `ỹ_{t+1}`, a function of what was seen that returns a guess of the next gradient.
    - `weights`: `α_t`, a function of `t`.
    - `mirror_map`: `∇μ` and its inverse.
    """

    guess: Callable[[Ahead], Dual]
    weights: Callable[[Array], Any]
    mirror_map: AbstractMirrorMap

    def __call__(self, seen: Ahead) -> Primal:
        gradient, guess = jax.grad(seen.loss)(seen.point), self.guess(seen)
        now, after = (jnp.asarray(self.weights(seen.count + i), float) for i in (0, 1))
        weighted = vector.add(vector.scale(after, guess), vector.scale(now, gradient))
        return self.mirror_map.to_primal(vector.sub(self.mirror_map.to_dual(seen.point), weighted))


class BootstrapState(eqx.Module):
    """Where a bootstrapped learner stands.

    **Arguments:**

    - `count`: how many meta-gradients were made.
    - `point`: where the rule goes on from.
    - `meta`: `w_{t+1}`.
    """

    count: Int[Array, ""]
    point: Primal
    meta: PyTree


class Bootstrapping(eqx.Module):
    """What one meta-gradient saw: `f(x_t)`, `x_t`, the target `z_t` and `w_t`."""

    loss: Scalar
    point: Primal
    target: Primal
    meta: PyTree


class Bootstrapped(eqx.Module):
    """Learns an update rule while it is used, by matching a target further on.

    A step whose loss, target or derivative is not finite changes nothing; its loss says so.

    **Arguments:**

    - `rule`: `(x, w) ↦ x + φ(x, w)`, differentiable in `w`.
    - `rate`: `β`, a positive number, or a schedule of `t = 1, 2, …`.
    - `to_dual`: `∇μ`; a geometry's `to_dual`, or the gradient of any convex function. Euclidean by
      default.
    - `target`: makes `z_t`; by default one gradient step at `y_t`.
    - `steps`: `K`, how many steps of the rule are differentiated.
    - `ahead`: `A`, how many further ones lead to `y_t`.
    - `keep_ahead`: go on from `y_t` instead of `x_t`.
    - `project`: the Euclidean projection on the set of meta-parameters.

    **Raises:**

    - `ValueError`: if a rate that is a number is not positive, `steps` is below 1, or `ahead` is
      below 0.

    >>> f = lambda x: jnp.sum(x**2)
    >>> rule = lambda x, w: x - w * jax.grad(f)(x)
    >>> method = Bootstrapped(rule, rate=0.01, target=GradientStep(0.1))
    >>> state, made = method.run(f, method.init(jnp.ones(1), jnp.zeros(1)), 50)
    >>> bool(state.meta[0] > 0.05), bool(made.loss[-1] < 0.1)
    (True, True)
    """

    rule: UpdateRule
    rate: Rate
    to_dual: Callable[[Primal], Dual]
    target: Target
    steps: int = eqx.field(static=True)
    ahead: int = eqx.field(static=True)
    keep_ahead: bool = eqx.field(static=True)
    project: Project

    def __init__(
        self,
        rule: UpdateRule,
        rate: Rate,
        *,
        to_dual: Callable[[Primal], Dual] = everywhere,
        target: Target | None = None,
        steps: int = 1,
        ahead: int = 1,
        keep_ahead: bool = False,
        project: Project = everywhere,
    ):
        if steps < 1:
            raise ValueError(f"Bootstrapped.steps: expected at least 1, got {steps!r}.")
        if ahead < 0:
            raise ValueError(f"Bootstrapped.ahead: expected at least 0, got {ahead!r}.")
        self.rule, self.rate = rule, as_rate(rate, "Bootstrapped")
        self.to_dual = to_dual
        self.target = GradientStep() if target is None else target
        self.steps, self.ahead, self.keep_ahead = steps, ahead, keep_ahead
        self.project = project

    def init(self, start: Primal, meta: PyTree) -> BootstrapState:
        """The state before the first step.

        **Arguments:**

        - `start`: `x_0`.
        - `meta`: `w_1`.

        **Raises:**

        - `ValueError`: if the rule does not keep the shapes of `start`.
        """
        start, meta = (jax.tree.map(jnp.asarray, tree) for tree in (start, meta))
        check_like(jax.eval_shape(self.rule, start, meta), start, "Bootstrapped.rule")
        return BootstrapState(jnp.zeros((), jnp.int32), start, meta)

    def step(self, loss: Loss, state: BootstrapState) -> tuple[BootstrapState, Bootstrapping]:
        """One meta-gradient.

        **Arguments:**

        - `loss`: `f`.
        - `state`: where the learner stands.
        """
        count = state.count + 1
        point, pull = jax.vjp(lambda w: self._go(state.point, w, self.steps), state.meta)
        ahead = self._go(point, state.meta, self.ahead)
        target = self.target(Ahead(count, point, ahead, state.meta, loss))
        slope = pull(vector.sub(self.to_dual(point), self.to_dual(target)))[0]
        rate = rate_at(self.rate, count)
        rate = require(rate, jnp.all(rate > 0), "Bootstrapped.rate: a rate is not positive.")
        moved = jax.tree.map(lambda w, s: w - rate.astype(w.dtype) * s, state.meta, slope)
        new = BootstrapState(count, ahead if self.keep_ahead else point, self.project(moved))
        value = loss(point)
        made = Bootstrapping(value, point, target, state.meta)
        return choose(all_finite(value, new), new, state), made

    def run(
        self, loss: Loss, state: BootstrapState, steps: int
    ) -> tuple[BootstrapState, Bootstrapping]:
        """Some meta-gradients in one compiled loop.

        **Arguments:**

        - `loss`: `f`.
        - `state`: where to begin.
        - `steps`: how many.

        **Returns:**

        The state afterwards, and what each step saw along a leading axis.
        """
        return jax.lax.scan(lambda s, _: self.step(loss, s), state, None, length=steps)

    def _go(self, point: Primal, meta: PyTree, steps: int) -> Primal:
        return repeat(lambda x: self.rule(x, meta), point, steps)
