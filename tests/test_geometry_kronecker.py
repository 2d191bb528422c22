"""Kronecker factors: goldens, the dense matrix they stand for, the gauge, a step's operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import Diagonal, Factors, Kronecker, cholesky_of, log_cholesky

EXACT = 1e-13
"""Products and solves of small factors; they agree to 2e-14 of an entry, 5e-15 of the largest."""

SHAPES = {"conv": (2, 2, 3, 4), "dense": (5, 3), "again": (5, 3), "bias": (3,), "gain": ()}


def drawn(seed=0):
    """A geometry with random factors, for parameters of `SHAPES`, and such parameters."""
    rng = np.random.default_rng(seed)
    params = {name: jnp.asarray(rng.normal(size=shape)) for name, shape in SHAPES.items()}
    like = Kronecker.like(params)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(-0.5, 0.5, leaf.shape)), like), params


def dense(node):
    """The Hessian of the potential of one array, written out, for its entries in C order."""
    if not isinstance(node, Factors):
        return np.diag(np.exp(2 * np.ravel(node)))
    return np.kron(*node.matrices)


def test_goldens(golden):
    c06 = golden("c06_metamd_tight")
    a, b, weights, slope = (jnp.asarray(c06[f"kron_{name}"]) for name in ("A", "B", "W", "g"))
    geometry = Kronecker(Factors(log_cholesky(a), log_cholesky(b), weights.shape))
    found = weights - c06["kron_eta"] * geometry.to_primal(slope)
    np.testing.assert_allclose(found, c06["kron_step"], rtol=0, atol=EXACT)
    np.testing.assert_allclose(
        dense(geometry.factors), c06["kron_dense_rowmajor"], rtol=0, atol=EXACT
    )
    np.testing.assert_allclose(geometry.strong_convexity(), c06["kron_lambda"], rtol=EXACT)

    moved = c06["kron_delta"][0]
    value = geometry.divergence(weights + moved, weights)
    np.testing.assert_allclose(value, np.vdot(moved, a @ moved @ b) / 2, rtol=EXACT)


def test_golden_divergence_and_its_derivatives(golden):
    c06 = golden("c06_metamd_tight")
    moved = jnp.asarray(c06["kron_delta"][0])

    def value(a, b):
        factors = Factors(log_cholesky(a), log_cholesky(b), moved.shape)
        return Kronecker(factors).divergence(moved, jnp.zeros_like(moved))

    found, slopes = jax.value_and_grad(value, argnums=(0, 1))(
        jnp.asarray(c06["kron_A"]), jnp.asarray(c06["kron_B"])
    )
    np.testing.assert_allclose(found, c06["kron_bregman"], rtol=EXACT)
    for slope, name in zip(slopes, "AB", strict=True):
        symmetric = (slope + slope.T) / 2  # Cholesky reads one half of a matrix
        np.testing.assert_allclose(symmetric, c06[f"kron_bregman_grad_{name}"], rtol=0, atol=EXACT)


def test_every_map_is_that_of_the_dense_matrix():
    geometry, params = drawn()
    to_dual, to_primal = geometry.to_dual(params), geometry.to_primal(params)
    potential = 0.0
    for name, leaf in params.items():
        matrix, flat = dense(geometry.factors[name]), np.ravel(leaf)
        np.testing.assert_allclose(np.ravel(to_dual[name]), matrix @ flat, rtol=1e-12, atol=EXACT)
        solved = np.linalg.solve(matrix, flat)
        np.testing.assert_allclose(np.ravel(to_primal[name]), solved, rtol=1e-12, atol=EXACT)
        inverse = np.linalg.inv(matrix)
        np.testing.assert_allclose(np.ravel(geometry.rates[name]), np.diag(inverse), rtol=1e-12)
        potential += flat @ matrix @ flat / 2
    np.testing.assert_allclose(geometry.potential(params), potential, rtol=EXACT)
    ends = [np.linalg.eigvalsh(dense(node)) for node in geometry.factors.values()]
    least, largest = min(values[0] for values in ends), max(values[-1] for values in ends)
    np.testing.assert_allclose(geometry.strong_convexity(), least, rtol=1e-12)
    np.testing.assert_allclose(geometry.jacobian_bounds(), (1 / largest, 1 / least), rtol=1e-12)


def test_arrays_of_one_shape_keep_their_own_factors():
    geometry, params = drawn()
    together = geometry.to_primal(params)
    for name in ("dense", "again"):
        alone = Kronecker(geometry.factors[name]).to_primal(params[name])
        np.testing.assert_allclose(together[name], alone, rtol=EXACT)


def test_diagonal_factors_are_a_diagonal_geometry():
    rng = np.random.default_rng(1)
    rows, columns = rng.uniform(-1, 1, 4), rng.uniform(-1, 1, 3)
    factors = Factors(jnp.diag(jnp.asarray(rows)), jnp.diag(jnp.asarray(columns)), (4, 3))
    other = Diagonal(jnp.asarray(rows[:, None] + columns))
    x, z = (jnp.asarray(rng.normal(size=(4, 3))) for _ in range(2))
    geometry = Kronecker(factors)
    np.testing.assert_allclose(geometry.to_primal(z), other.to_primal(z), rtol=EXACT)
    np.testing.assert_allclose(geometry.divergence(x, z), other.divergence(x, z), rtol=EXACT)


def test_the_gauge_changes_nothing_but_the_factors():
    geometry, params = drawn()
    fixed = geometry.fixed_gauge()
    for name in ("conv", "dense"):
        node = fixed.factors[name]
        np.testing.assert_allclose(np.trace(node.matrices[1]), len(node.columns), rtol=EXACT)
        assert abs(np.trace(geometry.factors[name].matrices[1]) - len(node.columns)) > 0.1
        np.testing.assert_allclose(dense(node), dense(geometry.factors[name]), rtol=1e-12)
    twice = fixed.fixed_gauge()
    for before, after in zip(jax.tree.leaves(fixed), jax.tree.leaves(twice), strict=True):
        np.testing.assert_allclose(after, before, rtol=0, atol=EXACT)


def operations(function, *arguments):
    """The names of the operations of a program, those within calls too."""
    found = []

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            found.append(equation.primitive.name)
            for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns")):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    walk(inner)

    walk(jax.make_jaxpr(function)(*arguments).jaxpr)
    return found


def test_a_step_is_four_triangular_solves_and_no_inverse():
    weights = jnp.ones((4, 3))
    made = operations(lambda g, w: g.to_primal(w), Kronecker.like(weights), weights)
    assert made.count("triangular_solve") == 4
    assert not {"cholesky", "lu", "eigh", "dot_general", "qr", "svd"} & set(made)


def test_log_cholesky_inverts_the_factorisation_and_names_what_is_no_factor():
    lower = cholesky_of(jnp.asarray([[0.3, 9.0], [-0.7, -0.2]]))
    assert lower[0, 1] == 0
    again = cholesky_of(log_cholesky(lower @ lower.T))
    np.testing.assert_allclose(again, lower, rtol=EXACT)
    for matrix in ([[1.0, 2.0], [2.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]):  # indefinite, singular
        found = np.asarray(log_cholesky(jnp.asarray(matrix)))
        assert not np.isfinite(found).all()


@pytest.mark.parametrize("diagonal", [0.0, -1.0, float("inf"), float("nan")])
def test_the_start_is_a_positive_multiple_of_the_identity(diagonal):
    with pytest.raises(ValueError, match=r"^Kronecker.diagonal: expected a positive finite"):
        Kronecker.like(jnp.zeros((2, 2)), diagonal)


@pytest.mark.parametrize(
    ("rows", "columns", "shape"),
    [((2, 2), (3, 3), (3, 2)), ((2, 3), (3, 3), (2, 3)), ((2, 2), (2, 2), (4,))],
)
def test_factors_fit_their_weights(rows, columns, shape):
    with pytest.raises(ValueError, match=r"^Kronecker.factors: weights of shape .* need factors"):
        Kronecker(Factors(jnp.zeros(rows), jnp.zeros(columns), shape))
