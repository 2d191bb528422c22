"""The tight bound and its closed-form minimiser."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import Diagonal
from mirrax.inner import Minibatch, MirrorDescent, Prior, Problem, Repeat, Step, evaluate, unroll
from mirrax.objective import Moments, RegretBound, path_moments, tight_diagonal

KEY = jax.random.key(0)


def quadratic(x, shared, data):
    del shared
    hessian, target = data
    return (x - target) @ hessian @ (x - target) / 2


@functools.partial(jax.jit, static_argnames="steps")
def mean_moments(rate, geometry, start, data, steps):
    def moments(task):
        problem = Problem(quadratic, Repeat(task))
        return path_moments(
            MirrorDescent(rate),
            Prior(geometry, start),
            problem,
            steps,
            comparator="last",
            key=KEY,
        )[0]

    return jax.tree.map(lambda leaf: jnp.mean(leaf, 0), jax.vmap(moments)(data))


def test_moments_bound_and_closed_form_goldens(golden):
    c06 = golden("c06_metamd_tight")
    rate, steps = float(c06["diag_eta"]), int(c06["diag_T"])
    start, data = jnp.asarray(c06["diag_theta1"]), (c06["diag_H"], c06["diag_target"])
    geometry = Diagonal(jnp.log(c06["diag_m"]))
    moments = mean_moments(rate, geometry, start, data, steps)
    np.testing.assert_allclose(moments.displacement, c06["diag_D"], rtol=1e-9)
    np.testing.assert_allclose(moments.gradient, c06["diag_G"], rtol=1e-9)
    best = tight_diagonal(moments, rate)
    np.testing.assert_allclose(best.curvature, c06["diag_m2_opt"], rtol=1e-9)
    np.testing.assert_allclose(rate / best.curvature, c06["diag_effective_rate_opt"], rtol=1e-9)


def held_bound(rate, start):
    """`R(m)` of stored trajectories, in the library's own terms, and its derivative."""
    objective = RegretBound(rate, comparator="last")

    @jax.jit
    @jax.value_and_grad
    def bound(m, last, grads):
        prior, problem = Prior(Diagonal(jnp.log(m)), start), Problem(quadratic, Repeat(None))

        def worth(end, gradients):
            def stage(g):
                return objective.stage(prior, problem, Step(start, g, jnp.zeros(())))

            ends = objective.terminal(prior, problem, start, end)
            return jnp.sum(jax.vmap(stage)(gradients)) + ends

        return jnp.mean(jax.vmap(worth)(last, grads))

    return bound


def test_the_bound_of_held_trajectories_and_its_slope(golden):
    c06 = golden("c06_metamd_tight")
    bound = held_bound(float(c06["diag_eta"]), jnp.asarray(c06["diag_theta1"]))
    runs = (c06["diag_theta_T"], c06["diag_grads"])
    value, slope = bound(c06["diag_m"], *runs)
    np.testing.assert_allclose(value, c06["diag_R"], rtol=1e-9)
    np.testing.assert_allclose(slope, c06["diag_R_grad_m"], rtol=1e-9, atol=1e-10)
    least, flat = bound(np.sqrt(c06["diag_m2_opt"]), *runs)
    np.testing.assert_allclose(least, c06["diag_R_opt"], rtol=1e-9)
    np.testing.assert_allclose(flat, 0, rtol=0, atol=1e-12)
    roots = np.sqrt(c06["diag_D"] * c06["diag_G"])
    np.testing.assert_allclose(least, roots.sum(), rtol=1e-9)


def test_gradient_descent_on_the_bound_finds_the_closed_form(golden):
    c06 = golden("c06_metamd_tight")
    bound = held_bound(float(c06["diag_eta"]), jnp.asarray(c06["diag_theta1"]))
    runs = (c06["diag_theta_T"], c06["diag_grads"])

    @jax.jit
    def descend(log_m):
        def step(_, log_m):
            slope = bound(jnp.exp(log_m), *runs)[1] * jnp.exp(log_m)
            return log_m - 0.03 * slope

        return jax.lax.fori_loop(0, 4000, step, log_m)

    found = jnp.exp(2 * descend(jnp.log(c06["diag_m"])))
    np.testing.assert_allclose(found, c06["diag_m2_opt"], rtol=1e-6)


def test_fifteen_alternations_without_averaging(golden):
    c06 = golden("c06_metamd_tight")
    rate, steps = float(c06["diag_eta"]), int(c06["diag_T"])
    start, data = jnp.asarray(c06["diag_theta1"]), (c06["diag_H"], c06["diag_target"])
    geometry = Diagonal(jnp.log(c06["diag_m"]))
    rows = [geometry.curvature]
    for _ in range(15):
        geometry = tight_diagonal(mean_moments(rate, geometry, start, data, steps), rate)
        rows.append(geometry.curvature)
    np.testing.assert_allclose(np.stack(rows), c06["diag_alternate_m2"], rtol=1e-9)


def regression(x, shared, batch):
    features, values = batch
    return shared["scale"] * jnp.mean((features @ x["w"] + x["b"] - values) ** 2) / 2


