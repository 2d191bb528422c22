"""Averaged points: the recursion by hand, rates that are stable, the bound on the mean, types."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from deployed import check_frozen_stay, make_geometries, make_params

from mirrax.deploy import averaged, averaged_params, to_optax
from mirrax.geometry import Diagonal, Kronecker, MaxOfDiagonals, NegativeEntropy
from repeats import slow

SHAPE = (3, 4)

ROUNDING = 4e-15
"""Relative. The mean is updated here and taken anew there, and a step solves here and multiplies by
inverses there, so they differ by rounding alone. Found: 4e-16."""


def random_geometries():
    rng = np.random.default_rng(4)
    start = jnp.zeros(SHAPE)
    kinds = [
        Diagonal.like(start),
        Kronecker.like(start),
        MaxOfDiagonals.like(start, components=3, spread=0.3, key=jax.random.key(0)),
    ]
    return [
        jax.tree.map(lambda leaf: leaf + 0.3 * rng.normal(size=leaf.shape), kind) for kind in kinds
    ]


def follow(optimiser, slope, params, steps):
    """Points `y` and `z` and the mean, step by step, as a training loop would see them."""
    state, seen = optimiser.init(params), []
    for _ in range(steps):
        seen.append((params, state.point, averaged_params(state, params)))
        updates, state = optimiser.update(slope(params), state, params)
        params = optax.apply_updates(params, updates)
    return [np.stack(column) for column in zip(*seen, strict=True)]


def assert_rounded(found, expected):
    """Equal to the rounding of the largest entry: single entries pass through zero."""
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < ROUNDING


def by_hand(step, slope, start, interpolation, steps):
    """`y`, `z` and the mean from the definition: the mean anew from all points so far."""
    z, points, seen = np.array(start), [], []
    for _ in range(steps):
        points.append(z)
        mean = np.mean(points, axis=0)
        y = (1 - interpolation) * z + interpolation * mean
        seen.append((y, z, mean))
        z = step(z, slope(y))
    return [np.stack(column) for column in zip(*seen, strict=True)]


@pytest.mark.parametrize("interpolation", [0.0, 0.7])
def test_the_recursion_by_hand(interpolation):
    matrix, rate = np.diag([1.0, 3.0]), 0.2
    optimiser = averaged(optax.sgd(rate), interpolation)
    found = follow(optimiser, lambda y: jnp.asarray(matrix) @ y, jnp.ones(2), 30)
    step = lambda z, g: z - rate * g  # noqa: E731
    expected = by_hand(step, lambda y: matrix @ y, np.ones(2), interpolation, 30)
    for one, other in zip(found, expected, strict=True):
        assert_rounded(one, other)


def numpy_factor(raw):
    """`L Lᵀ` of log-Cholesky parameters, in numpy alone."""
    lower = np.tril(np.asarray(raw), -1) + np.diag(np.exp(np.diag(raw)))
    return lower @ lower.T


def numpy_step(geometry, rate):
    """`z − η M⁻¹ g` with the matrices written out; of the entropy `z exp(−η g)`."""
    if isinstance(geometry, NegativeEntropy):
        return lambda z, g: z * np.exp(-rate * g)
    if isinstance(geometry, Diagonal):
        curvature = np.exp(2 * np.asarray(geometry.log_diagonal))
        return lambda z, g: z - rate * g / curvature
    rows, columns = (numpy_factor(raw) for raw in jax.tree.leaves(geometry.factors))
    return lambda z, g: z - rate * np.linalg.inv(rows) @ g @ np.linalg.inv(columns)


@pytest.mark.parametrize("interpolation", [0.0, 0.8])
@pytest.mark.parametrize(
    "geometry",
    [*random_geometries()[:2], NegativeEntropy("orthant")],
    ids=lambda g: type(g).__name__,
)
def test_the_recursion_of_deployed_optimisers_by_hand(geometry, interpolation):
    """Of the three forms of a step; only the entropy's depends on where it starts, which is `z`."""
    rng, rate = np.random.default_rng(7), 0.2
    pull, goal, start = rng.uniform(0.5, 2.0, (3, *SHAPE))
    slope = lambda y: pull * np.tanh(y - goal)  # noqa: E731
    optimiser = averaged(to_optax(geometry, rate), interpolation)
    found = follow(optimiser, lambda y: jnp.asarray(slope(y)), jnp.asarray(start), 6)
    expected = by_hand(numpy_step(geometry, rate), slope, start, interpolation, 6)
    for one, other in zip(found, expected, strict=True):
        assert_rounded(one, other)


CURVATURE = 3.0


def sizes(optimiser, steps, interpolation=None):
    """`|z_t|` of a run on `½Lx²` from 1: for plain optimisers the parameters are the points."""

    @jax.jit
    def run():
        def step(carry, _):
            params, state = carry
            point = params if interpolation is None else state.point
            updates, state = optimiser.update(CURVATURE * params, state, params)
            return (optax.apply_updates(params, updates), state), jnp.abs(point)

        start = jnp.ones(())
        return jax.lax.scan(step, (start, optimiser.init(start)), None, length=steps)[1]

    return np.asarray(run())


