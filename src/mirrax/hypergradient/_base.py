r"""What a hypergradient estimator is: `(objective, inner, prior, problem) -> (E, dE/dprior)`.

Estimators differ in what they keep and what they leave out; they share one interface, so that
one can be checked against another and exchanged by one argument.
"""

import abc
from collections.abc import Callable
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._checks import check_count
from .._tree import Primal, Scalar
from ..inner import AbstractInner, AbstractObjective, InnerState, Prior, Problem, RunSummary
from ._report import ImplicitReport

Part = Literal["geometry", "start", "shared"]
"""A field of `Prior` that can be learned."""


class EstimatorState(eqx.Module):
    """What an estimator carries from one call to the next.

    **Arguments:**

    - `summary`: summary of the last run, or of the current one so far.
    - `inner`: where the current run stands, for estimators that stop within a run.
    - `first`: where the current run began.
    - `perturbation`: the sum of the perturbations of the current run, for `Evolution`.
    - `error`: the standard error of the last estimate, shaped like it, for estimators that are
      random.
    - `implicit`: how well an implicit hypergradient's systems were solved, and its flags.
    """

    summary: RunSummary
    inner: InnerState | None = None
    first: Primal | None = None
    perturbation: Float[Array, "pairs dim"] | None = None
    error: Prior | None = None
    implicit: ImplicitReport | None = None


class AbstractHypergradient(eqx.Module):
    """An estimator of the derivative of an objective with respect to the prior."""

    steps: eqx.AbstractVar[int]
    wrt: eqx.AbstractVar[tuple[Part, ...]]

    def __check_init__(self):
        name = type(self).__name__
        check_count(name, "steps", self.steps)
        if not self.wrt or any(part not in get_args(Part) for part in self.wrt):
            raise ValueError(
                f"{name}.wrt: expected names among {get_args(Part)}, got {self.wrt!r}."
            )

    @property
    def calls(self) -> int:
        """How many calls of `estimate` make up one run; values and derivatives are then summed."""
        return 1

    def init(self, inner: AbstractInner, prior: Prior) -> EstimatorState:
        """The state before the first call.

        **Arguments:**

        - `inner`: the inner rule.
        - `prior`: what is learned across tasks.

        **Returns:**

        An empty state.
        """
        del inner
        return EstimatorState(RunSummary.empty(prior.start))

    @abc.abstractmethod
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
        """The value of the objective and its derivative.

        **Arguments:**

        - `objective`: what the run is worth.
        - `inner`, `prior`, `problem`: the rule and the task.
        - `state`: what the last call carried over.
        - `key`: randomness of the run.

        **Returns:**

        The value; the derivative, shaped like the prior with `None` wherever it is not asked
        for (see `wrt`); and the state for the next call.
        """

    def over_a_run(
        self,
        objective: AbstractObjective,
        inner: AbstractInner,
        prior: Prior,
        problem: Problem,
        *,
        key: PRNGKeyArray,
    ) -> tuple[Scalar, Prior, EstimatorState]:
        """A whole run from its beginning: the calls that make it up, several in one compiled loop.

        **Arguments:**

        - `objective`, `inner`, `prior`, `problem`, `key`: as for `estimate`.

        **Returns:**

        The sums of the values and of the derivatives, and the state after the last call, whose
        standard error is that call's alone.
        """

        def call(state: EstimatorState) -> tuple[Scalar, Prior, EstimatorState]:
            return self.estimate(objective, inner, prior, problem, state, key=key)

        def add(carry, _: None):
            totals, state = carry
            *parts, state = call(state)
            return (jax.tree.map(jnp.add, totals, tuple(parts)), state), None

        begin = self.init(inner, prior)
        if self.calls == 1:
            return call(begin)
        # Summed as they come: a derivative kept for every call would be as long as the run.
        *shapes, _ = jax.eval_shape(call, begin)
        nothing = jax.tree.map(lambda part: jnp.zeros(part.shape, part.dtype), tuple(shapes))
        (totals, end), _ = lax.scan(add, (nothing, begin), None, length=self.calls)
        return *totals, end


def split(prior: Prior, wrt: tuple[Part, ...]) -> tuple[Prior, Callable[[PyTree], Prior]]:
    """Separates what is differentiated from what is not.

    **Arguments:**

    - `prior`: what is learned across tasks.
    - `wrt`: the fields to differentiate.

    **Returns:**

    The prior's inexact arrays within those fields (`None` elsewhere), and the function that puts
    them back.

    **Raises:**

    - `ValueError`: if those fields hold no inexact array, such as a geometry without parameters.
    """

    def mark(name: str):
        return lambda leaf: name in wrt and eqx.is_inexact_array(leaf)

    parts = {"geometry": prior.geometry, "start": prior.start, "shared": prior.shared}
    chosen = Prior(**{name: jax.tree.map(mark(name), part) for name, part in parts.items()})
    learned, fixed = eqx.partition(prior, chosen)
    if not jax.tree.leaves(learned):
        numbers = [leaf for name in wrt for leaf in jax.tree.leaves(parts[name])]
        if any(isinstance(leaf, float) for leaf in numbers):
            raise ValueError(
                f"wrt: {' and '.join(wrt)} of the prior hold Python numbers, which are constants; "
                "make them arrays with jnp.asarray."
            )
        raise ValueError(
            f"wrt: nothing to differentiate in {wrt!r}; prior.geometry is a "
            f"{type(prior.geometry).__name__}, prior.shared is "
            f"{'None' if prior.shared is None else 'given'}. Choose a part with parameters."
        )
    return learned, lambda value: eqx.combine(value, fixed)
