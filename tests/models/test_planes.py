"""Convolution as four planes: against lax's convolution, adjoint identities, pooling, moments."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.models import _winograd, max_pool
from mirrax.models._linear_pair import linear_pair
from mirrax.models._normalise import moments, normalise
from mirrax.models._planes import _by_patches, _cut, convolve_planes, pool_planes

SIZES = [(4, 4), (5, 4), (2, 7), (3, 3), (1, 1)]


def winograd(images, kernel):
    return _winograd.winograd(images, _winograd.winograd_factors(kernel))


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def by_lax(images, kernel):
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def joined(planes, size):
    """The images that planes were cut from."""
    _, batch, rows, columns, channels = planes.shape
    windows = planes.reshape(2, 2, batch, rows, columns, channels).transpose(2, 3, 0, 4, 1, 5)
    whole = windows.reshape(batch, 2 * rows, 2 * columns, channels)
    return whole[:, : size[0], : size[1]]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("planes_of", [winograd, _by_patches])
def test_equals_lax(planes_of, size):
    """To roundings of sums of some 30 products of numbers near one: 1e-14 would do."""
    images, kernel = draw(0, 2, *size, 3), draw(1, 3, 3, 3, 5)
    planes = jax.jit(planes_of)(images, kernel)
    assert planes.shape == (4, 2, -(-size[0] // 2), -(-size[1] // 2), 5)
    expected = by_lax(images, kernel)
    np.testing.assert_allclose(joined(planes, size), expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(joined(_cut(expected), size), expected)


def test_float32_loses_few_digits():
    """Sums of 576 products of size 1/24, roundings 6e-8 each; all factors are 0, ±½, ±1."""
    images = draw(0, 3, 14, 14, 64).astype(np.float32)
    kernel = (draw(1, 3, 3, 64, 64) / 24).astype(np.float32)
    exact = by_lax(images.astype(np.float64), kernel.astype(np.float64))
    error = np.asarray(joined(jax.jit(winograd)(images, kernel), (14, 14))) - np.asarray(exact)
    assert np.abs(error).max() < 1e-5
    assert np.sqrt(np.mean(error**2)) < 1e-6


@pytest.mark.parametrize(("inputs", "products"), [(1, 1), (3, 1), (8, 16), (64, 16)])
def test_few_inputs_take_patches(inputs, products):
    """Patches are one product of two axes, Winograd's rows of four have a third."""
    images, kernel = jnp.zeros((1, 4, 4, inputs)), jnp.zeros((3, 3, inputs, 2))
    text = jax.jit(convolve_planes).lower(images, kernel).as_text()
    assert ("tensor<4x4x2xf64>" in text) == (products == 16)


def test_every_derivative_equals_laxs(size=(5, 4)):
    """Reverse, forward, reverse of reverse, forward of reverse; each under vmap over tasks."""
    images, kernels = draw(0, 3, 2, *size, 2), draw(1, 3, 3, 3, 2, 3)
    weights = draw(2, 2, *size, 3)

    def energy(planes_of, images, kernel):
        whole = joined(planes_of(images, kernel), size)
        return jnp.sum(weights * jnp.sin(whole))

    def derivatives(planes_of):
        both = functools.partial(energy, planes_of)
        slope = jax.grad(both, (0, 1))

        def all_of(images, kernel):
            point = (images, kernel)
            first, back = jax.vjp(slope, *point)
            return first, back(first), jax.jvp(slope, point, first), jax.jvp(both, point, first)

        return jax.jit(jax.vmap(all_of))(images, kernels)

    expected = derivatives(lambda images, kernel: _cut(by_lax(images, kernel)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-10),
        derivatives(winograd),
        expected,
    )


def test_pooling_planes_equals_pooling_images():
    images, weights = draw(0, 3, 6, 7, 4), draw(1, 3, 3, 3, 4)

    def energy(pool, images):
        pooled = pool(images)
        return jnp.sum(weights * pooled**3), pooled

    def second(pool):
        slope = jax.grad(functools.partial(energy, pool), has_aux=True)
        (first, pooled), tangent = jax.jvp(slope, (images,), (jnp.cos(images),))
        return pooled, first, tangent[0]

    def by_planes(x):
        return pool_planes(_cut(x), (6, 7))

    results = (jax.jit(second, static_argnums=0)(pool) for pool in (by_planes, max_pool))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_of_ties_the_first_has_the_gradient():
    slope = jax.grad(lambda planes: pool_planes(planes, (2, 2)).sum())
    np.testing.assert_array_equal(slope(jnp.zeros((4, 1, 1, 1, 1))).ravel(), [1, 0, 0, 0])
    np.testing.assert_array_equal(
        slope(jnp.array([0.0, 1.0, 0.5, 1.0]).reshape(4, 1, 1, 1, 1)).ravel(), [0, 1, 0, 0]
    )


@pytest.mark.parametrize("reference", [None, 2])
@pytest.mark.parametrize("size", [(4, 6), (5, 3)])
def test_moments_are_numpys(size, reference):
    """Entries outside the images hold anything and count nothing."""
    images = draw(0, 3, *size, 4)
    planes = jnp.where(_cut(jnp.ones_like(images)) == 1, _cut(images), 1e6)
    mean, variance = moments(planes, size, reference)
    few = np.asarray(images[:reference])
    np.testing.assert_allclose(mean, few.mean((0, 1, 2)), rtol=0, atol=1e-14)
    np.testing.assert_allclose(variance, few.var((0, 1, 2)), rtol=0, atol=1e-14)
    result = normalise(images, moments(planes, size), jnp.full(4, 2.0), jnp.arange(4.0))
    np.testing.assert_allclose(result.mean((0, 1, 2)), jnp.arange(4.0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.std((0, 1, 2)), 2, rtol=1e-4)


def test_a_pair_must_be_transposes_to_be_a_gradient():
    """The backward map is what differentiates, whatever it is: a wrong one shows."""
    double, back = linear_pair("double_test", lambda x: [2 * x], lambda y: [2 * y])
    wrong, _ = linear_pair("wrong_test", lambda x: [2 * x], lambda y: [3 * y])
    assert jax.grad(lambda x: double(x)[0] * x)(3.0) == 12
    assert jax.grad(lambda x: wrong(x)[0])(3.0) == 3
    assert jax.jvp(lambda x: wrong(x)[0], (3.0,), (1.0,))[1] == 2
    assert jax.jvp(jax.grad(lambda x: double(x)[0] ** 2), (3.0,), (1.0,))[1] == 8
    np.testing.assert_array_equal(jax.vmap(back)(jnp.arange(2.0))[0], [0, 2])
