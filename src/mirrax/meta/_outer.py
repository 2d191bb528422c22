r"""How a geometry is improved after a round of runs: closed form, or descent on a hypergradient.

`Alternating` is the alternation of spec B4 for diagonal geometries: run the tasks with `M`,
average the moments `D` and `G`, and move towards `m_i² = η √(G_i/D_i)`. `Descent` is Algorithm 1
of S000: `M ← M − (ρ/n) Σ h` with any objective, hypergradient and optax optimiser.
"""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optax.tree as vector
from jax import lax
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._tree import Primal, Scalar
from ..geometry import AbstractGeometry, Diagonal, Euclidean
from ..hypergradient import AbstractHypergradient, EstimatorState, Truncated
from ..inner import (
    AbstractInner,
    AbstractObjective,
    MirrorDescent,
    Prior,
    Problem,
    RunSummary,
    with_reference,
)
from ..objective import Comparator, Moments, path_moments, tight_diagonal


class Runs(eqx.Module):
    """The runs of one round: every task from several initial weights.

    **Arguments:**

    - `problems`: leading axis of tasks.
    - `starts`: initial weights, leading axes (tasks, visits).
    - `keys`: randomness of each run, shape (tasks, visits).
    """

    problems: Problem
    starts: Primal
    keys: PRNGKeyArray

    def map(self, function: Any) -> Any:
        """Applies `function(problem, start, key)` to every run, in one vectorised program.

        **Arguments:**

        - `function`: from one run to a pytree of arrays.

        **Returns:**

        The results, with leading axes (tasks, visits).
        """
        over_visits = jax.vmap(function, in_axes=(None, 0, 0))
        return jax.vmap(over_visits)(self.problems, self.starts, self.keys)


class Outcome(eqx.Module):
    """What one round of runs showed.

    **Arguments:**

    - `value`: the objective at the geometry the runs used, averaged.
    - `summary`: summaries of the runs, leading axes (tasks, visits).
    """

    value: Scalar
    summary: RunSummary


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


def _mean(tree: PyTree) -> PyTree:
    """The average over the leading axes of tasks and visits."""
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=(0, 1)), tree)


_LARGEST_CHANGE = math.log(4) / 2
"""Of `log m` in one round: a factor 4 of a rate."""

_SETTLING = 20
"""Rounds after which changes are half as large: the alternation settles instead of circling."""


_APART = 2**32 - 1
"""A number no step of a run has: runs draw step `t` from `fold_in(key, t)`."""


class Reference(eqx.Module):
    """Where the comparator `θ*` of a run comes from: a longer Euclidean run from the same weights.

    With the last point of the run itself as comparator, parameters that moved little get lower
    rates and move less (error E5, parameter by parameter). A reference does not depend on the
    geometry, so nothing can collapse.

    **Arguments:**

    - `rate`: the step size of plain gradient descent.
    - `steps`: its length, usually a few times that of a run.

    **Raises:**

    - `ValueError`: if `rate` or `steps` is not positive.
    """

    rate: float = eqx.field(static=True)
    steps: int = eqx.field(static=True)

    def __check_init__(self):
        for name, value in (("rate", self.rate), ("steps", self.steps)):
            if not 0 < value < float("inf"):
                raise ValueError(f"Reference.{name}: expected a positive number, got {value!r}.")

    def solve(self, problem: Problem, start: Primal, *, key: PRNGKeyArray) -> Problem:
        """Fills `problem.solution`.

        **Arguments:**

        - `problem`: the task.
        - `start`: initial weights.
        - `key`: randomness of the run that the reference is for; the reference's is derived.
        """
        prior = Prior(Euclidean(), start)
        return with_reference(
            problem,
            MirrorDescent(self.rate),
            prior,
            self.steps,
            key=jax.random.fold_in(key, _APART),
        )


