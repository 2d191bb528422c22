r"""Running an inner rule: whole trajectories, and what a trajectory is worth.

Every objective of this library has the form of Bolza, `E = Σ_t stage(x_t, g_t, ℓ_t) +
terminal(x_1, x_{T+1})`: regret bounds, validation losses and their kin. A run can therefore be
judged as it goes, with memory for one step, and differentiated by any estimator.
"""

import abc
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._tree import Primal, Scalar, sums_type
from ._descent import AbstractInner, InnerState, Step
from ._problem import Prior, Problem
from ._randomness import drawn
from ._scan import repeat

Accumulator = TypeVar("Accumulator")


class Trajectory(eqx.Module):
    """A whole run of `T` steps.

    **Arguments:**

    - `primal`: the points `x_1, …, x_{T+1}`; leaves have a leading axis of length `T + 1`.
    - `gradients`: `g_1, …, g_T`.
    - `losses`: `ℓ_1(x_1), …, ℓ_T(x_T)`, shape `(T,)`.
    """

    primal: PyTree[Float[Array, "points ..."]]
    gradients: PyTree[Float[Array, "steps ..."]]
    losses: Float[Array, " steps"]

    @property
    def first(self) -> Primal:
        """`x_1`."""
        return jax.tree.map(lambda leaf: leaf[0], self.primal)

    @property
    def last(self) -> Primal:
        """`x_{T+1}`."""
        return jax.tree.map(lambda leaf: leaf[-1], self.primal)


class AbstractObjective(eqx.Module):
    """What a run is worth: the sum of `stage` over its steps, plus `terminal`."""

    @property
    def judges_steps(self) -> bool:
        """Whether `stage` can differ from zero; a solution, unlike a run, has no steps to judge."""
        return True

    @abc.abstractmethod
    def stage(self, prior: Prior, problem: Problem, step: Step) -> Scalar:
        """The cost of one step.

        **Arguments:**

        - `prior`, `problem`: the two halves of the task.
        - `step`: the point left, its gradient and loss.

        **Returns:**

        A scalar.
        """

    @abc.abstractmethod
    def terminal(self, prior: Prior, problem: Problem, first: Primal, last: Primal) -> Scalar:
        """The cost of the ends.

        **Arguments:**

        - `prior`, `problem`: the two halves of the task.
        - `first`, `last`: the first and last points of the run.

        **Returns:**

        A scalar.
        """


