"""SOAP against its authors' code, Adam, and a rotation of coordinates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mirrax.study._soap import scale_by_soap, soap


@pytest.fixture(autouse=True)
def ordinary_promotion():
    """Optax's Adam mixes types."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def run(transformation, gradients, params):
    """Points after each gradient of a sequence, leading axis of steps."""

    def step(carry, gradient):
        params, state = carry
        updates, state = transformation.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    start = (params, transformation.init(params))
    return jax.jit(lambda g: jax.lax.scan(step, start, g)[1])(gradients)


def test_points_are_those_of_the_published_code(golden):
    """35 gradients, so three updates of the bases and moments that follow them."""
    values = golden("c11_soap")
    gradients = {"b": values["gradients_b"], "w": values["gradients_w"]}
    found = run(soap(0.1), gradients, {"b": jnp.zeros(5), "w": jnp.zeros((6, 6))})
    for name in ("b", "w"):
        np.testing.assert_allclose(found[name], values[name], rtol=0, atol=1e-10)


def test_a_rotated_problem_is_solved_by_rotated_steps():
    """What the bases are for; Adam's steps change with the coordinates."""
    rng = np.random.default_rng(1)
    gradients = jnp.asarray(rng.normal(size=(25, 5, 5)))
    left, right = (jnp.asarray(np.linalg.qr(rng.normal(size=(5, 5)))[0]) for _ in range(2))
    zero = jnp.zeros((5, 5))
    for make, holds in ((lambda: soap(0.1), True), (lambda: optax.adam(0.1), False)):
        plain = run(make(), gradients, zero)
        turned = run(make(), left @ gradients @ right.T, zero)
        apart = float(jnp.abs(turned - left @ plain @ right.T).max())
        assert (apart < 1e-10) == holds, apart


def test_kernels_step_as_their_matrices_and_biases_as_adam():
    rng = np.random.default_rng(2)
    kernels, biases = rng.normal(size=(15, 2, 3, 2, 12)), rng.normal(size=(15, 4))
    transformation = optax.chain(scale_by_soap(eps=0.0, every=4), optax.scale(-0.1))
    shaped = run(transformation, jnp.asarray(kernels), jnp.zeros((2, 3, 2, 12)))
    flat = run(transformation, jnp.asarray(kernels.reshape(15, 12, 12)), jnp.zeros((12, 12)))
    np.testing.assert_allclose(shaped.reshape(15, 12, 12), flat, rtol=0, atol=1e-12)

    found = run(transformation, jnp.asarray(biases), jnp.zeros(4))
    # Its first gradient moves nothing, so Adam begins with the second. `eps` stands elsewhere.
    adam = optax.adam(0.1, b1=0.95, b2=0.95, eps=0.0)
    expected = run(adam, jnp.asarray(biases[1:]), jnp.zeros(4))
    np.testing.assert_allclose(found[1:], expected, rtol=0, atol=1e-12)
    assert not np.any(found[0])


def test_decay_is_beside_the_direction():
    gradients = jnp.asarray(np.random.default_rng(3).normal(size=(2, 3, 3)))
    plain = run(soap(0.1), gradients, jnp.ones((3, 3)))
    decayed = run(soap(0.1, weight_decay=0.2), gradients, jnp.ones((3, 3)))
    # The same directions, and a share of 0.1 · 0.2 but for the first step, which moves nothing.
    for step, left in enumerate((1, 0.98)):
        np.testing.assert_allclose(decayed[step] - plain[step], left - 1, rtol=0, atol=1e-14)


@pytest.mark.parametrize("rows", [3, 9])
def test_a_matrix_of_low_rank_stays_finite(rows):
    """Pixels that are always black give the factor rows of zeros."""
    gradients = np.random.default_rng(4).normal(size=(30, rows, 4)).astype(np.float32)
    gradients[:, 1:] = 0
    found = run(soap(0.1), jnp.asarray(gradients), jnp.zeros((rows, 4), jnp.float32))
    assert np.all(np.isfinite(found)) and np.abs(found[:, 1:]).max() < 1e-4


@pytest.mark.parametrize("side", ["rows", "columns"])
def test_a_long_side_keeps_its_coordinates_as_in_the_published_code(golden, side):
    values = golden("c11_soap_long")
    turn = (lambda x: x) if side == "rows" else (lambda x: np.swapaxes(x, -1, -2))
    transformation = optax.chain(scale_by_soap(longest=4), optax.scale(-0.1))
    zero = jnp.zeros(turn(np.zeros((6, 3))).shape)
    kept = transformation.init(zero)[0].leaves[0]
    assert [q.shape for q in (kept.left, kept.right) if q is not None] == [(3, 3)]
    found = run(transformation, jnp.asarray(turn(values["gradients"])), zero)
    np.testing.assert_allclose(found, turn(values["points"]), rtol=0, atol=1e-10)


def test_half_precision_keeps_its_state_in_32_bits():
    gradients = jnp.asarray(np.random.default_rng(5).normal(size=(12, 4, 3)), jnp.bfloat16)
    state = scale_by_soap().init(gradients[0])
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.leaves)} == {"float32"}
    directions, step = [], jax.jit(scale_by_soap().update)
    for gradient in gradients:
        direction, state = step(gradient, state)
        directions.append(direction)
    assert directions[-1].dtype == jnp.bfloat16
    wide = run(
        optax.chain(scale_by_soap()), gradients.astype(jnp.float32), jnp.zeros((4, 3), jnp.float32)
    )
    np.testing.assert_allclose(
        directions[-1].astype(float), wide[-1] - wide[-2], rtol=0.02, atol=0.02
    )
