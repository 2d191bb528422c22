"""Curvature forward over reverse: the same derivatives, by another route."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import (
    COVERING,
    EVERYTHING,
    KEY,
    STEPS,
    assert_close,
    estimate,
    learned,
    make_case,
)

from mirrax.geometry import Diagonal
from mirrax.hypergradient import Reverse, Truncated
from mirrax.hypergradient._mixed import mixed
from mirrax.inner import AbstractObjective, Minibatch, MirrorDescent, Prior, Problem, Repeat
from mirrax.objective import ValidationLoss
from repeats import slow

PAIRS = {
    "plain": (Reverse(STEPS, wrt=EVERYTHING), Reverse(STEPS, wrt=EVERYTHING, mixed=True)),
    "checkpointed": (
        Reverse(STEPS, wrt=EVERYTHING),
        Reverse(STEPS, checkpoint=True, wrt=EVERYTHING, mixed=True),
    ),
    "one window": (
        Truncated(STEPS, STEPS, wrt=EVERYTHING),
        Truncated(STEPS, STEPS, wrt=EVERYTHING, mixed=True),
    ),
    "windows": (
        Truncated(STEPS, 2, wrt=EVERYTHING),
        Truncated(STEPS, 2, wrt=EVERYTHING, mixed=True),
    ),
}


def summed(estimator, objective, inner, prior, problem):
    """Value and derivative over the calls that make up a run."""
    value, slope, _ = estimator.over_a_run(objective, inner, prior, problem, key=KEY)
    return value, learned(slope, estimator.wrt)


def assert_agree(kind, objective, inner, prior, problem):
    @jax.jit
    def both(inner, prior, problem):
        return [summed(estimator, objective, inner, prior, problem) for estimator in PAIRS[kind]]

    (value, slope), (again, found) = both(inner, prior, problem)
    np.testing.assert_allclose(again, value, rtol=1e-13)
    assert_close(np.asarray(found), np.asarray(slope), 1e-12)


# Compilation is what these tests cost: every objective, kind of batch and problem occurs once, in
# geometries that compile quickly, and the others are marked slow.
CHOSEN = [
    next(i for i, key in enumerate(COVERING) if key[:2] == pair)
    for pair in [("Diagonal", "tight"), ("Diagonal", "paper"), ("Blockwise", "validation")]
]


def test_all_are_chosen():
    for place in (1, 2, 3):
        assert {COVERING[i][place] for i in CHOSEN} == {key[place] for key in COVERING}


@pytest.mark.parametrize(
    "key",
    [key if place in CHOSEN else slow(key) for place, key in enumerate(COVERING)],
    ids=str,
)
def test_mixed_mode_agrees_everywhere(key):
    case, (plain, forwards) = make_case(*key), PAIRS["plain"]
    value, slope = estimate(plain, case)
    again, found = estimate(forwards, case)
    np.testing.assert_allclose(again, value, rtol=1e-13)
    assert_close(found, slope, 1e-12)


@pytest.mark.parametrize("kind", ["checkpointed", slow("one window"), "windows"])
def test_mixed_mode_agrees_with_checkpoints_and_windows(kind):
    case = make_case("Diagonal", "validation", "full", "logistic")
    assert_agree(kind, case.objective, case.inner, case.prior, case.problem)


def classify(params, shared, batch):
    """Integer labels in the batch, integers and `None` among what is shared."""
    images, labels = batch
    logits = jnp.tanh(images @ params["first"]) @ params["last"] * shared["scale"]
    logits = logits + shared["shift"].astype(logits.dtype)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -jnp.mean(chosen)


class SummedLoss(AbstractObjective):
    """Judges every step by its loss, which depends on the shared parts directly too."""

    def stage(self, prior, problem, step):
        return step.loss

    def terminal(self, prior, problem, first, last):
        return jnp.zeros(())


@pytest.mark.parametrize("objective", [ValidationLoss(), SummedLoss()], ids=["end", "steps"])
def test_batches_and_shared_parts_may_hold_integers(objective):
    rng = np.random.default_rng(1)
    data = (jnp.asarray(rng.normal(size=(20, 4))), jnp.asarray(rng.integers(0, 3, 20)))
    start = {
        "first": jnp.asarray(rng.normal(size=(4, 5))),
        "last": jnp.asarray(rng.normal(size=(5, 3))),
    }
    shared = {"scale": jnp.asarray(0.7), "shift": jnp.arange(3), "nothing": None}
    prior = Prior(Diagonal.like(start), start, shared)
    problem = Problem(classify, Minibatch(data, 4), query=data)
    assert_agree("plain", objective, MirrorDescent(0.5), prior, problem)


def test_a_rule_may_differentiate_in_what_is_shared():
    def loss(params, shared, row):
        return jnp.sum(jnp.sin(params * row) * shared**2)

    point = jnp.asarray([0.3, -1.2]), jnp.asarray(0.7), jnp.asarray([2.0, 0.9])
    again = mixed(Problem(loss, Repeat(None))).loss
    for found, expected in zip(
        jax.grad(again, argnums=(0, 1))(*point), jax.grad(loss, argnums=(0, 1))(*point), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_tasks_vectorise():
    case = make_case("Diagonal", "tight", "full", "logistic")
    scales = jnp.asarray([0.5, 1.0, 2.0])

    def one(scale):
        prior = Prior(case.prior.geometry, case.prior.start, {"scale": scale})
        return summed(PAIRS["plain"][1], case.objective, case.inner, prior, case.problem)[1]

    together, alone = jax.jit(jax.vmap(one))(scales), jax.jit(one)
    for found, scale in zip(together, scales, strict=True):
        assert_close(np.asarray(found), np.asarray(alone(scale)), 1e-12)


MATRIX = jnp.asarray([[0.5, 0.4], [0.0, 0.3]])


@jax.custom_vjp
def lopsided(x):
    return x @ MATRIX @ x / 2


lopsided.defvjp(lambda x: (lopsided(x), x), lambda x, weight: (weight * MATRIX @ x,))


@pytest.mark.parametrize("kind", [Reverse, functools.partial(Truncated, window=3)])
def test_the_product_is_taken_forwards(kind):
    """A made-up gradient `Ax` with `A ≠ Aᵀ` tells `A v` from `Aᵀ v`."""
    inner, steps = MirrorDescent(1.0), 3
    prior = Prior(Diagonal.like(jnp.ones(2)), jnp.asarray([1.0, 2.0]))
    problem = Problem(lambda x, shared, row: lopsided(x), Repeat(None), query=None)

    class Last(AbstractObjective):
        def stage(self, prior, problem, step):
            return jnp.zeros(())

        def terminal(self, prior, problem, first, last):
            return last[0] + 3 * last[1]

    for forwards, product in ((False, MATRIX.T), (True, MATRIX)):
        estimator = kind(steps, wrt=("start",), mixed=forwards)
        _, slope = summed(estimator, Last(), inner, prior, problem)
        expected = jnp.asarray([1.0, 3.0])
        for _ in range(steps):
            expected = expected - product @ expected
        np.testing.assert_allclose(slope, expected, rtol=1e-14)


def test_mixed_and_first_order_exclude_each_other():
    with pytest.raises(ValueError, match=r"Reverse\.mixed: expected False with first_order"):
        Reverse(3, first_order=True, mixed=True)
