"""Hypergradients against goldens, exact dyadic numbers and an adjoint written by hand."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import Diagonal, Euclidean
from mirrax.hypergradient import Direct, Forward, Reverse
from mirrax.inner import AbstractObjective, MirrorDescent, Prior, Problem, Repeat, unroll
from mirrax.objective import LipschitzRegretBound, RegretBound

KEY = jax.random.key(0)


class Travelled(AbstractObjective):
    """`D(x_{T+1}‖x_1)`."""

    def stage(self, prior, problem, step):
        return jnp.zeros(())

    def terminal(self, prior, problem, first, last):
        return prior.geometry.divergence(last, first)


class HeldOutLoss(AbstractObjective):
    """Another loss, at the end."""

    quadratic: bool = eqx.field(static=True)

    def stage(self, prior, problem, step):
        return jnp.zeros(())

    def terminal(self, prior, problem, first, last):
        answer = last @ problem.solution
        return answer**2 / 2 if self.quadratic else answer


def quadratic(x, shared, data):
    del shared
    hessian, target = data
    return (x - target) @ hessian @ (x - target) / 2


@functools.partial(jax.jit, static_argnames="loss")
def estimate(estimator, objective, inner, prior, loss, data, solution=None):
    problem = Problem(loss, Repeat(data), solution)
    state = estimator.init(inner, prior)
    return estimator.estimate(objective, inner, prior, problem, state, key=KEY)[:2]


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (Reverse, "total"),
        (functools.partial(Reverse, checkpoint=True), "total"),
        (Forward, "total"),
        (Direct, "direct"),
    ],
)
@pytest.mark.parametrize("row", [0, 2])
def test_bregman_goldens_with_respect_to_m(golden, build, name, row):
    c06 = golden("c06_metamd_diag")
    prior = Prior(Diagonal(jnp.log(c06["m"])), jnp.asarray(c06["theta1"]))
    inner, estimator = MirrorDescent(float(c06["eta"])), build(steps=int(c06["T"][row]))
    slopes = []
    for task in range(3):
        data = (c06["H"][task], c06["target"][task])
        value, slope = estimate(estimator, Travelled(), inner, prior, quadratic, data)
        np.testing.assert_allclose(value, c06["bregman"][row, task], rtol=1e-9)
        slopes.append(slope.geometry.log_diagonal / c06["m"])
    expected = c06[f"bregman_grad_{name}"][row]
    np.testing.assert_allclose(np.mean(slopes, 0), expected, rtol=1e-9, atol=1e-10)


def adjoint_by_hand(hessian, target, start, m, rate, steps, k):
    """Spec B3, in numpy: the derivative of `B(x_T‖x_1) + k/min m²` with respect to `m`."""
    points = [start]
    for _ in range(steps):
        points.append(points[-1] - rate * (hessian @ (points[-1] - target)) / m**2)
    moved = points[-1] - start
    a, slope = m**2 * moved, m * moved**2
    slope[m.argmin()] -= 2 * k / m.min() ** 3
    for point in reversed(points[:-1]):
        slope = slope + 2 * rate * (hessian @ (point - target)) * a / m**3
        a = a - rate * hessian @ (a / m**2)
    return slope


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("steps", [30, 400])
def test_the_adjoint_of_spec_b3(checkpoint, steps):
    rng = np.random.default_rng(12)
    root = rng.normal(size=(4, 4))
    hessian, target, start = root @ root.T + np.eye(4), rng.normal(size=4), rng.normal(size=4)
    m, rate, k = rng.uniform(1.5, 2.5, 4), 0.05, 0.3
    estimator = Reverse(steps, checkpoint=checkpoint)
    objective = LipschitzRegretBound(k, comparator="last")
    prior = Prior(Diagonal(jnp.log(m)), jnp.asarray(start))
    inner = MirrorDescent(rate)
    _, slope = estimate(estimator, objective, inner, prior, quadratic, (hessian, target))
    expected = adjoint_by_hand(hessian, target, start, m, rate, steps, k)
    np.testing.assert_allclose(slope.geometry.log_diagonal / m, expected, rtol=1e-9, atol=1e-11)


def half_square(x, shared, row):
    del shared
    return (x @ row) ** 2 / 2


def half_square_with_held_slope(x, shared, row):
    """The first-order approximation: same slope, no curvature."""
    del shared
    return x @ jax.lax.stop_gradient((x @ row) * row)


@pytest.mark.parametrize("name", ["second", "first", "three"])
@pytest.mark.parametrize(
    "build", [Reverse, functools.partial(Reverse, checkpoint=True), Forward], ids=str
)
def test_maml_s_dyadic_numbers_exactly(golden, name, build):
    c01 = golden("c01_maml_torchmeta")
    steps, rate = int(c01[f"{name}_steps"]), float(c01[f"{name}_alpha"])
    loss = half_square_with_held_slope if c01[f"{name}_first_order"] else half_square
    objective = HeldOutLoss(bool(c01[f"{name}_test_loss_is_quadratic"]))
    estimator, inner = build(steps=steps, wrt=("start",)), MirrorDescent(rate)
    prior = Prior(Euclidean(), jnp.asarray(c01["w"]))
    train, test = c01[f"{name}_x_train"], c01[f"{name}_x_test"]
    value, slope = estimate(estimator, objective, inner, prior, loss, train, test)
    np.testing.assert_array_equal(value, c01[f"{name}_test_loss"])
    np.testing.assert_array_equal(slope.start, c01[f"{name}_meta_grad"])
    assert slope.geometry == Euclidean()
    problem = Problem(half_square, Repeat(train))
    run = jax.jit(lambda: unroll(inner, prior, problem, steps, key=KEY))()
    np.testing.assert_array_equal(run.primal[1:], c01[f"{name}_adapted_each_step"])
    np.testing.assert_array_equal(run.losses, c01[f"{name}_train_losses"])


def test_direct_is_the_derivative_with_the_trajectory_held():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(4, 4))
    hessian, target, start = root @ root.T + np.eye(4), rng.normal(size=4), rng.normal(size=4)
    m, rate = jnp.asarray(rng.uniform(1.5, 2.5, 4)), 0.1
    prior, inner = Prior(Diagonal(jnp.log(m)), jnp.asarray(start)), MirrorDescent(rate)
    data, solution = (hessian, target), jnp.asarray(target)
    value, slope = estimate(Direct(25), RegretBound(rate), inner, prior, quadratic, data, solution)
    problem = Problem(quadratic, Repeat(data))
    run = jax.jit(lambda: unroll(inner, prior, problem, 25, key=KEY))()
    squares, moved = (np.asarray(run.gradients) ** 2).sum(0), (target - start) ** 2
    np.testing.assert_allclose(
        value, (m**2 * moved).sum() / 2 / rate + rate / 2 * (squares / m**2).sum(), rtol=1e-12
    )
    expected = m**2 * moved / rate - rate * squares / m**2
    np.testing.assert_allclose(slope.geometry.log_diagonal, expected, rtol=1e-12)
