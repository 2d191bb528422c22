"""Geometries in learned coordinates against dense Kronecker products."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose

from mirrax.certificate import symmetry_of_map
from mirrax.geometry import (
    ConvexPotential,
    Diagonal,
    Euclidean,
    ModeProducts,
    PNorm,
    RandomMask,
    Transformed,
)

ROLES = {
    "conv_0": {"weight": ("height", "width", "in", "out"), "bias": ("out",)},
    "dense_0": {"weight": ("in", "out")},
}
TEMPLATE = {
    "conv_0": {"weight": jnp.zeros((2, 1, 2, 3)), "bias": jnp.zeros(3)},
    "dense_0": {"weight": jnp.zeros((3, 2))},
}

# Sums of a few dozen products and triangular systems of condition ten; 6e-15 is measured.
ROUNDING = dict(rtol=3e-14, atol=1e-14)


def noise(like, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape)), like)


def transformed(geometry):
    start = Transformed.like(geometry, TEMPLATE, ROLES)
    return Transformed(geometry, noise(start.raw_factors, 3, 0.4), start.axes)


def dense(function, at):
    flat, unravel = ravel_pytree(at)
    return np.asarray(jax.jacfwd(lambda v: ravel_pytree(function(unravel(v)))[0])(flat))


def by_hand(geometry):
    """`K` of dense weights `(in, out)` in C order, written out."""
    out, into = (
        np.tril(np.asarray(raw), -1) + np.diag(np.exp(np.diag(raw)))
        for raw in geometry.raw_factors["dense_0/weight"]
    )
    return np.kron(into, out)


def test_at_the_start_it_is_the_geometry():
    point = noise(TEMPLATE, 1)
    for geometry in (Euclidean(), PNorm(1.5)):
        start = Transformed.like(geometry, TEMPLATE, ROLES)
        jax.tree.map(
            functools.partial(assert_allclose, **ROUNDING),
            (start.to_primal(point), start.to_dual(point)),
            (geometry.to_primal(point), geometry.to_dual(point)),
        )
    start = Transformed.like(Euclidean(), TEMPLATE, ROLES)
    assert_allclose(start.jacobian_bounds(), (1.0, 1.0), rtol=1e-14)
    assert transformed(PNorm(1.5)).jacobian_bounds()[1] == np.inf


def test_euclid_in_other_coordinates_is_a_quadratic():
    geometry, point = transformed(Euclidean()), noise(TEMPLATE, 1)
    hessian = dense(geometry.to_dual, point)
    flat, _ = ravel_pytree(point)
    assert_allclose(geometry.potential(point), flat @ hessian @ flat / 2, **ROUNDING)
    assert_allclose(dense(geometry.to_primal, point), np.linalg.inv(hessian), **ROUNDING)
    factor = by_hand(geometry)
    assert_allclose(dense(geometry.to_primal, point)[-6:, -6:], factor.T @ factor, **ROUNDING)
    values = np.linalg.eigvalsh(np.linalg.inv(hessian))
    assert_allclose(geometry.jacobian_bounds(), values[[0, -1]], **ROUNDING)
    assert geometry.idle == sum(n * (n - 1) // 2 for n in (3, 2, 2, 2, 3))


def test_euclid_in_other_coordinates_is_metacurvature_with_definite_factors():
    geometry, gradient = transformed(Euclidean()), noise(TEMPLATE, 5)
    squares = {
        name: tuple(factor.T @ factor for factor in factors)
        for name, factors in geometry.factors.items()
    }
    identity = ModeProducts.identity(TEMPLATE, ROLES)
    products = ModeProducts(
        {**identity.factors, **{k: v for k, v in squares.items() if v}}, identity.axes
    )
    found = geometry.inverse_hessian(noise(TEMPLATE, 6), gradient)
    jax.tree.map(functools.partial(assert_allclose, **ROUNDING), found, products.apply(gradient))


def test_the_rate_of_each_parameter_is_a_diagonal_entry():
    geometry = transformed(Diagonal(noise(TEMPLATE, 8, 0.3)))
    jacobian = dense(geometry.to_primal, noise(TEMPLATE, 1))
    rates = jax.tree.map(lambda c: 1 / c, geometry.geometry.curvature)
    found, _ = ravel_pytree(geometry.diagonal(rates))
    assert_allclose(found, np.diag(jacobian), **ROUNDING)
    assert np.ptp(np.log(found)) > 1  # far from the rates of the diagonal itself


@pytest.mark.slow
def test_bounds_of_a_convex_potential_in_other_coordinates():
    like = ConvexPotential.like(TEMPLATE, ROLES, units=4, reduction=2, key=jax.random.key(0))
    potential = jax.tree.map(jnp.add, like, jax.tree.map(jnp.abs, noise(like, 7)))
    geometry = transformed(potential)
    found = symmetry_of_map(geometry, noise(TEMPLATE, 1))
    lower, upper = geometry.jacobian_bounds()
    assert lower <= found.smallest and found.largest <= upper
    assert found.asymmetry < 1e-14


def test_what_cannot_be():
    with pytest.raises(ValueError, match=r"Transformed.geometry: expected a geometry, got Random"):
        Transformed.like(RandomMask.like(TEMPLATE), TEMPLATE, ROLES)
    with pytest.raises(ValueError, match=r"Transformed.roles: expected 1 distinct roles"):
        Transformed.like(Euclidean(), {"gain": jnp.zeros(2)}, {})
    start = Transformed.like(Euclidean(), TEMPLATE, ROLES)
    with pytest.raises(ValueError, match=r"Transformed.raw_factors: expected the parameters"):
        Transformed(Euclidean(), {}, start.axes)
    flat = {name: tuple(raw[0] for raw in raws) for name, raws in start.raw_factors.items()}
    with pytest.raises(ValueError, match=r"Transformed.raw_factors: expected square matrices"):
        Transformed(Euclidean(), flat, start.axes)
    other = {**TEMPLATE, "dense_0": {"weight": jnp.zeros((4, 2))}}
    with pytest.raises(ValueError, match=r"modes of sizes \(2, 3\) for 'dense_0/weight', got"):
        start.to_primal(other)