class Alternating(AbstractOuter):
    r"""Alternates runs with the closed form `m_i² = η √(G_i/D_i)` of the tight bound.

    Moments are averaged over tasks and visits, and over the axes of `pool`: hidden units are
    exchangeable, so what one of them shows holds for all. The logarithms of `m` are averaged over
    rounds, and no rate changes more than fourfold a round. If a run ends above where it began, its
    moments say nothing about convergence; rates are lowered instead, each by its share in the
    bound's gradient term `η G_i/m_i²`, the largest by half: what blew up is what is cut.

    **Arguments:**

    - `rate`: the step size `η` of the inner rule.
    - `steps`: the length of a run.
    - `comparator`: `"solution"` (default), which is the reference's where there is one, or
      `"last"`, the end of the run itself.
    - `reference`: makes the solution of each run; `None` where problems have one.
    - `decay`: the weight of the geometry so far in the average over rounds, in [0, 1).
    - `damping`: how strongly parameters that showed little stay at the rate `η`, see
      `tight_diagonal`.
    - `pool`: for each parameter array, in flattening order, the axes whose entries share one rate;
      `None` for one rate a parameter.

    **Raises:**

    - `ValueError`: if a number is out of range.
    """

    rate: float = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    comparator: Comparator = eqx.field(static=True, default="solution")
    reference: Reference | None = None
    decay: float = eqx.field(static=True, default=0.5)
    damping: float = eqx.field(static=True, default=0.1)
    pool: tuple[tuple[int, ...], ...] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if not self.rate > 0:
            raise ValueError(f"Alternating.rate: expected a positive number, got {self.rate!r}.")
        if self.steps < 1:
            raise ValueError(f"Alternating.steps: expected at least 1, got {self.steps!r}.")
        if not 0 <= self.decay < 1:
            raise ValueError(f"Alternating.decay: expected a weight in [0, 1), got {self.decay!r}.")

    @property
    def length(self) -> int:
        """`steps`."""
        return self.steps

    @property
    def recovers(self) -> bool:
        """True: after a round that diverged the rates responsible are lowered."""
        return True

    def init(self, geometry: AbstractGeometry) -> PyTree[Array]:
        """The number of rounds; the geometry itself is the average over them."""
        if not isinstance(geometry, Diagonal):
            raise ValueError(
                "Alternating: the closed form exists for Diagonal geometries, got "
                f"{type(geometry).__name__}; use Descent."
            )
        leaves = len(jax.tree.leaves(geometry.log_diagonal))
        if self.pool is not None and len(self.pool) != leaves:
            raise ValueError(
                f"Alternating.pool: expected axes for {leaves} parameter arrays, got {self.pool!r}."
            )
        return jnp.zeros((), int)

    def update(
        self, inner: AbstractInner, geometry: AbstractGeometry, state: PyTree[Array], runs: Runs
    ) -> tuple[AbstractGeometry, PyTree[Array], Outcome]:
        """Gathers moments and moves towards the geometry they call for."""
        assert isinstance(geometry, Diagonal)

        def run(problem: Problem, start: Primal, key: PRNGKeyArray):
            prior = Prior(geometry, start)
            if self.reference is not None:
                problem = self.reference.solve(problem, start, key=key)
            return path_moments(
                inner, prior, problem, self.steps, comparator=self.comparator, key=key
            )

        moments, summary = runs.map(run)
        moments = _mean(moments)
        value = self._bound(geometry, moments)
        pooled = Moments(self._pooled(moments.displacement), self._pooled(moments.gradient))
        target = tight_diagonal(pooled, self.rate, damping=self.damping)
        descended = jnp.all(summary.last_loss <= summary.first_loss)

        blame = self._blame(geometry, pooled)
        gain = 1 / (1 + state / _SETTLING)

        def move(now: Array, then: Array, share: Array) -> Array:
            change = jnp.clip((1 - self.decay) * (then - now), -_LARGEST_CHANGE, _LARGEST_CHANGE)
            change = jnp.where(descended, change, share * _LARGEST_CHANGE / 2)
            return now + gain.astype(now.dtype) * change

        moved = jax.tree.map(move, geometry.log_diagonal, target.log_diagonal, blame)
        return Diagonal(moved), state + 1, Outcome(value, summary)

    def _blame(self, geometry: Diagonal, moments: Moments) -> PyTree[Array]:
        """Each parameter's share in the gradient term, relative to the largest; ones if unknown."""
        terms = jax.tree.map(jnp.divide, moments.gradient, geometry.curvature)
        largest = jnp.max(jnp.stack([jnp.max(term) for term in jax.tree.leaves(terms)]))
        known = jnp.isfinite(largest) & (largest > 0)
        return jax.tree.map(lambda term: jnp.where(known, term / largest, 1), terms)

    def _pooled(self, moment: PyTree[Array]) -> PyTree[Array]:
        if self.pool is None:
            return moment
        leaves, structure = jax.tree.flatten(moment)
        means = [
            jnp.broadcast_to(jnp.mean(leaf, axis=axes, keepdims=True), leaf.shape)
            for leaf, axes in zip(leaves, self.pool, strict=True)
        ]
        return jax.tree.unflatten(structure, means)

    def _bound(self, geometry: Diagonal, moments: Moments) -> Scalar:
        curvature = geometry.curvature
        first = jax.tree.map(jnp.multiply, curvature, moments.displacement)
        second = jax.tree.map(jnp.divide, moments.gradient, curvature)
        total = vector.sum(first) / self.rate + self.rate * vector.sum(second)
        return jnp.asarray(total) / 2


