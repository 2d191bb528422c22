r"""Truncated reverse mode over windows that are carried along one long run.

A run of `T` steps is cut into windows of `K`. Each call differentiates one window, holding the
point at its start constant, and hands the end to the next call; the terminal cost falls due in
the last window. Memory and time a call are those of `K` steps. The estimate is biased towards
short-term gains; with `K = T` it is exact. The start is differentiated through the first window
only: by it a terminal cost alone has no derivative unless `K = T`. With `K = 1` and a terminal cost
alone it is one-step differentiation: the last step is differentiated, where it began is held.
Source: Wu et al. 2018 on the bias; Metz et al. 2022; Bolte, Pauwels and Vaiter 2023 on one step.
"""

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from .._checks import check_count
from .._tree import Scalar
from ..inner import AbstractInner, AbstractObjective, Prior, Problem, RunSummary
from ._base import AbstractHypergradient, EstimatorState, Part, split
from ._mixed import Mixed
from ._windows import finished, run_window


class Truncated(AbstractHypergradient):
    """Differentiates one window of a run a call, and carries the run on.

    **Arguments:**

    - `steps`: the length `T` of a run, after which the next one starts at `prior.start`.
    - `window`: the length `K` of a window, a divisor of `T`.
    - `wrt`: the fields of the prior to differentiate.
    - `mixed`: compute curvature products forward over reverse, as in `Reverse`.

    **Raises:**

    - `ValueError`: if `window` does not divide `steps`, `steps` is not positive or `wrt` names no
      field of the prior.

    >>> Truncated(steps=100, window=20).window
    20
    """

    steps: int = eqx.field(static=True)
    window: int = eqx.field(static=True)
    wrt: tuple[Part, ...] = eqx.field(static=True, default=("geometry",))
    mixed: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_count("Truncated", "window", self.window)
        if self.steps % self.window:
            raise ValueError(
                "Truncated.window: expected a divisor of steps "
                f"({self.steps!r}), got {self.window!r}."
            )

    @property
    def calls(self) -> int:
        """One a window."""
        return self.steps // self.window

    def init(self, inner: AbstractInner, prior: Prior) -> EstimatorState:
        """A finished run, so that the first call begins a new one."""
        end = finished(inner, prior, self.steps)
        return EstimatorState(RunSummary.empty(end.primal), end, end.primal)

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
        """The value of one window and its truncated derivative."""
        if state.inner is None or state.first is None:
            raise ValueError("Truncated.estimate: state carries no run; use Truncated.init.")
        learned, complete = split(prior, self.wrt)
        rule = Mixed(inner) if self.mixed else inner

        def worth(part: Prior) -> tuple[Scalar, EstimatorState]:
            whole, lengths = complete(part), (self.window, self.steps)
            return run_window(objective, rule, whole, problem, state, *lengths, key=key)

        (value, after), grad = jax.value_and_grad(worth, has_aux=True)(learned)
        return value, grad, jax.lax.stop_gradient(after)
