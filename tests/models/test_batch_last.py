"""The convolution with the batch last is the one convolution, on either kind of backend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_convolution import by_hand

from mirrax.models import _batch_last
from mirrax.models._batch_last import convolve_batch_last

sizes = st.integers(1, 4)


def by_definition(images, kernel, padding):
    """The defining sum in numpy, from and to the layout with the batch last."""
    found = by_hand(np.transpose(images, (3, 1, 2, 0)), kernel, ((padding, padding),) * 2)
    return np.transpose(found, (3, 1, 2, 0))


@pytest.fixture(params=["patches", "lax"])
def method(request, monkeypatch):
    monkeypatch.setattr(_batch_last, "default_method", lambda: request.param)
    return request.param


def draw(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape))


@settings(deadline=None, max_examples=10)
@given(sizes, sizes, st.integers(4, 7), st.integers(4, 7), sizes, sizes, sizes, st.integers(0, 2))
def test_values_by_the_defining_sum(inputs, batch, height, width, rows, columns, out, padding):
    images, kernel = draw(inputs, height, width, batch), draw(rows, columns, inputs, out)
    found = convolve_batch_last(images, kernel, padding)
    # Sums of at most some hundred products. Found: 4e-15.
    np.testing.assert_allclose(found, by_definition(images, kernel, padding), rtol=0, atol=2e-14)


def test_values_and_derivatives_of_both_methods(method):
    """The convolution is linear in each argument, so its own value gives every derivative."""
    images, kernel = draw(2, 7, 6, 5), draw(3, 2, 2, 4)
    expected = by_definition(images, kernel, 1)
    weights = draw(*expected.shape)
    energy = lambda x, k: jnp.vdot(weights, convolve_batch_last(x, k, 1))  # noqa: E731
    # Sums of 12 products. Found: 2e-15, and 4e-15 of twice as much.
    np.testing.assert_allclose(convolve_batch_last(images, kernel, 1), expected, rtol=0, atol=5e-15)
    slopes = jax.grad(energy, argnums=(0, 1))(images, kernel)
    for slope, at in zip(slopes, (images, kernel), strict=True):
        np.testing.assert_allclose(jnp.vdot(slope, at), np.vdot(weights, expected), rtol=1e-12)
    stacked = jax.vmap(convolve_batch_last, (0, 0, None))(
        jnp.stack([images, -images]), jnp.stack([kernel, 2 * kernel]), 1
    )
    np.testing.assert_allclose(stacked, np.stack([expected, -2 * expected]), rtol=0, atol=1e-14)
