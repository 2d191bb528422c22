"""The tight bound's minimiser for Kronecker factors: goldens, residuals, moments of runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import Diagonal, Factors, Kronecker, as_matrix, is_factors, log_cholesky
from mirrax.inner import Minibatch, PreconditionedDescent, Prior, Problem, unroll
from mirrax.objective import (
    Side,
    factor_path_moments,
    riccati,
    tight_kronecker,
    tight_side,
)

KEY = jax.random.key(0)

ROUNDING = 1e-12
"""Sums over the steps of runs, in another order, and sixty sweeps; they agree to 2e-13."""

SOLVED = {1.0: 1e-14, 1e2: 2e-14, 1e5: 5e-14}
"""Of the Riccati residual, relative, for moments of a condition: rounding of a few products of
7 x 7 matrices, and hardly more for ill-conditioned ones. Found: 1.2e-15, 1.4e-15, 2.5e-15, and at
most 7e-15 with other draws."""


def spd(rng, size, condition=10.0):
    vectors = np.linalg.qr(rng.normal(size=(size, size)))[0]
    return jnp.asarray((vectors * np.geomspace(1, condition, size)) @ vectors.T)


def golden_case(c06):
    a, b = (log_cholesky(jnp.asarray(c06[f"kron_{name}"])) for name in "AB")
    delta, grads = jnp.asarray(c06["kron_delta"]), jnp.asarray(c06["kron_grads"])
    return Kronecker(Factors(a, b, delta.shape[1:])), delta, grads, float(c06["kron_eta"])


def test_one_solution_is_the_golden(golden):
    c06 = golden("c06_metamd_tight")
    rate = float(c06["kron_eta"])
    for name, other in (("A", "B"), ("B", "A")):
        side = Side(jnp.asarray(c06[f"kron_D_{name}"]), jnp.asarray(c06[f"kron_G_{name}"]))
        found = tight_side(side, rate)
        np.testing.assert_allclose(found, c06[f"kron_{name}_opt_given_{other}"], rtol=ROUNDING)


@pytest.mark.parametrize(("place", "sweeps"), [(0, 1), (1, 5), (2, 60)])
def test_sweeps_are_the_goldens(place, sweeps, golden):
    c06 = golden("c06_metamd_tight")
    start, delta, grads, rate = golden_case(c06)
    found = tight_kronecker(delta, grads, rate, sweeps=sweeps, start=start).factors.matrices
    np.testing.assert_allclose(found[0], c06["kron_alt_A"][place], rtol=ROUNDING)
    np.testing.assert_allclose(found[1], c06["kron_alt_B"][place], rtol=ROUNDING)


def test_sweeps_end_where_they_end_wherever_they_begin(golden):
    start, delta, grads, rate = golden_case(golden("c06_metamd_tight"))
    ends = [tight_kronecker(delta, grads, rate, start=one).factors for one in (None, start)]
    for one, other in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12, rtol=0)  # sixty sweeps leave 1e-15


@pytest.mark.parametrize("condition", SOLVED)
def test_residual_of_the_riccati_equation(condition):
    rng = np.random.default_rng(0)
    moved, sloped, rate = spd(rng, 7, condition), spd(rng, 7, condition), 0.3
    found = riccati(moved, sloped, rate)
    residual = found @ moved @ found - rate**2 * sloped
    assert jnp.linalg.norm(residual) <= SOLVED[condition] * jnp.linalg.norm(rate**2 * sloped)
    np.testing.assert_array_equal(found, found.T)
    assert jnp.linalg.eigvalsh(found)[0] > 0


def test_single_precision_is_enough_for_moments_that_differ_by_millions():
    """As on RotatedMNIST, where `D^{½} G D^{½}` spans 1e8 and its smallest values are lost."""
    rng = np.random.default_rng(6)
    basis = np.linalg.qr(rng.normal(size=(60, 60)))[0]
    moved = basis @ np.diag(np.geomspace(3e-4, 5, 60)) @ basis.T
    sloped = basis @ np.diag(np.geomspace(3e-2, 120, 60)) @ basis.T
    exact = riccati(jnp.asarray(moved), jnp.asarray(sloped), 0.1)
    single = riccati(jnp.float32(moved), jnp.float32(sloped), 0.1)
    assert single.dtype == jnp.float32
    ends = np.linalg.eigvalsh(np.linalg.solve(exact, np.asarray(single, float)))
    # Found: 9e-5; by square roots of `D` and of the product it is wrong by 2.2.
    np.testing.assert_allclose(ends[[0, -1]], 1.0, rtol=0, atol=1e-3)


def test_the_solution_minimises_the_bound():
    rng = np.random.default_rng(1)
    side, rate = Side(spd(rng, 4), spd(rng, 4)), 0.2

    def bound(a):
        near, far = jnp.trace(a @ side.displacement), jnp.trace(jnp.linalg.solve(a, side.gradient))
        return near / rate + rate * far

    best = tight_side(side, rate)
    slope = jax.grad(bound)(best)
    np.testing.assert_allclose(slope, jnp.zeros((4, 4)), rtol=0, atol=1e-12)
    assert bound(best) < bound(best + 0.01 * jnp.eye(4)) and bound(best) < bound(0.99 * best)


def test_damping_leaves_unexplored_directions_at_the_rate():
    """Nothing was seen of the second direction, so `A` keeps the one there."""
    side = Side(jnp.diag(jnp.array([4.0, 0.0])), jnp.diag(jnp.array([100.0, 0.0])))
    found = tight_side(side, 0.1, damping=0.5)
    share = 0.5 * 50
    first = 0.1 * np.sqrt((100 + share) / (4 + 0.01 * share))
    np.testing.assert_allclose(found, np.diag([first, 1.0]), rtol=1e-12, atol=1e-14)


def loss(params, shared, rows):
    features, values = rows
    hidden = jnp.tanh(features @ params["in"] + params["bias"])
    return jnp.mean((hidden @ params["out"] - values) ** 2)


def test_moments_of_a_run_are_those_of_its_trajectory():
    rng = np.random.default_rng(2)
    draw = lambda *shape: jnp.asarray(0.5 * rng.normal(size=shape))  # noqa: E731
    start = {"in": draw(4, 3), "bias": draw(3), "out": draw(3, 2)}
    geometry = jax.tree.map(lambda leaf: draw(*leaf.shape), Kronecker.like(start))
    solution = jax.tree.map(lambda leaf: draw(*leaf.shape), start)
    problem = Problem(loss, Minibatch((draw(12, 4), draw(12, 2)), size=3), solution)
    prior, inner = Prior(geometry, start), PreconditionedDescent(0.1)
    found, summary = jax.jit(
        lambda prior: factor_path_moments(inner, prior, problem, 5, comparator="solution", key=KEY)
    )(prior)
    run = jax.jit(lambda prior: unroll(inner, prior, problem, 5, key=KEY))(prior)
    assert int(summary.finite_steps) == 5
    for name, node in geometry.factors.items():
        moved, slopes = solution[name] - start[name], run.gradients[name]
        if not is_factors(node):
            np.testing.assert_allclose(found[name].displacement, moved**2, rtol=ROUNDING)
            np.testing.assert_allclose(found[name].gradient, (slopes**2).sum(0), rtol=ROUNDING)
            continue
        (a, b), moved = node.matrices, as_matrix(moved)
        rows, columns = found[name].rows, found[name].columns
        np.testing.assert_allclose(rows.displacement, moved @ b @ moved.T, rtol=ROUNDING)
        np.testing.assert_allclose(columns.displacement, moved.T @ a @ moved, rtol=ROUNDING)
        inverse = [np.linalg.inv(matrix) for matrix in (a, b)]
        np.testing.assert_allclose(
            rows.gradient, sum(g @ inverse[1] @ g.T for g in slopes), rtol=ROUNDING
        )
        np.testing.assert_allclose(
            columns.gradient, sum(g.T @ inverse[0] @ g for g in slopes), rtol=ROUNDING
        )


def test_moments_need_factors():
    prior = Prior(Diagonal.like(jnp.zeros(2)), jnp.zeros(2))
    problem = Problem(loss, Minibatch(jnp.zeros((4, 2)), size=2))
    with pytest.raises(ValueError, match=r"^factor_path_moments.prior: expected a Kronecker"):
        factor_path_moments(
            PreconditionedDescent(0.1), prior, problem, 2, comparator="last", key=KEY
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, r"^tight_kronecker.rate: .*got 0.0"),
        ({"rate": 0.1, "sweeps": 0}, r"^tight_kronecker.sweeps: .*got 0"),
        ({"rate": 0.1, "damping": -1.0}, r"^tight_kronecker.damping: .*got -1.0"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        tight_kronecker(jnp.ones((2, 2, 2)), jnp.ones((2, 1, 2, 2)), **options)


def test_a_matrix_without_gradient_keeps_the_rate():
    """Its displacement may be zero, or rounding, of which the solution would be none at all."""
    nothing = jnp.zeros((2, 2))
    for moved in (nothing, 1e-30 * jnp.eye(2)):
        np.testing.assert_array_equal(
            tight_side(Side(moved, nothing), 0.1, damping=0.1), jnp.eye(2)
        )
    lost = tight_side(Side(jnp.eye(2), jnp.full((2, 2), jnp.nan)), 0.1, damping=0.1)
    assert jnp.isnan(lost).any()
