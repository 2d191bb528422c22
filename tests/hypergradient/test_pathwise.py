"""Derivatives along the path, against sums over its points written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import Diagonal
from mirrax.hypergradient import Pathwise
from mirrax.inner import DualDescent, MirrorDescent, Prior, Problem, Repeat, Stream
from mirrax.objective import ValidationLoss

RATE, STEPS, KEY = 0.2, 4, jax.random.key(0)
LOG_M = np.array([0.3, -0.4])
START = np.array([1.0, -2.0])
HESSIAN = np.array([[2.0, 0.3], [0.3, 0.5]])
TARGET = np.array([0.5, -1.0])
ROUNDING = 3e-15
"""A dozen roundings of 1.1e-16 and their growth; the most that was found is 1e-15."""

DIFFERENCES = 2e-9
"""Of central differences: rounding over their step, 1e-11, in slopes of 0.05 up; found 7e-10."""


def loss(x, shared, data):
    del shared, data
    return (x - TARGET) @ HESSIAN @ (x - TARGET) / 2


def by_hand(log_m, point):
    return point - RATE * HESSIAN @ (point - TARGET) / np.exp(2 * log_m)


def path():
    points = [START]
    for _ in range(STEPS):
        points.append(by_hand(LOG_M, points[-1]))
    return np.array(points)


def worth(log_m, points, ahead):
    """The mean loss `ahead` steps behind every point."""
    for _ in range(ahead):
        points = np.array([by_hand(log_m, point) for point in points])
    return np.mean([loss(point, None, None) for point in points])


def difference(function, log_m, step=1e-5):
    slopes = [
        (function(log_m + step * unit) - function(log_m - step * unit)) / (2 * step)
        for unit in np.eye(2)
    ]
    return np.array(slopes)


RULES = {
    "primal": (MirrorDescent, START, lambda log_m, duals: duals / np.exp(2 * LOG_M)),
    "dual": (
        DualDescent,
        np.exp(2 * LOG_M) * START,
        lambda log_m, duals: duals / np.exp(2 * log_m),
    ),
}
"""A rule, where the same run starts, and the points whose starts are constant under another map."""


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_value_and_derivatives(rule, ahead):
    """A rule that starts from duals makes the same run; its duals, not its points, are held."""
    inner, start, points = RULES[rule]
    prior = Prior(Diagonal(jnp.asarray(LOG_M)), jnp.asarray(start))
    problem = Problem(loss, Repeat(None), query=())
    estimator = Pathwise(STEPS, wrt=("geometry", "start"), ahead=ahead)
    value, grad, state = estimator.over_a_run(
        ValidationLoss(), inner(RATE), prior, problem, key=KEY
    )

    duals = np.exp(2 * LOG_M) * path()
    np.testing.assert_allclose(value, worth(LOG_M, path(), ahead), rtol=ROUNDING)
    slope = difference(lambda log_m: worth(log_m, points(log_m, duals), ahead), LOG_M)
    np.testing.assert_allclose(grad.geometry.log_diagonal, slope, rtol=DIFFERENCES)
    np.testing.assert_allclose(state.summary.first_loss, loss(START, None, None), rtol=ROUNDING)

    moves = -np.diff(path() if rule == "primal" else duals, axis=0)
    leap = np.sum(moves / np.linalg.norm(moves, axis=1, keepdims=True), axis=0)
    np.testing.assert_allclose(grad.start, leap, rtol=ROUNDING)


def test_every_point_has_the_rate_and_the_batch_of_its_own_step():
    rates, moved = np.linspace(0.1, 0.5, STEPS + 1), np.arange(STEPS + 1.0)

    def towards(x, shared, target):
        del shared
        return jnp.sum((x - target) ** 2) / 2

    points = [START]
    for rate, target in zip(rates[:-1], moved, strict=False):
        points.append(points[-1] - rate * (points[-1] - target))
    ends = [x - rate * (x - t) for x, rate, t in zip(points, rates, moved, strict=True)]
    expected = np.mean([np.sum((end - 1.0) ** 2) / 2 for end in ends])
    prior = Prior(Diagonal(jnp.zeros(2)), jnp.asarray(START))
    problem = Problem(towards, Stream(jnp.asarray(moved)), query=jnp.asarray(1.0))
    inner = MirrorDescent(lambda count: jnp.asarray(rates)[count])
    value, *_ = Pathwise(STEPS, wrt=("geometry",)).over_a_run(
        ValidationLoss(), inner, prior, problem, key=KEY
    )
    np.testing.assert_allclose(value, expected, rtol=5e-16)  # two roundings; found 0


def test_what_is_held_of_points_alone_is_worth_the_same_under_every_geometry():
    prior = Prior(Diagonal(jnp.asarray(LOG_M)), jnp.asarray(START))
    problem = Problem(loss, Repeat(None), query=())
    estimator = Pathwise(STEPS, wrt=("geometry",), ahead=0)
    _, grad, _ = estimator.over_a_run(
        ValidationLoss(), MirrorDescent(RATE), prior, problem, key=KEY
    )
    assert grad.geometry.log_diagonal.tolist() == [0.0, 0.0]
