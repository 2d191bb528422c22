r"""The direct gradient: the trajectory held constant, `∂E/∂φ` without `(∂E/∂θ)(dθ/dφ)`.

For regret bounds at convergence this is the whole hypergradient: either the minimiser does not
depend on the geometry, or the indirect term vanishes by the envelope theorem
(papers.md#s001-implicit). It needs no backward pass through the run, and memory for one step.
Source: spec B4.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as vector
from jaxtyping import PRNGKeyArray

from .._tree import Scalar
from ..inner import AbstractInner, AbstractObjective, Prior, Problem, RunSummary, drawn, fold
from ._base import AbstractHypergradient, EstimatorState, Part, split


class Direct(AbstractHypergradient):
    """Differentiates an objective's explicit dependence on the prior only.

    **Arguments:**

    - `steps`: the length `T` of a run.
    - `wrt`: the fields of the prior to differentiate: `"geometry"`, `"shared"`.

    **Raises:**

    - `ValueError`: if `steps` is not positive, `wrt` names no field of the prior, or it names
      `"start"`: the first point belongs to the trajectory, which is held constant.

    >>> Direct(steps=10).wrt
    ('geometry',)
    """

    steps: int = eqx.field(static=True)
    wrt: tuple[Part, ...] = eqx.field(static=True, default=("geometry",))

    def __check_init__(self):
        if "start" in self.wrt:
            raise ValueError(
                f"Direct.wrt: expected 'geometry' or 'shared', got {self.wrt!r}; the start is part "
                "of the trajectory, which is held constant. Use Reverse."
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
        """The value and its direct derivative."""
        del state
        learned, complete = split(prior, self.wrt)
        held = drawn(prior, key)
        begin = inner.init(held)
        blank = RunSummary.empty(begin.primal)
        dtype = blank.first_loss.dtype

        def stage_cost(part: Prior, step):
            return objective.stage(drawn(complete(part), key), problem, step)

        def observe(gathered, step, count):
            value, grad, summary = gathered
            cost, slope = jax.value_and_grad(stage_cost)(learned, step)
            summary = summary.observe(step.loss, count, self.steps)
            return value + cost.astype(dtype), vector.add(grad, slope), summary

        empty = (jnp.zeros((), dtype), vector.zeros_like(learned), blank)
        end, (value, grad, summary) = fold(
            inner, held, problem, self.steps, observe, empty, key=key, state=begin
        )

        def terminal_cost(part: Prior):
            whole = drawn(complete(part), key)
            return objective.terminal(whole, problem, begin.primal, end.primal)

        cost, slope = jax.value_and_grad(terminal_cost)(learned)
        return value + cost.astype(dtype), vector.add(grad, slope), EstimatorState(summary)