@pytest.mark.parametrize("comparator", ["solution", "last"])
def test_moments_are_those_of_the_whole_trajectory(comparator):
    rng = np.random.default_rng(0)
    data = Minibatch((jnp.asarray(rng.normal(size=(20, 2))), jnp.asarray(rng.normal(size=20))), 4)
    start = {"w": jnp.array([1.0, -1.0]), "b": jnp.array(0.5)}
    solution = {"w": jnp.array([0.0, 2.0]), "b": jnp.array(0.0)}
    prior = Prior(Diagonal.like(start, 1.5), start, {"scale": jnp.array(2.0)})
    problem, inner = Problem(regression, data, solution), MirrorDescent(0.1)

    @jax.jit
    def both():
        return (
            path_moments(inner, prior, problem, 12, comparator=comparator, key=KEY),
            unroll(inner, prior, problem, 12, key=KEY),
        )

    (moments, summary), run = both()
    target = solution if comparator == "solution" else run.last
    for name in start:
        np.testing.assert_allclose(moments.displacement[name], (target[name] - start[name]) ** 2)
        np.testing.assert_allclose(moments.gradient[name], (run.gradients[name] ** 2).sum(0))
    np.testing.assert_allclose(summary.first_loss, run.losses[0])
    assert int(summary.finite_steps) == 12


def test_scale_law_a_loss_times_c_asks_for_m2_times_c():
    """In every round of the alternation, and the steps that follow do not change."""
    rng = np.random.default_rng(2)
    roots = rng.normal(size=(3, 4, 4))
    hessians = np.einsum("tij,tkj->tik", roots, roots) + np.eye(4)
    targets, start, rate, c = rng.normal(size=(3, 4)), jnp.zeros(4), 0.1, 7.3

    def alternate(factor, geometry, rounds=5):
        for _ in range(rounds):
            moments = mean_moments(rate, geometry, start, (factor * hessians, targets), 20)
            geometry = tight_diagonal(moments, rate)
        return np.asarray(geometry.curvature), moments

    plain, moments = alternate(1.0, Diagonal.like(start, 2.0))
    scaled, more = alternate(c, Diagonal.like(start, 2.0 * np.sqrt(c)))
    np.testing.assert_allclose(scaled, c * plain, rtol=1e-9)
    np.testing.assert_allclose(more.displacement, moments.displacement, rtol=1e-9)


def rates(displacement, gradient, **options):
    moments = Moments(*jax.tree.map(jnp.asarray, (displacement, gradient)))
    geometry = tight_diagonal(moments, 0.5, **options)
    return jax.tree.map(lambda c: 0.5 / c, geometry.curvature)


def test_a_parameter_without_a_minimiser_keeps_the_rate_it_was_run_with():
    found = rates({"a": [4.0, 0.0, 1.0, 0.0], "b": [0.0]}, {"a": [1.0, 1.0, 0.0, 0.0], "b": [0.0]})
    np.testing.assert_allclose(found["a"], [2.0, 0.5, 0.5, 0.5], rtol=1e-12)
    np.testing.assert_allclose(found["b"], 0.5, rtol=1e-12)


def test_damping_adds_steps_that_the_rate_would_have_made():
    displacement, gradient = np.array([4.0, 1e-6, 0.0]), np.array([1.0, 2.0, 0.0])
    share = 0.1 * gradient.mean()
    expected = np.sqrt((displacement + 0.25 * share) / (gradient + share))
    np.testing.assert_allclose(rates(displacement, gradient, damping=0.1), expected, rtol=1e-12)
    assert rates(displacement, gradient, damping=0.1)[2] == pytest.approx(0.5)
    overwhelmed = rates(displacement, gradient, damping=1e9)
    np.testing.assert_allclose(overwhelmed, 0.5, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_types_are_kept_and_nothing_overflows(dtype):
    tiny = float(jnp.finfo(dtype).tiny)
    moments = Moments(
        jnp.array([0, 1, 0, tiny, 1e9], dtype), jnp.array([1, 0, 0, 1e9, tiny], dtype)
    )
    geometry = tight_diagonal(moments, 0.1)
    assert geometry.log_diagonal.dtype == dtype
    assert np.all(np.isfinite(geometry.curvature)) and np.all(geometry.curvature > 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, r"tight_diagonal\.rate: .*got 0"),
        ({"rate": float("nan")}, r"tight_diagonal\.rate: .*got nan"),
        ({"rate": 0.1, "damping": -1.0}, r"tight_diagonal\.damping: .*got -1"),
        ({"rate": 0.1, "damping": float("inf")}, r"tight_diagonal\.damping: .*got inf"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tight_diagonal(Moments(jnp.ones(1), jnp.ones(1)), **options)


def test_an_unknown_comparator_is_refused():
    prior, problem = Prior(Diagonal.like(jnp.ones(1)), jnp.ones(1)), Problem(quadratic, Repeat(0))
    with pytest.raises(ValueError, match=r"path_moments\.comparator: .*got 'end'"):
        path_moments(MirrorDescent(0.1), prior, problem, 2, comparator="end", key=KEY)


def test_the_bound_is_the_sum_of_its_parts():
    start, solution = jnp.array([1.0, 2.0]), jnp.array([0.5, -1.0])
    hessian = jnp.array([[2.0, 0.3], [0.3, 1.0]])
    prior = Prior(Diagonal(jnp.log(jnp.array([1.1, 2.0]))), start)
    problem = Problem(quadratic, Repeat((hessian, solution)), solution)

    @jax.jit
    def both():
        inner = MirrorDescent(0.2)
        worth = evaluate(RegretBound(0.2), inner, prior, problem, 15, key=KEY)[0]
        return worth, unroll(inner, prior, problem, 15, key=KEY)

    worth, run = both()
    m2 = np.array([1.21, 4.0])
    expected = (m2 * (solution - start) ** 2).sum() / 2 / 0.2
    expected += 0.1 * (run.gradients**2 / m2).sum()
    np.testing.assert_allclose(worth, expected, rtol=1e-12)
    assert run.losses.sum() <= worth, "the regret it bounds (the solution's loss is zero)"
