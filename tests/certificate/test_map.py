"""Diagnoses of mirror maps against dense linear algebra, and the refuted theorem's numbers."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose

from mirrax.certificate import symmetry_of_map, theorem1_counterexample
from mirrax.geometry import AbstractMirrorMap, BlockIAF, ConvexPotential

ROLES = {layer: {"weight": ("in", "out"), "bias": ("out",)} for layer in ("dense_0", "dense_1")}
TEMPLATE = {
    "dense_0": {"weight": jnp.zeros((6, 16)), "bias": jnp.zeros(16)},
    "dense_1": {"weight": jnp.zeros((16, 6)), "bias": jnp.zeros(6)},
}
# Eigenvalues err by the rounding of a sum over 214 dimensions, 214 × 2.2e-16; 9e-15 is measured.
ROUNDING = 5e-14

# A handful of operations on numbers that floats hold exactly; 1.6e-15 is measured where the root
# -3/2 + √(3/2) cancels.
EXACT = 2e-15

# The asymmetry that rounding leaves of a symmetric Jacobian; two such differ by 1.1e-16.
SYMMETRIC = 1e-15

BLOCKS = tuple((f"{layer}/weight", f"{layer}/bias") for layer in TEMPLATE)


def noise(like, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape)), like)


def random_map(kind):
    make = {
        "BlockIAF": functools.partial(BlockIAF.like, blocks=BLOCKS),
        "ConvexPotential": ConvexPotential.like,
    }[kind]
    start = make(TEMPLATE, ROLES, key=jax.random.key(0))
    return jax.tree.map(jnp.add, start, noise(start, 6))


def dense(mirror_map, dual):
    flat, unravel = ravel_pytree(dual)
    jacobian = jax.jacfwd(lambda v: ravel_pytree(mirror_map.to_primal(unravel(v)))[0])
    return np.asarray(jax.jit(jacobian)(flat))


def diagnosis(mirror_map, dual, **options):
    return eqx.filter_jit(functools.partial(symmetry_of_map, **options))(mirror_map, dual)


@pytest.fixture(scope="module", params=["BlockIAF", "ConvexPotential"])
def examined(request):
    mirror_map, dual = random_map(request.param), noise(TEMPLATE, 2)
    return request.param, mirror_map, dual, diagnosis(mirror_map, dual)


def test_dense_diagnosis(examined):
    kind, mirror_map, dual, found = examined
    jacobian = dense(mirror_map, dual)
    values = np.linalg.eigvalsh((jacobian + jacobian.T) / 2)
    assert_allclose([found.smallest, found.largest], values[[0, -1]], rtol=ROUNDING)
    asymmetry = np.linalg.norm(jacobian - jacobian.T) / np.linalg.norm(jacobian)
    assert_allclose(found.asymmetry, asymmetry, rtol=ROUNDING, atol=SYMMETRIC)
    if kind == "ConvexPotential":
        lower, upper = mirror_map.jacobian_bounds()
        assert lower <= found.smallest and found.largest <= upper
        assert found.asymmetry < SYMMETRIC
    else:
        assert found.asymmetry > 0.1


@pytest.mark.slow
def test_matrix_free_diagnosis(examined):
    """Lanczos' method over all dimensions is exact; the probes' standard error is 1/√(2·2000).

    Three of them are allowed, for a key that is fixed; 1.6% is measured.
    """
    _, mirror_map, dual, exact = examined
    whole = diagnosis(mirror_map, dual, probes=2000, steps=214, key=jax.random.key(3))
    assert_allclose([whole.smallest, whole.largest], [exact.smallest, exact.largest], rtol=ROUNDING)
    assert_allclose(whole.asymmetry, exact.asymmetry, rtol=3 / np.sqrt(4000), atol=SYMMETRIC)
    few = diagnosis(mirror_map, dual, steps=6, key=jax.random.key(4))
    # Quotients within a space are inside the spectrum, and near its ends after a few steps.
    width, slack = exact.largest - exact.smallest, ROUNDING * abs(exact.largest)
    assert exact.smallest - slack <= few.smallest <= exact.smallest + 0.2 * width
    assert exact.largest - 0.2 * width <= few.largest <= exact.largest + slack


def test_along_a_trajectory():
    mirror_map = random_map("BlockIAF")
    duals = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), TEMPLATE)
    duals = jax.tree.map(jnp.add, duals, noise(duals, 5))
    along = jax.jit(jax.vmap(lambda dual: symmetry_of_map(mirror_map, dual)))(duals)
    for row in range(3):
        alone = diagnosis(mirror_map, jax.tree.map(lambda leaf: leaf[row], duals))  # noqa: B023
        for a, b in zip(*map(jax.tree.leaves, (along, alone)), strict=True):
            assert_allclose(a[row], b, rtol=ROUNDING)


def test_theorem_1_is_refuted():
    """By Theorem 1 of S004 all would be positive, but the integral zero."""
    found = theorem1_counterexample()
    assert found.monotonicity == -9 and found.loop_integral == -40
    assert_allclose(found.eigenvalues, (-4.5, 5.5), rtol=EXACT)
    assert_allclose(found.inverse_eigenvalues, (-18, 22), rtol=EXACT)
    # The roots of λ² + 3λ + 3/4.
    expected = (-1.5 - np.sqrt(1.5), -1.5 + np.sqrt(1.5))
    assert_allclose(found.contraction_eigenvalues, expected, rtol=EXACT)


def test_large_maps_need_a_key():
    with pytest.raises(ValueError, match=r"symmetry_of_map.key: 300 parameters"):
        symmetry_of_map(random_map("ConvexPotential"), {"w": jnp.zeros(300)})
    with pytest.raises(ValueError, match=r"symmetry_of_map: .*probes=0"):
        symmetry_of_map(
            random_map("ConvexPotential"), noise(TEMPLATE, 0), key=jax.random.key(0), probes=0
        )


class Lower(AbstractMirrorMap):
    """`g(z) = J z` with a triangular `J`."""

    jacobian: jax.Array

    def to_primal(self, dual):
        return self.jacobian @ dual

    def to_dual(self, primal):
        return jnp.linalg.solve(self.jacobian, primal)


@pytest.mark.parametrize("share", [0.999, 2.5])
def test_a_triangular_map_is_monotone_if_its_coupling_is_below_its_scales(share):
    """`vᵀJv ≥ (min σ − ‖C‖₂)‖v‖²` for a coupling `C`; without it there is no such bound."""
    rng, smallest = np.random.default_rng(0), []
    for _ in range(20):
        scales, coupling = rng.uniform(0.3, 1, 4), np.tril(rng.normal(size=(4, 4)), -1)
        coupling *= share * scales.min() / np.linalg.norm(coupling, 2)
        found = symmetry_of_map(Lower(jnp.asarray(np.diag(scales) + coupling)), jnp.ones(4))
        smallest.append(float(found.smallest))
    assert (min(smallest) > 0) == (share < 1)
