"""The learned convex potential: stored values, its start, its bounds and its inverse."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose

from mirrax._tree import dot
from mirrax.geometry import ConvexPotential, Euclidean, Scaled, project
from mirrax.geometry._dual_system import balance

NAMES = ("conv_w", "conv_b", "lin_w", "lin_b")
AXES = (
    ("conv_w", ("out", "in", "height", "width")),
    ("conv_b", ("out",)),
    ("lin_w", ("out", "in")),
    ("lin_b", ("out",)),
)


@pytest.fixture
def stored(golden):
    return golden("c03_valid_map")


@pytest.fixture
def geometry(stored):
    smallest = 0.1
    return ConvexPotential(
        {name: jnp.log(jnp.expm1(stored[f"c__{name}"] - smallest)) for name in NAMES},
        {
            name: tuple(jnp.asarray(stored[f"{name}__E{d + 1}"]) for d in range(modes))
            for name, modes in zip(NAMES, (3, 1, 2, 1), strict=True)
        },
        *(jnp.asarray(stored[key]) for key in ("U", "a", "b")),
        AXES,
        smallest,
    )


def tree(flat, stored):
    """A point of the stored problem from one vector, in the stored order of arrays."""
    shapes = [stored[f"z__{name}"].shape for name in NAMES]
    parts = np.split(np.asarray(flat), np.cumsum([int(np.prod(s)) for s in shapes])[:-1])
    return {n: jnp.asarray(p).reshape(s) for n, p, s in zip(NAMES, parts, shapes, strict=True)}


def flat(point):
    return np.concatenate([np.ravel(point[name]) for name in NAMES])


def point(stored, prefix):
    return {name: jnp.asarray(stored[f"{prefix}__{name}"]) for name in NAMES}


# Sums of at most 147 terms of order one, in another order.
ROUNDING = dict(rtol=1e-12, atol=1e-12)


def test_conjugate_and_its_gradient_agree(geometry, stored):
    z, other = point(stored, "z"), point(stored, "z2")
    assert_allclose(geometry.conjugate(z), stored["hstar_z"], rtol=1e-13)
    assert_allclose(geometry.conjugate(other), stored["hstar_z2"], rtol=1e-13)
    assert_allclose(flat(geometry.to_primal(z)), stored["g_z"], **ROUNDING)
    assert_allclose(flat(geometry.to_primal(other)), stored["g_z2"], **ROUNDING)
    _, moved = jax.jvp(geometry.to_primal, (z,), (other,))
    assert_allclose(flat(moved), stored["jvp"], **ROUNDING)


def test_divergence_and_inverse_agree(geometry, stored):
    x, y = tree(stored["g_z2"], stored), tree(stored["g_z"], stored)
    assert_allclose(geometry.divergence(x, y), stored["bregman_h_g2_g1"], rtol=1e-12)
    assert_allclose(flat(geometry.to_dual(y)), flat(point(stored, "z")), **ROUNDING)


def test_bounds_hold_and_agree(geometry, stored):
    z = point(stored, "z")
    vector, unravel = ravel_pytree(z)
    matrix = jax.jacfwd(lambda v: ravel_pytree(geometry.to_primal(unravel(v)))[0])(vector)
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    assert_allclose(matrix, matrix.T, rtol=0, atol=1e-15)
    assert_allclose(values, stored["jac_eig_z"], rtol=1e-12)
    lower, upper = geometry.jacobian_bounds()
    assert_allclose(lower, stored["eig_lower_bound"], rtol=1e-14)
    assert lower <= values[0] and values[-1] <= upper
    # The stored bound takes max(a)‖UE‖²/4 where this one takes λ_max(Eᵀ Uᵀ diag(a/4) U E).
    assert upper <= stored["eig_upper_bound"] * (1 + 1e-12)
    ridges = np.asarray(stored["U"] @ stored["E_dense"])
    exact = np.linalg.eigvalsh((ridges.T * stored["a"] / 4) @ ridges)[-1]
    highest = max(stored[f"c__{name}"].max() for name in NAMES)
    assert_allclose(upper, highest + exact, rtol=1e-12)
    assert upper >= highest + exact
    assert_allclose(geometry.strong_convexity(), 1 / upper, rtol=1e-15)


def test_ten_mirror_steps_agree(geometry, stored):
    curvature, target = jnp.asarray(stored["md_Q"]), jnp.asarray(stored["md_target"])
    z = jnp.asarray(stored["md_z"][0])
    for t in range(10):
        x = flat(geometry.to_primal(tree(z, stored)))
        assert_allclose(x, stored["md_phi"][t], rtol=1e-10, atol=1e-11)
        z = z - float(stored["md_alpha"]) * curvature @ (x - target)
        assert_allclose(z, stored["md_z"][t + 1], rtol=1e-10, atol=1e-11)


# --- the start and the constraint -------------------------------------------------------------

ROLES = {
    "conv": {"weight": ("height", "width", "in", "out"), "bias": ("out",)},
    "dense": {"weight": ("in", "out")},
}
TEMPLATE = {
    "conv": {"weight": jnp.zeros((2, 2, 3, 9)), "bias": jnp.zeros(9)},
    "dense": {"weight": jnp.zeros((9, 4))},
}


def start(seed=0, **options):
    return ConvexPotential.like(TEMPLATE, ROLES, key=jax.random.key(seed), **options)


def noise(like, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), like)


def scattered(seed=1, **options):
    found = start(seed, **options)
    moved = jax.tree.map(lambda leaf, n: leaf + 0.5 * n, found, noise(found, seed))
    return dataclasses.replace(moved, amplitudes=jnp.abs(noise(moved.amplitudes, seed + 1)))


@pytest.mark.slow
def test_starts_at_the_identity():
    z = noise(TEMPLATE, 2)
    for moved in (start().to_primal(z), start().to_dual(z)):
        jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-15), moved, z)
    lower, upper = start().jacobian_bounds()
    assert_allclose((lower, upper), 1, rtol=1e-12)
    assert_allclose(start().divergence(z, TEMPLATE), dot(z, z) / 2, rtol=1e-13)
    widths = [factor.shape for factor in start().encoders["conv/weight"]]
    assert widths == [(1, 9), (1, 3), (1, 4)]


def test_gradient_of_the_amplitudes_is_alive_and_one_sided_at_the_start():
    geometry, z, goal = start(), noise(TEMPLATE, 3), noise(TEMPLATE, 4)

    def miss(amplitudes):
        x = dataclasses.replace(geometry, amplitudes=amplitudes).to_primal(z)
        away = jax.tree.map(jnp.subtract, x, goal)
        return dot(away, away)

    zero = jnp.zeros(32)
    slope = jax.grad(miss)(zero)
    assert np.abs(slope).min() > 1e-3 * np.abs(slope).max()
    step = 1e-6
    ahead = np.array([(miss(step * unit) - miss(zero)) / step for unit in jnp.eye(32)])
    # One-sided differences err by the step times second derivatives, and round by 1e-16/1e-6.
    assert_allclose(slope, ahead, atol=1e-4 * np.abs(slope).max())
    assert miss(-jnp.ones(32)) == miss(zero)  # never concave, whatever is stored


def test_derivatives_of_everything_are_finite_at_the_start():
    geometry, x = start(), noise(TEMPLATE, 5)

    def values(g):
        return g.strong_convexity() + g.potential(x) + g.divergence(x, TEMPLATE)

    slopes = jax.jit(jax.grad(values))(geometry)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def test_projection_reaches_geometries_inside_other_things():
    amplitudes = jnp.array([-1.0, 0.0, 2.0])
    outside = dataclasses.replace(start(units=3), amplitudes=amplitudes)
    inside = project({"prior": Scaled(outside, jnp.zeros(())), "other": jnp.array([-1.0])})
    assert inside["prior"].geometry.amplitudes.tolist() == [0.0, 0.0, 2.0]
    assert inside["other"].tolist() == [-1.0]
    z = noise(TEMPLATE, 6)
    before, after = outside.to_primal(z), outside.project().to_primal(z)
    assert eqx.tree_equal(before, after)  # projection moves a leaf, never the map
    assert project(Euclidean()) == Euclidean()


# --- the inverse ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("weight", [0.1, 1e3])
def test_inverse_from_afar(size, weight):
    """Newton's method converges at once or by backtracking, however strong the units are."""
    geometry = scattered(units=16)
    geometry = dataclasses.replace(geometry, amplitudes=weight * geometry.amplitudes)
    z = jax.tree.map(lambda leaf: size * leaf, noise(TEMPLATE, 7))
    back = eqx.filter_jit(lambda g, z: g.to_dual(g.to_primal(z)))(geometry, z)
    # z is p less the units' sum, whose rounding is that of the larger of the two.
    lost = 1e-13 * (size + weight) * np.sqrt(weight + 1)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=0, atol=lost), back, z)