class Descent(AbstractOuter):
    r"""Algorithm 1 of S000: `M ← M − (ρ/n) Σ h`, with any hypergradient and optax optimiser.

    **Arguments:**

    - `objective`: what a run is worth.
    - `estimator`: how to differentiate it.
    - `optimiser`: the outer optimiser, over the geometry's meta-parameters.
    - `reference`: makes the solution of each run; `None` where the objective needs none.
    """

    objective: AbstractObjective
    estimator: AbstractHypergradient
    optimiser: optax.GradientTransformation = eqx.field(static=True)
    reference: Reference | None = None

    @property
    def length(self) -> int:
        """The estimator's `steps`."""
        return self.estimator.steps

    @property
    def _windows(self) -> int:
        """How many calls of the estimator a run takes."""
        if isinstance(self.estimator, Truncated):
            return self.estimator.steps // self.estimator.window
        return 1

    def init(self, geometry: AbstractGeometry) -> PyTree[Array]:
        """The optimiser's state."""
        return self.optimiser.init(eqx.filter(geometry, eqx.is_inexact_array))

    def update(
        self, inner: AbstractInner, geometry: AbstractGeometry, state: PyTree[Array], runs: Runs
    ) -> tuple[AbstractGeometry, PyTree[Array], Outcome]:
        """Averages hypergradients and makes one outer step."""

        def run(problem: Problem, start: Primal, key: PRNGKeyArray):
            prior = Prior(geometry, start)
            if self.reference is not None:
                problem = self.reference.solve(problem, start, key=key)

            def call(state: EstimatorState, _: None = None):
                value, grad, state = self.estimator.estimate(
                    self.objective, inner, prior, problem, state, key=key
                )
                return state, (value, grad.geometry)

            begin, windows = self.estimator.init(inner, prior), self._windows
            if windows == 1:
                after, (value, grad) = call(begin)
                return value, grad, after.summary
            after, parts = lax.scan(call, begin, None, length=windows)
            value, grad = jax.tree.map(lambda part: jnp.sum(part, axis=0), parts)
            return value, grad, after.summary

        values, grads, summary = runs.map(run)
        params = eqx.filter(geometry, eqx.is_inexact_array)
        updates, state = self.optimiser.update(_mean(grads), state, params)
        return eqx.apply_updates(geometry, updates), state, Outcome(jnp.mean(values), summary)
