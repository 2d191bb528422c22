"""Spec B5, case 2: the minimiser that mirror descent chooses among many, and its derivative.

On a linear model with more parameters than data mirror descent converges to the Bregman projection
of its start. The system that `Implicit` would solve is singular there; the derivative is that of
the projection's KKT system, written here in numpy.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import Diagonal, NegativeEntropy
from mirrax.hypergradient import Direct, Reverse
from mirrax.inner import AbstractObjective, MirrorDescent, Prior, Problem, Repeat, unroll

KEY = jax.random.key(0)


SAME = 5e-14
"""Of systems solved and steps made in another order; absolute near zero. Found: 9e-15."""

NOTHING = 3e-15
"""Absolute, where zero is expected. Found: 8e-16."""

CONVERGED = 3e-11
"""Relative. Derivatives through 3,000 steps; small entries are differences of large ones. Found:
3e-12, 4e-14 of the largest."""

IN_LOGARITHMS = 1e-12
"""Relative. Steps add up in `log θ`. Found: 1e-13."""


class Outer(AbstractObjective):
    """`D(θ*‖θ_1)`, or `½‖θ* − v‖²` to a target."""

    target: jax.Array | None = None

    def stage(self, prior, problem, step):
        return jnp.zeros(())

    def terminal(self, prior, problem, first, last):
        if self.target is None:
            return prior.geometry.divergence(last, first)
        return jnp.sum((last - self.target) ** 2) / 2


def kkt_derivative(matrix, right, start, m):
    """`(θ*, ν, dθ*/dm)` of `min D_M(θ‖θ_1)` subject to `Aθ = b`, from its KKT system."""
    count, dim = matrix.shape
    kkt = np.block([[np.diag(m**2), -matrix.T], [matrix, np.zeros((count, count))]])
    solution = np.linalg.solve(kkt, np.concatenate([m**2 * start, right]))
    theta, multipliers = solution[:dim], solution[dim:]
    change = np.concatenate([np.diag(2 * m * (theta - start)), np.zeros((count, dim))])
    return theta, multipliers, -np.linalg.solve(kkt, change)[:dim], kkt


@pytest.fixture
def projection(golden):
    c07 = golden("c07_bregman_projection")
    return c07, kkt_derivative(c07["A"], c07["b"], c07["theta1"], c07["m"])


def interpolation(x, shared, data):
    del shared
    rows, values = data
    return jnp.sum((rows @ x - values) ** 2) / 2


def projected_run(c07):
    """The rule, prior and problem whose limit is the Bregman projection."""
    prior = Prior(Diagonal(jnp.log(c07["m"])), jnp.asarray(c07["theta1"]))
    data = (jnp.asarray(c07["A"]), jnp.asarray(c07["b"]))
    return MirrorDescent(float(c07["md_eta"])), prior, Problem(interpolation, Repeat(data))


def test_the_kkt_oracle_is_the_golden_s(projection):
    c07, (theta, multipliers, derivative, kkt) = projection
    np.testing.assert_array_equal(kkt, c07["kkt_matrix"])
    np.testing.assert_allclose(theta, c07["theta_star"], rtol=SAME)
    np.testing.assert_allclose(multipliers, c07["nu"], rtol=SAME)
    np.testing.assert_allclose(derivative, c07["dtheta_dm"], rtol=SAME, atol=SAME)


def test_mirror_descent_converges_to_the_bregman_projection(projection):
    c07, (theta, *_) = projection
    inner, prior, problem = projected_run(c07)
    run = jax.jit(lambda: unroll(inner, prior, problem, 3000, key=KEY).primal)()
    shown = run[jnp.array([1, 10, 100])]
    np.testing.assert_allclose(shown, c07["md_iterates_1_10_100"], rtol=SAME)
    np.testing.assert_allclose(run[-1], theta, rtol=SAME)


def test_an_isolated_minimiser_does_not_move_with_the_geometry():
    """Case 1: `½(θ − 1)²` from 0 ends at 1 for every `m`, yet `½m²(θ* − θ_1)²` has slope `m`."""
    m, problem = jnp.array([1.5]), Problem(lambda x, *_: jnp.sum((x - 1) ** 2) / 2, Repeat(None))
    prior = Prior(Diagonal(jnp.log(m)), jnp.zeros(1))

    def slope(estimator, objective):
        state = estimator.init(MirrorDescent(0.5), prior)
        found = estimator.estimate(objective, MirrorDescent(0.5), prior, problem, state, key=KEY)
        return found[1].geometry.log_diagonal / m

    for estimator in (Direct(300), Reverse(300)):
        np.testing.assert_allclose(slope(estimator, Outer()), m, rtol=SAME)
    moved = slope(Reverse(300), Outer(jnp.array([3.0])))
    np.testing.assert_allclose(moved, [0.0], rtol=0, atol=NOTHING)


@pytest.mark.parametrize("outer", ["bregman", "validation"])
def test_the_envelope_in_the_overparameterised_case(projection, outer):
    """At convergence the whole derivative of the divergence is direct; that of a loss is not."""
    c07, (theta, _, derivative, _) = projection
    inner, prior, problem = projected_run(c07)
    objective = Outer(None if outer == "bregman" else jnp.asarray(c07["val_target"]))

    @functools.partial(jax.jit, static_argnums=0)
    def slope(estimator):
        state = estimator.init(inner, prior)
        found = estimator.estimate(objective, inner, prior, problem, state, key=KEY)
        return found[1].geometry.log_diagonal / c07["m"]

    moved = theta - c07["theta1"]
    if outer == "bregman":
        direct, pull = c07["m"] * moved**2, c07["m"] ** 2 * moved
        np.testing.assert_allclose(direct, c07["bregman_total_grad_m"], rtol=SAME)
        np.testing.assert_allclose(pull @ derivative, np.zeros(7), rtol=0, atol=NOTHING)
    else:
        direct, pull = np.zeros(7), theta - c07["val_target"]
        np.testing.assert_allclose(pull @ derivative, c07["validation_grad_m"], rtol=SAME)
    np.testing.assert_allclose(slope(Direct(3000)), direct, rtol=CONVERGED)
    np.testing.assert_allclose(slope(Reverse(3000)), direct + pull @ derivative, rtol=CONVERGED)


def test_mirror_descent_in_the_entropy_of_the_orthant(golden):
    """The gradients lie in the range of `Aᵀ`, so `log θ − log θ_1` does, in the limit too."""
    c07 = golden("c07_bregman_projection")
    rows, values = (jnp.asarray(c07[f"entropy_{name}"]) for name in ("A", "b"))
    prior = Prior(NegativeEntropy("orthant"), jnp.asarray(c07["entropy_theta1"]))
    problem = Problem(interpolation, Repeat((rows, values)))
    last = jax.jit(lambda: unroll(MirrorDescent(0.02), prior, problem, 20_000, key=KEY).last)()
    np.testing.assert_allclose(last, c07["entropy_theta_star"], rtol=IN_LOGARITHMS)
    divergence = prior.geometry.divergence(last, prior.start)
    np.testing.assert_allclose(divergence, c07["entropy_kl"], rtol=SAME)
    found = jnp.log(last / prior.start)
    np.testing.assert_allclose(found, rows.T @ c07["entropy_nu"], rtol=IN_LOGARITHMS)