@pytest.mark.slow
def test_solution_of_the_dual_system_to_third_order():
    rng = np.random.default_rng(8)
    root = rng.normal(size=(3, 3))
    gram, offset = jnp.asarray(root @ root.T), jnp.asarray(rng.normal(size=3))
    amplitudes = jnp.asarray(rng.uniform(0.5, 2, 3))

    def along(t):
        return balance(amplitudes * jnp.exp(t), gram * (1 + t), offset + t)[0]

    def residual(t):
        y = balance(amplitudes * jnp.exp(t), gram * (1 + t), offset + t)
        return y - amplitudes * jnp.exp(t) * jax.nn.sigmoid(offset + t - gram * (1 + t) @ y)

    value, step = along, 1e-4
    for _ in range(3):
        slope = jax.grad(value)
        central = (value(0.1 + step) - value(0.1 - step)) / (2 * step)
        assert_allclose(slope(0.1), central, rtol=1e-6)
        assert abs(slope(0.1)) > 1e-3
        value = slope
    assert_allclose(residual(0.1), 0, atol=1e-15)
    assert_allclose(jax.jacfwd(residual)(0.1), 0, atol=1e-14)


def test_loops_of_the_mirror_map_close():
    """Oracle 5: the integral of `∇ψ` round a closed path is zero."""
    geometry = scattered()
    vector, unravel = ravel_pytree(noise(TEMPLATE, 9))
    corners = [ravel_pytree(noise(TEMPLATE, seed))[0] for seed in (10, 11)]
    nodes, weights = np.polynomial.legendre.leggauss(40)

    @jax.jit
    def side(a, b):
        def work(share):
            dual = geometry.to_dual(unravel(a + share * (b - a)))
            return ravel_pytree(dual)[0] @ (b - a)

        return jax.vmap(work)(jnp.asarray((nodes + 1) / 2)) @ jnp.asarray(weights / 2)

    path = [vector, *corners, vector]
    sides = [side(a, b) for a, b in zip(path[:-1], path[1:], strict=True)]
    # Gauss quadrature of a smooth function; the three sides are of order 100.
    assert abs(sum(sides)) < 1e-9
    assert max(map(abs, sides)) > 1


