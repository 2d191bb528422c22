"""The alternation of runs with the closed form: goldens, fixed points, pooling, divergence."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import Diagonal, MaxOfDiagonals
from mirrax.inner import MirrorDescent, Prior, Problem, Repeat
from mirrax.meta import Alternating, ManyShot, Reference, Runs, _alternating, _closed_forms
from mirrax.objective import Moments, path_moments, tight_diagonal

KEY = jax.random.key(0)

ROUNDING = 1e-13
"""The same sums in another order, over the steps of a run; most differ by less than 1e-15."""


def quadratic(x, shared, data):
    del shared
    hessian, target = data
    return (x - target) @ hessian @ (x - target) / 2


def golden_case(c06):
    rate, steps = float(c06["diag_eta"]), int(c06["diag_T"])
    data = (jnp.asarray(c06["diag_H"]), jnp.asarray(c06["diag_target"]))
    start = jnp.asarray(c06["diag_theta1"])
    count = len(data[1])
    problems = Problem(quadratic, Repeat(data), data[1])
    runs = Runs(
        problems,
        jnp.broadcast_to(start, (count, 1, *start.shape)),
        jax.random.split(KEY, (count, 1)),
    )
    return rate, steps, runs, Diagonal(jnp.log(c06["diag_m"]))


def alternate(outer, rate, geometry, runs, rounds):
    update = jax.jit(lambda g, s: outer.update(MirrorDescent(rate), g, s, runs))
    state, rows, outcomes = outer.init(geometry), [geometry.curvature], []
    for _ in range(rounds):
        geometry, state, outcome = update(geometry, state)
        rows.append(geometry.curvature)
        outcomes.append(outcome)
    return geometry, np.stack(rows), outcomes


def test_golden_alternation_without_limit_or_settling(golden, monkeypatch):
    """As long as every run descends; then the rates are lowered, which the goldens do not know."""
    c06 = golden("c06_metamd_tight")
    rate, steps, runs, geometry = golden_case(c06)
    monkeypatch.setattr(_closed_forms, "LARGEST_CHANGE", 1e3)
    monkeypatch.setattr(_alternating, "_SETTLING", 10**15)
    outer = Alternating(rate, steps, comparator="last", decay=0.0, damping=0.0)
    _, rows, outcomes = alternate(outer, rate, geometry, runs, 15)
    rises = [bool(jnp.any(o.summary.last_loss > o.summary.first_loss)) for o in outcomes]
    sound = rises.index(True) if any(rises) else len(rises)
    assert sound >= 2
    np.testing.assert_allclose(
        rows[: sound + 1], c06["diag_alternate_m2"][: sound + 1], rtol=ROUNDING
    )
    np.testing.assert_allclose(outcomes[0].value, c06["diag_R"], rtol=ROUNDING)


def test_first_golden_round_is_limited_to_a_factor_of_four(golden):
    c06 = golden("c06_metamd_tight")
    rate, steps, runs, geometry = golden_case(c06)
    outer = Alternating(rate, steps, comparator="last", decay=0.0, damping=0.0)
    _, rows, _ = alternate(outer, rate, geometry, runs, 1)
    change = np.log(c06["diag_alternate_m2"][1] / c06["diag_alternate_m2"][0])
    limited = np.clip(change, -np.log(4), np.log(4))
    np.testing.assert_allclose(np.log(rows[1] / rows[0]), limited, rtol=ROUNDING)


def test_decay_averages_logarithms_of_m(golden):
    rate, steps, runs, geometry = golden_case(golden("c06_metamd_tight"))
    whole, half = (
        alternate(
            Alternating(rate, steps, comparator="last", decay=decay, damping=3.0),
            rate,
            geometry,
            runs,
            1,
        )[1]
        for decay in (0.0, 0.5)
    )
    change = np.log(whole[1] / whole[0])
    assert np.abs(change).max() < np.log(4)
    np.testing.assert_allclose(np.log(half[1] / half[0]), change / 2, rtol=ROUNDING)


def test_fixed_point_is_the_closed_form_of_its_own_runs(golden):
    rate, steps, runs, geometry = golden_case(golden("c06_metamd_tight"))
    outer = Alternating(rate, steps, comparator="solution", decay=0.5, damping=0.0)
    geometry, rows, _ = alternate(outer, rate, geometry, runs, 100)

    @jax.jit
    def moments(problem, start):
        return path_moments(
            MirrorDescent(rate),
            Prior(geometry, start[0]),
            problem,
            steps,
            comparator="solution",
            key=KEY,
        )[0]

    found = jax.vmap(moments)(runs.problems, runs.starts)
    moved, sloped = found.displacement.mean(0), found.gradient.mean(0)
    # A hundred rounds leave 5e-10 of the way to the fixed point.
    np.testing.assert_allclose(rows[-1], rate * np.sqrt(sloped / moved), rtol=1e-8)
    assert np.abs(np.log(rows[-1] / rows[-2])).max() < 0.01


def test_pooling_averages_moments_over_exchangeable_axes():
    rng = np.random.default_rng(0)
    target = jnp.asarray(rng.normal(size=(3, 4, 2)))
    slopes = jnp.asarray(rng.uniform(0.5, 2, size=(3, 4, 2)))

    def loss(x, shared, data):
        del shared
        return jnp.sum(data[1] * (x["w"] - data[0]) ** 2) / 2

    problems = Problem(loss, Repeat((target, slopes)), {"w": target})
    starts = {"w": jnp.asarray(rng.normal(size=(3, 2, 4, 2)))}
    runs = Runs(problems, starts, jax.random.split(KEY, (3, 2)))
    outer = Alternating(0.1, 7, decay=0.0, damping=0.1, pool=((0,),))
    first = Diagonal({"w": jnp.zeros((4, 2))})
    inner = MirrorDescent(0.1)
    pooled = jax.jit(lambda: outer.update(inner, first, outer.init(first), runs)[0])().log_diagonal

    def one(i, j):
        problem = jax.tree.map(lambda leaf: leaf[i], problems)
        return path_moments(
            inner,
            Prior(first, {"w": starts["w"][i, j]}),
            problem,
            7,
            comparator="solution",
            key=KEY,
        )[0]

    every = [one(i, j) for i in range(3) for j in range(2)]
    d, g = (
        np.mean([np.asarray(getattr(m, field)["w"]) for m in every], axis=0)
        for field in ("displacement", "gradient")
    )
    d, g = (np.broadcast_to(x.mean(axis=0), x.shape) for x in (d, g))
    best = tight_diagonal(Moments({"w": jnp.asarray(d)}, {"w": jnp.asarray(g)}), 0.1, damping=0.1)
    limit = np.log(4) / 2
    by_hand = np.clip(best.log_diagonal["w"], -limit, limit)
    np.testing.assert_allclose(pooled["w"], by_hand, rtol=ROUNDING)
    np.testing.assert_array_equal(pooled["w"], np.broadcast_to(pooled["w"][:1], (4, 2)))


STEEP = Problem(
    quadratic,
    Repeat((jnp.diag(jnp.array([25.0, 0.5]))[None], jnp.zeros((1, 2)))),
    jnp.zeros((1, 2)),
)
"""One direction in which the rate 0.1 climbs, and one in which it is far too small."""


def ones(key):
    del key
    return jnp.ones(2)


def many_shot(rate=0.1, steps=12):
    return ManyShot(MirrorDescent(rate), Alternating(rate, steps, decay=0.0), ones)


def test_divergence_halves_the_rate_responsible_and_recovers():
    learner = many_shot()
    state = learner.init(Diagonal(jnp.zeros(2)), key=KEY)
    state, record = learner.round(state, STEEP)
    assert float(record.summary.last_loss[0, 0]) > float(record.summary.first_loss[0, 0])
    assert not bool(record.failed) and int(state.round) == 1
    steep, flat = np.exp(-2 * np.asarray(state.geometry.log_diagonal))
    np.testing.assert_allclose(steep, 0.5, rtol=ROUNDING)
    assert 0.99 < flat <= 1
    for _ in range(6):
        state, record = learner.round(state, STEEP)
    assert float(record.summary.last_loss[0, 0]) < 0.1 * float(record.summary.first_loss[0, 0])
    steep, flat = np.exp(-2 * np.asarray(state.geometry.log_diagonal))
    assert steep < 1 < flat


def bits(state):
    state = eqx.tree_at(lambda s: s.key, state, jax.random.key_data(state.key))
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


def test_non_finite_first_round_leaves_the_state_untouched():
    learner = many_shot(rate=10.0, steps=200)
    state = learner.init(Diagonal(jnp.zeros(2)), key=KEY)
    after, record = learner.round(state, STEEP)
    assert bool(record.failed) and int(record.summary.finite_steps[0, 0]) < 200
    assert bits(after) == bits(state)


def test_non_finite_later_round_lowers_every_rate_and_goes_on():
    learner = many_shot(rate=10.0, steps=200)
    state = learner.init(Diagonal(jnp.zeros(2)), key=KEY)
    state = eqx.tree_at(lambda s: s.round, state, jnp.ones_like(state.round))
    after, record = learner.round(state, STEEP)
    assert not bool(record.failed) and int(after.round) == 2
    assert np.all(np.isfinite(after.geometry.log_diagonal))
    np.testing.assert_allclose(
        np.exp(-2 * np.asarray(after.geometry.log_diagonal)), 0.5, rtol=ROUNDING
    )


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Alternating(0.0, 5), r"Alternating\.rate.*0\.0"),
        (lambda: Alternating(float("nan"), 5), r"Alternating\.rate.*nan"),
        (lambda: Alternating(0.1, 5, decay=1.0), r"Alternating\.decay.*1\.0"),
        (lambda: Alternating(0.1, 5, decay=-0.1), r"Alternating\.decay.*-0\.1"),
        (lambda: Alternating(0.1, 5, pool=((0,), ())).init(Diagonal(jnp.zeros(2))), "pool.*1"),
        (
            lambda: Alternating(0.1, 5).init(MaxOfDiagonals.like(jnp.zeros(2), 2, key=KEY)),
            "MaxOfDiagonals; use Descent",
        ),
        (lambda: Alternating(0.1, 0), r"Alternating\.steps: .* got 0"),
        (
            lambda: ManyShot(MirrorDescent(0.1), Alternating(0.1, 5), ones, 0),
            r"ManyShot\.visits.*0",
        ),
        (lambda: Reference(-1.0, 5), r"Reference\.rate.*-1\.0"),
        (lambda: Reference(0.1, 0), r"Reference\.steps.*0"),
    ],
)
def test_static_misuse(build, words):
    with pytest.raises(ValueError, match=words):
        build()
