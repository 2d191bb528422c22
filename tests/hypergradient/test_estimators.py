"""Directions, windows, parts of the prior, vectorisation, compilation and memory."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import EVERYTHING, KEY, RATE, STEPS, assert_close, learned, make_case

from mirrax.geometry import Diagonal, Euclidean
from mirrax.hypergradient import (
    Direct,
    EstimatorState,
    Evolution,
    Forward,
    Reverse,
    Truncated,
    split,
)
from mirrax.inner import (
    DualDescent,
    InnerState,
    MirrorDescent,
    Prior,
    Problem,
    Repeat,
    RunSummary,
    unroll,
)
from mirrax.objective import RegretBound

CASE = make_case("Diagonal", "tight", "minibatch", "logistic")


def compiled(estimator, case=CASE, wrt=None):
    """`state -> (value, flat slope, state)`, compiled once."""

    @jax.jit
    def run(inner, prior, problem, state, key):
        value, slope, after = estimator.estimate(
            case.objective, inner, prior, problem, state, key=key
        )
        return value, learned(slope, wrt or estimator.wrt), after

    return lambda state=None, key=KEY: run(
        case.inner,
        case.prior,
        case.problem,
        estimator.init(case.inner, case.prior) if state is None else state,
        key,
    )


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@functools.lru_cache
def whole_run():
    """What Reverse gives, and where the run ends."""

    @jax.jit
    def last():
        return unroll(CASE.inner, CASE.prior, CASE.problem, STEPS, key=KEY).last

    return *compiled(Reverse(STEPS, wrt=EVERYTHING))(), last()


def exact():
    return np.asarray(whole_run()[1])


@pytest.mark.parametrize("count", [1, 3])
def test_forward_along_directions_projects(count):
    slope = exact()
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(slope.size, count)))
    directions = jnp.asarray(basis.T)
    projected = compiled(Forward(STEPS, directions, wrt=EVERYTHING))()[1]
    assert_close(np.asarray(projected), basis @ (basis.T @ slope), 1e-9)


def test_forward_derivatives_are_inner_products():
    directions = jnp.asarray(np.random.default_rng(1).normal(size=(4, exact().size)))
    estimator = Forward(STEPS, directions, wrt=EVERYTHING)

    @jax.jit
    def along():
        return estimator.derivatives(CASE.objective, CASE.inner, CASE.prior, CASE.problem, key=KEY)

    assert_close(np.asarray(along()[1]), directions @ exact(), 1e-9)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 2, 2)])
def test_directions_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match=r"Forward\.directions: expected shape \(K, 5\)"):
        compiled(Forward(STEPS, jnp.ones(shape)))()


@pytest.mark.parametrize(
    "wrt", [w for n in (1, 2) for w in itertools.combinations(EVERYTHING, n)], ids="+".join
)
def test_parts_of_the_prior_are_parts_of_the_gradient(wrt):
    estimator = Reverse(STEPS, wrt=wrt)
    state = estimator.init(CASE.inner, CASE.prior)

    @jax.jit
    def run(state):
        return estimator.estimate(
            CASE.objective, CASE.inner, CASE.prior, CASE.problem, state, key=KEY
        )[1]

    slope = run(state)
    sizes = {"geometry": 5, "start": 5, "shared": 1}
    places = np.split(exact(), np.cumsum(list(sizes.values()))[:-1])
    for name, expected in zip(EVERYTHING, places, strict=True):
        found = jax.tree.leaves(getattr(slope, name))
        assert len(found) == (0 if name not in wrt else {"shared": 1}.get(name, 2))
        if name in wrt:
            assert_close(np.asarray(learned(slope, (name,))), expected, 1e-12)


def run_windows(estimator, case=CASE, runs=1):
    run, state, rows = compiled(estimator, case), None, []
    for _ in range(runs * estimator.steps // estimator.window):
        value, slope, state = run(state)
        rows.append((np.asarray(value), np.asarray(slope), state))
    reloaded = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), rows[0][2])
    assert bits(run(reloaded)) == bits(rows[1]), "an interrupted run is the same run"
    return rows


@pytest.mark.parametrize("window", [1, 2, 6])
def test_windows_carry_one_run_on(window):
    rows = run_windows(Truncated(STEPS, window, wrt=EVERYTHING), runs=2)
    value, slope, state, end = whole_run()
    per_run = STEPS // window
    total = sum(row[0] for row in rows[:per_run])
    np.testing.assert_allclose(total, value, rtol=1e-13)
    np.testing.assert_allclose(sum(row[0] for row in rows[per_run:]), value, rtol=1e-13)
    last = rows[per_run - 1][2]
    for found, expected in zip(
        jax.tree.leaves(last.summary), jax.tree.leaves(state.summary), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-13)
    assert [int(row[2].inner.count) for row in rows] == 2 * list(range(window, STEPS + 1, window))
    for found, expected in zip(
        jax.tree.leaves(last.inner.primal), jax.tree.leaves(end), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-13)
    if window == STEPS:
        assert_close(rows[0][1], np.asarray(slope), 1e-13)
        assert bits(rows[0][:2]) == bits(rows[1][:2]), "the next run is the same run"
    else:
        assert np.abs(sum(row[1] for row in rows[:per_run]) - slope).max() > 1e-3, "biased"


def quadratic(x, shared, data):
    del shared
    hessian, target = data
    return (x - target) @ hessian @ (x - target) / 2


@pytest.mark.parametrize("rule", [MirrorDescent, DualDescent])
@pytest.mark.parametrize("window", [4, 12])
def test_the_sum_over_windows_is_the_derivative_with_window_starts_held(rule, window):
    """The reference steps by hand, in numpy; one rule holds the primal, the other the dual."""
    rng = np.random.default_rng(6)
    root = rng.normal(size=(3, 3))
    hessian, target, start = root @ root.T + np.eye(3), rng.normal(size=3), rng.normal(size=3)
    log_m, steps = rng.uniform(0.2, 0.7, 3), 12
    prior = Prior(Diagonal(jnp.asarray(log_m)), jnp.asarray(start))
    problem = Problem(quadratic, Repeat((hessian, target)), jnp.asarray(target))
    objective, inner = RegretBound(RATE), rule(RATE)
    estimator = Truncated(steps, window)

    @jax.jit
    def run(state):
        return estimator.estimate(objective, inner, prior, problem, state, key=KEY)

    state, found = estimator.init(inner, prior), 0.0
    for _ in range(steps // window):
        _, slope, state = run(state)
        found = found + slope.geometry.log_diagonal

    def segment(m2, primal, number, first, last):
        value, square = 0.0, 0.0
        for _ in range(number):
            slope = hessian @ (primal - target)
            value += RATE / 2 * (slope**2 / m2).sum()
            primal = primal - RATE * slope / m2
        if last:
            square = (m2 * (target - first) ** 2).sum() / 2 / RATE
        return value + square, primal

    def held(m2, primal):
        """What a held state is under another geometry."""
        return primal if rule is MirrorDescent else primal * np.exp(2 * log_m) / m2

    origin = start if rule is MirrorDescent else start / np.exp(2 * log_m)
    starts, primal = [], origin
    for _ in range(steps // window):
        starts.append(primal)
        primal = segment(np.exp(2 * log_m), primal, window, origin, False)[1]

    def total(log_m_moved):
        m2 = np.exp(2 * log_m_moved)
        value = 0.0
        for number, primal in enumerate(starts):
            last = number == len(starts) - 1
            first = held(m2, origin) if number == 0 else origin
            value += segment(m2, held(m2, primal), window, first, last)[0]
        return value

    shifts = 1e-5 * np.eye(3)
    expected = [(total(log_m + e) - total(log_m - e)) / 2e-5 for e in shifts]
    assert_close(np.asarray(found), np.array(expected), 1e-8)


ESTIMATORS = {
    "Reverse": Reverse(STEPS),
    "checkpointed": Reverse(STEPS, checkpoint=True),
    "Forward": Forward(STEPS),
    "Direct": Direct(STEPS),
    "Truncated": Truncated(STEPS, 2),
    "Evolution": Evolution(STEPS, 2, 0.1, 2),
}


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_tasks_vectorise_and_compile_once(name):
    estimator, traces = ESTIMATORS[name], []
    rng = np.random.default_rng(3)
    targets = jnp.asarray(rng.normal(size=(3, 2)))
    hessians = jnp.asarray(np.stack([np.diag(d) for d in rng.uniform(0.3, 2, (3, 2))]))
    inner = MirrorDescent(RATE)

    def one(task, solution, state, log_m, rate):
        prior = Prior(Diagonal(log_m), jnp.ones(2))
        problem = Problem(quadratic, Repeat(task), solution)
        return estimator.estimate(RegretBound(rate), inner, prior, problem, state, key=KEY)

    @jax.jit
    def together(state, log_m, rate):
        traces.append(1)
        many = jax.vmap(one, in_axes=((0, 0), 0, 0, None, None))
        return many((hessians, targets), targets, state, log_m, rate)

    fresh = estimator.init(inner, Prior(Diagonal(jnp.zeros(2)), jnp.ones(2)))
    state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (3, *leaf.shape)), fresh)
    states, alone = [fresh] * 3, jax.jit(one)
    for round_ in range(4):
        log_m, rate = jnp.full(2, 0.1 * round_), 0.1 + 0.01 * round_
        value, slope, state = together(state, log_m, rate)
        for task in range(3):
            single = alone(
                (hessians[task], targets[task]), targets[task], states[task], log_m, rate
            )
            np.testing.assert_allclose(value[task], single[0], rtol=1e-12)
            found = slope.geometry.log_diagonal[task]
            np.testing.assert_allclose(found, single[1].geometry.log_diagonal, rtol=1e-11)
            states[task] = single[2]
    assert len(traces) == 1


def peak_bytes(steps, checkpoint):
    """Temporary memory of the compiled hypergradient of a run of `steps` steps."""
    rows = (jnp.ones((8, 64)), jnp.ones(8))
    start = jnp.zeros(64)

    def regression(x, shared, batch):
        return jnp.mean((jnp.tanh(batch[0] @ x) - batch[1]) ** 2)

    problem = Problem(regression, Repeat(rows), start)
    estimator, inner = Reverse(steps, checkpoint), MirrorDescent(0.1)

    def slope(log_m):
        prior = Prior(Diagonal(log_m), start)
        state = estimator.init(inner, prior)
        return estimator.estimate(RegretBound(0.1), inner, prior, problem, state, key=KEY)[1]

    analysis = jax.jit(slope).lower(start).compile().memory_analysis()
    return analysis.temp_size_in_bytes


def test_memory_grows_with_the_root_of_the_steps_only_with_checkpoints():
    kept = peak_bytes(10_000, True) / peak_bytes(100, True)
    assert kept <= 12, f"grew {kept:.1f} times"
    plain = peak_bytes(10_000, False) / peak_bytes(100, False)
    assert 50 < plain <= 110, "without checkpoints it grows with the steps"


def operations(estimator, count):
    """Arithmetic of a compiled hypergradient of `count` learned numbers, the loop counted once."""
    start, inner = jnp.zeros(count), MirrorDescent(0.1)
    problem = Problem(lambda x, *_: jnp.sum(jnp.tanh(x - 1) ** 2), Repeat(None), start)

    def slope(log_m):
        prior = Prior(Diagonal(log_m), start)
        state = estimator.init(inner, prior)
        return estimator.estimate(RegretBound(0.1), inner, prior, problem, state, key=KEY)[1]

    return jax.jit(slope).lower(start).compile().cost_analysis()["flops"]


def test_only_forward_pays_for_every_learned_number():
    """Four times the parameters, and learned numbers: a run of four times, and of sixteen."""
    reverse, forward = (
        operations(estimator, 256) / operations(estimator, 64)
        for estimator in (Reverse(8), Forward(8))
    )
    assert 3.9 < reverse < 4.1 and 15 < forward < 17


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Reverse(0), r"Reverse\.steps: expected at least 1, got 0"),
        (lambda: Forward(-3), r"Forward\.steps: .*got -3"),
        (lambda: Direct(0), r"Direct\.steps"),
        (lambda: Reverse(3, wrt=()), r"Reverse\.wrt: .*got \(\)"),
        (lambda: Reverse(3, wrt=("geometri",)), r"Reverse\.wrt: .*got \('geometri',\)"),
        (lambda: Reverse(3, wrt="geometry"), r"Reverse\.wrt"),
        (lambda: Direct(3, wrt=("start",)), r"Direct\.wrt: .*held constant.*Reverse"),
        (lambda: Truncated(10, 3), r"Truncated\.window: expected a divisor.*\(10\), got 3"),
        (lambda: Truncated(10, 0), r"Truncated\.window: .*got 0"),
        (lambda: Truncated(10, 20), r"Truncated\.window: .*got 20"),
    ],
)
def test_bad_fields_are_refused_by_name(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_prior_with_nothing_to_learn_is_refused():
    prior, inner = Prior(Euclidean(), jnp.ones(2)), MirrorDescent(0.1)
    problem = Problem(quadratic, Repeat((jnp.eye(2), jnp.ones(2))), jnp.ones(2))
    for estimator in (
        Reverse(2),
        Forward(2),
        Direct(2),
        Truncated(2, 1),
        Reverse(2, wrt=("shared",)),
    ):
        state = estimator.init(inner, prior)
        with pytest.raises(ValueError, match="nothing to differentiate.*Euclidean"):
            estimator.estimate(RegretBound(0.1), inner, prior, problem, state, key=KEY)


def test_a_prior_of_python_numbers_is_told_what_to_make_of_them():
    with pytest.raises(ValueError, match="start of the prior hold Python numbers.*jnp.asarray"):
        split(Prior(Euclidean(), 1.0), ("start",))


def test_truncated_needs_its_own_state():
    state = EstimatorState(RunSummary.empty(jnp.zeros(1)))
    with pytest.raises(ValueError, match=r"Truncated\.estimate: .*Truncated\.init"):
        Truncated(4, 2).estimate(
            CASE.objective, CASE.inner, CASE.prior, CASE.problem, state, key=KEY
        )


def test_a_diverging_run_says_at_which_step():
    rate = 1e200
    prior, inner = Prior(Diagonal.like(jnp.ones(2)), jnp.ones(2)), MirrorDescent(rate)
    problem = Problem(quadratic, Repeat((jnp.eye(2), jnp.zeros(2))), jnp.zeros(2))
    for estimator in (Reverse(5), Forward(5), Direct(5), Truncated(5, 5)):

        @jax.jit
        def run(estimator=estimator):
            state = estimator.init(inner, prior)
            return estimator.estimate(RegretBound(1.0), inner, prior, problem, state, key=KEY)[2]

        # The loss is 1, then about 1e400: infinite.
        assert int(run().summary.finite_steps) == 1


def test_a_run_after_one_that_diverged_has_a_finite_hypergradient():
    """The finished run is not held, but the branch that would is differentiated with the rest."""
    inner, prior = MirrorDescent(0.1), Prior(Diagonal.like(jnp.ones(2)), jnp.ones(2))
    problem = Problem(quadratic, Repeat((jnp.eye(2), jnp.zeros(2))), jnp.zeros(2))
    estimator, nan = Truncated(4, 2), jnp.full(2, jnp.nan)
    fresh = estimator.init(inner, prior)
    broken = EstimatorState(fresh.summary, InnerState(nan, nan, fresh.inner.count), nan)
    slopes = [
        estimator.estimate(RegretBound(0.1), inner, prior, problem, state, key=KEY)[1]
        for state in (fresh, broken)
    ]
    first, second = (slope.geometry.log_diagonal for slope in slopes)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)
