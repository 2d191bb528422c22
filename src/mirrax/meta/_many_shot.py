r"""The many-shot learner, Algorithm 1 of S000: learn a geometry from long runs on many tasks.

A round starts every task from new random weights, runs the inner rule on all of them in one
compiled and vectorised program, and lets the outer rule improve the geometry. The randomness of
round `r` is `fold_in(key, r)`, so a run that is stopped and resumed is the same run to the bit.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from .._checks import check_count
from .._tree import Primal, Scalar, all_finite, choose, strong
from ..geometry import AbstractGeometry, MaxOfDiagonals
from ..hypergradient import ImplicitReport
from ..inner import AbstractInner, Prior, Problem, RunSummary, Step, fold
from ..objective import frozen
from ._failures import Attempts
from ._outer import AbstractOuter, Runs
from ._sharding import Grid, check_devices


class MetaState(eqx.Module):
    """Where meta-training stands; everything a resumed run needs.

    **Arguments:**

    - `geometry`: the geometry so far.
    - `outer`: the outer rule's state.
    - `round`: how many rounds have been made.
    - `key`: randomness of the whole run.
    """

    geometry: AbstractGeometry
    outer: PyTree[Array]
    round: Int[Array, ""]
    key: PRNGKeyArray


class RoundRecord(eqx.Module):
    """What one round showed.

    **Arguments:**

    - `value`: the objective at the geometry the round used.
    - `summary`: summaries of its runs, leading axes (tasks, visits).
    - `failed`: whether a run diverged, an implicit hypergradient was flagged, or what was learned
      is not finite, and the state was left as it was.
    - `frozen`: the share of runs whose loss hardly fell.
    - `activation`: how often each component was the largest, by inner step: shape
      (steps, components); `None` for geometries without components. S000 Fig. 5.
    - `report`: what implicit hypergradients rest on, leading axes (tasks, visits): its
      `require_sound` raises with the reason of a flag. `None` for other estimators.
    - `attempts`: which runs failed and how often a step was halved for it, where the outer rule
      goes on without; else `None`.
    """

    value: Scalar
    summary: RunSummary
    failed: Bool[Array, ""]
    frozen: Scalar
    activation: Float[Array, "steps components"] | None
    report: ImplicitReport | None = None
    attempts: Attempts | None = None


class ManyShot(eqx.Module):
    r"""Meta-learns a geometry over rounds of runs.

    **Arguments:**

    - `inner`: the rule that learns a task.
    - `outer`: the rule that improves the geometry.
    - `initialise`: draws initial weights, `key -> parameters`.
    - `visits`: how many initial weights each task gets a round.
    - `devices`: over how many devices tasks are spread; a divisor of their number.
    - `in_turn`: whether each device takes its runs one after another instead of side by side: for
      networks that keep it busy alone, or fill its memory.
    - `batch_devices`: over how many devices each the rows of every inner batch are spread, for
      networks that are too large for one; a divisor of that number of rows.

    **Raises:**

    - `ValueError`: if `visits`, `devices` or `batch_devices` is not positive, there are no so many
      devices, `in_turn` is asked for with more than one of both, or, in a round, `devices` does not
      divide the number of tasks.
    """

    inner: AbstractInner
    outer: AbstractOuter
    initialise: Callable[[PRNGKeyArray], Primal] = eqx.field(static=True)
    visits: int = eqx.field(static=True, default=1)
    devices: int = eqx.field(static=True, default=1)
    in_turn: bool = eqx.field(static=True, default=False)
    batch_devices: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        check_count("ManyShot", "visits", self.visits)
        check_devices("ManyShot", self.grid, in_turn=self.in_turn)

    @property
    def grid(self) -> Grid:
        """The devices, `devices` by `batch_devices`."""
        return Grid(self.devices, self.batch_devices)

    @property
    def steps(self) -> int:
        """The length of a run: the outer rule's."""
        return self.outer.length

    def init(self, geometry: AbstractGeometry, *, key: PRNGKeyArray) -> MetaState:
        """The state before the first round.

        **Arguments:**

        - `geometry`: the initial geometry.
        - `key`: randomness of the whole run.

        **Returns:**

        The state.
        """
        geometry = strong(geometry)
        return MetaState(geometry, self.outer.init(geometry), jnp.zeros((), int), key)

    @eqx.filter_jit
    def round(self, state: MetaState, problems: Problem) -> tuple[MetaState, RoundRecord]:
        """One round: new weights, runs on all tasks, a better geometry.

        A run whose loss is not finite in the first round, or under an outer rule that does not
        recover from it, leaves the state as it was: the record's summary names the run, and
        `RoundRecord.failed` is true; `Descent.on_failure` has other ways. Under a rule that
        recovers, later rounds go on. A geometry that is not finite is not taken either, nor what
        flagged implicit hypergradients lead to.

        **Arguments:**

        - `state`: where meta-training stands.
        - `problems`: the tasks, stacked along a leading axis.

        **Returns:**

        The next state, and what the round showed.
        """
        if not (stacked := jax.tree.leaves(problems)):
            raise ValueError("ManyShot.round: problems hold no arrays, so no axis of tasks.")
        count = len(stacked[0])
        check_devices("ManyShot", self.grid, count)
        start_key, run_key = jax.random.split(jax.random.fold_in(state.key, state.round))
        shape = (count, self.visits)
        starts = jax.vmap(jax.vmap(self.initialise))(jax.random.split(start_key, shape))
        keys = jax.random.split(run_key, shape)
        runs = Runs(problems, starts, keys, self.devices, self.in_turn, self.batch_devices)

        geometry, outer, outcome = self.outer.update(self.inner, state.geometry, state.outer, runs)
        if outcome.attempts is None:
            sound = jnp.all(outcome.summary.finite_steps >= self.steps)
            failed = ~sound & (jnp.asarray(not self.outer.recovers) | (state.round == 0))
        else:
            failed = outcome.attempts.failed
        failed |= ~all_finite(geometry)
        if outcome.report is not None and outcome.attempts is None:
            failed |= jnp.any(outcome.report.flagged)
        after = MetaState(geometry, outer, state.round + 1, state.key)
        state_after = choose(~failed, after, state)
        record = RoundRecord(
            outcome.value,
            outcome.summary,
            failed,
            jnp.mean(frozen(outcome.summary).astype(outcome.value.dtype)),
            self._activation(outcome.geometry, runs),
            outcome.report,
            outcome.attempts,
        )
        return self.grid.everywhere((state_after, record))

    def _activation(
        self, geometry: AbstractGeometry, runs: Runs
    ) -> Float[Array, "steps components"] | None:
        if not isinstance(geometry, MaxOfDiagonals):
            return None

        blank = jnp.zeros((self.steps, geometry.components))

        def active(
            problem: Problem, start: Primal, key: PRNGKeyArray, geometry: MaxOfDiagonals
        ) -> Array:
            def mark(table: Array, step: Step, count: Array) -> Array:
                return table.at[count, geometry.active(step.primal)].set(1)

            prior = Prior(geometry, start)
            return fold(self.inner, prior, problem, self.steps, mark, blank, key=key)[1]

        return jnp.mean(runs.map(active, geometry), axis=(0, 1))