class RunSummary(eqx.Module):
    """What is remembered of a run besides its value.

    **Arguments:**

    - `first_loss`: the loss at the first step.
    - `last_loss`: the mean loss over the last tenth of the steps.
    - `finite_steps`: how many steps had a finite loss before the first that had not; equal to the
      number of steps if none failed.
    """

    first_loss: Scalar
    last_loss: Scalar
    finite_steps: Int[Array, ""]

    @staticmethod
    def empty(params: PyTree) -> "RunSummary":
        """A summary of no steps of a run over such parameters."""
        dtype = sums_type(params)
        return RunSummary(jnp.zeros((), dtype), jnp.zeros((), dtype), jnp.zeros((), int))

    def observe(self, loss: Scalar, count: Array, steps: int) -> "RunSummary":
        """The summary after one more step, number `count` of `steps`."""
        tail, loss = max(1, steps // 10), loss.astype(self.first_loss.dtype)
        share = jnp.where(count >= steps - tail, loss / tail, jnp.zeros_like(loss))
        unbroken = jnp.isfinite(loss) & (self.finite_steps == count)
        return RunSummary(
            jnp.where(count == 0, loss, self.first_loss),
            self.last_loss + share,
            self.finite_steps + unbroken.astype(self.finite_steps.dtype),
        )


def fold(
    inner: AbstractInner,
    prior: Prior,
    problem: Problem,
    steps: int,
    function: Callable[[Accumulator, Step, Int[Array, ""]], Accumulator],
    start: Accumulator,
    *,
    key: PRNGKeyArray,
    state: InnerState | None = None,
    checkpoint: bool = False,
) -> tuple[InnerState, Accumulator]:
    """Runs an inner rule and folds its steps, in one compiled loop.

    The randomness of step `t` is `fold_in(key, t)`, so a run cut in two is the same run.

    **Arguments:**

    - `inner`, `prior`, `problem`: the rule and the task.
    - `steps`: how many steps.
    - `function`: `(accumulated, step, number) -> accumulated`.
    - `start`: the accumulator before the first step.
    - `key`: randomness of the run.
    - `state`: where to start; `inner.init(prior)` by default.
    - `checkpoint`: keep `√T` carries for the reverse pass, and recompute the rest.

    **Returns:**

    The state after the last step, and the accumulator.
    """

    def body(carry: tuple[InnerState, Accumulator]) -> tuple[InnerState, Accumulator]:
        kept, accumulated = carry
        here = restored(kept)
        step_key = jax.random.fold_in(key, here.count)
        there, record = inner.step(prior, problem, here, key=step_key)
        return stripped(there), function(accumulated, record, here.count)

    def stripped(state: InnerState) -> InnerState:
        # A carry is kept for every step of a reverse pass, so it holds no more than it must.
        return state if whole else eqx.tree_at(lambda s: s.primal, state, None)

    def restored(kept: InnerState) -> InnerState:
        if whole:
            return kept
        image, first = inner.image(prior, kept), kept.count == begin.count
        # The first point is as given: rounding, or a start outside the domain, is not undone.
        primal = jax.tree.map(lambda a, b: jnp.where(first, a, b), begin.primal, image)
        return eqx.tree_at(lambda s: s.primal, kept, primal, is_leaf=lambda x: x is None)

    if state is None:
        problem.batches.check_steps(steps)
    begin = inner.init(prior) if state is None else state
    whole = inner.image(prior, begin) is None
    end, accumulated = repeat(body, (stripped(begin), start), steps, checkpoint=checkpoint)
    return restored(end), accumulated


def unroll(
    inner: AbstractInner,
    prior: Prior,
    problem: Problem,
    steps: int,
    *,
    key: PRNGKeyArray,
) -> Trajectory:
    """Runs an inner rule and keeps everything: memory grows with `steps`.

    **Arguments:**

    - `inner`, `prior`, `problem`: the rule and the task.
    - `steps`: how many steps, `T`.
    - `key`: randomness of the run.

    **Returns:**

    The trajectory.

    >>> from mirrax.geometry import Euclidean
    >>> from mirrax.inner import MirrorDescent, Prior, Problem, Repeat
    >>> prior = Prior(Euclidean(), start=jnp.array(4.0))
    >>> problem = Problem(lambda x, shared, batch: x**2 / 2, Repeat(None))
    >>> unroll(MirrorDescent(0.5), prior, problem, 3, key=jax.random.key(0)).primal.tolist()
    [4.0, 2.0, 1.0, 0.5]
    """
    return Trajectory(*walk(inner, prior, problem, steps, lambda state: state.primal, key=key))


def walk(
    inner: AbstractInner,
    prior: Prior,
    problem: Problem,
    steps: int,
    seen: Callable[[InnerState], PyTree[Array]],
    *,
    key: PRNGKeyArray,
) -> tuple[PyTree[Array], PyTree[Array], Float[Array, " steps"]]:
    """Runs an inner rule and keeps what is to be seen of its states.

    **Arguments:**

    - `inner`, `prior`, `problem`, `steps`, `key`: as for `unroll`.
    - `seen`: from a state to arrays.

    **Returns:**

    What was seen of the `steps + 1` states, gradients and losses, each with a leading axis.
    """

    def body(state: InnerState, _: None) -> tuple[InnerState, tuple[Any, ...]]:
        there, record = inner.step(prior, problem, state, key=jax.random.fold_in(key, state.count))
        return there, (seen(state), record.gradient, record.loss)

    problem.batches.check_steps(steps)
    prior = drawn(prior, key)
    last, (states, *records) = lax.scan(body, inner.init(prior), None, length=steps)
    states = jax.tree.map(lambda run, end: jnp.concatenate([run, end[None]]), states, seen(last))
    return states, *records


def evaluate(
    objective: AbstractObjective,
    inner: AbstractInner,
    prior: Prior,
    problem: Problem,
    steps: int,
    *,
    key: PRNGKeyArray,
    checkpoint: bool = False,
    first: int | Int[Array, ""] = 0,
) -> tuple[Scalar, RunSummary]:
    """What a run of `steps` steps is worth: `Σ_t stage + terminal`.

    **Arguments:**

    - `objective`: the stage and terminal costs.
    - `inner`, `prior`, `problem`: the rule and the task.
    - `steps`: how many steps.
    - `key`: randomness of the run.
    - `checkpoint`: as in `fold`.
    - `first`: the number of the first step, which decides its batch, its randomness and its rate
      where that is a schedule.

    **Returns:**

    The value, and a summary of the run.
    """
    if isinstance(first, int):
        problem.batches.check_steps(first + steps)
    prior = drawn(prior, key)
    begin = inner.init(prior)
    begin = eqx.tree_at(lambda state: state.count, begin, begin.count + first)
    blank = RunSummary.empty(begin.primal)
    dtype = blank.first_loss.dtype

    def observe(total: tuple[Scalar, RunSummary], step: Step, count: Array):
        value, summary = total
        value = value + jnp.asarray(objective.stage(prior, problem, step), dtype)
        return value, summary.observe(lax.stop_gradient(step.loss), count - first, steps)

    empty = (jnp.zeros((), dtype), blank)
    end, (value, summary) = fold(
        inner, prior, problem, steps, observe, empty, key=key, state=begin, checkpoint=checkpoint
    )
    due = objective.terminal(prior, problem, begin.primal, end.primal)
    return value + jnp.asarray(due, dtype), summary


def with_reference(
    problem: Problem, inner: AbstractInner, prior: Prior, steps: int, *, key: PRNGKeyArray
) -> Problem:
    """Fills `problem.solution` with the end of a reference run, as a constant.

    **Arguments:**

    - `problem`: the task.
    - `inner`, `prior`: the rule of the reference run and its start; usually better trained or
      longer than the run that is judged, from the same start.
    - `steps`: its length.
    - `key`: its randomness.

    **Returns:**

    The problem with a solution.
    """
    end, _ = fold(inner, prior, problem, steps, lambda none, step, count: none, None, key=key)
    solution = lax.stop_gradient(end.primal)
    return Problem(problem.loss, problem.batches, solution, problem.query)
