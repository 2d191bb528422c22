r"""The few-shot learner: learn a prior from many small tasks, `min Σ_t ℓ(x_K(prior; S_t); Q_t)`.

A meta-step draws a few episodes on the device, estimates the hypergradient of each in one
vectorised program, and moves the prior along their mean. The randomness of step `s` is
`fold_in(key, s)`, so a run that is stopped and resumed is the same run to the bit.
Sources: MAML, Finn, Abbeel and Levine 2017; S004 eq. 5; spec A0.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optax.tree as vector
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from .._checks import check_count
from .._tree import Primal, Scalar, choose, strong, sums_type
from ..geometry import project
from ..hypergradient import AbstractHypergradient, split
from ..inner import AbstractInner, AbstractObjective, Prior, RunSummary, Step, drawn, fold
from ..models import Model, accuracy, cross_entropy
from ..tasks import Episodes
from ._episodic import Statistics, episode_problem, logits_of
from ._failures import (
    Attempts,
    OnFailure,
    Trail,
    advanced,
    backtrack,
    check_on_failure,
    mean_of_sound,
    not_finite,
)
from ._sharding import Grid, check_devices, each


class FewShotState(eqx.Module):
    """Where meta-training stands; everything a resumed run needs.

    **Arguments:**

    - `prior`: what has been learned.
    - `outer`: the outer optimiser's state.
    - `step`: how many meta-steps have been made.
    - `key`: randomness of the whole run.
    """

    prior: Prior
    outer: PyTree[Array]
    step: Int[Array, ""]
    key: PRNGKeyArray


class StepRecord(eqx.Module):
    """What one meta-step showed.

    **Arguments:**

    - `value`: the objective at the prior the step started from, averaged over tasks.
    - `summary`: summaries of the inner runs, averaged over tasks.
    - `gradient_norm`: norm of the mean hypergradient, before anything is done to it.
    - `failed`: whether it was not finite and the state was left as it was.
    - `attempts`: which tasks failed and how often a step was halved for it, where the learner goes
      on without; else `None`.
    """

    value: Scalar
    summary: RunSummary
    gradient_norm: Scalar
    failed: Bool[Array, ""]
    attempts: Attempts | None = None


class Scores(eqx.Module):
    """How a prior adapts to tasks, one row a task.

    **Arguments:**

    - `query_loss`, `query_accuracy`: on the query set after the steps of meta-training.
    - `support_loss`, `gradient_norm`: curves on the support set, after `k = 0, 1, …` steps.
    """

    query_loss: Float[Array, " tasks"]
    query_accuracy: Float[Array, " tasks"]
    support_loss: Float[Array, "tasks points"]
    gradient_norm: Float[Array, "tasks points"]


class FewShot(eqx.Module):
    r"""Meta-learns a prior over steps of a few tasks each.

    **Arguments:**

    - `model`: the network.
    - `inner`: the rule that learns a task.
    - `objective`: what a run is worth.
    - `estimator`: how to differentiate it; its `steps` are those of a run.
    - `optimiser`: the outer optimiser, over the parts of the prior that `estimator.wrt` names.
    - `tasks`: tasks a meta-step.
    - `statistics`: whose batch statistics normalise query images.
    - `devices`: over how many devices the tasks of a step are spread; a divisor of `tasks`.
    - `on_failure`: what becomes of a step some of whose tasks have a value or hypergradient that is
      not finite: `"stop"` leaves the state as it was, `"skip"` averages over the others, `"halve"`
      makes it again behind half the step that led to it, and halves the outer rate.

    **Raises:**

    - `ValueError`: if `tasks` is not positive, `devices` does not divide it or are not there, or
      `on_failure` is none of these.
    """

    model: Model = eqx.field(static=True)
    inner: AbstractInner
    objective: AbstractObjective
    estimator: AbstractHypergradient
    optimiser: optax.GradientTransformation = eqx.field(static=True)
    tasks: int = eqx.field(static=True, default=4)
    statistics: Statistics = eqx.field(static=True, default="query")
    devices: int = eqx.field(static=True, default=1)
    on_failure: OnFailure = eqx.field(static=True, default="stop")

    def __check_init__(self):
        check_count("FewShot", "tasks", self.tasks)
        check_devices("FewShot", self.grid, self.tasks)
        check_on_failure("FewShot", self.on_failure)

    @property
    def grid(self) -> Grid:
        """The devices."""
        return Grid(self.devices)

    @property
    def steps(self) -> int:
        """The length of a run: the estimator's."""
        return self.estimator.steps

    def init(self, prior: Prior, *, key: PRNGKeyArray) -> FewShotState:
        """The state before the first meta-step.

        **Arguments:**

        - `prior`: the initial prior.
        - `key`: randomness of the whole run.
        """
        prior = strong(prior)
        learned, _ = split(prior, self.estimator.wrt)
        outer = self.optimiser.init(learned)  # type: ignore[arg-type]
        if self.on_failure == "halve":
            outer = Trail.begin(outer, learned)
        return FewShotState(prior, outer, jnp.zeros((), int), key)

    @eqx.filter_jit
    def run(
        self, state: FewShotState, episodes: Episodes, length: int
    ) -> tuple[FewShotState, StepRecord]:
        """Makes meta-steps in one compiled loop.

        A step whose value or hypergradient is not finite leaves the state as it was, and so do
        those behind it: `state.step` then says how many were made.

        **Arguments:**

        - `state`: where meta-training stands.
        - `episodes`: where tasks are drawn from.
        - `length`: how many steps; each length is compiled once.

        **Returns:**

        The state, and records with a leading axis of steps.
        """
        dynamic, static = eqx.partition(state, eqx.is_array)

        def body(carry: PyTree, _: None) -> tuple[PyTree, StepRecord]:
            after, record = self._step(eqx.combine(carry, static), episodes)
            return eqx.filter(after, eqx.is_array), record

        end, records = lax.scan(body, dynamic, None, length=length)
        return self.grid.everywhere((eqx.combine(end, static), records))

    def _step(self, state: FewShotState, episodes: Episodes) -> tuple[FewShotState, StepRecord]:
        prior = state.prior
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), self.tasks)

        def one(
            key: PRNGKeyArray, prior: Prior, episodes: Episodes
        ) -> tuple[Scalar, Prior, RunSummary]:
            draw_key, run_key = jax.random.split(key)
            episode = episodes.draw(key=draw_key)
            problem = episode_problem(episode, self.model, self.statistics)
            value, grad, after = self.estimator.over_a_run(
                self.objective, self.inner, prior, problem, key=run_key
            )
            return value, grad, after.summary

        runs = lambda prior: each(one, keys, self.grid, shared=(prior, episodes))  # noqa: E731
        if self.on_failure != "stop":
            return self._going_on(state, runs)
        value, grad, summary = _mean(runs(prior))
        learned, complete = split(prior, self.estimator.wrt)
        updates, outer = self.optimiser.update(grad, state.outer, learned)  # type: ignore[arg-type]
        norm = vector.norm(grad)
        sound = jnp.isfinite(value) & jnp.isfinite(norm)
        moved = project(complete(eqx.apply_updates(learned, updates)))
        after = FewShotState(moved, outer, state.step + 1, state.key)
        return choose(sound, after, state), StepRecord(value, summary, norm, ~sound)

    def _going_on(
        self, state: FewShotState, tasks: Callable[[Prior], tuple[Array, Prior, RunSummary]]
    ) -> tuple[FewShotState, StepRecord]:
        """A meta-step that may go on where tasks fail."""
        learned, complete = split(state.prior, self.estimator.wrt)
        outer: PyTree = state.outer

        def attempt(learned: PyTree) -> tuple[Array, Any]:
            found = tasks(complete(learned))
            values, grads, _ = found
            return not_finite(values, grads), found

        if self.on_failure == "skip":
            failed, found = attempt(learned)
            attempts = Attempts.once(failed)
            value, grad, summary = mean_of_sound(found, failed)
            updates, outer = self.optimiser.update(grad, outer, learned)  # type: ignore[arg-type]
        else:
            within = lambda some: split(project(complete(some)), self.estimator.wrt)[0]  # noqa: E731
            learned, found, attempts = backtrack(attempt, learned, outer, within)
            value, grad, summary = _mean(found)
            outer = advanced(self.optimiser, grad, learned, outer, attempts.halved)
            updates = outer.step
        norm = vector.norm(grad)
        failed = attempts.failed | ~(jnp.isfinite(value) & jnp.isfinite(norm))
        moved = project(complete(eqx.apply_updates(learned, updates)))
        after = FewShotState(moved, outer, state.step + 1, state.key)
        record = StepRecord(value, summary, norm, failed, attempts)
        return choose(~failed, after, state), record

    @eqx.filter_jit
    def evaluate(
        self,
        prior: Prior,
        episodes: Episodes,
        tasks: Int[Array, " tasks"],
        *,
        further: int | None = 0,
        key: PRNGKeyArray,
    ) -> Scores:
        """Learns tasks from a prior and judges the result.

        Task `i` depends on `i` and the key alone; sets of tasks of one size are one program.

        **Arguments:**

        - `prior`: what has been learned.
        - `episodes`: where tasks are drawn from.
        - `tasks`: their numbers.
        - `further`: steps beyond those of meta-training, for the curves, which go on to the loss
            and gradient after the last step; `None` takes neither a further step nor these.
        - `key`: which tasks the numbers stand for.

        **Returns:**

        One score a task; query accuracy 0, and losses that are not finite, where a run diverged.

        **Raises:**

        - `ValueError`: if `further` is negative.
        """
        if further is not None and further < 0:
            raise ValueError(f"FewShot.evaluate.further: expected at least 0, got {further!r}.")
        # Some again, where the devices do not divide them.
        count, some = len(tasks), -(-len(tasks) // self.devices) * self.devices
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.resize(tasks, (some,)))
        judge = functools.partial(self._judge, further)
        scores = each(judge, keys, self.grid, shared=(prior, episodes))
        return self.grid.everywhere(jax.tree.map(lambda leaf: leaf[:count], scores))

    def _judge(
        self, further: int | None, key: PRNGKeyArray, prior: Prior, episodes: Episodes
    ) -> Scores:
        draw_key, run_key = jax.random.split(key)
        problem = episode_problem(episodes.draw(key=draw_key), self.model, self.statistics)
        prior = drawn(prior, run_key)
        begin = self.inner.init(prior)
        dtype = sums_type(begin.primal)
        # One loop for all steps, so that one is compiled; the point after `steps` is kept aside.
        length = self.steps + (0 if further is None else further + 1)
        blank = (jnp.zeros(length, dtype), jnp.zeros(length, dtype), begin.primal)

        def note(seen: tuple[Array, Array, Primal], step: Step, count: Array):
            losses, norms, kept = seen
            norms = norms.at[count].set(vector.norm(step.gradient).astype(dtype))
            if further is not None:
                kept = choose(count == self.steps, step.primal, kept)
            return losses.at[count].set(step.loss.astype(dtype)), norms, kept

        last, (losses, norms, kept) = fold(
            self.inner, prior, problem, length, note, blank, key=run_key, state=begin
        )
        end = last.primal if further is None else kept
        logits = logits_of(self.model, end, prior.shared, problem.query)
        labels = problem.query[1]
        return Scores(cross_entropy(logits, labels), accuracy(logits, labels), losses, norms)


def _mean(tree: PyTree) -> PyTree:
    """The average over a leading axis, of whole numbers too."""

    def mean(leaf: Array) -> Array:
        number = leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf.astype(float)
        return jnp.mean(number, axis=0)

    return jax.tree.map(mean, tree)