@pytest.mark.parametrize("interpolation", [0.0, 0.5, 0.8])
def test_rates_below_the_bound_converge_and_others_do_not(interpolation):
    r"""On `½Lx²` with rate `h/L` the threshold of `h` is `2/(1−β)`.

    With `y = (1−β) z + β x` a step is `z ← (1 − h(1−β)) z − hβ x`. The mean moves by `1/t` of its
    distance, so in the end `z` alone decides, with the factor `−ρ = 1 − h(1−β)`, and `ρ < 1` is
    `h < 2/(1−β)`. Of an alternating `z` the mean is `x ≈ z ρ/((1+ρ) t)`, which makes the factor
    `−ρ (1 + hβ/((1+ρ) t))`, and `h/(1+ρ) = 1/(1−β)`: all in all `|z_t| ~ ρᵗ t^{β/(1−β)}`. At the
    threshold itself points grow, by that power; below it they may grow for long before they fall.
    The other solution is slow: `y = 0` gives `z = −βx/(1−β)`, and `x` falls as `t^{−1/(1−β)}`.
    """
    bound, steps = 2 / ((1 - interpolation) * CURVATURE), 2000

    def last(share):
        optimiser = averaged(optax.sgd(share * bound), interpolation)
        return sizes(optimiser, steps, interpolation)

    below, at, above = last(0.95), last(1.0), last(1.05)
    assert below[-1] < 1e-6 * below[0]
    assert above[-1] > 1e6 * below.max()
    # Of the power: found within 1e-3 of it at 2000 steps, since the next term is of order 1/t.
    power = np.log2(at[-1] / at[steps // 2 - 1])
    assert abs(power - interpolation / (1 - interpolation)) < 2e-3
    if interpolation:
        assert sizes(optax.sgd(0.95 * bound), 200)[-1] > 1e50


def test_a_short_warm_up_removes_the_growth_of_the_first_steps():
    """At 0.9 of the threshold and `β = 0.8` points grow two thousandfold; warmed up hardly."""
    rate = 0.9 * 2 / (0.2 * CURVATURE)
    at_once = sizes(averaged(optax.sgd(rate), 0.8), 300, 0.8)
    warm = sizes(averaged(optax.sgd(optax.linear_schedule(0.0, rate, 10)), 0.8), 300, 0.8)
    assert at_once.max() > 1000 and warm.max() < 1.1
    assert at_once[-1] < 0.01 and warm[-1] < 0.01


@pytest.mark.parametrize("interpolation", [slow(0.0), 0.9])
@pytest.mark.parametrize("geometry", random_geometries(), ids=lambda g: type(g).__name__)
def test_the_mean_is_bounded_by_the_regret_of_the_geometry(geometry, interpolation):
    """`T (f(x_T) − f*) ≤ Σ ⟨g_t, z_t − x*⟩ ≤ D(x*‖z_1)/η + (η/2) Σ ‖g_t‖*²`, in a learned ψ."""
    rng, rate = np.random.default_rng(5), 0.3
    rows = jnp.asarray(rng.normal(size=(9, *SHAPE)))

    def loss(x):
        return jnp.mean(jax.nn.softplus(jnp.tensordot(rows, x, 2))) + 0.1 * jnp.sum(x**2)

    best = jnp.zeros(SHAPE)
    for _ in range(50):
        flat = jax.hessian(loss)(best).reshape(12, 12)
        best -= jnp.linalg.solve(flat, jax.grad(loss)(best).ravel()).reshape(SHAPE)
    start = jnp.asarray(rng.normal(size=SHAPE))
    slope = jax.jit(jax.grad(loss))
    optimiser = averaged(to_optax(geometry, rate), interpolation)
    ys, zs, means = follow(optimiser, slope, start, 40)
    gradients = [slope(jnp.asarray(y)) for y in ys]
    regret = sum(np.vdot(g, z - best) for g, z in zip(gradients, zs, strict=True))
    norms = sum(float(geometry.dual_norm_squared(g)) for g in gradients)
    bound = float(geometry.divergence(best, start)) / rate + rate / 2 * norms
    gap = len(ys) * float(loss(jnp.asarray(means[-1])) - loss(best))
    assert 0 < gap <= regret * (1 + 1e-9)
    assert regret <= bound


def test_it_follows_every_deployed_optimiser_under_jit():
    geometries = make_geometries()
    for name in ("diagonal", "kronecker", "max"):
        optimiser = averaged(to_optax(geometries[name], 0.1), 0.9)
        params = jax.tree.map(jnp.ones_like, make_params())
        state = optimiser.init(params)
        step = jax.jit(optimiser.update)
        for _ in range(3):
            updates, state = step(params, state, params)
            params = optax.apply_updates(params, updates)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
        assert int(state.count) == 3


def test_half_precision_keeps_its_mean_in_single():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    optimiser = averaged(optax.sgd(1e-3), 0.9)
    state = optimiser.init(params)
    for _ in range(10):
        updates, state = optimiser.update(params, state, params)
        assert updates["w"].dtype == jnp.bfloat16
        params = optax.apply_updates(params, updates)
    assert state.mean["w"].dtype == jnp.float32
    assert averaged_params(state, params)["w"].dtype == jnp.bfloat16
    assert 0.99 < float(state.mean["w"][0]) < 1.0  # bfloat16 would not have moved


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan"), (0.5, 0.5)])
def test_an_interpolation_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match=r"averaged\.interpolation: expected 0 <= interpolation"):
        averaged(optax.sgd(0.1), value)


def test_parameters_are_needed_and_states_are_known():
    optimiser = averaged(optax.sgd(0.1))
    state = optimiser.init(jnp.ones(2))
    with pytest.raises(ValueError, match="needs the parameters"):
        optimiser.update(jnp.ones(2), state)
    with pytest.raises(ValueError, match="expected the state of mirrax.deploy.averaged, got tuple"):
        averaged_params((state,), jnp.ones(2))


def test_what_has_no_gradient_stays():
    """The others are averaged, and move, as if there were nothing else."""
    params, state, other = check_frozen_stay(lambda geometry: averaged(to_optax(geometry, 0.1)))
    kept, best = averaged_params(state, params), averaged_params(other, {"w": params["w"]})
    np.testing.assert_array_equal(kept["w"], best["w"])
    assert kept["v"].tolist() == [1.0, 1.0]
