"""Parameters, losses and data of different floating-point types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import (
    ConvexPotential,
    Diagonal,
    Euclidean,
    Kronecker,
    MaxOfDiagonals,
    PNorm,
    Scaled,
    Transformed,
)
from mirrax.hypergradient import Direct, Implicit, Reverse, Truncated
from mirrax.inner import BregmanProximal, MirrorDescent, Prior, Problem, Repeat, unroll
from mirrax.objective import RegretBound, ValidationLoss
from repeats import slow

KEY = jax.random.key(0)
ROLES = {"w": ("in", "out")}


def problem(kind, target):
    """A loss in one type of parameters in another."""
    target = jnp.asarray(target, kind)

    def loss(x, shared, target):
        return jnp.sum((x.astype(kind) - target) ** 2)

    return Problem(loss, Repeat(target), query=target)


@pytest.mark.parametrize(
    "estimator", [Reverse(3, wrt=("start",)), Truncated(3, 1, wrt=("start",)), Direct(3)]
)
@pytest.mark.parametrize(
    ("params", "loss"), [("bfloat16", "float32"), ("float32", "float64"), ("float64", "float32")]
)
def test_a_loss_may_be_of_another_type_than_the_parameters(estimator, params, loss):
    geometry = Diagonal.like(jnp.ones(3, params))
    prior = Prior(geometry, jnp.ones(3, params))
    objective = (
        RegretBound(jnp.float32(0.1), "last") if isinstance(estimator, Direct) else ValidationLoss()
    )
    rule = MirrorDescent(0.1)
    with jax.numpy_dtype_promotion("standard"):
        value, grad, state = estimator.over_a_run(
            objective, rule, prior, problem(loss, [0.5, 0.5, 2.0]), key=KEY
        )
    wide = max(params, "float32", key=lambda name: jnp.finfo(name).bits)
    assert value.dtype == state.summary.first_loss.dtype == wide
    assert {leaf.dtype.name for leaf in jax.tree.leaves(grad)} == {params}
    assert float(state.summary.first_loss) == 1.5 and jnp.isfinite(value)


@pytest.mark.slow
def test_the_proximal_rule_takes_data_in_double_precision():
    prior = Prior(Diagonal.like(jnp.ones(3, jnp.float32)), jnp.ones(3, jnp.float32))
    with jax.numpy_dtype_promotion("standard"):
        value, grad, _ = Implicit(60).over_a_run(
            ValidationLoss(),
            BregmanProximal(0.5),
            prior,
            problem("float64", [0.5, 0.5, 2.0]),
            key=KEY,
        )
    assert jnp.isfinite(value) and jnp.isfinite(grad.geometry.log_diagonal).all()


@pytest.mark.parametrize(
    "make",
    [
        slow(lambda p: MaxOfDiagonals.like(p, key=KEY)),
        Kronecker.like,
        slow(lambda p: ConvexPotential.like(p, ROLES, units=2, key=KEY)),
        lambda p: Transformed.like(Euclidean(), p, ROLES),
        lambda p: PNorm(1.5),
    ],
)
def test_geometries_of_bfloat16(make):
    """LAPACK has no decomposition in that type."""
    params = {"w": jnp.ones((2, 2), jnp.bfloat16)}
    geometry = make(params)
    with jax.numpy_dtype_promotion("standard"):
        back = geometry.to_primal(geometry.to_dual(params))
        modulus = geometry.strong_convexity()
    assert back["w"].dtype == jnp.bfloat16 and modulus > 0
    np.testing.assert_array_equal(back["w"].astype(np.float32), 1.0)  # all begin as the identity


def test_every_leaf_keeps_its_type_in_a_norm_of_all():
    params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.float32)}
    with jax.numpy_dtype_promotion("standard"):
        dual = PNorm(1.5).to_dual(params)
        task = Problem(
            lambda x, shared, _: sum(jnp.sum(v.astype(jnp.float32) ** 2) for v in x.values()),
            Repeat(None),
        )
        end = unroll(MirrorDescent(0.1), Prior(PNorm(1.5), params), task, 2, key=KEY).last
    for tree in (dual, end):
        assert [leaf.dtype for leaf in tree.values()] == [jnp.bfloat16, jnp.float32]


def test_whole_numbers_are_refused_or_made_learnable():
    for like in (Diagonal.like, Kronecker.like):
        with pytest.raises(ValueError, match=r"like: expected floating-point parameters"):
            like({"w": jnp.ones((2, 2), int)})
    assert jnp.issubdtype(Scaled(Euclidean(), 0).log_scale.dtype, jnp.floating)
    assert Scaled(Euclidean(), jnp.float32(0)).log_scale.dtype == jnp.float32


def test_rates_are_checked_as_they_are_kept():
    assert float(MirrorDescent(jnp.bfloat16(0.5)).rate) == 0.5
    with jax.enable_x64(False), pytest.raises(ValueError, match=r"rate: expected a positive"):
        MirrorDescent(1e-50)
