"""The Bregman-proximal problem: solved to rounding, the same run however cut, refusals."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import (
    AbstractMirrorMap,
    Blockwise,
    Diagonal,
    Euclidean,
    NegativeEntropy,
    Scaled,
)
from mirrax.hypergradient import Reverse, Truncated
from mirrax.inner import (
    BregmanProximal,
    Minibatch,
    Prior,
    Problem,
    Repeat,
    Stream,
    fold,
    unroll,
)
from mirrax.objective import ValidationLoss

KEY = jax.random.key(5)


def quadratic(x, shared, data):
    del shared
    hessian, target = data
    return (x - target) @ hessian @ (x - target) / 2


def quadratic_case(condition, dim=8):
    rng = np.random.default_rng(3)
    basis, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    hessian = basis * np.geomspace(1, condition, dim) @ basis.T
    target, start, log_m = rng.normal(size=(3, dim))
    return hessian, target, start, log_m / 2


@functools.partial(jax.jit, static_argnames=("loss", "steps"))
def solve(inner, prior, loss, data, steps):
    """The last point, and the norm of the residual there and at the start."""
    problem = Problem(loss, Repeat(data))
    end, _ = fold(inner, prior, problem, steps, lambda none, step, count: none, None, key=KEY)
    sizes = [
        jnp.linalg.norm(inner.residual(prior, problem, point))
        for point in (end.primal, prior.start)
    ]
    return end.primal, sizes[0] / sizes[1]


@pytest.mark.parametrize("rate", [1e-3, 0.5, 1e9])
def test_quadratics_in_closed_form(rate):
    """`θ = (H + M²/(2η))⁻¹ (H t + M² θ_1/(2η))`, however strong the proximal term is."""
    hessian, target, start, log_m = quadratic_case(100)
    prior = Prior(Diagonal(jnp.asarray(log_m)), jnp.asarray(start))
    found, residual = solve(BregmanProximal(rate), prior, quadratic, (hessian, target), 1500)
    weight = np.diag(np.exp(2 * log_m)) / (2 * rate)
    expected = np.linalg.solve(hessian + weight, hessian @ target + weight @ start)
    # Found: 3e-15, 2e-15 and 2e-14.
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    assert residual < 1e-12


def test_few_steps_for_a_condition_of_a_thousand():
    """Found: below 1e-9 after 350; the largest steps that never rise need some 7,000."""
    hessian, target, start, _ = quadratic_case(1000, dim=30)
    prior = Prior(Euclidean(), jnp.asarray(start))
    assert solve(BregmanProximal(10.0), prior, quadratic, (hessian, target), 700)[1] < 1e-9


def exponential(x, shared, data):
    """Convex, and of no bounded curvature."""
    del shared
    return jnp.sum(jnp.exp(data * x)) + jnp.sum(x**2)


@pytest.mark.parametrize("rate", [0.1, 1e4])
def test_a_loss_of_unbounded_curvature(rate):
    """The first step, as long as the rate allows, would overflow; it is shortened."""
    prior = Prior(Euclidean(), jnp.array([2.0, -3.0, 0.5]))
    data = jnp.array([5.0, -4.0, 1.0])
    assert solve(BregmanProximal(rate), prior, exponential, data, 200)[1] < 1e-12


def rosenbrock(x, shared, data):
    del shared
    return jnp.sum(data * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def test_a_loss_that_is_not_convex():
    """The objective never rises above its mean so far, and the end is a minimum of it."""
    prior, inner = Prior(Euclidean(), jnp.array([-1.2, 1.0, 0.5])), BregmanProximal(5.0)
    data = jnp.array(20.0)
    point, residual = solve(inner, prior, rosenbrock, data, 400)
    assert residual < 1e-12
    problem = Problem(rosenbrock, Repeat(data))
    run = jax.jit(lambda: unroll(inner, prior, problem, 60, key=KEY))()
    moved = run.primal[:-1] - prior.start
    values = run.losses + jnp.sum(moved**2, axis=1) / 2 / 10
    assert (values <= values[0]).all() and values[-1] < values[0] / 5
    assert (jnp.diff(values) > 0).any(), "it does rise from step to step"
    curvature = jax.jacfwd(lambda x: inner.residual(prior, problem, x))(point)
    assert np.linalg.eigvalsh(curvature).min() > 0


def test_the_golden_solution_of_a_logistic_problem(golden):
    c07 = golden("c07_prox_diag_logistic")

    def loss(x, shared, data):
        del shared
        rows, labels = data
        return jnp.mean(jnp.logaddexp(0.0, -labels * (rows @ x)))

    prior = Prior(Diagonal(jnp.log(c07["m"])), jnp.asarray(c07["theta1"]))
    data = (jnp.asarray(c07["X"]), jnp.asarray(c07["y"]))
    found, _ = solve(BregmanProximal(float(c07["eta"])), prior, loss, data, 60)
    np.testing.assert_allclose(found, c07["theta_star"], rtol=1e-11)


def linear(x, shared, data):
    del shared
    return data @ x


@pytest.mark.parametrize("nested", [False, True])
def test_entropy_on_the_orthant_stays_inside_it(nested):
    """For a linear loss `log θ = log θ_1 − 2η g`."""
    entropy = NegativeEntropy("orthant")
    prior = Prior(Scaled(entropy, jnp.zeros(())) if nested else entropy, jnp.array([0.5, 2.0]))
    found, _ = solve(BregmanProximal(1.5), prior, linear, jnp.array([2.0, -0.3]), 3)
    expected = np.array([0.5, 2.0]) * np.exp(-3 * np.array([2.0, -0.3]))
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_the_residual_is_the_derivative_of_the_objective():
    hessian, target, start, log_m = quadratic_case(10)
    prior, rate = Prior(Diagonal(jnp.asarray(log_m)), jnp.asarray(start)), 0.3
    problem = Problem(quadratic, Repeat((hessian, target)))

    def objective(x):
        near = prior.geometry.divergence(x, prior.start) / (2 * rate)
        return quadratic(x, None, (hessian, target)) + near

    point = jnp.asarray(target) * 2 - 1
    found = BregmanProximal(rate).residual(prior, problem, point)
    np.testing.assert_allclose(found, jax.grad(objective)(point), rtol=1e-12)


def case():
    hessian, target, start, log_m = quadratic_case(10, dim=3)
    prior = Prior(Diagonal(jnp.asarray(log_m)), jnp.asarray(start))
    data = (jnp.asarray(hessian), jnp.asarray(target))
    return prior, Problem(quadratic, Repeat(data), query=(data[0], data[1] + 1))


@functools.partial(jax.jit, static_argnums=0)
def window(steps, state):
    prior, problem = case()
    inner = BregmanProximal(2.0)
    begin = inner.init(prior) if state is None else state
    total = jnp.zeros(())
    end, losses = fold(
        inner,
        prior,
        problem,
        steps,
        lambda sum, step, _: sum + step.loss,
        total,
        key=KEY,
        state=begin,
    )
    return end, losses


def test_a_run_cut_in_two_is_the_same_run_to_the_bit():
    whole, _ = window(12, None)
    half, _ = window(6, None)
    rest, _ = window(6, half)
    for found, expected in zip(jax.tree.leaves(rest), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert int(whole.count) == 12


def test_a_held_state_keeps_its_value_and_moves_with_geometry_and_start():
    prior, _ = case()
    inner, state = BregmanProximal(2.0), window(6, None)[0]
    held = inner.hold(prior, state)
    for name in ("primal", "dual", "count"):
        np.testing.assert_allclose(getattr(held, name), getattr(state, name), rtol=1e-14)
    np.testing.assert_allclose(held.memory.anchor, state.memory.anchor, rtol=1e-14)
    for name in ("curvature", "value", "level", "weight"):
        np.testing.assert_array_equal(getattr(held.memory, name), getattr(state.memory, name))

    def moving(prior):
        held = inner.hold(prior, state)
        return jnp.sum(held.primal) + jnp.sum(held.dual) + 2 * jnp.sum(held.memory.anchor)

    slope, m2 = jax.grad(moving)(prior), prior.geometry.curvature
    np.testing.assert_allclose(slope.start, 2 * m2, rtol=1e-13)
    expected = 2 * m2 * (state.primal + 2 * prior.start)
    np.testing.assert_allclose(slope.geometry.log_diagonal, expected, rtol=1e-13)


def test_one_window_is_the_whole_run():
    prior, problem = case()
    inner, objective = BregmanProximal(2.0), ValidationLoss()

    @jax.jit
    def run():
        return [
            estimator.estimate(
                objective, inner, prior, problem, estimator.init(inner, prior), key=KEY
            )[:2]
            for estimator in (Reverse(12), Truncated(12, window=12))
        ]

    for found, expected in zip(*map(jax.tree.leaves, run()), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("part", ["geometry", "start", "data", None])
def test_late_values_count_only_for_the_objective_they_are_of(part):
    prior, problem = case()
    inner, state = BregmanProximal(2.0), window(6, None)[0]
    if part == "data":
        hessian, target = problem.batches.data
        problem = Problem(quadratic, Repeat((hessian, target + 0.1)), query=problem.query)
    elif part:
        moved = jax.tree.map(lambda x: x + 0.1, getattr(prior, part))
        prior = eqx.tree_at(lambda p: getattr(p, part), prior, moved)
    held = inner.hold(prior, state)
    after = jax.jit(lambda: inner.step(prior, problem, held, key=KEY)[0].memory)()
    weight = 1 if part else 1 + 0.9 * state.memory.weight
    assert state.memory.weight > 3
    np.testing.assert_allclose(after.weight, weight, rtol=1e-14)


def test_windows_walk_the_same_run():
    prior, problem = case()
    inner, objective = BregmanProximal(2.0), ValidationLoss()

    @jax.jit
    def run():
        return [
            estimator.over_a_run(objective, inner, prior, problem, key=KEY)[0]
            for estimator in (Reverse(12), Truncated(12, window=3))
        ]

    whole, cut = run()
    np.testing.assert_allclose(cut, whole, rtol=1e-13)


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf"), "much"])
def test_rates_that_are_no_positive_numbers(rate):
    with pytest.raises(ValueError, match=r"BregmanProximal\.rate: expected a positive finite"):
        BregmanProximal(rate)


def test_a_schedule_is_refused():
    with pytest.raises(ValueError, match="got a schedule; the solution must not depend on"):
        BregmanProximal(lambda count: 0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "batches", [Minibatch(jnp.ones((4, 3)), size=2), Stream(jnp.ones((4, 3)))], ids=type
)
def test_batches_that_differ_from_step_to_step_are_refused(batches):
    prior, problem = case()[0], Problem(linear, batches)
    inner = BregmanProximal(0.1)
    message = f"problem.batches must be Repeat, got {type(batches).__name__}; every step"
    with pytest.raises(ValueError, match=message):
        inner.residual(prior, problem, prior.start)
    with pytest.raises(ValueError, match=message):
        inner.step(prior, problem, inner.init(prior), key=KEY)


class Map(AbstractMirrorMap):
    def to_dual(self, primal):
        return primal

    def to_primal(self, dual):
        return dual


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (Map(), "must have a potential, got Map; without one there is no divergence"),
        (NegativeEntropy(), "must have a unique dual, got NegativeEntropy on the simplex"),
        (Scaled(NegativeEntropy(), jnp.zeros(())), "got NegativeEntropy on the simplex"),
        (Blockwise([Euclidean(), NegativeEntropy()]), "got NegativeEntropy on the simplex"),
    ],
    ids=["map", "simplex", "scaled", "block"],
)
def test_geometries_without_a_divergence_or_a_unique_dual(geometry, message):
    with pytest.raises(ValueError, match=message):
        BregmanProximal(0.1).init(Prior(geometry, jnp.full(3, 1 / 3)))
