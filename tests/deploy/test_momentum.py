"""Momentum in half precision and with array values, beside optax's in single precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mirrax.deploy import to_optax
from mirrax.geometry import Euclidean


def after(optimiser, dtype, steps=400):
    """Where constant slopes, which bfloat16 holds, lead from zero; updates are summed exactly."""
    slope = jnp.asarray([1.0, -0.5], dtype)

    @jax.jit
    def run():
        def step(carry, _):
            state, total = carry
            updates, state = optimiser.update(slope, state, slope)
            return (state, total + updates.astype(jnp.float64)), None

        begin = (optimiser.init(slope), jnp.zeros(2))
        return jax.lax.scan(step, begin, None, length=steps)[0]

    state, total = run()
    return state, np.asarray(total)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.99, jnp.float32(0.99)], ids=["float", "array"])
def test_half_precision_keeps_momentum_in_single(momentum, nesterov):
    optimiser = to_optax(Euclidean(), 1.0, momentum=momentum, nesterov=nesterov)
    state, found = after(optimiser, jnp.bfloat16)
    expected = after(optax.sgd(1.0, 0.99, nesterov), jnp.float32)[1]
    assert {leaf.dtype for leaf in jax.tree.leaves(state[0])} == {np.dtype("float32")}
    # Updates are rounded to eight bits, by 2⁻⁹ at most, and mostly average out. Found: 3e-5.
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_in_single_precision_it_is_that_of_optax():
    for nesterov in (False, True):
        ours = after(to_optax(Euclidean(), 0.1, momentum=0.9, nesterov=nesterov), jnp.float32)[1]
        theirs = after(optax.sgd(0.1, 0.9, nesterov), jnp.float32)[1]
        # Where one product is fused and the other not, half a last digit in each of the ten steps
        # that a momentum of 0.9 remembers. Found: 0.
        np.testing.assert_allclose(ours, theirs, rtol=6e-7)
