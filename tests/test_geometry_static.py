"""Static misuse of geometries is refused by a `ValueError` that names class, field and value.

And what belongs to one geometry only: powers near one, zeros on the boundary, blocks.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mirrax.geometry import (
    Blockwise,
    Diagonal,
    Euclidean,
    MaxOfDiagonals,
    NegativeEntropy,
    PNorm,
    Scaled,
)

KEY = jax.random.key(0)
PARAMS = {"w": jnp.zeros(3), "b": jnp.zeros(())}


def ragged(*shapes):
    return MaxOfDiagonals({str(i): jnp.zeros(shape) for i, shape in enumerate(shapes)})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PNorm(1.0), r"PNorm\.p: .* got 1\.0"),
        (lambda: PNorm(0.5), r"PNorm\.p: .* got 0\.5"),
        (lambda: PNorm(float("inf")), r"PNorm\.p: .* got inf"),
        (lambda: PNorm(float("nan")), r"PNorm\.p: .* got nan"),
        (lambda: NegativeEntropy("ball"), r"NegativeEntropy\.domain: .* got 'ball'"),
        (lambda: Diagonal.like(PARAMS, -1.0), r"Diagonal\.diagonal: .* got -1\.0"),
        (lambda: Diagonal.like(PARAMS, 0.0), r"Diagonal\.diagonal: .* got 0\.0"),
        (lambda: Diagonal.like(PARAMS, float("nan")), r"Diagonal\.diagonal: .* got nan"),
        (lambda: ragged((2, 3), (3, 3)), r"MaxOfDiagonals\.log_diagonals: .* lengths \[2, 3\]"),
        (lambda: ragged((2, 3), ()), r"MaxOfDiagonals\.log_diagonals: .* lengths \[0, 2\]"),
        (lambda: ragged((9, 3)), r"MaxOfDiagonals\.log_diagonals: .* between 1 and 8.* \[9\]"),
        (lambda: ragged(), r"MaxOfDiagonals\.log_diagonals: .* got lengths \[\]"),
        (
            lambda: MaxOfDiagonals.like(PARAMS, 0, key=KEY),
            r"MaxOfDiagonals\.like: .* got components=0",
        ),
        (
            lambda: MaxOfDiagonals.like(PARAMS, 3, -2.0, key=KEY),
            r"MaxOfDiagonals\.like: .* diagonal=-2\.0",
        ),
        (
            lambda: MaxOfDiagonals.like(PARAMS, 3, 1.0, spread=1.5, key=KEY),
            r"MaxOfDiagonals\.like: .* spread=1\.5",
        ),
        (lambda: Blockwise({"a": Euclidean(), "b": 3.0}), r"Blockwise\.blocks: .* got float"),
        (lambda: Blockwise({}), r"Blockwise\.blocks: .* got an empty tree"),
        (lambda: Scaled(3.0, 0.0), r"Scaled\.geometry: .* got float"),
        (lambda: Scaled(Euclidean(), jnp.zeros(2)), r"Scaled\.log_scale: .* got shape \(2,\)"),
    ],
)
def test_misuse_names_class_field_and_value(build, message):
    with pytest.raises((ValueError, TypeCheckError)) as refusal:
        build()
    # With run-time type checks on, some misuse does not even reach our own message.
    if refusal.type is ValueError:
        assert re.search(message, str(refusal.value)), refusal.value


@pytest.mark.parametrize(
    "geometry",
    [
        NegativeEntropy("orthant"),
        PNorm(3.0),
        PNorm(1.5, separable=True),
        Scaled(PNorm(3.0), 0.0),
        Blockwise({"a": Euclidean(), "b": NegativeEntropy("orthant")}),
    ],
)
def test_step_bounds_are_refused_without_strong_convexity(geometry):
    point = jnp.array([0.5, 0.5])
    points = {"a": point, "b": point} if isinstance(geometry, Blockwise) else point
    assert not geometry.is_strongly_convex
    with pytest.raises(ValueError, match="is not strongly convex"):
        geometry.local_dual_norm_squared(points, points)


def test_unknown_inverse_hessian_points_to_mirror_descent():
    with pytest.raises(ValueError, match=r"PNorm\.inverse_hessian: .* use MirrorDescent"):
        PNorm(1.5).inverse_hessian(jnp.ones(2), jnp.ones(2))


def test_structures_must_agree():
    with pytest.raises(ValueError):
        Diagonal.like({"w": jnp.zeros(2)}).to_dual({"b": jnp.zeros(2)})


# --- powers near one --------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1.01, 1.1, 1.5])
@pytest.mark.parametrize("magnitude", [1e-30, 1e-4, 1.0, 1e30])
def test_pnorm_of_float32_neither_vanishes_nor_overflows(p, magnitude):
    """With `p = 1.1` the inverse map takes tenth powers of gradients, here of 1e-4 and less."""
    point = np.array([3.0, -2.0, 0.5])
    geometry = PNorm(p)
    expected = np.asarray(geometry.to_primal(jnp.asarray(point)))
    single = geometry.to_primal(jnp.asarray(magnitude * point, jnp.float32))
    np.testing.assert_allclose(np.float64(single) / magnitude, expected, rtol=2e-4, atol=1e-15)
    assert single.dtype == jnp.float32


@pytest.mark.parametrize("separable", [False, True])
def test_two_norm_is_euclidean_at_zeros_too(separable):
    """Fresh biases are zero: there a power written as `sign(x)|x|` would lose its derivative."""
    geometry, origin = PNorm(2.0, separable), jnp.array([0.0, 0.0, 1.0])
    for function in (geometry.to_dual, geometry.to_primal):
        np.testing.assert_array_equal(function(origin), origin)
        np.testing.assert_array_equal(jax.jacobian(function)(origin), np.eye(3))
    for function in (geometry.potential, geometry.conjugate):
        np.testing.assert_allclose(jax.hessian(function)(origin), np.eye(3), rtol=0, atol=1e-15)


@pytest.mark.parametrize("p", [1.1, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("separable", [False, True])
def test_pnorm_is_finite_at_the_origin(p, separable):
    geometry, origin = PNorm(p, separable), jnp.zeros(3)
    for function in (geometry.potential, geometry.conjugate):
        value, gradient = jax.value_and_grad(function)(origin)
        assert value == 0
        np.testing.assert_array_equal(gradient, origin)
    for function in (geometry.to_dual, geometry.to_primal):
        np.testing.assert_array_equal(function(origin), origin)
        assert np.all(np.isfinite(jax.jacobian(function)(origin)))


# --- the boundary of the simplex --------------------------------------------------------------


def test_entropy_at_the_boundary():
    """`0 log 0 = 0`; leaving the support of the reference costs infinitely much."""
    geometry = NegativeEntropy()
    corner, inside = jnp.array([1.0, 0.0]), jnp.array([0.5, 0.5])
    assert float(geometry.potential(corner)) == 0
    assert float(geometry.divergence(corner, inside)) == pytest.approx(np.log(2), rel=1e-15)
    assert float(geometry.divergence(corner, corner)) == 0
    assert float(geometry.divergence(inside, corner)) == np.inf
    gradient = jax.grad(geometry.divergence, argnums=1)(corner, inside)
    np.testing.assert_allclose(gradient, [-1.0, 1.0], rtol=0, atol=1e-15)


def test_entropy_does_not_underflow():
    """Log-weights thousands apart lose nothing of their order."""
    geometry = NegativeEntropy()
    np.testing.assert_array_equal(geometry.to_primal(jnp.array([5000.0, 0.0])), [1.0, 0.0])
    assert float(geometry.conjugate(jnp.array([5000.0, 0.0]))) == 5000.0


def test_local_norm_of_entropy_can_exceed_the_global_one():
    """All mass on the larger entry of `(−1, 1)`: four times `‖g‖_∞²`, as documented."""
    local = NegativeEntropy().local_dual_norm_squared(jnp.array([-1.0, 1.0]), jnp.array([0.0, 1.0]))
    assert float(local) == 4.0


# --- scales and blocks ------------------------------------------------------------------------


def test_a_block_acts_on_its_subtree_only():
    geometry = Blockwise({"net": Diagonal.like({"w": jnp.zeros(2)}, 2.0), "mix": NegativeEntropy()})
    dual = {"net": {"w": jnp.array([4.0, 8.0])}, "mix": jnp.log(jnp.array([3.0, 1.0]))}
    primal = geometry.to_primal(dual)
    np.testing.assert_allclose(primal["net"]["w"], [1.0, 2.0], rtol=1e-15)
    np.testing.assert_allclose(primal["mix"], [0.75, 0.25], rtol=1e-15)


def test_modulus_of_blocks_is_the_smallest():
    blocks = {"a": Diagonal.like(jnp.zeros(2), 3.0), "b": Scaled(Euclidean(), jnp.log(0.5))}
    assert float(Blockwise(blocks).strong_convexity()) == pytest.approx(0.5, rel=1e-15)


def test_scale_of_a_diagonal_is_a_diagonal():
    scaled = Scaled(Diagonal.like(jnp.zeros(3), 1.5), jnp.log(4.0))
    same = Diagonal.like(jnp.zeros(3), 3.0)
    x, y = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.0, 1.0, 1.0])
    for method, arguments in {
        "to_dual": (x,),
        "to_primal": (x,),
        "potential": (x,),
        "conjugate": (x,),
        "divergence": (x, y),
        "strong_convexity": (),
        "local_dual_norm_squared": (x, y),
        "inverse_hessian": (x, y),
    }.items():
        values = getattr(scaled, method)(*arguments), getattr(same, method)(*arguments)
        np.testing.assert_allclose(*values, rtol=1e-14, err_msg=method)
