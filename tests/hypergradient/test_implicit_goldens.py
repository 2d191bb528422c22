"""Implicit hypergradients against independent values: spec B5, cases 2 and 3."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import AbstractGeometry, Diagonal, Euclidean, Scaled
from mirrax.hypergradient import Direct, Implicit
from mirrax.hypergradient._linear_system import Effort, LinearSystem, conjugate_gradients, neumann
from mirrax.inner import (
    AbstractObjective,
    BregmanProximal,
    Prior,
    Problem,
    Repeat,
    evaluate,
)
from mirrax.objective import LipschitzRegretBound
from repeats import slow

KEY = jax.random.key(0)
TIGHT = {"tolerance": 1e-13, "linear_tolerance": 1e-13}

SOLVED = 3e-12
"""Relative, mostly to the largest entry. Points and adjoints stop at residuals of 1e-13, times the
conditions of these systems, up to ten. Found: 6e-13."""

ITERATES = 4e-15
"""Relative to the largest entry of all iterates. The same products in another order, up to ten
times. Found: 5e-16."""

LATE_ITERATES = 2e-13
"""As `ITERATES`, of conjugate gradients on matrices, whose later directions are differences of what
is nearly equal. Found: 3e-14."""

AT_REST = 1e-14
"""Relative. A run of 150 steps has stopped at the fixed point to rounding. Found: 6e-16."""

WITHOUT_WEIGHT = 1e-9
"""Absolute and relative. At a rate of 1e9 the proximal term still weighs 5e-10, beside a penalty
of 5: a deviation of 1e-10, twice that in derivatives. Found: 2e-10 of the largest entries, 8e-10 of
small ones."""


class AtTheEnd(AbstractObjective):
    """A function of the last point alone."""

    cost: functools.partial

    @property
    def judges_steps(self):
        return False

    def stage(self, prior, problem, step):
        return jnp.zeros(())

    def terminal(self, prior, problem, first, last):
        return self.cost(last)


class Travelled(AbstractObjective):
    """`D(θ*‖θ_1)`."""

    @property
    def judges_steps(self):
        return False

    def stage(self, prior, problem, step):
        return jnp.zeros(())

    def terminal(self, prior, problem, first, last):
        return prior.geometry.divergence(last, first)


def quadratic(x, shared, data):
    del shared
    hessian, target = data
    return (x - target) @ hessian @ (x - target) / 2


def logistic(x, shared, data):
    del shared
    rows, labels = data
    return jnp.mean(jnp.logaddexp(0.0, -labels * (rows @ x)))


def distance(matrix, target, x):
    return (x - target) @ matrix @ (x - target) / 2


def assert_near(found, expected, tolerance):
    """Equal within a share of the largest entry."""
    error, size = np.abs(np.asarray(found) - expected).max(), np.abs(expected).max()
    assert error <= tolerance * size, (error / size, tolerance)


def estimate(estimator, objective, rate, prior, loss, data):
    """Value, gradient and state, compiled."""

    @jax.jit
    def run(inner, prior, data):
        problem = Problem(loss, Repeat(data))
        state = estimator.init(inner, prior)
        return estimator.estimate(objective, inner, prior, problem, state, key=KEY)

    return run(BregmanProximal(rate), prior, data)


DIAGONAL = {
    "quadratic": (quadratic, "H", "target"),
    "logistic": (logistic, "X", "y"),
}


def diagonal_case(golden, name):
    """Golden, problem and prior of a diagonal proximal problem."""
    loss, *fields = DIAGONAL[name]
    c07 = golden(f"c07_prox_diag_{name}")
    prior = Prior(Diagonal(jnp.log(c07["m"])), jnp.asarray(c07["theta1"]))
    return c07, loss, tuple(jnp.asarray(c07[field]) for field in fields), prior


def diagonal_objective(c07, outer):
    if outer == "bregman":
        return LipschitzRegretBound(float(c07["k"]), comparator="last")
    return AtTheEnd(functools.partial(distance, c07["val_Q"], c07["val_target"]))


@pytest.mark.parametrize(
    ("name", "outer", "solver"),
    [
        ("quadratic", "bregman", "gmres"),
        ("logistic", "validation", "neumann"),
        slow("quadratic", "validation", "cg"),
        slow("logistic", "bregman", "cg"),
    ],
)
def test_diagonal_proximal_problems(golden, name, outer, solver):
    c07, loss, data, prior = diagonal_case(golden, name)
    estimator = Implicit(1000, solver=solver, **TIGHT)
    objective = diagonal_objective(c07, outer)
    value, slope, state = estimate(estimator, objective, float(c07["eta"]), prior, loss, data)
    assert not state.implicit.flagged
    close = functools.partial(assert_near, tolerance=SOLVED)
    close(state.inner.primal, c07["theta_star"])
    close(value, c07[f"{outer}_E"])
    close(state.implicit.adjoint, c07[f"{outer}_adjoint_v"])
    close(slope.geometry.log_diagonal / c07["m"], c07[f"{outer}_total_grad_m"])
    if solver != "gmres":
        eigenvalues = c07["A_eigs"]
        close([state.implicit.smallest, state.implicit.largest], eigenvalues[[0, -1]])
    if solver == "neumann":
        close(state.implicit.radius, 1 - eigenvalues[0] / eigenvalues[-1])


@pytest.mark.parametrize("name", ["quadratic", "logistic"])
@pytest.mark.parametrize("outer", ["bregman", "validation"])
@pytest.mark.parametrize("series", ["cg", "neumann", "neumann_precond"])
def test_every_iterate_of_the_adjoint_solvers(golden, name, outer, series):
    c07, *_ = diagonal_case(golden, name)
    matrix, right = jnp.asarray(c07["A"]), jnp.asarray(c07[f"{outer}_grad_theta"])
    weights = 1 / c07["m"] ** 2 if series.endswith("precond") else np.ones(6)
    system = LinearSystem(lambda v: matrix @ v, right, lambda z: jnp.asarray(weights) * z)
    blank = jnp.zeros(6)

    def iterate(count):
        effort = Effort(None, count)
        if series == "cg":
            return conjugate_gradients(system, blank, effort)[0]
        return neumann(system, blank, effort, jnp.asarray(c07[f"{series}_c"]))[0]

    found = jax.jit(lambda: jax.lax.map(iterate, jnp.arange(1, 11)))()
    assert_near(found, c07[f"{outer}_{series}"], ITERATES)


@pytest.mark.parametrize(("solver", "count"), [("cg", 3), slow("neumann", 5)])
def test_a_truncated_adjoint_gives_the_truncated_hypergradient(golden, solver, count):
    c07, loss, data, prior = diagonal_case(golden, "quadratic")
    estimator = Implicit(
        1000, solver=solver, tolerance=1e-13, linear_steps=count, linear_tolerance=None
    )
    objective = diagonal_objective(c07, "bregman")
    _, slope, state = estimate(estimator, objective, float(c07["eta"]), prior, loss, data)
    assert not state.implicit.flagged and state.implicit.linear_steps == count
    left = c07["A"] @ c07[f"bregman_{solver}"][count - 1] - c07["bregman_grad_theta"]
    relative = np.linalg.norm(left) / np.linalg.norm(c07["bregman_grad_theta"])
    np.testing.assert_allclose(state.implicit.linear_residual, relative, rtol=SOLVED)
    expected = c07[f"bregman_total_grad_from_{solver}"][count - 1]
    np.testing.assert_allclose(slope.geometry.log_diagonal / c07["m"], expected, rtol=SOLVED)


class TestKronecker(AbstractGeometry):
    """`ψ(W) = ½ tr(WᵀAWB)`, with `A` and `B` made of free matrices by a given function."""

    __test__ = False
    left: jax.Array
    right: jax.Array
    make: functools.partial = eqx.field(static=True)

    def to_dual(self, primal):
        return self.make(self.left) @ primal @ self.make(self.right)

    def to_primal(self, dual):
        half = jnp.linalg.solve(self.make(self.left), dual)
        return jnp.linalg.solve(self.make(self.right), half.T).T

    def potential(self, primal):
        return jnp.sum(primal * self.to_dual(primal)) / 2

    def conjugate(self, dual):
        return jnp.sum(dual * self.to_primal(dual)) / 2

    def strong_convexity(self):
        return jnp.zeros(())


def symmetric(matrix):
    return (matrix + matrix.T) / 2


def from_factor(floor, matrix):
    lower = jnp.tril(matrix, -1) + jnp.diag(jnp.exp(jnp.diag(matrix)))
    return lower @ lower.T + floor * jnp.eye(len(matrix))


def matrix_loss(weights, shared, data):
    del shared
    rows, values = data
    return jnp.sum((rows @ weights - values) ** 2) / 2 / len(rows)


def held_out(data, weights):
    return matrix_loss(weights, None, data)


def kronecker_case(c07, outer, make, left, right):
    objective = Travelled()
    if outer == "validation":
        objective = AtTheEnd(functools.partial(held_out, (c07["Xval"], c07["Yval"])))
    geometry = TestKronecker(jnp.asarray(left), jnp.asarray(right), functools.partial(make))
    prior = Prior(geometry, jnp.asarray(c07["W1"]))
    data = (jnp.asarray(c07["X"]), jnp.asarray(c07["Y"]))
    return objective, float(c07["eta"]), prior, matrix_loss, data


@pytest.mark.parametrize(("outer", "solver"), [("bregman", "neumann"), slow("validation", "cg")])
def test_a_kronecker_geometry(golden, outer, solver):
    c07 = golden("c07_prox_kron")
    case = kronecker_case(c07, outer, symmetric, c07["A"], c07["B"])
    value, slope, state = estimate(Implicit(1000, solver=solver, **TIGHT), *case)
    assert not state.implicit.flagged
    close = functools.partial(assert_near, tolerance=SOLVED)
    close(state.inner.primal, c07["W_star"])
    close(value, c07[f"{outer}_E"])
    close(state.implicit.adjoint, c07[f"{outer}_adjoint_V"])
    close(slope.geometry.left, c07[f"{outer}_total_grad_A_sym"])
    close(slope.geometry.right, c07[f"{outer}_total_grad_B_sym"])
    if solver == "neumann":
        close(1 / state.implicit.largest, c07["neumann_c"])


def test_a_kronecker_geometry_by_its_cholesky_factors(golden):
    c07 = golden("c07_prox_kron")
    make = functools.partial(from_factor, float(c07["chol_eps"]))
    case = kronecker_case(c07, "validation", make, c07["chol_A_param"], c07["chol_B_param"])
    value, slope, state = estimate(Implicit(2000, solver="gmres", **TIGHT), *case)
    assert not state.implicit.flagged
    close = functools.partial(assert_near, tolerance=SOLVED)
    close(state.inner.primal, c07["chol_W_star"])
    close(value, c07["chol_validation_E"])
    for name, found in (("A", slope.geometry.left), ("B", slope.geometry.right)):
        lower = np.tril(np.ones_like(found))
        close(found, c07[f"chol_validation_grad_{name}_param"] * lower)


@pytest.mark.parametrize("outer", ["bregman", "validation"])
@pytest.mark.parametrize("series", ["cg", "neumann"])
def test_every_iterate_on_matrices(golden, outer, series):
    c07 = golden("c07_prox_kron")
    left, right = c07["A"] * c07["prox_coef"], c07["B"]
    gram = c07["X"].T @ c07["X"] / len(c07["X"])
    system = LinearSystem(
        lambda v: gram @ v + left @ v @ right, jnp.asarray(c07[f"{outer}_grad_W"]), lambda z: z
    )
    blank = jnp.zeros_like(system.right)

    def iterate(count):
        effort = Effort(None, count)
        if series == "cg":
            return conjugate_gradients(system, blank, effort)[0]
        return neumann(system, blank, effort, jnp.asarray(c07["neumann_c"]))[0]

    found = jax.jit(lambda: jax.lax.map(iterate, jnp.arange(1, 11)))()
    assert_near(found, c07[f"{outer}_{series}"], LATE_ITERATES if series == "cg" else ITERATES)


# --- ridge regression: the regulariser is a geometry, or a shared number -----------------------


def least_squares(w, shared, data):
    """`½ mean (Xw − y)²`, and `½ λ ‖w‖²` where `λ` is shared."""
    rows, values = data if data is not None else (shared["X"], shared["y"])
    penalty = 0.0 if shared is None else shared["penalty"] * (w @ w) / 2
    return jnp.mean((rows @ w - values) ** 2) / 2 + penalty


def pairing(cotangent, w):
    return cotangent @ w


def test_ridge_regression_as_a_learned_scale(golden):
    c07 = golden("c07_ridge_jacobian")
    # D/(2η) = s‖w‖²/(4η) with the start at zero: λ = s/(2η), so a scale of 1 is λ = 5 at η = 0.1.
    prior = Prior(Scaled(Euclidean(), jnp.zeros(())), jnp.zeros(3))
    objective = AtTheEnd(functools.partial(pairing, c07["cotangent"]))
    data = (jnp.asarray(c07["X"]), jnp.asarray(c07["y"]))
    rate = 1 / (2 * float(c07["lam"]))
    _, slope, state = estimate(Implicit(1000, **TIGHT), objective, rate, prior, least_squares, data)
    np.testing.assert_allclose(state.inner.primal, c07["w"], rtol=SOLVED)
    np.testing.assert_allclose(slope.geometry.log_scale, c07["lam"] * c07["vjp_lam"], rtol=SOLVED)


def test_ridge_regression_as_shared_numbers(golden):
    """All of the problem is shared, and a rate of 1e9 leaves the proximal term without weight."""
    c07 = golden("c07_ridge_jacobian")
    shared = {"X": jnp.asarray(c07["X"]), "y": jnp.asarray(c07["y"]), "penalty": c07["lam"]}
    prior = Prior(Euclidean(), jnp.zeros(3), jax.tree.map(jnp.asarray, shared))
    objective = AtTheEnd(functools.partial(pairing, c07["cotangent"]))
    estimator = Implicit(1000, wrt=("shared",), **TIGHT)
    _, slope, state = estimate(estimator, objective, 1e9, prior, least_squares, None)
    close = functools.partial(np.testing.assert_allclose, rtol=WITHOUT_WEIGHT, atol=WITHOUT_WEIGHT)
    close(state.inner.primal, c07["w"])
    close(slope.shared["penalty"], c07["vjp_lam"])
    close(slope.shared["X"], c07["vjp_X"])
    close(slope.shared["y"], c07["vjp_y"])


# --- what is direct, and what is not -----------------------------------------------------------


def test_the_envelope_of_the_proximal_value(golden):
    """`min ℓ + D/(2η)` has no indirect term: the residual is zero, so the adjoint is."""
    c07, loss, data, prior = diagonal_case(golden, "logistic")
    rate = float(c07["eta"])

    class ProximalValue(Travelled):
        def terminal(self, prior, problem, first, last):
            return loss(last, None, data) + prior.geometry.divergence(last, first) / (2 * rate)

    estimator = Implicit(1000, linear_tolerance=None, linear_steps=20, tolerance=1e-13)
    _, slope, state = estimate(estimator, ProximalValue(), rate, prior, loss, data)
    moved = c07["theta_star"] - c07["theta1"]
    # It solves for the point's own residual, which ended below 1e-13. Found: 1e-16.
    assert np.abs(state.implicit.adjoint).max() < 2e-13
    np.testing.assert_allclose(
        slope.geometry.log_diagonal, (c07["m"] * moved) ** 2 / (2 * rate), rtol=SOLVED
    )
    # The divergence alone has one, as large as the direct term here.
    share = c07["bregman_total_grad_m"] / c07["bregman_direct_grad_m"]
    assert np.abs(share - 1).max() > 0.1


def test_direct_through_the_solver_is_the_direct_term(golden):
    c07, loss, data, prior = diagonal_case(golden, "quadratic")
    inner, problem = BregmanProximal(float(c07["eta"])), Problem(loss, Repeat(data))
    objective, estimator = diagonal_objective(c07, "bregman"), Direct(150)

    @jax.jit
    def run():
        state = estimator.init(inner, prior)
        slope = estimator.estimate(objective, inner, prior, problem, state, key=KEY)[1]
        return slope.geometry.log_diagonal, evaluate(
            objective, inner, prior, problem, 150, key=KEY
        )[0]

    slope, value = run()
    np.testing.assert_allclose(value, c07["bregman_E"], rtol=AT_REST)
    np.testing.assert_allclose(slope / c07["m"], c07["bregman_direct_grad_m"], rtol=AT_REST)
