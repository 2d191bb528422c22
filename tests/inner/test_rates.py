"""Rates: bad ones are refused by name, good ones never recompile, schedules follow the step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mirrax.geometry import Diagonal, Euclidean, KroneckerUpdate
from mirrax.inner import (
    DualDescent,
    LearnedUpdate,
    MirrorDescent,
    PreconditionedDescent,
    Prior,
    Problem,
    Repeat,
    evaluate,
    unroll,
)
from mirrax.objective import RegretBound

KEY = jax.random.key(0)
RULES = [MirrorDescent, DualDescent, PreconditionedDescent]


def half_square(x, shared, batch):
    del shared, batch
    return jnp.sum(x**2) / 2


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "rate",
    [
        0,
        0.0,
        -0.1,
        float("nan"),
        float("inf"),
        -float("inf"),
        jnp.array(-1.0),
        np.array(0.0),
        "0.1",
        None,
        1j,
        [0.1, -0.1],
    ],
    ids=repr,
)
def test_bad_rates_raise_naming_the_class_and_the_value(rule, rate):
    with pytest.raises(ValueError, match=rf"{rule.__name__}\.rate: expected a positive"):
        rule(rate)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("rate", [jnp.array([0.1]), jnp.full((2, 2), 0.1), np.array([0.1, 0.2])])
def test_a_rate_is_one_number(rule, rate):
    """An array of rates, one a parameter, is a geometry's business."""
    with pytest.raises(ValueError) as caught:
        rule(rate)
    expected = f"{rule.__name__}.rate: expected a positive finite number or a schedule, got "
    assert str(caught.value) == f"{expected}{rate!r}."


@pytest.mark.parametrize("rule", RULES)
def test_changing_the_rate_does_not_recompile(rule):
    traces = []

    @jax.jit
    def last(inner):
        traces.append(1)
        prior = Prior(Diagonal.like(jnp.ones(2)), jnp.ones(2))
        return unroll(inner, prior, Problem(half_square, Repeat(None)), 4, key=KEY).last

    for rate in (0.1, 0.25, 1, np.float32(0.5), np.float64(0.5), jnp.asarray(0.3)):
        expected = (1 - float(rate)) ** 4 * np.ones(2)
        np.testing.assert_allclose(last(rule(rate)), expected, rtol=1e-12, atol=1e-15)
    assert len(traces) == 1


def test_changing_the_objective_s_rate_does_not_recompile():
    traces = []

    @jax.jit
    def worth(objective, inner):
        traces.append(1)
        prior = Prior(Diagonal.like(jnp.ones(2)), jnp.ones(2))
        problem = Problem(half_square, Repeat(None), jnp.zeros(2))
        return evaluate(objective, inner, prior, problem, 3, key=KEY)[0]

    values = [float(worth(RegretBound(rate), MirrorDescent(rate))) for rate in (0.1, 0.2, 1)]
    assert len(traces) == 1 and len(set(values)) == 3


def test_rates_can_be_vectorised():
    def last(rate):
        prior = Prior(Euclidean(), jnp.ones(1))
        problem = Problem(half_square, Repeat(None))
        return unroll(MirrorDescent(rate), prior, problem, 2, key=KEY).last

    reached = jax.jit(jax.vmap(last))(jnp.array([0.1, 0.5]))
    np.testing.assert_allclose(reached[:, 0], [0.81, 0.25], rtol=1e-12)


def test_a_preconditioner_that_learns_keeps_the_type_of_parameters():
    """Under a rate of another one."""
    start = {"dense": {"weight": jnp.ones((2, 2), jnp.float32)}}
    geometry = KroneckerUpdate.identity(start, {"dense": {"weight": ("in", "out")}})
    problem = Problem(lambda x, shared, batch: jnp.sum(x["dense"]["weight"] ** 2) / 2, Repeat(None))
    run = unroll(LearnedUpdate(0.1), Prior(geometry, start), problem, 3, key=KEY)
    assert {leaf.dtype for leaf in jax.tree.leaves(run)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("rule", RULES)
def test_a_schedule_gives_the_rate_of_every_step(rule):
    schedule = optax.linear_schedule(0.5, 0.1, 4)

    @jax.jit
    def points():
        prior = Prior(Euclidean(), jnp.ones(1))
        return unroll(rule(schedule), prior, Problem(half_square, Repeat(None)), 6, key=KEY).primal

    rates = [0.5, 0.4, 0.3, 0.2, 0.1, 0.1]
    np.testing.assert_allclose(points()[1:, 0], np.cumprod(1 - np.array(rates)), rtol=1e-12)
