"""Averaged points: the recursion by hand, the bound on the mean, types, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from deployed import make_geometries, make_params

from mirrax.deploy import averaged, averaged_params, to_optax
from mirrax.geometry import Diagonal, Kronecker, MaxOfDiagonals

SHAPE = (3, 4)


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


@pytest.mark.parametrize("interpolation", [0.0, 0.7])
def test_the_recursion_by_hand(interpolation):
    matrix, rate = np.diag([1.0, 3.0]), 0.2
    optimiser = averaged(optax.sgd(rate), interpolation)
    ys, zs, means = follow(optimiser, lambda y: jnp.asarray(matrix) @ y, jnp.ones(2), 30)
    z, points = np.ones(2), []
    for y, found, mean in zip(ys, zs, means, strict=True):
        points.append(z)
        np.testing.assert_allclose(found, z, rtol=1e-12)
        np.testing.assert_allclose(mean, np.mean(points, axis=0), rtol=1e-12)
        between = (1 - interpolation) * z + interpolation * np.mean(points, axis=0)
        np.testing.assert_allclose(y, between, rtol=1e-12)
        z = z - rate * matrix @ between


@pytest.mark.parametrize("interpolation", [0.0, 0.9])
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
