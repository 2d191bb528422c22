r"""Along the path: what one step from every point of a run is worth, the points held constant.

With the iterates `θ_0, …, θ_T` of a run as constants, WarpGrad minimises over the warp `Ω`
`(1/(T+1)) Σ_i ℓ(θ_i − η ∇ℓ(θ_i; support; Ω); query; Ω)`: memory does not grow with the run, and no
derivative passes through more than one step. The start follows Leap, which shortens paths:
`Σ_i (θ_i − θ_{i+1})/‖θ_i − θ_{i+1}‖`. Iterates are what a rule starts from: for `DualDescent`,
which starts from a dual point, dual points are constant and the path is one of dual points.
Sources: WarpGrad, Flennerhag et al. 2020, eq. 8–10; Leap, Flennerhag et al. 2019; spec A4. The
published code's exact mode loses the graph of the inner gradient, which is `first_order` here.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as vector
from jaxtyping import Array, Float, PRNGKeyArray

from .._tree import Primal, Scalar
from ..inner import (
    AbstractInner,
    AbstractObjective,
    Prior,
    Problem,
    RunSummary,
    evaluate,
)
from ..inner._unroll import walk
from ._base import AbstractHypergradient, EstimatorState, Part, split
from ._reverse import linearised


class Pathwise(AbstractHypergradient):
    """Differentiates `ahead` steps from each point of a run, and moves the start along the path.

    The derivative with respect to `start` is Leap's, whatever the objective; those with respect to
    `geometry` and `shared` are exact for the points held constant.

    **Arguments:**

    - `steps`: the length `T` of a run.
    - `wrt`: the fields of the prior to differentiate.
    - `ahead`: how many steps are made from each point; 0 judges the points themselves. Those from
      the `i`-th have the batches and rates of the run's steps `i, i + 1, …`, of which there must be
      `steps + ahead`.
    - `first_order`: treat the gradients of those steps as constants.

    **Raises:**

    - `ValueError`: if `steps` is not positive, `ahead` is negative, or `wrt` names no field of the
      prior or the start alone.

    >>> Pathwise(steps=5).ahead
    1
    """

    steps: int = eqx.field(static=True)
    wrt: tuple[Part, ...] = eqx.field(static=True, default=("start", "shared"))
    ahead: int = eqx.field(static=True, default=1)
    first_order: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.ahead < 0:
            raise ValueError(f"Pathwise.ahead: expected at least 0, got {self.ahead!r}.")
        if set(self.wrt) == {"start"}:
            raise ValueError(
                "Pathwise.wrt: expected 'shared' or 'geometry' besides 'start', got "
                f"{self.wrt!r}; nothing else is judged along the path."
            )

    def estimate(
        self,
        objective: AbstractObjective,
        inner: AbstractInner,
        prior: Prior,
        problem: Problem,
        state: EstimatorState,
        *,
        key: PRNGKeyArray,
    ) -> tuple[Scalar, Prior, EstimatorState]:
        """The mean value over the points, and its derivative."""
        del state
        run = walk(inner, prior, problem, self.steps, inner.start_at, key=key)
        points, _, losses = jax.lax.stop_gradient(run)
        wrt: tuple[Part, ...] = tuple(part for part in self.wrt if part != "start")
        seen = linearised(problem) if self.first_order else problem
        value, grad = along(objective, inner, prior, seen, points, self.ahead, wrt, key=key)
        if "start" in self.wrt:
            grad = Prior(grad.geometry, leap(points), grad.shared)
        return value, grad, EstimatorState(_summary(losses))


def along(
    objective: AbstractObjective,
    inner: AbstractInner,
    prior: Prior,
    problem: Problem,
    points: Primal,
    ahead: int,
    wrt: tuple[Part, ...],
    *,
    key: PRNGKeyArray,
) -> tuple[Scalar, Prior]:
    """The mean over points of what a run of `ahead` steps from each is worth, and its derivative.

    **Arguments:**

    - `objective`, `inner`, `prior`, `problem`: what is run, and what it is worth.
    - `points`: starts with a leading axis, held constant; a run from the `i`-th begins with step
      `i`.
    - `ahead`: how many steps are made from each.
    - `wrt`: the fields of the prior to differentiate.
    - `key`: randomness of the runs.

    **Returns:**

    The value, and the derivative as `AbstractHypergradient.estimate` returns it.
    """

    def at(number_and_point: tuple[Array, Primal]) -> tuple[Scalar, Prior]:
        number, point = number_and_point
        learned, complete = split(Prior(prior.geometry, point, prior.shared), wrt)

        def worth(part: Prior) -> Scalar:
            whole = complete(part)
            return evaluate(objective, inner, whole, problem, ahead, key=key, first=number)[0]

        return jax.value_and_grad(worth)(learned)

    # One point after another: side by side they need the memory the method is to save.
    count = len(jax.tree.leaves(points)[0])
    values, grads = jax.lax.map(at, (jnp.arange(count), points))
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), (values, grads))


def leap(points: Primal) -> Primal:
    r"""`Σ_i (θ_i − θ_{i+1})/‖θ_i − θ_{i+1}‖`, the norm taken over all parameters.

    **Arguments:**

    - `points`: a path, with a leading axis; steps of no length count for nothing.

    **Returns:**

    A direction shaped like a point: against the path's steps, each of length one.
    """
    steps = jax.tree.map(lambda leaf: leaf[:-1] - leaf[1:], points)
    lengths = jax.vmap(vector.norm)(steps)
    weights = jnp.where(lengths > 0, 1 / jnp.where(lengths > 0, lengths, 1), 0)
    return jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, axes=1), steps)


def _summary(losses: Float[Array, " steps"]) -> RunSummary:
    steps = len(losses)

    def observe(summary: RunSummary, step):
        loss, count = step
        return summary.observe(loss, count, steps), None

    begin = RunSummary.empty(losses)
    return jax.lax.scan(observe, begin, (losses, jnp.arange(steps)))[0]
