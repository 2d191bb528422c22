"""The leader: minimisers by another method, the regret bound, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optax import projections
from problems import near

from mirrax.online import FTRL, AdaGrad, linear_weights

SIZE, ROUNDS, RUNS = 5, 40, 10


def simplex(point):
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integers and floats there
        return projections.projection_simplex(point)


SETS = {
    "space": lambda w: w,
    "box": functools.partial(projections.projection_box, lower=-0.5, upper=1.5),
    "orthant": projections.projection_non_negative,
    "ball": functools.partial(projections.projection_l2_ball, scale=1.5),
    "simplex": simplex,
}
START = jnp.full(SIZE, 1 / SIZE)


def play(leader, gradients, hints=None, start=START):
    """All rounds; `hints[t]` is the hint of `gradients[t + 1]`."""
    hints = jnp.zeros_like(gradients) if hints is None else hints

    def step(state, given):
        gradient, hint = given
        return leader.step(state, gradient, hint), state.point

    return jax.jit(lambda g, h: jax.lax.scan(step, leader.init(start), (g, h)))(gradients, hints)


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("region", SETS)
def test_points_minimise_what_they_should(region):
    """Projected gradient descent on eq. 4, written out, ends where the leader is."""
    gradients, hints, project = draw(0, 3, SIZE), draw(1, 3, SIZE), SETS[region]
    leader = FTRL(0.2, linear_weights, project)
    state, _ = play(leader, gradients, hints)
    weights = jnp.arange(1.0, 4.0)

    def objective(w):
        linear = (weights @ gradients + 4 * hints[-1]) @ w
        return linear + jnp.sum((w - START) ** 2) / (2 * 0.2)

    found = START
    for _ in range(200):
        found = project(found - 0.1 * jax.grad(objective)(found))
    near(state.point, found)
    if region != "space":
        assert np.abs(state.point - START).max() > 0.1


@pytest.mark.parametrize("region", ["space", "box", "orthant"])
def test_adagrad_is_its_recursion(region):
    """Dual averaging with `√Σg²`, by numpy; the set is a product of intervals."""
    gradients, leader = draw(2, ROUNDS, SIZE), FTRL(AdaGrad(0.3, 0.1), 1.0, SETS[region])
    state, points = play(leader, gradients)
    found = []
    for t in range(1, ROUNDS + 1):
        seen = np.asarray(gradients[:t])
        found.append(START - 0.3 / np.sqrt(0.01 + (seen**2).sum(0)) * seen.sum(0))
    expected = np.stack([SETS[region](jnp.asarray(w)) for w in found])
    near(np.vstack([points[1:], state.point]), expected)


RATES = {
    "constant": 0.1,
    "falling": lambda count: 0.5 / jnp.sqrt(count.astype(float)),
    "AdaGrad": AdaGrad(0.5, 0.1),
}


# AdaGrad's set is a product of intervals.
CASES = [(r, s) for r in RATES for s in SETS if r != "AdaGrad" or s not in ("ball", "simplex")]


@pytest.mark.parametrize(("rate", "region"), CASES)
def test_regret_is_within_its_bound(rate, region):
    """Eq. 5 against the start, random points of the set, and the best one for these gradients.

    Each run is made with no hints, with bad, good and perfect ones.
    """
    leader, project = FTRL(RATES[rate], linear_weights, SETS[region]), SETS[region]
    weights = jnp.arange(1.0, ROUNDS + 1)
    gradients = draw(0, RUNS, ROUNDS, SIZE) + draw(1, RUNS, 1, SIZE)
    errors = draw(2, RUNS, ROUNDS, SIZE)
    known = [jnp.roll(gradients, -1, axis=1) + noise * errors for noise in (3.0, 0.1, 0.0)]
    hints = jnp.stack([jnp.zeros_like(gradients), *known])

    def run(gradients, hints, elsewhere):
        state, points = play(leader, gradients, hints)

        def against(other):
            regret = jnp.sum(weights * jnp.sum(gradients * (points - other), axis=1))
            return regret, state.regret(other), leader.regret_bound(state, other)

        best = project(-10 * weights @ gradients)
        return [against(other) for other in (START, best, project(3 * elsewhere))]

    every = jax.vmap(jax.vmap(run), in_axes=(None, 0, None))
    for regret, found, bound in jax.jit(every)(gradients, hints, draw(3, RUNS, SIZE)):
        assert bound.shape == (4, RUNS)
        near(found, regret)
        assert np.all(regret <= bound)


def test_the_bound_is_tight_in_one_round():
    """Against the point one step further on both are `β ‖g‖²`."""
    leader, gradient = FTRL(0.3), draw(3, SIZE)
    state = leader.step(leader.init(START), gradient)
    other = START - 0.3 * gradient
    near(state.regret(other), leader.regret_bound(state, other))


def test_good_hints_lower_the_bound():
    gradients = draw(4, ROUNDS, SIZE)
    leader = FTRL(0.1)
    plain, _ = play(leader, gradients)
    hinted, _ = play(leader, gradients, jnp.roll(gradients, -1, axis=0))
    # All but the first gradient, which has no hint, are known beforehand.
    assert hinted.surprise < 0.1 * plain.surprise


def test_a_rate_that_rises_has_no_bound():
    leader = FTRL(lambda count: 0.1 * count.astype(float))
    state, _ = play(leader, draw(5, 3, SIZE))
    assert not state.falling and leader.regret_bound(state, START) == np.inf


def test_rates_of_many_leaders_are_one_program():
    """Rates are arrays: a sweep is a `vmap`."""
    gradients = draw(6, ROUNDS, SIZE)

    def last(rate):
        return play(FTRL(rate), gradients)[0].point

    many = jax.vmap(last)(jnp.array([0.1, 0.2]))
    near(many[1], last(0.2))


def test_single_precision_stays_single():
    state = FTRL(AdaGrad(0.5)).init(START.astype(jnp.float32))
    state = FTRL(AdaGrad(0.5)).step(state, jnp.ones(SIZE, jnp.float32))
    kinds = {leaf.dtype for leaf in jax.tree.leaves(state)} - {np.dtype(bool), np.dtype("int32")}
    assert kinds == {np.dtype("float32")}


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_rates_and_weights_that_are_not_positive_are_refused(value):
    with pytest.raises(ValueError, match=r"FTRL.rate: expected a positive finite number"):
        FTRL(value)
    with pytest.raises(ValueError, match=r"FTRL.weights: expected a positive finite number"):
        FTRL(0.1, value)
    with pytest.raises(ValueError, match=r"AdaGrad.scale: expected a positive finite number"):
        AdaGrad(value)


def test_schedules_that_are_not_positive_are_refused():
    sinking = FTRL(lambda count: 1.5 - count.astype(float))
    state = sinking.step(sinking.init(START), START)
    with pytest.raises(ValueError, match=r"FTRL.rate: a rate is not positive"):
        sinking.step(state, START)
    with pytest.raises(Exception, match=r"FTRL.rate: a rate is not positive"):
        play(sinking, draw(0, 3, SIZE))
    with pytest.raises(ValueError, match=r"FTRL.weights: a weight is not positive"):
        FTRL(0.1, lambda count, before: 1 - count).step(FTRL(0.1).init(START), START)


def test_a_start_outside_the_set_is_refused():
    leader = FTRL(0.1, 1.0, simplex)
    with pytest.raises(ValueError, match=r"FTRL.start: not in the set; project it first"):
        leader.init(jnp.ones(SIZE))
    with pytest.raises(Exception, match=r"FTRL.start: not in the set"):
        jax.jit(lambda w: leader.init(w).point)(jnp.ones(SIZE))
    leader.init(simplex(draw(0, SIZE)))


@pytest.mark.parametrize("wrong", [jnp.zeros(SIZE + 1), {"w": jnp.zeros(SIZE)}])
def test_gradients_of_another_shape_are_refused(wrong):
    leader = FTRL(0.1)
    state = leader.init(START)
    with pytest.raises(ValueError, match=r"FTRL.gradient: expected the shapes \(5,\), got"):
        leader.step(state, wrong)
    with pytest.raises(ValueError, match=r"FTRL.hint: expected the shapes \(5,\), got"):
        leader.step(state, START, wrong)
