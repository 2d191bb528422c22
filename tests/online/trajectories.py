"""Runs of the online optimisers, with the rates that every step used."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree


def run(optimiser, params, loss, steps):
    """Points `x_0 … x_T`, rates `w_1 … w_T` as the state has them, and the last state."""

    def step(carry, _):
        point, state = carry
        updates, state = optimiser.update(jax.grad(loss)(point), state, point)
        following = optax.apply_updates(point, updates)
        return (following, state), (point, optax.tree.get(state, "rates"))

    @jax.jit
    def whole(start):
        carry, (points, rates) = jax.lax.scan(
            step, (start, optimiser.init(start)), None, length=steps
        )
        return points, rates, carry

    points, rates, (last, state) = whole(params)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), points, last), rates, state


def gradients(loss, points):
    return jax.jit(jax.vmap(jax.grad(loss)))(points)


# The largest deviation found is 5.7e-15, of the differences of points 20 steps apart in a chain;
# of points and rates it is 3.3e-15, after 100 steps with momentum.
ROUNDING = 5e-14


def assert_near(found, expected):
    """Relative to the largest entry, as the goldens are conditioned."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.max(np.abs(found - expected)) <= ROUNDING * np.max(np.abs(expected))


def quadratic(data):
    """`(x − s)ᵀ Q (x − s)` of the goldens."""
    matrix, shift = jnp.asarray(data["Q"]), jnp.asarray(data["shift"])
    return lambda x: (x - shift) @ matrix @ (x - shift)


def logistic(data):
    """`mean log(1 + exp(−y xᵀw)) + ½ reg ‖w‖²` of the goldens."""
    inputs, signs = jnp.asarray(data["X"]), jnp.asarray(data["y"])
    weight = float(data["reg"]) / 2
    return lambda x: jnp.mean(jax.nn.softplus(-signs * (inputs @ x))) + weight * (x @ x)


def make_params(dtype=jnp.float64):
    rng = np.random.default_rng(0)
    return {
        "dense": {
            "weight": jnp.asarray(rng.normal(size=(3, 2)), dtype),
            "bias": jnp.asarray(rng.normal(size=2), dtype),
        },
        "scales": [jnp.asarray(rng.normal(size=4), dtype)],
    }


def make_loss(dtype=jnp.float64):
    """Convex, not quadratic, and coupled across leaves."""
    rng = np.random.default_rng(1)
    mixing = jnp.asarray(rng.normal(size=(8, 12)), dtype)

    def loss(params):
        flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
        return jax.nn.logsumexp(mixing @ flat) + jnp.sum(flat**2) / 8

    return loss


def flat(params):
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])


def as_params(vector):
    return ravel_pytree(make_params())[1](vector)


def rates_like(per, params):
    rng = np.random.default_rng(2)

    def draw(shape):
        return jnp.asarray(rng.uniform(0.05, 0.15, shape))

    if per == "all":
        return draw(())
    return jax.tree.map(lambda x: draw(x.shape if per == "element" else ()), params)
