"""The maximum of diagonals where it is delicate: ties, faces, scales, and its mixing weights."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import Diagonal, MaxOfDiagonals
from repeats import slow


def random(seed, count, dim, spread=0.7):
    rng = np.random.default_rng(seed)
    logs, point = rng.uniform(-spread, spread, (count, dim)), rng.normal(size=dim)
    return jnp.asarray(logs), jnp.asarray(point)


@jax.jit
def invert(geometry, dual):
    return geometry.to_primal(dual)


def gap(geometry, dual):
    """`max_j q_j(x) − Σ_j w_j q_j(x)`, relative: zero only at the exact inverse."""
    values = geometry.component_potentials(geometry.to_primal(dual))
    return (jnp.max(values) - geometry.weights(dual) @ values) / jnp.max(values)


def test_the_paper_s_bound_on_its_divergence_is_false():
    """`B(θ*‖θ_1) ≤ max_j ½‖θ* − θ_1‖²_{M_j}`, eq. 14 of S000, fails across a kink."""
    geometry = MaxOfDiagonals(jnp.log(jnp.array([[1.0, 4.0], [4.0, 1.0]])) / 2)
    solution, start = jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0])
    assert float(geometry.divergence(solution, start)) == pytest.approx(4.0, rel=1e-15)
    claimed = geometry.potential(solution - start)
    assert float(claimed) == pytest.approx(2.5, rel=1e-15)


def test_near_a_kink_no_distance_bounds_the_divergence():
    """S000 appendix B: `‖Δ‖² = 0.02` and `C² = 5`, so `C²r²/2 = 0.05`; the divergence is 30.01."""
    geometry = MaxOfDiagonals(jnp.log(jnp.array([[1.0, 4.0], [4.0, 1.0]])) / 2)
    start, moved = jnp.array([100.0, 99.9]), jnp.array([-0.1, 0.1])
    assert float(jnp.sum(geometry.curvatures, axis=1)[0] * (moved @ moved) / 2) < 0.0501
    # A difference of numbers of size 24,990.
    assert float(geometry.divergence(start + moved, start)) == pytest.approx(30.01, rel=1e-12)


SOLVES = [
    *((2, 3, 0.01), (3, 3, 3.0), (3, 2000, 0.05), (5, 40, 0.5)),
    *(slow(3, 50, 0.05), slow(8, 20, 0.5)),
]


@pytest.mark.parametrize("count", [1, 3, slow(2), slow(5)])
def test_equal_components_are_one_diagonal(count):
    logs, point = random(count, 1, 6)

    @jax.jit
    def values(geometry):
        methods = (geometry.to_dual, geometry.to_primal, geometry.potential, geometry.conjugate)
        return [method(point) for method in methods]

    many = values(MaxOfDiagonals(jnp.tile(logs, (count, 1))))
    for same, expected in zip(many, values(Diagonal(logs[0])), strict=True):
        np.testing.assert_allclose(same, expected, rtol=4e-16)


@pytest.mark.parametrize("count", [2, slow(5)])
def test_equal_components_share_a_finite_gradient(count):
    """The weights are not determined here; the point is, and so is the sum of its gradients."""
    logs, dual = random(count, 1, 6)

    def cubes(geometry):
        return jnp.sum(geometry.to_primal(dual) ** 3)

    equal = MaxOfDiagonals(jnp.tile(logs, (count, 1)))
    many = jax.jit(jax.grad(cubes))(equal).log_diagonals
    one = jax.grad(cubes)(Diagonal(logs[0])).log_diagonal
    np.testing.assert_allclose(jnp.sum(many, axis=0), one, rtol=1e-14)
    jacobian = jax.jit(jax.jacfwd(equal.to_primal))(dual)
    np.testing.assert_allclose(jacobian, np.diag(np.exp(-2 * logs[0])), rtol=0, atol=1e-14)


@pytest.mark.parametrize("count", [5, slow(2), slow(3)])
def test_every_dual_of_a_tie_leads_back_to_it(count):
    """At a tie the duals are `Σ_j w_j m_j² x` for all `w` in the simplex; each maps to `x`."""
    # Five components in six coordinates, many duals at once: a loop condition that compares
    # freshly computed floats can differ from itself under vmap, and this never ended.
    rng = np.random.default_rng(count)
    values = jnp.asarray(rng.uniform(-0.7, 0.7, 6))
    geometry = MaxOfDiagonals(jnp.stack([jnp.roll(values, j) for j in range(count)]))
    point = jnp.asarray(3.0 * rng.choice([-1.0, 1.0], 6))
    potentials = geometry.component_potentials(point)
    np.testing.assert_allclose(potentials, potentials[0], rtol=1e-15)
    weights = rng.dirichlet(np.full(count, 0.7), 50)
    weights = np.concatenate([weights, np.eye(count), np.full((1, count), 1 / count)])
    duals = (weights @ np.asarray(geometry.curvatures)) * point
    back = jax.jit(jax.vmap(geometry.to_primal))(duals)
    np.testing.assert_allclose(back, np.broadcast_to(point, back.shape), rtol=1e-13)
    found = jax.jit(jax.vmap(geometry.weights))(duals)
    # Weights near zero have no relative accuracy; a rounding of `f` moves them by 6e-15.
    np.testing.assert_allclose(found, weights, rtol=0, atol=1e-13)


@pytest.mark.parametrize("count", [3, slow(2)])
def test_conjugate_against_a_grid_on_the_simplex(count):
    """No point of a fine grid beats the found minimum, and the best one comes close."""
    points = 400 if count == 2 else 60
    grid = [w for w in itertools.product(range(points + 1), repeat=count) if sum(w) == points]
    weights = np.array(grid) / points
    draws = [random(seed, count, 5) for seed in range(10)]
    logs, duals = (np.stack([draw[i] for draw in draws]) for i in range(2))
    found = jax.jit(jax.vmap(lambda logs, dual: MaxOfDiagonals(logs).conjugate(dual)))(logs, duals)
    best = np.min(np.sum(duals[:, None] ** 2 / (weights @ np.exp(2 * logs)), axis=2) / 2, axis=1)
    assert np.all(found <= best * (1 + 1e-14))
    assert np.all(best <= np.asarray(found) * (1 + 1e-2))


@pytest.mark.parametrize("dtype", [np.float64, slow(np.float32)])
@pytest.mark.parametrize(("count", "dim", "spread"), SOLVES)
def test_gap_certifies_every_solve(count, dim, spread, dtype):
    """The Frank–Wolfe gap closes to rounding, with weights on the simplex, on many draws."""
    rng = np.random.default_rng(dim)
    logs = rng.uniform(-spread, spread, (30, count, dim)) + rng.normal(size=(30, count, 1)) * spread
    duals = rng.normal(size=(30, dim)) * np.exp(3 * rng.normal(size=(30, dim)))

    def solve(logs, dual):
        geometry = MaxOfDiagonals(logs)
        return geometry.weights(dual), gap(geometry, dual)

    weights, gaps = jax.jit(jax.vmap(solve))(logs.astype(dtype), duals.astype(dtype))
    assert weights.dtype == dtype
    assert np.all(weights >= 0)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=8 * np.finfo(dtype).eps)
    # The sums over `dim` entries inside the gap round by themselves.
    assert np.max(np.abs(gaps)) <= 64 * np.finfo(dtype).eps


@pytest.mark.parametrize("magnitude", [1e-300, 1e-30, 1.0, 1e30, 1e150])
def test_map_is_homogeneous(magnitude):
    """`to_primal` is homogeneous of degree one, and neither overflows nor underflows."""
    logs, dual = random(0, 3, 6)
    geometry = MaxOfDiagonals(logs)
    scaled = np.asarray(invert(geometry, magnitude * dual)) / magnitude
    np.testing.assert_allclose(scaled, invert(geometry, dual), rtol=1e-14)


def test_at_the_origin_all_is_finite():
    """Every weight is right at the origin, and the derivative takes the centre's."""
    logs, _ = random(0, 3, 4)
    geometry, origin = MaxOfDiagonals(logs), jnp.zeros(4)
    np.testing.assert_array_equal(geometry.to_primal(origin), origin)
    assert float(geometry.conjugate(origin)) == 0.0
    by_logs, by_dual = jax.jit(jax.jacrev(lambda r, p: MaxOfDiagonals(r).to_primal(p), (0, 1)))(
        logs, origin
    )
    np.testing.assert_allclose(by_dual, np.diag(1 / np.exp(2 * logs).mean(0)), rtol=1e-14)
    np.testing.assert_array_equal(by_logs, np.zeros((4, 3, 4)))


