"""Divergences where points are close: nothing is lost in rounding, nothing is negative."""

from decimal import Decimal, localcontext

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import AbstractGeometry, ConvexPotential, PNorm
from mirrax.geometry._softplus import softplus_gap
from repeats import slow

KEY = jax.random.key(0)

ROUNDINGS = 300
"""Up to 58 were found in double precision, 4 in single, over some thousand pairs."""


def exactly(start, step):
    """With sixty digits."""
    with localcontext() as context:
        context.prec = 60
        s, t = Decimal(float(start)), Decimal(float(step))
        softplus = lambda x: (1 + x.exp()).ln()  # noqa: E731
        return float(softplus(s + t) - softplus(s) - t / (1 + (-s).exp()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_digit_of_the_gap(dtype):
    rng = np.random.default_rng(0)
    start = (rng.normal(size=200) * np.repeat([1, 10], 100)).astype(dtype)
    step = (rng.normal(size=200) * 10.0 ** rng.uniform(-6, 1.7, 200)).astype(dtype)
    step[:4], start[:4] = (1, -1, 1e-20, 80), (0, 0, 0, -3)
    found = jax.jit(softplus_gap)(jnp.asarray(start), jnp.asarray(step))
    expected = [exactly(*pair) for pair in zip(start, step, strict=True)]
    tiny = float(np.finfo(dtype).tiny)
    np.testing.assert_allclose(found, expected, ROUNDINGS * np.finfo(dtype).eps, tiny)
    assert found.dtype == dtype and (found >= 0).all()


def test_derivatives_of_the_gap():
    at = jnp.array([-3.0, 0.0, 2.0, -700.0, 700.0]), jnp.array([0.5, -2.0, 90.0, 800.0, 1e-9])
    for start, step in zip(*at, strict=True):
        slopes = jax.grad(softplus_gap, argnums=(0, 1))(start, step)
        share = jax.nn.sigmoid
        here, there = share(start), share(start + step)
        expected = there - here - here * (1 - here) * step, there - here
        np.testing.assert_allclose(slopes, expected, rtol=1e-7, atol=1e-15)


def test_divergence_is_quadratic_however_close_the_points_are():
    params = {"w": jnp.ones((8, 8), jnp.float32)}
    geometry = ConvexPotential.like(params, {"w": ("in", "out")}, units=8, key=KEY)
    strong = (jnp.full(8, 3.0, jnp.float32), jnp.full(8, 5.0, jnp.float32))
    geometry = eqx.tree_at(lambda g: (g.amplitudes, g.offsets), geometry, strong)
    point, way = jax.random.normal(KEY, (2, 8, 8), jnp.float32)

    @jax.jit
    def curvature(size):
        return geometry.divergence({"w": point + size * way}, {"w": point}) / size**2

    near = [float(curvature(jnp.float32(size))) for size in (1e-2, 1e-3, 1e-4)]
    # What is left is the rounding of the points themselves; found 8e-4.
    np.testing.assert_allclose(near, near[0], rtol=2e-3)


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("p", [1.5, slow(3.0)])
def test_divergence_of_powers_in_single_precision_is_that_in_double(p, separable):
    """The definition, in double precision, has lost the square of the distance's digits there."""
    geometry = PNorm(p, separable)
    point, way = jax.random.normal(KEY, (2, 64), jnp.float32)
    point = point.at[0].set(0)
    found = jax.jit(geometry.divergence)
    for size in (1.0, 1e-2, 1e-4, 1e-6):
        there = point + jnp.float32(size) * way
        defined = AbstractGeometry.divergence(
            geometry, there.astype(jnp.float64), point.astype(jnp.float64)
        )
        lost = 1e-15 / size**2
        np.testing.assert_allclose(found(there, point), defined, rtol=2e-6 + lost)


@pytest.mark.parametrize("p", [slow(1.5), slow(2.0), 3.0])
def test_divergence_of_powers_where_points_are_zero_or_equal(p):
    geometry, at = PNorm(p), jnp.array([1.0, -2.0])
    nothing = jnp.zeros(2)
    assert geometry.divergence(at, at) == geometry.divergence(nothing, nothing) == 0
    np.testing.assert_allclose(geometry.divergence(at, nothing), geometry.potential(at), rtol=1e-15)
    slope = jax.grad(geometry.divergence)(nothing, at)
    np.testing.assert_allclose(slope, -geometry.to_dual(at), rtol=1e-14)
