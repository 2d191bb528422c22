"""What `geometry.json` says of a geometry: rates from the matrices written out."""

import jax
import jax.numpy as jnp
import numpy as np

from mirrax.geometry import Euclidean, Kronecker, Transformed
from mirrax.study._describe import describe_geometry

PARAMS = {"dense_0": {"bias": jnp.zeros(2), "weight": jnp.zeros((3, 2))}}
ROLES = {"dense_0": {"bias": ("out",), "weight": ("in", "out")}}
RATE = 0.1

ROUNDING = 1e-14
"""Relative. Triangular solves there, the inverse of the whole matrix here. Found: 8e-16."""


def random(geometry):
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda leaf: leaf + 0.4 * rng.normal(size=leaf.shape), geometry)


def assert_rates(leaf, rates):
    edges, counts = leaf["histogram"]["edges"], leaf["histogram"]["counts"]
    found = [leaf["rate_low"], leaf["rate_median"], leaf["rate_high"], edges[0], edges[-1]]
    low, high = rates.min(), rates.max()
    np.testing.assert_allclose(found, [low, np.median(rates), high, low, high], rtol=ROUNDING)
    places = np.linspace(np.log10(low), np.log10(high), len(edges))
    np.testing.assert_array_equal(counts, np.histogram(np.log10(rates), places)[0])


def test_a_kronecker_geometry_is_described_by_the_diagonal_of_its_inverse():
    geometry = random(Kronecker.like(PARAMS))
    found = describe_geometry(geometry, RATE, ROLES)
    assert found["geometry"] == "Kronecker" and found["rate"] == RATE
    bias, weight = found["leaves"]
    assert (bias["name"], bias["shape"], bias["roles"]) == ("dense_0/bias", [2], ["out"])
    assert (weight["name"], weight["shape"], weight["roles"]) == (
        "dense_0/weight",
        [3, 2],
        ["in", "out"],
    )
    factors = geometry.factors["dense_0"]
    assert_rates(bias, RATE * np.exp(-2 * np.asarray(factors["bias"])))
    a, b = factors["weight"].matrices
    assert_rates(weight, RATE * np.diag(np.linalg.inv(np.kron(a, b))))


def test_coordinates_change_the_rates():
    geometry = random(Transformed.like(Euclidean(), PARAMS, ROLES))
    found = describe_geometry(
        geometry, RATE, ROLES, {"dense_0/bias": (2,), "dense_0/weight": (3, 2)}
    )
    assert found["geometry"] == "Transformed(Euclidean)"
    # Of `KᵀK`; the weights have the input's axis first.
    outer, inner = geometry.factors["dense_0/weight"]
    whole = np.kron(inner.T @ inner, outer.T @ outer)
    by_name = {leaf["name"]: leaf for leaf in found["leaves"]}
    assert_rates(by_name["dense_0/weight"], RATE * np.diag(whole))
