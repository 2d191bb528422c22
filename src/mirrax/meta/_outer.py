r"""How a geometry is improved after a round of runs, and the way of S000.

`Descent` is Algorithm 1 of S000: `M ← M − (ρ/n) Σ h` with any objective, hypergradient and optax
optimiser. `Alternating`, in its own file, needs no hypergradient.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._tree import Primal, Scalar
from ..geometry import AbstractGeometry, project
from ..hypergradient import AbstractHypergradient, ImplicitReport
from ..inner import AbstractInner, AbstractObjective, Prior, Problem, RunSummary
from ._failures import (
    Attempts,
    OnFailure,
    Trail,
    advanced,
    backtrack,
    check_on_failure,
    diverged,
    mean_of_sound,
    not_finite,
)
from ._reference import Reference
from ._sharding import Grid, each, with_spread_batches


class Runs(eqx.Module):
    """The runs of one round: every task from several initial weights.

    **Arguments:**

    - `problems`: leading axis of tasks.
    - `starts`: initial weights, leading axes (tasks, visits).
    - `keys`: randomness of each run, shape (tasks, visits).
    - `devices`: over how many devices tasks are spread; a divisor of their number.
    - `in_turn`: whether each device takes its runs one after another.
    - `batch_devices`: over how many devices each the rows of a batch are spread.
    """

    problems: Problem
    starts: Primal
    keys: PRNGKeyArray
    devices: int = eqx.field(static=True, default=1)
    in_turn: bool = eqx.field(static=True, default=False)
    batch_devices: int = eqx.field(static=True, default=1)

    def map(self, function: Any, *shared: Any) -> Any:
        """Applies `function(problem, start, key, *shared)` to every run, in one compiled program.

        **Arguments:**

        - `function`: from one run to a pytree of arrays.
        - `shared`: what runs have in common and earlier rounds have computed.

        **Returns:**

        The results, with leading axes (tasks, visits).
        """

        def over_visits(task: tuple[Problem, Primal, PRNGKeyArray], *shared: Any) -> Any:
            problem, *visits = task
            problem = with_spread_batches(problem, grid)
            one = lambda visit: function(problem, *visit, *shared)  # noqa: E731
            return each(one, tuple(visits), in_turn=self.in_turn)

        grid = Grid(self.devices, self.batch_devices)
        tasks = self.problems, self.starts, self.keys
        return each(over_visits, tasks, grid, self.in_turn, shared)


class Outcome(eqx.Module):
    """What one round of runs showed.

    **Arguments:**

    - `value`: the objective at the geometry the runs used, averaged.
    - `geometry`: that geometry.
    - `summary`: summaries of the runs, leading axes (tasks, visits).
    - `report`: what implicit hypergradients rest on, without the adjoints, leading axes (tasks,
      visits); else `None`.
    - `attempts`: how the round was come by, where the rule itself says what becomes of runs that
      failed, whose leading axes are (tasks, visits); else `None`.
    """

    value: Scalar
    geometry: AbstractGeometry
    summary: RunSummary
    report: ImplicitReport | None = None
    attempts: Attempts | None = None


class AbstractOuter(eqx.Module):
    """A rule that improves a geometry after a round of runs."""

    @property
    @abc.abstractmethod
    def length(self) -> int:
        """The length of a run, in inner steps."""

    @property
    def recovers(self) -> bool:
        """Whether `update` still improves the geometry when a run diverged under it."""
        return False

    @abc.abstractmethod
    def init(self, geometry: AbstractGeometry) -> PyTree[Array]:
        """The state before the first round.

        **Arguments:**

        - `geometry`: the initial geometry.

        **Returns:**

        A pytree of arrays.
        """

    @abc.abstractmethod
    def update(
        self, inner: AbstractInner, geometry: AbstractGeometry, state: PyTree[Array], runs: Runs
    ) -> tuple[AbstractGeometry, PyTree[Array], Outcome]:
        """Makes the runs of one round, and improves the geometry.

        **Arguments:**

        - `inner`: the rule that learns a task.
        - `geometry`: the geometry so far.
        - `state`: this rule's state.
        - `runs`: what to run.

        **Returns:**

        The new geometry and state, and what the runs showed.
        """


def mean_over_runs(tree: PyTree) -> PyTree:
    """The average over the leading axes of tasks and visits."""
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=(0, 1)), tree)


class Descent(AbstractOuter):
    r"""Algorithm 1 of S000: `M ← M − (ρ/n) Σ h`, with any hypergradient and optax optimiser.

    **Arguments:**

    - `objective`: what a run is worth.
    - `estimator`: how to differentiate it.
    - `optimiser`: the outer optimiser, over the geometry's meta-parameters.
    - `reference`: makes the solution of each run; `None` where the objective needs none.
    - `on_failure`: what becomes of a round some of whose runs diverge, or have a value or
      hypergradient that is not finite: `"stop"` leaves the geometry as it was, `"skip"` averages
      over the others, `"halve"` makes the round again behind half the outer step that led to it,
      and halves the outer rate.

    **Raises:**

    - `ValueError`: if `on_failure` is none of these, or the estimator does not differentiate with
      respect to the geometry.
    """

    objective: AbstractObjective
    estimator: AbstractHypergradient
    optimiser: optax.GradientTransformation = eqx.field(static=True)
    reference: Reference | None = None
    on_failure: OnFailure = eqx.field(static=True, default="stop")

    def __check_init__(self):
        check_on_failure("Descent", self.on_failure)
        if "geometry" not in self.estimator.wrt:
            raise ValueError(
                "Descent.estimator: expected 'geometry' in its wrt, got "
                f"{self.estimator.wrt!r}; nothing else is learned here."
            )

    @property
    def length(self) -> int:
        """The estimator's `steps`."""
        return self.estimator.steps

    def init(self, geometry: AbstractGeometry) -> PyTree[Array]:
        """The optimiser's state, and to halve the last step that step."""
        params = eqx.filter(geometry, eqx.is_inexact_array)
        state = self.optimiser.init(params)
        return Trail.begin(state, params) if self.on_failure == "halve" else state

    def update(
        self, inner: AbstractInner, geometry: AbstractGeometry, state: PyTree[Array], runs: Runs
    ) -> tuple[AbstractGeometry, PyTree[Array], Outcome]:
        """Averages hypergradients and makes one outer step."""

        def run(problem: Problem, start: Primal, key: PRNGKeyArray, geometry: AbstractGeometry):
            prior = Prior(geometry, start)
            if self.reference is not None:
                problem = self.reference.solve(inner, prior, problem, key=key)

            value, grad, after = self.estimator.over_a_run(
                self.objective, inner, prior, problem, key=key
            )
            report = after.implicit
            if report is not None:  # adjoints are as large as parameters, and of no use here
                report = eqx.tree_at(lambda r: r.adjoint, report, None)
            return value, grad.geometry, after.summary, report

        if self.on_failure != "stop":
            return self._going_on(run, geometry, state, runs)
        values, grads, summary, report = runs.map(run, geometry)
        params = eqx.filter(geometry, eqx.is_inexact_array)
        updates, state = self.optimiser.update(mean_over_runs(grads), state, params)
        outcome = Outcome(jnp.mean(values), geometry, summary, report)
        return project(eqx.apply_updates(geometry, updates)), state, outcome

    def _going_on(
        self, run: Any, geometry: AbstractGeometry, state: PyTree[Array], runs: Runs
    ) -> tuple[AbstractGeometry, PyTree[Array], Outcome]:
        """A round that may go on where runs fail."""
        params, rest = eqx.partition(geometry, eqx.is_inexact_array)

        def attempt(params: PyTree[Array]) -> tuple[Array, Any]:
            found = runs.map(run, eqx.combine(params, rest))
            values, grads, summary, report = found
            failed = not_finite(values, grads) | diverged(summary, self.length)
            return failed if report is None else failed | report.flagged, found

        if self.on_failure == "skip":
            failed, (values, grads, summary, report) = attempt(params)
            value, grad = mean_of_sound((values, grads), failed)
            updates, state = self.optimiser.update(grad, state, params)
            outcome = Outcome(value, geometry, summary, report, Attempts.once(failed))
            return project(eqx.apply_updates(geometry, updates)), state, outcome
        within = lambda some: eqx.filter(project(eqx.combine(some, rest)), eqx.is_inexact_array)  # noqa: E731
        params, found, attempts = backtrack(attempt, params, state, within)
        values, grads, summary, report = found
        grad = mean_over_runs(grads)
        state = advanced(self.optimiser, grad, params, state, attempts.halved)
        after = project(eqx.combine(eqx.apply_updates(params, state.step), rest))
        used, value = eqx.combine(params, rest), jnp.mean(values)
        return after, state, Outcome(value, used, summary, report, attempts)