def test_second_derivatives():
    """The rule for derivatives can itself be differentiated, in both modes."""
    rng = np.random.default_rng(0)
    values, direction = jnp.asarray(rng.uniform(-0.7, 0.7, 5)), rng.normal(size=(3, 5))
    logs = jnp.stack([jnp.roll(values, j) for j in range(3)])
    # All three tie at points of equal entries, and stay active around the dual of an inner mixture.
    dual = jnp.array([0.2, 0.3, 0.5]) @ jnp.exp(2 * logs) * rng.choice([-1.0, 1.0], 5)

    def cubes(t):
        return jnp.sum(MaxOfDiagonals(logs + t * direction).to_primal(dual) ** 3)

    @jax.jit
    def derivatives(t):
        slope = jax.grad(cubes)
        return MaxOfDiagonals(logs).weights(dual), slope(t), jax.grad(slope)(t)

    step = 1e-5
    weights, _, second = derivatives(0.0)
    np.testing.assert_allclose(weights, [0.2, 0.3, 0.5], rtol=1e-14)
    expected = (derivatives(step)[1] - derivatives(-step)[1]) / (2 * step)
    # A central difference of step 1e-5 is good to 5e-9.
    np.testing.assert_allclose(second, expected, rtol=1e-7)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(jax.jacfwd(cubes)))(0.0), second, rtol=1e-13)


