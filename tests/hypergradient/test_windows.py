"""Runs cut into windows are the same runs, also where something is drawn once a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import learned

from mirrax.geometry import Diagonal, RandomMask
from mirrax.hypergradient import Evolution, Reverse, Truncated
from mirrax.inner import (
    AbstractObjective,
    Minibatch,
    MirrorDescent,
    PreconditionedDescent,
    Prior,
    Problem,
    Stream,
)

KEY = jax.random.key(2)
STEPS, WINDOW = 6, 2
WRT = ("geometry", "start")


class EveryLoss(AbstractObjective):
    """The losses of all steps, and the size of the end."""

    def stage(self, prior, problem, step):
        return step.loss

    def terminal(self, prior, problem, first, last):
        return jnp.sum(last["layer"]["weight"] ** 2)


def loss(x, shared, rows):
    return jnp.mean((rows @ jnp.tanh(x["layer"]["weight"])) ** 2)


def run(estimator):
    """Value and flat derivative of a run with a random mask."""
    rng = np.random.default_rng(0)
    start = {"layer": {"weight": jnp.asarray(rng.normal(size=(3, 8)))}}
    prior = Prior(RandomMask.like(start), start)
    problem = Problem(loss, Minibatch(jnp.asarray(rng.normal(size=(12, 3))), 4))

    @jax.jit
    def over_a_run():
        return estimator.over_a_run(
            EveryLoss(), PreconditionedDescent(0.2), prior, problem, key=KEY
        )

    value, slope, state = over_a_run()
    return np.asarray(value), np.asarray(learned(slope, WRT)), state.summary


@pytest.fixture(scope="module")
def whole():
    return run(Reverse(STEPS, wrt=WRT))


@pytest.mark.parametrize("window", [WINDOW, STEPS])
def test_windows_of_a_run_with_a_random_mask_are_that_run(whole, window):
    value, slope, summary = run(Truncated(STEPS, window, wrt=WRT))
    np.testing.assert_allclose(value, whole[0], rtol=1e-13)
    assert summary.finite_steps == STEPS
    np.testing.assert_allclose(summary.last_loss, whole[2].last_loss, rtol=1e-13)
    if window == STEPS:
        np.testing.assert_allclose(slope, whole[1], rtol=1e-12, atol=1e-14)
    else:
        assert np.abs(slope - whole[1]).max() > 1e-3


def test_evolution_over_one_window_of_a_random_mask_is_evolution_over_the_run():
    at_once, windowed = (
        run(Evolution(STEPS, 32, 0.05, window, wrt=WRT)) for window in (None, STEPS)
    )
    assert np.isfinite(at_once[1]).all() and np.abs(at_once[1]).max() > 0
    for one, other in zip(at_once[:2], windowed[:2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_evolution_by_windows_draws_one_mask_a_run():
    """Without a spread to speak of, the particles are the run itself."""
    value, _, _ = run(Evolution(STEPS, 2, 1e-7, WINDOW, wrt=WRT))
    expected, _, _ = run(Reverse(STEPS, wrt=WRT))
    np.testing.assert_allclose(value, expected, rtol=1e-10)


class Moved(AbstractObjective):
    """How far a run came; no derivative is finite of one that did not move."""

    def stage(self, prior, problem, step):
        return jnp.zeros(())

    def terminal(self, prior, problem, first, last):
        return jnp.sqrt(jnp.sum((last - first) ** 2))


def test_a_terminal_cost_is_not_differentiated_where_it_is_not_due():
    """After the first of two windows the run has not moved: its targets are where it began."""
    start, target = jnp.array([1.0, -2.0]), jnp.array([3.0, 5.0])
    prior, rate = Prior(Diagonal.like(start), start), 0.1
    problem = Problem(
        lambda x, shared, goal: jnp.sum((x - goal) ** 2) / 2,
        Stream(jnp.stack([start, start, target, target])),
    )
    value, slope, _ = Truncated(4, 2).over_a_run(
        Moved(), MirrorDescent(rate), prior, problem, key=KEY
    )
    # Two steps at x ← x − ρ(x − b)/m² leave (1 − ρ/m²)² of the way, m² = e^{2r}.
    way = np.asarray(target - start)
    np.testing.assert_allclose(value, (1 - 0.9**2) * np.linalg.norm(way), rtol=1e-14)
    share = -4 * 0.9 * rate  # the derivative of 1 − (1 − ρ e^{−2r})²
    expected = share * way**2 / np.linalg.norm(way)
    np.testing.assert_allclose(slope.geometry.log_diagonal, expected, rtol=1e-14)
