"""What `geometry.json` says of a geometry: rates from the matrices written out."""

import jax
import jax.numpy as jnp
import numpy as np

from mirrax.geometry import Diagonal, Euclidean, Kronecker, MaxOfDiagonals, Transformed
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
    metric = np.kron(a, b)
    assert_rates(weight, RATE * np.diag(np.linalg.inv(metric)))
    expected = RATE / np.linalg.eigvalsh(metric)
    np.testing.assert_allclose(weight["spectrum"], expected, rtol=10 * ROUNDING)
    falling = np.sort(RATE * np.exp(-2 * np.asarray(factors["bias"])))[::-1]
    np.testing.assert_allclose(bias["spectrum"], falling, rtol=ROUNDING)


def test_the_spectrum_of_a_diagonal_is_its_rates_at_even_ranks():
    size = 1000
    curvature = np.exp(np.random.default_rng(0).normal(size=size))
    geometry = Diagonal({"w": jnp.log(curvature) / 2})
    (leaf,) = describe_geometry(geometry, RATE)["leaves"]
    falling, found = np.sort(RATE / curvature)[::-1], leaf["spectrum"]
    assert len(found) == 64
    np.testing.assert_allclose(found[0] / found[-1], curvature.max() / curvature.min(), rtol=1e-12)
    places = np.searchsorted(-falling, -np.asarray(found) * (1 + 1e-12))
    assert np.ptp(np.diff(places)) <= 1 and places[-1] == size - 1


def test_components_have_a_spectrum_each_and_learned_coordinates_none():
    geometry = random(MaxOfDiagonals.like(PARAMS, components=2, key=jax.random.key(0)))
    leaves = describe_geometry(geometry, RATE)["leaves"]
    assert len(leaves) == 4
    for leaf in leaves:
        assert leaf["spectrum"][0] == leaf["rate_high"]
        assert leaf["spectrum"][-1] == leaf["rate_low"]
    coordinates = Transformed.like(Euclidean(), PARAMS, ROLES)
    shapes = {"dense_0/bias": (2,), "dense_0/weight": (3, 2)}
    found = describe_geometry(coordinates, RATE, ROLES, shapes)["leaves"]
    assert found and not any("spectrum" in leaf for leaf in found)


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
