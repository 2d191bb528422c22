"""Pooling equals XLA's reduce_window, and commutes with the ReLU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrax.models import max_pool


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def by_window(images, window, stride, padding):
    sizes, strides = (1, window, window, 1), (1, stride, stride, 1)
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return jax.lax.reduce_window(images, -np.inf, jax.lax.max, sizes, strides, border)


def check_against_reduce_window(seed, height, width, window, stride, padding):
    images = draw(seed, 2, height, width, 3)
    rows, columns = ((size + 2 * padding - window) // stride + 1 for size in (height, width))
    weights = draw(seed + 1, 2, rows, columns, 3)

    def both(pool):
        def energy(x):
            pooled = pool(x)
            return jnp.sum(weights * pooled**3), pooled

        return jax.jit(jax.grad(energy, has_aux=True))(images)

    (slope, pooled), (expected_slope, expected) = (
        both(lambda x: max_pool(x, window, stride=stride, padding=padding)),
        both(lambda x: by_window(x, window, stride, padding)),
    )
    np.testing.assert_array_equal(pooled, expected)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-12)


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 99), st.integers(4, 9), st.integers(4, 9), st.integers(1, 4))
def test_equals_reduce_window(seed, height, width, window):
    check_against_reduce_window(seed, height, width, window, window, 0)
    images = draw(seed, 2, height, width, 3)
    disjoint = max_pool(images, window)
    np.testing.assert_array_equal(disjoint, max_pool(images, window, stride=window))


@pytest.mark.parametrize(("height", "width"), [(8, 9), (7, 7)])
@pytest.mark.parametrize(("window", "stride", "padding"), [(3, 2, 1), (3, 1, 0), (2, 3, 1)])
def test_windows_that_overlap_or_reach_over_the_border(height, width, window, stride, padding):
    check_against_reduce_window(3, height, width, window, stride, padding)


@pytest.mark.parametrize("size", [6, 7])
def test_before_the_relu_is_the_same(size):
    images, weights = draw(0, 3, size, size, 4), draw(1, 3, 3, 3, 4)

    def before(x):
        return jnp.sum(weights * jax.nn.relu(max_pool(x)) ** 3)

    def after(x):
        return jnp.sum(weights * max_pool(jax.nn.relu(x)) ** 3)

    assert before(images) == after(images)
    tangent = jnp.sin(images)
    for one, other in zip(
        jax.jvp(jax.grad(before), (images,), (tangent,)),
        jax.jvp(jax.grad(after), (images,), (tangent,)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_ties_share_the_gradient():
    slope = jax.grad(lambda x: max_pool(x)[0, 0, 0, 0])(jnp.ones((1, 2, 2, 1)))
    assert slope.sum() == 1
    assert (slope > 0).all()


def test_a_window_larger_than_the_images_is_named():
    with pytest.raises(ValueError, match="max_pool.window: expected 1 to 3 for images of 3 by 5"):
        max_pool(jnp.zeros((1, 3, 5, 1)), 4)
    with pytest.raises(ValueError, match="got 0"):
        max_pool(jnp.zeros((1, 3, 5, 1)), 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "max_pool.stride: expected a positive whole number, got 0"),
        ({"padding": 2}, "max_pool.padding: expected 0 to 1 for a window of 3, got 2"),
        ({"padding": -1}, "got -1"),
    ],
)
def test_impossible_windows_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        max_pool(jnp.zeros((1, 5, 5, 1)), 3, **options)
