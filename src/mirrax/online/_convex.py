r"""Meta-learning as convex optimisation: Algorithms 2 and 4.

An update rule `Φ(x, w)`, affine in `w`, proposes points; what is returned is their average:

    x_t = Φ(x̄_{t−1}, w_t),    x̄_t = (1 − ρ_t) x̄_{t−1} + ρ_t x_t,    ρ_t = α_t/α_{1:t},
    g_t = DΦ(x̄_{t−1}, w_t)ᵀ ∇f(x̄_t),

and `w_{t+1}` is what follow-the-regularised-leader plays after `g_1, …, g_t` and a hint of
`g_{t+1}`. Without hints that is Algorithm 2, with them Algorithm 4. The Jacobian is applied by
reverse mode and never formed. `g_t` carries no `ρ_t`, although the derivative of the learner's loss
does (papers.md#s002-rho). Source: S002, Algorithms 2 and 4; spec C3, C4.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as vector
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._tree import Dual, Primal, Scalar, all_finite, choose
from ._conditions import check_like, require
from ._ftrl import FTRL, FTRLState
from ._hints import Hint, Seen, last_gradient

UpdateRule: TypeAlias = Callable[[Primal, PyTree], Primal]
"""`Φ`: the next point, from a point and the meta-parameters."""


class ConvexState(eqx.Module):
    """Where a convex meta-learner stands: the average `x̄_t`, and who plays `w_{t+1}`."""

    average: Primal
    leader: FTRLState


class Round(eqx.Module):
    """What happened in round `t`; a run has a leading axis of rounds.

    **Arguments:**

    - `loss`: `f(x̄_t)`.
    - `before`, `average`: `x̄_{t−1}` and `x̄_t`.
    - `play`, `point`: `x_t` and `w_t`.
    - `slope`: `∇f(x̄_t)`.
    - `gradient`, `hint`: `g_t`, and `g̃_t` that guessed it.
    - `weight`: `α_t`.
    """

    loss: Scalar
    before: Primal
    average: Primal
    play: Primal
    point: PyTree
    slope: Dual
    gradient: PyTree
    hint: PyTree
    weight: Scalar


class ConvexMeta(eqx.Module):
    """Minimises a convex function by an update rule that is learned on the way.

    A round whose loss or derivative is not finite changes nothing; its loss says so.

    **Arguments:**

    - `rule`: `Φ(x, w)`, affine in `w`, such as `x − w ⊙ ∇f(x)`.
    - `leader`: the online learner of `w`, with its rate, weights and set.
    - `hint`: the guess of the next gradient; by default the last one (Corollary 1).
    - `debug`: look at every round whether `rule` is affine, and stop where it is not.

    >>> f = lambda x: jnp.sum((x - 3.0) ** 2)
    >>> method = ConvexMeta(lambda x, w: w, FTRL(rate=0.25))
    >>> state, rounds = method.run(f, method.init(jnp.zeros(1), jnp.zeros(1)), 50)
    >>> bool(rounds.loss[-1] < 1e-3)
    True
    """

    rule: UpdateRule
    leader: FTRL
    hint: Hint = last_gradient
    debug: bool = eqx.field(static=True, default=False)

    def init(self, start: Primal, point: PyTree) -> ConvexState:
        """The state before the first round.

        **Arguments:**

        - `start`: `x̄_0`. It is forgotten in the first round, but for what `Φ` makes of it.
        - `point`: `w_1`, in the leader's set.

        **Raises:**

        - `ValueError`: if `point` is not in the set, or `Φ` does not keep the shapes of `start`.
        """
        start = jax.tree.map(jnp.asarray, start)
        leader = self.leader.init(point)
        check_like(jax.eval_shape(self.rule, start, leader.point), start, "ConvexMeta.rule")
        return ConvexState(start, leader)

    def step(
        self, loss: Callable[[Primal], Scalar], state: ConvexState
    ) -> tuple[ConvexState, Round]:
        """One round, with one gradient of the loss.

        **Arguments:**

        - `loss`: `f`, convex.
        - `state`: where the learner stands.
        """
        leader = state.leader
        weight = self.leader.weight(leader)
        upto = leader.weight + weight
        point = self._checked(state.average, leader.point, leader.count)
        play, vjp = jax.vjp(lambda w: self.rule(state.average, w), point)
        average = _mix(weight / upto, state.average, play)
        value, slope = jax.value_and_grad(loss)(average)
        gradient = vjp(slope)[0]
        seen = Seen(
            count=leader.count + 1,
            weight=weight,
            next_weight=self.leader.weight_after(leader),
            point=point,
            average=average,
            slope=slope,
            pull=lambda v: vjp(v)[0],
            gradient=gradient,
            hint=vector.scale(1 / weight, leader.hint),
        )
        new = ConvexState(average, self.leader.step(leader, gradient, self.hint(seen)))
        made = Round(
            *(value, state.average, average, play, point),
            *(slope, gradient, seen.hint, weight),
        )
        return choose(all_finite(value, new), new, state), made

    def run(
        self, loss: Callable[[Primal], Scalar], state: ConvexState, steps: int
    ) -> tuple[ConvexState, Round]:
        """Some rounds in one compiled loop.

        **Arguments:**

        - `loss`: `f`, convex.
        - `state`: where to begin.
        - `steps`: how many rounds.

        **Returns:**

        The state afterwards, and the rounds along a leading axis.
        """
        return jax.lax.scan(lambda s, _: self.step(loss, s), state, None, length=steps)

    def _checked(self, average: Primal, point: PyTree, count: Array) -> PyTree:
        if not self.debug:
            return point
        key = jax.random.fold_in(jax.random.key(0), count)
        holds = is_affine(self.rule, average, point, key=key)
        return require(point, holds, "ConvexMeta.rule: not affine in w, so no bound holds.")


def is_affine(rule: UpdateRule, average: Primal, point: PyTree, *, key: PRNGKeyArray) -> Any:
    """Whether a rule looks affine in `w`: its derivative is the same at two points.

    **Arguments:**

    - `rule`: `Φ(x, w)`.
    - `average`, `point`: `x` and `w`.
    - `key`: draws the second point, and the direction of the derivative.

    **Returns:**

    A boolean. An affine rule passes up to rounding; another is found out unless it is affine
    along the line that was drawn.

    >>> key, x, w = jax.random.key(0), jnp.ones(2), jnp.ones(2)
    >>> bool(is_affine(lambda x, w: x - w * x, x, w, key=key))
    True
    >>> bool(is_affine(lambda x, w: x - w**2 * x, x, w, key=key))
    False
    """
    there, along = (vector.random_like(k, point) for k in jax.random.split(key))

    def derivative(at: PyTree) -> Primal:
        return jax.jvp(lambda w: rule(average, w), (at,), (along,))[1]

    here, moved = derivative(point), derivative(vector.add(point, there))

    def same(a: Array, b: Array) -> Array:
        scale = jnp.max(jnp.abs(a), initial=0) + jnp.max(jnp.abs(b), initial=0)
        return jnp.all(jnp.abs(a - b) <= jnp.sqrt(jnp.finfo(a.dtype).eps) * scale)

    return jnp.all(jnp.stack(jax.tree.leaves(jax.tree.map(same, here, moved))))


def _mix(share: Scalar, old: Primal, new: Primal) -> Primal:
    def one(a: Array, b: Array) -> Array:
        part = share.astype(a.dtype)
        return (1 - part) * a + part * b

    return jax.tree.map(one, old, new)