def test_inactive_component_gets_no_gradient():
    """A dominated component neither moves the point nor is moved."""
    logs = jnp.array([[0.5, 0.5], [0.0, 0.1]])
    dual = jnp.array([1.0, -2.0])
    np.testing.assert_array_equal(MaxOfDiagonals(logs).weights(dual), [1.0, 0.0])
    gradient = jax.grad(lambda r: jnp.sum(MaxOfDiagonals(r).to_primal(dual) ** 2))(logs)
    np.testing.assert_array_equal(gradient[1], [0.0, 0.0])
    assert np.all(np.asarray(gradient[0]) != 0)


def test_divergence_keeps_its_digits_between_close_points():
    """`D` is of the order of the squared distance; nothing of the potential's size is left in."""
    logs, point = random(0, 3, 5)
    geometry = MaxOfDiagonals(logs)
    step = jnp.asarray(1e-7 * np.random.default_rng(1).normal(size=5))
    curvature = geometry.curvatures[geometry.active(point)]
    close = geometry.divergence(1e3 * point + step, 1e3 * point)
    moved = (1e3 * point + step) - 1e3 * point
    np.testing.assert_allclose(close, jnp.sum(curvature * moved**2) / 2, rtol=1e-12)


def test_like_scatters_around_one_diagonal():
    params = {"w": jnp.zeros((3, 4), jnp.float32), "b": jnp.zeros(4, jnp.float32)}
    geometry = MaxOfDiagonals.like(params, 2, 3.0, spread=0.1, key=jax.random.key(0))
    assert geometry.components == 2
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), geometry.diagonals) == {
        "w": ((2, 3, 4), "float32"),
        "b": ((2, 4), "float32"),
    }
    diagonals = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(geometry.diagonals)])
    assert 0.03 < np.std(diagonals / 3.0) < 0.2
    assert abs(diagonals.mean() / 3.0 - 1) < 0.1
    level = MaxOfDiagonals.like(params, 2, 3.0, spread=0.0, key=jax.random.key(0))
    np.testing.assert_allclose(level.diagonals["b"], 3.0, rtol=4e-7)  # exp of a log in float32