def test_regret_theorem_holds_on_convex_tasks():
    """S000 Theorem 3.1 on quadratics, as it must for a potential; the bound is not loose."""
    geometry = scattered()
    vector, unravel = ravel_pytree(TEMPLATE)
    rng = np.random.default_rng(12)
    modulus = geometry.strong_convexity()

    @jax.jit
    def ratio(root, goal, first, rate):
        curvature = root @ root.T / len(goal) + 0.05 * jnp.eye(len(goal))
        solution = unravel(goal)

        def step(z, _):
            x = ravel_pytree(geometry.to_primal(unravel(z)))[0]
            gradient = curvature @ (x - goal)
            return z - rate * gradient, (gradient @ (x - goal), gradient @ gradient)

        _, (regrets, squares) = jax.lax.scan(step, first, None, length=60)
        away = geometry.divergence(solution, geometry.to_primal(unravel(first)))
        return regrets.sum() / (away / rate + rate / (2 * modulus) * squares.sum())

    ratios = [
        ratio(
            jnp.asarray(rng.normal(size=(len(vector), len(vector)))),
            jnp.asarray(rng.normal(size=len(vector))),
            jnp.asarray(rng.normal(size=len(vector))),
            rng.uniform(0.01, 0.2),
        )
        for _ in range(20)
    ]
    assert max(ratios) <= 1 + 1e-9
    assert max(ratios) > 0.3


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"ConvexPotential.like: .*units=0"):
        start(units=0)
    with pytest.raises(ValueError, match=r"ConvexPotential.smallest_rate: .*-1.0"):
        dataclasses.replace(start(), smallest_rate=-1.0)
    with pytest.raises(ValueError, match=r"ConvexPotential: expected the parameters conv/bias"):
        start().to_primal({"conv": TEMPLATE["conv"]})
