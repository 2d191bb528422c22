r"""Evolution strategies: derivatives from values alone, of a whole run or persistently by windows.

Antithetic pairs of runs differ by `±σ ε_i`, `ε_i ~ N(0, I)`, in the unconstrained numbers `φ` of
the prior, and share all other randomness. With `E` the worth of a run,
`ĝ = (1/n) Σ_i ε_i (E(φ + σε_i) − E(φ − σε_i))/(2σ)` is an unbiased estimate of the derivative of
the smoothed objective `E_ε[E(φ + σε)]`, and of `dE/dφ` itself where `E` is at most quadratic.

Persistent evolution strategies cut a run into windows. Every particle keeps its own inner state,
draws a new `ε` for each window and sums them, `ξ_i = Σ ε_i`; with `L` the costs of a window,
`ĝ = (1/n) Σ_i ξ_i (L_i⁺ − L_i⁻)/(2σ)`. That sees what early windows do to late ones, where the
derivative of a window alone (`Truncated`) does not, and its sum over the windows of a run has the
expectation of the whole run's derivative, smoothed over the perturbations of all windows.
Sources: Salimans et al. 2017; Vicol, Metz and Sohl-Dickstein 2021, eq. 10 and algorithm 2.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .._checks import check_count
from .._tree import Primal, Scalar
from ..inner import (
    AbstractInner,
    AbstractObjective,
    InnerState,
    Prior,
    Problem,
    RunSummary,
    evaluate,
)
from ..inner._randomness import Purpose, aside
from ._base import AbstractHypergradient, EstimatorState, Part, split
from ._windows import finished, run_window

_SIGNS = (1.0, -1.0)

Pairs = Float[Array, "pairs dim"]
"""One row a pair, in the flattening order of the differentiated numbers."""


class Evolution(AbstractHypergradient):
    """Estimates derivatives from pairs of perturbed runs, vectorised.

    Nothing is differentiated, so memory does not grow with the run, and objectives and losses need
    not be smooth. `state.error` is the standard error of each entry of the last estimate, over the
    perturbations, the run's own randomness given; NaN if there is one pair only. The value is the
    mean over all particles, of the smoothed objective therefore.

    With `window` a call runs one window and carries the particles on. Estimates of the windows of
    a run are summed for the derivative of the run; as they share perturbations their errors do
    not add in squares. The part `"start"` is perturbed at the start of a run only, and keeps that
    perturbation: later windows do not begin there.

    **Arguments:**

    - `steps`: the length `T` of a run.
    - `pairs`: how many antithetic pairs `n`.
    - `spread`: the standard deviation `σ` of the perturbation of each number.
    - `window`: the length of a window, a divisor of `T`; the whole run by default.
    - `wrt`: the fields of the prior to perturb.
    - `at_once`: how many runs are made side by side; more go one batch after another, so that
      memory is bounded.

    **Raises:**

    - `ValueError`: if `steps`, `pairs` or `at_once` is not positive, `spread` is not positive and
      finite, `window` does not divide `steps`, or `wrt` names no field of the prior.

    >>> from mirrax.geometry import Euclidean
    >>> from mirrax.inner import MirrorDescent, Prior, Problem, Repeat
    >>> from mirrax.objective import ValidationLoss
    >>> prior = Prior(Euclidean(), start=jnp.array(1.0))
    >>> problem = Problem(lambda x, shared, batch: x**2 / 2, Repeat(None), query=0)
    >>> inner = MirrorDescent(0.5)
    >>> estimator = Evolution(steps=2, pairs=1000, spread=0.1, wrt=("start",))
    >>> value, slope, state = estimator.estimate(
    ...     ValidationLoss(), inner, prior, problem, estimator.init(inner, prior),
    ...     key=jax.random.key(0))
    >>> bool(abs(slope.start - 1 / 16) < 3 * state.error.start)
    True
    """

    steps: int = eqx.field(static=True)
    pairs: int = eqx.field(static=True)
    spread: float = eqx.field(static=True)
    window: int | None = eqx.field(static=True, default=None)
    wrt: tuple[Part, ...] = eqx.field(static=True, default=("geometry",))
    at_once: int = eqx.field(static=True, default=1024)

    def __check_init__(self):
        for name in ("pairs", "at_once"):
            check_count("Evolution", name, getattr(self, name))
        if not 0 < self.spread < math.inf:
            raise ValueError(
                f"Evolution.spread: expected a positive finite number, got {self.spread!r}."
            )
        length = self.window
        if length is None:
            return
        check_count("Evolution", "window", length)
        if self.steps % length:
            raise ValueError(
                f"Evolution.window: expected a divisor of steps ({self.steps!r}) or None, got "
                f"{length!r}."
            )

    @property
    def calls(self) -> int:
        """One a window."""
        return 1 if self.window is None else self.steps // self.window

    def init(self, inner: AbstractInner, prior: Prior) -> EstimatorState:
        """A state without error; with windows, of particles that have finished a run."""
        flat, restore = ravel_pytree(split(prior, self.wrt)[0])
        error = restore(jnp.full_like(flat, jnp.nan))
        end = finished(inner, prior, self.steps)
        summary = RunSummary.empty(end.primal)
        if self.window is None:
            return EstimatorState(summary, error=error)
        particles = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (len(_SIGNS), self.pairs, *leaf.shape)), end
        )
        nothing = jnp.zeros((self.pairs, flat.size), flat.dtype)
        return EstimatorState(summary, particles, particles.primal, nothing, error)

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
        """The mean value of the particles, and the estimated derivative."""
        learned, complete = split(prior, self.wrt)
        flat, restore = ravel_pytree(learned)
        noise, summed = self._perturbations(learned, state, key)
        points = jnp.stack([flat + sign * self.spread * noise for sign in _SIGNS])

        def whole(point: Array) -> tuple[Scalar, RunSummary]:
            prior = complete(restore(point))
            return evaluate(objective, inner, prior, problem, self.steps, key=key)

        def window(point: Array, carried: InnerState, first: Primal):
            prior, particle = complete(restore(point)), EstimatorState(summary, carried, first)
            lengths = (self.steps // self.calls, self.steps)
            return run_window(objective, inner, prior, problem, particle, *lengths, key=key)

        summary = state.summary
        if self.window is None:
            costs, summaries = self._over_particles(whole, points)
            after = EstimatorState(_together(summaries))
        else:
            costs, ends = self._over_particles(window, points, state.inner, state.first)
            after = EstimatorState(_together(ends.summary), ends.inner, ends.first, summed)
        slope, error = self._averaged(summed, costs)
        after = dataclasses.replace(after, error=restore(error))
        return jnp.mean(costs), restore(slope), after

    def _perturbations(
        self, learned: Prior, state: EstimatorState, key: PRNGKeyArray
    ) -> tuple[Pairs, Pairs]:
        """What particles are perturbed by, and what their costs are multiplied with."""
        flat = ravel_pytree(learned)[0]
        shape = (self.pairs, flat.size)
        if self.window is None:
            noise = _noise(key, 0, shape, flat.dtype)
            return noise, noise
        if state.inner is None or state.perturbation is None:
            raise ValueError("Evolution.estimate: state carries no run; use Evolution.init.")
        count = jnp.ravel(state.inner.count)[0]  # the particles step together
        anew = count >= self.steps
        fresh = _noise(key, jnp.where(anew, 0, count // self.window), shape, flat.dtype)
        # What came of a start's perturbation is in the particles' states; it is not drawn again.
        kept = _of_the_start(learned) & ~anew
        noise = jnp.where(kept, state.perturbation, fresh)
        return noise, jnp.where(anew | kept, noise, state.perturbation + fresh)

    def _over_particles(self, function: Callable[..., Any], *particles: Any) -> Any:
        """A function of one particle, over the two signs and all pairs."""
        if len(_SIGNS) * self.pairs <= self.at_once:
            return jax.vmap(jax.vmap(function))(*particles)
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), particles)
        found = jax.lax.map(lambda args: function(*args), flat, batch_size=self.at_once)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, self.pairs, *leaf.shape[1:]), found)

    def _averaged(self, noise: Pairs, costs: Float[Array, "two pairs"]) -> tuple[Array, Array]:
        """The mean over pairs of `ξ_i (E_i⁺ − E_i⁻)/(2σ)`, and its standard error."""
        slopes = (costs[0] - costs[1]) / (2 * self.spread)
        terms = noise * slopes.astype(noise.dtype)[:, None]
        mean = jnp.mean(terms, axis=0)
        if self.pairs == 1:
            return mean, jnp.full_like(mean, jnp.nan)
        return mean, jnp.std(terms, axis=0, ddof=1) / math.sqrt(self.pairs)


def _noise(
    key: PRNGKeyArray, number: int | Int[Array, ""], shape: tuple[int, int], dtype: Any
) -> Pairs:
    """The standard normal perturbations of window `number`."""
    own = jax.random.fold_in(aside(key, Purpose.PERTURBATION), number)
    return jax.random.normal(own, shape, dtype)


def _of_the_start(learned: Prior) -> Bool[Array, " dim"]:
    """Which of the numbers are those of the start."""
    marks = Prior(
        jax.tree.map(jnp.zeros_like, learned.geometry),
        jax.tree.map(jnp.ones_like, learned.start),
        jax.tree.map(jnp.zeros_like, learned.shared),
    )
    return ravel_pytree(marks)[0] > 0


def _together(summaries: RunSummary) -> RunSummary:
    """Mean losses; steps are finite as long as they are for every particle."""
    return RunSummary(
        jnp.mean(summaries.first_loss),
        jnp.mean(summaries.last_loss),
        jnp.min(summaries.finite_steps),
    )
