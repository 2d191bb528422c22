"""A run cut into windows: one a call, carried along in the estimator's state.

The calls of one run share its key, so that a run cut in windows is the same run: step `t` and
what is drawn once a run are the same. Terminal costs fall due in the last window.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PRNGKeyArray

from .._tree import Scalar, choose
from ..inner import (
    AbstractInner,
    AbstractObjective,
    InnerState,
    Prior,
    Problem,
    RunSummary,
    drawn,
    fold,
)
from ._base import EstimatorState


def finished(inner: AbstractInner, prior: Prior, steps: int) -> InnerState:
    """A run at its end, after which the first window begins a new one.

    **Arguments:**

    - `inner`, `prior`: the rule and what it starts from.
    - `steps`: the length of a run.
    """
    begin = inner.init(drawn(prior, jax.random.key(0)))  # whichever draw: of another run
    return eqx.tree_at(lambda state: state.count, begin, jnp.asarray(steps, int))


def run_window(
    objective: AbstractObjective,
    inner: AbstractInner,
    prior: Prior,
    problem: Problem,
    state: EstimatorState,
    length: int,
    steps: int,
    *,
    key: PRNGKeyArray,
) -> tuple[Scalar, EstimatorState]:
    """One window under the present prior; where it began is held constant, except in a new run.

    **Arguments:**

    - `objective`, `inner`, `prior`, `problem`: the rule and the task.
    - `state`: where the run stands (`inner`), where it began (`first`), and its summary so far.
    - `length`: of the window.
    - `steps`: of a run, after which a new one begins.
    - `key`: randomness of the run.

    **Returns:**

    What the window costs, and the state after it.
    """
    assert state.inner is not None and state.first is not None
    problem.batches.check_steps(steps)
    prior = drawn(prior, key)
    fresh, anew = inner.init(prior), state.inner.count >= steps
    # What is not chosen is differentiated too: a run that ended in NaN must not be held.
    going = choose(anew, lax.stop_gradient(fresh), state.inner)
    begin = choose(anew, fresh, inner.hold(prior, going))
    first = choose(anew, fresh.primal, state.first)
    summary = choose(anew, RunSummary.empty(fresh.primal), state.summary)

    def observe(gathered, step, count):
        value, seen = gathered
        value = value + jnp.asarray(objective.stage(prior, problem, step), value.dtype)
        return value, seen.observe(lax.stop_gradient(step.loss), count, steps)

    nothing = (jnp.zeros_like(summary.first_loss), summary)
    end, (value, summary) = fold(
        inner, prior, problem, length, observe, nothing, key=key, state=begin
    )
    due = end.count >= steps
    # Held where it is not due: a derivative that is not finite there must not be multiplied by 0.
    ends = prior, first, end.primal
    whole, begun, reached = choose(due, ends, lax.stop_gradient(ends))
    cost = jnp.where(due, objective.terminal(whole, problem, begun, reached), 0)
    return value + jnp.asarray(cost, value.dtype), EstimatorState(summary, end, first)
