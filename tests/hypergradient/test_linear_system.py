"""The solvers of the adjoint system: dense solutions, early ends, and many numbers in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import Diagonal
from mirrax.hypergradient import Implicit
from mirrax.hypergradient._linear_system import (
    Effort,
    LinearSystem,
    conjugate_gradients,
    gmres,
    relative_residual,
)
from mirrax.inner import BregmanProximal, Prior, Problem, Repeat
from mirrax.objective import ValidationLoss

SIZE = 30


def system(spectrum, preconditioned=False):
    """A symmetric matrix with those eigenvalues, and a right-hand side in all their directions."""
    rng = np.random.default_rng(1)
    basis, _ = np.linalg.qr(rng.normal(size=(len(spectrum), len(spectrum))))
    matrix = jnp.asarray(basis * spectrum @ basis.T)
    weights = jnp.asarray(1 / np.diag(matrix)) if preconditioned else 1.0
    right = jnp.asarray(basis @ np.linspace(1, 2, len(spectrum)))
    return matrix, LinearSystem(lambda v: matrix @ v, right, lambda v: weights * v)


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("solver", [conjugate_gradients, gmres])
def test_the_solution_is_that_of_a_dense_solver(solver, preconditioned):
    matrix, given = system(np.geomspace(0.1, 10, SIZE), preconditioned)
    guess = jnp.asarray(np.linspace(-1, 1, SIZE))
    found, count = jax.jit(lambda: solver(given, guess, Effort(1e-12, 500))[:2])()
    assert relative_residual(given, found) < 2e-12
    # The condition number, 100, of what the residual leaves.
    np.testing.assert_allclose(found, np.linalg.solve(matrix, given.right), rtol=1e-9)
    assert SIZE < 2 * count <= 400


def test_conjugate_gradients_are_exact_after_as_many_steps_as_eigenvalues():
    _, given = system(np.repeat([1.0, 2.0, 5.0], 4))
    for steps, bound in ((2, 1), (3, 1e-14)):
        found, count, concave = conjugate_gradients(given, jnp.zeros(12), Effort(None, steps))
        assert count == steps and not concave
        assert bound / 1e3 < relative_residual(given, found) < bound
    assert conjugate_gradients(given, found, Effort(1e-10, 9))[1] == 0


def test_conjugate_gradients_stop_where_there_is_no_positive_curvature():
    _, given = system(np.array([3.0, 1.0, -2.0, -4.0]))
    found, count, concave = conjugate_gradients(given, jnp.zeros(4), Effort(1e-10, 50))
    assert concave and count < 4 and np.isfinite(found).all()
    assert relative_residual(given, found) > 1e-3
    solved, _ = gmres(given, jnp.zeros(4), Effort(1e-10, 50))
    assert relative_residual(given, solved) < 1e-10


@pytest.mark.parametrize("effort", [Effort(1e-10, 300), Effort(None, 300)])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_conjugate_gradients_with_nothing_to_do_stay_numbers(preconditioned, effort):
    """A zero right-hand side, and far more steps than are of use."""
    _, given = system(np.geomspace(0.1, 10, SIZE), preconditioned)
    nothing = given._replace(right=jnp.zeros(SIZE))
    found, count, concave = conjugate_gradients(nothing, jnp.zeros(SIZE), effort)
    assert count == 0 and not concave and not found.any()
    found, count, concave = conjugate_gradients(given, jnp.zeros(SIZE), effort)
    assert not concave and count < 200
    assert relative_residual(given, found) < 1e-10


@pytest.mark.parametrize(("spectrum", "cycles"), [((1.0, 2.0, 3.0), 1), (range(1, 26), 2)])
def test_gmres_counts_steps(spectrum, cycles):
    """A cycle is 20 steps, or as many as there are numbers; one more may confirm the solution."""
    _, given = system(np.array(spectrum, float))
    _, count = gmres(given, jnp.zeros(len(spectrum)), Effort(1e-8, 200))
    assert count == (cycles + 1) * min(20, len(spectrum))


def bent(x, shared, curvature):
    del shared
    return x @ (curvature * x) / 2 + jnp.sum(x)


def test_many_numbers_in_single_precision():
    """So many that their roundings together are no small number beside a curvature of one."""
    size = 200_000
    rng = np.random.default_rng(0)
    start = jnp.asarray(rng.normal(size=size), jnp.float32)
    curvature = jnp.asarray(np.linspace(0.1, 3, size), jnp.float32)
    problem = Problem(bent, Repeat(curvature), query=jnp.ones(size, jnp.float32))
    prior, inner = Prior(Diagonal.like(start, 1.0), start), BregmanProximal(0.5)
    estimator = Implicit(200, "cg", ("start",))

    @jax.jit
    def run():
        return estimator.over_a_run(ValidationLoss(), inner, prior, problem, key=jax.random.key(0))

    _, slope, state = run()
    state.implicit.require_sound()
    # `(C + 1) θ* = θ_1 − 1`, judged by `½‖θ*‖² + Σ θ*`; A is at least one, so an error is no
    # larger than its residual: twice 256 roundings of the norm of the right-hand side.
    solution = (np.asarray(start, float) - 1) / (1 + np.asarray(curvature, float))
    expected = (solution + 1) / (1 + np.asarray(curvature, float))
    miss = np.linalg.norm(np.asarray(slope.start, float) - expected) / np.linalg.norm(solution + 1)
    assert miss < 512 * np.finfo(np.float32).eps
