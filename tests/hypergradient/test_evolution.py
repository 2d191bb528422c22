"""Evolution strategies: their mean, their stated errors, common randomness, windows, refusals.

Where a run is worth a quadratic of what is perturbed, antithetic pairs are unbiased for its exact
derivative whatever the spread, and the error of an estimate is known in closed form. The start and
a constant force on linear dynamics are such numbers.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from registry import COVERING, EVERYTHING, KEY, STEPS, assert_close, estimate, learned, make_case

from mirrax.geometry import Diagonal, Euclidean
from mirrax.hypergradient import EstimatorState, Evolution, Reverse, Truncated
from mirrax.inner import (
    AbstractObjective,
    Minibatch,
    MirrorDescent,
    Prior,
    Problem,
    Repeat,
    RunSummary,
    evaluate,
)
from mirrax.meta import Descent
from mirrax.meta._outer import Runs
from mirrax.objective import RegretBound
from repeats import slow

LENGTH, WINDOW, PAIRS, SPREAD, REPEATS = 12, 3, 8, 0.5, 2000
WRT = ("start", "shared")


class Costs(AbstractObjective):
    """The losses on the way and, unless left out, the square of the last point."""

    terminal_too: bool = eqx.field(static=True, default=True)

    def stage(self, prior, problem, step):
        return 0.2 * step.loss

    def terminal(self, prior, problem, first, last):
        square = jnp.sum(last**2) + first @ last
        return square if self.terminal_too else jnp.zeros_like(square)


def pushed(x, shared, data):
    hessian, target = data
    return (x - target) @ hessian @ (x - target) / 2 + x @ shared


def linear_problem():
    rng = np.random.default_rng(4)
    root = rng.normal(size=(3, 3))
    data = (jnp.asarray(root @ root.T + np.eye(3)), jnp.asarray(rng.normal(size=3)))
    prior = Prior(Euclidean(), jnp.asarray(rng.normal(size=3)), jnp.asarray(rng.normal(size=3)))
    return prior, Problem(pushed, Repeat(data))


PRIOR, PROBLEM = linear_problem()
INNER = MirrorDescent(0.1)


def over_a_run(estimator, objective, inner, prior, problem, key):
    """Values, derivatives and errors of all the windows of a run, and the state after each."""

    def call(state, _):
        value, slope, state = estimator.estimate(objective, inner, prior, problem, state, key=key)
        error = jnp.zeros(()) if state.error is None else learned(state.error, estimator.wrt)
        return state, (value, learned(slope, estimator.wrt), error, state)

    begin = estimator.init(inner, prior)
    return jax.lax.scan(call, begin, None, length=estimator.calls)[1]


@functools.lru_cache
def repeated(estimator, repeats=REPEATS):
    """Derivatives and errors of independent estimates, shape (repeats, calls, numbers)."""

    @jax.jit
    @jax.vmap
    def run(key):
        return over_a_run(estimator, Costs(), INNER, PRIOR, PROBLEM, key)[1:3]

    slopes, errors = run(jax.random.split(jax.random.key(11), repeats))
    return np.asarray(slopes), np.asarray(errors)


def costs_by_hand(numbers):
    """What each window costs, in numpy."""
    hessian, target = map(np.asarray, PROBLEM.batches.data)
    first, push = np.split(numbers, 2)
    point, costs = first, np.zeros(LENGTH // WINDOW)
    for step in range(LENGTH):
        away = point - target
        costs[step // WINDOW] += 0.2 * (away @ hessian @ away / 2 + point @ push)
        point = point - 0.1 * (hessian @ away + push)
    costs[-1] += point @ point + first @ point
    return costs


@functools.lru_cache
def exact():
    """The derivative of each window's costs; central differences of a quadratic are exact."""
    numbers = np.asarray(learned(PRIOR, WRT))
    sides = [[costs_by_hand(numbers + sign * e) for e in np.eye(6)] for sign in (1, -1)]
    return (np.stack(sides[0]) - np.stack(sides[1])).T / 2


def assert_within_errors(slopes, errors, expected):
    """The mean of independent estimates, within 3 of the standard errors they state."""
    stated = np.sqrt(np.mean(errors**2, axis=0) / len(slopes))
    deviations = np.abs(slopes.mean(0) - expected) / stated
    assert deviations.max() < 3, f"{deviations.max():.1f} standard errors"
    return stated


def assert_errors_are_the_spread(slopes, errors):
    spread = slopes.std(0, ddof=1)
    ratio = np.sqrt(np.mean(errors**2, axis=0)) / spread
    assert np.all(np.abs(ratio - 1) < 0.15), ratio


def test_whole_runs_are_unbiased_and_state_their_errors():
    slopes, errors = repeated(Evolution(LENGTH, PAIRS, SPREAD, wrt=WRT))
    gradient = exact().sum(0)
    assert_within_errors(slopes[:, 0], errors[:, 0], gradient)
    assert_errors_are_the_spread(slopes, errors)
    # Var ε_j ⟨ε, g⟩ = ‖g‖² + g_j².
    closed = np.sqrt((gradient @ gradient + gradient**2) / PAIRS)
    found = np.sqrt(np.mean(errors[:, 0] ** 2, axis=0))
    np.testing.assert_allclose(found, closed, rtol=0.05)


def test_windows_are_unbiased_one_by_one_and_state_their_errors():
    slopes, errors = repeated(Evolution(LENGTH, PAIRS, SPREAD, WINDOW, wrt=WRT))
    assert_within_errors(slopes, errors, exact())
    assert_errors_are_the_spread(slopes, errors)


def test_windows_sum_to_the_derivative_of_the_run_where_truncation_is_biased():
    slopes, _ = repeated(Evolution(LENGTH, PAIRS, SPREAD, WINDOW, wrt=WRT))
    sums, derivative = slopes.sum(1), exact().sum(0)
    error = sums.std(0, ddof=1) / np.sqrt(REPEATS)
    assert np.all(np.abs(sums.mean(0) - derivative) < 3 * error)
    reverse, _ = repeated(Reverse(LENGTH, wrt=WRT), 1)
    np.testing.assert_allclose(reverse[0, 0], derivative, rtol=1e-11)
    truncated, _ = repeated(Truncated(LENGTH, WINDOW, wrt=WRT), 1)
    assert np.max(np.abs(truncated[0].sum(0) - derivative) / error) > 20  # 44 measured


def test_the_formula_by_hand():
    """From the perturbations in the state: values, estimate and error of a nonlinear run."""
    case = make_case("Diagonal", "tight", "minibatch", "logistic")
    estimator = Evolution(STEPS, 3, 0.2, STEPS, wrt=("geometry",))
    numbers = learned(case.prior, ("geometry",))

    @jax.jit
    def run():
        out = over_a_run(estimator, case.objective, case.inner, case.prior, case.problem, KEY)
        value, slope, error, state = jax.tree.map(lambda leaf: leaf[0], out)

        def worth(sign, noise):
            point = numbers + sign * 0.2 * noise
            _, restore = ravel_pytree(case.prior.geometry.log_diagonal)
            prior = Prior(Diagonal(restore(point)), case.prior.start, case.prior.shared)
            return evaluate(case.objective, case.inner, prior, case.problem, STEPS, key=KEY)[0]

        noise = state.perturbation
        signs = jnp.asarray([1.0, -1.0])
        ahead, behind = jax.vmap(jax.vmap(worth, (None, 0)), (0, None))(signs, noise)
        return value, slope, error, noise, ahead, behind

    value, slope, error, noise, ahead, behind = map(np.asarray, run())
    assert np.abs(np.corrcoef(noise.ravel(), np.roll(noise, 1, 0).ravel())[0, 1]) < 0.6
    terms = noise * ((ahead - behind) / 0.4)[:, None]
    np.testing.assert_allclose(value, (ahead + behind).mean() / 2, rtol=1e-12)
    np.testing.assert_allclose(slope, terms.mean(0), rtol=1e-10)
    np.testing.assert_allclose(error, terms.std(0, ddof=1) / np.sqrt(3), rtol=1e-10)


def test_one_window_is_the_whole_run():
    whole, error = repeated(Evolution(LENGTH, PAIRS, SPREAD, wrt=WRT))
    window, window_error = repeated(Evolution(LENGTH, PAIRS, SPREAD, LENGTH, wrt=WRT))
    np.testing.assert_allclose(window, whole, rtol=1e-11)
    np.testing.assert_allclose(window_error, error, rtol=1e-11)


def test_perturbations_add_up_over_a_run_and_begin_anew_after_it():
    estimator = Evolution(LENGTH, 4000, SPREAD, WINDOW, wrt=WRT)
    key = jax.random.key(5)

    @jax.jit
    def run(state):
        return estimator.estimate(Costs(), INNER, PRIOR, PROBLEM, state, key=key)

    state = estimator.init(INNER, PRIOR)
    seen = []
    for _ in range(2 * estimator.calls):
        *_, state = out = run(state)
        seen.append(out)
    sums = [np.asarray(state.perturbation) for *_, state in seen[: estimator.calls]]
    starts, forces = np.split(np.stack(sums), 2, axis=2)
    np.testing.assert_array_equal(starts, np.broadcast_to(starts[0], starts.shape))
    # Independent windows: variances 1, 2, 3, 4; 12,000 normal numbers give them to 4% at 3σ.
    np.testing.assert_allclose(forces.var((1, 2)), [1, 2, 3, 4], rtol=0.04)
    np.testing.assert_allclose(starts[0].var(), 1, rtol=0.04)
    for first, again in zip(seen[: estimator.calls], seen[estimator.calls :], strict=True):
        for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
            np.testing.assert_array_equal(one, other)


def noisy(x, shared, rows):
    return jnp.mean((x - rows) ** 2) / 2 + x @ shared


def noisy_problem():
    rows = jnp.asarray(np.random.default_rng(3).normal(size=(50, 3)))
    return Problem(noisy, Minibatch(rows, 2))


def test_pairs_share_their_batches():
    """Independent batches on the two sides would leave their noise over `2σ`."""
    problem, spread = noisy_problem(), 1e-3
    estimator = Evolution(LENGTH, PAIRS, spread, wrt=WRT)
    numbers = learned(PRIOR, WRT)

    def apart(key):
        perturbing, *keys = jax.random.split(key, 2 * PAIRS + 1)
        noise = jax.random.normal(perturbing, (PAIRS, 6))

        def worth(sign, row, key):
            start, shared = jnp.split(numbers + sign * spread * row, 2)
            prior = Prior(Euclidean(), start, shared)
            return evaluate(Costs(), INNER, prior, problem, LENGTH, key=key)[0]

        signs = jnp.asarray([1.0, -1.0])
        both = jax.vmap(jax.vmap(worth, (None, 0, 0)), (0, None, 0))
        ahead, behind = both(signs, noise, jnp.stack(keys).reshape(2, PAIRS))
        return (ahead - behind) @ noise / (2 * spread * PAIRS)

    def together(key):
        return over_a_run(estimator, Costs(), INNER, PRIOR, problem, key)[1][0]

    keys = jax.random.split(KEY, 200)
    found, independent = (np.asarray(jax.jit(jax.vmap(f))(keys)).std(0) for f in (together, apart))
    assert np.all(found < 0.1 * independent)


@pytest.mark.parametrize("window", [None, WINDOW])
def test_what_the_prior_does_not_change_has_no_derivative_and_no_error(window):
    """The batches' own noise cancels within a pair to the bit."""
    prior = Prior(Diagonal.like(jnp.ones(3)), jnp.ones(3), jnp.zeros(3))
    batches = Minibatch(jnp.arange(20.0), 2)
    problem = Problem(lambda x, shared, rows: jnp.mean(rows) + 0 * jnp.sum(x), batches)
    estimator = Evolution(LENGTH, PAIRS, SPREAD, window)

    @jax.jit
    def run():
        return over_a_run(estimator, Costs(False), INNER, prior, problem, KEY)[:3]

    value, slope, error = run()
    assert np.all(np.asarray(value) != 0)
    np.testing.assert_array_equal(slope, 0)
    np.testing.assert_array_equal(error, 0)


CASES = [key for key in COVERING if key[1] == "tight"]


@pytest.mark.parametrize("key", [CASES[0], *map(slow, CASES[1:])], ids=str)
def test_small_spreads_estimate_the_derivative_of_any_case(key):
    """One estimate with many pairs against `Reverse`, in the errors that it states itself."""
    case = make_case(*key)
    estimator = Evolution(STEPS, 400, 1e-3, wrt=EVERYTHING)

    @jax.jit
    def run(inner, prior, problem):
        return over_a_run(estimator, case.objective, inner, prior, problem, KEY)[1:3]

    slope, error = (np.asarray(x)[0] for x in run(case.inner, case.prior, case.problem))
    _, expected = estimate(Reverse(STEPS, wrt=EVERYTHING), case)
    assert np.max(np.abs(slope - expected) / error) < 3.5
    assert np.max(error) < 0.1 * np.linalg.norm(expected)


def test_windows_of_a_learned_geometry():
    """Each window has another geometry, under which the particles' states are carried on."""
    case = make_case("Diagonal", "tight", "full", "quadratic")
    estimator = Evolution(STEPS, 16, 1e-2, 2)

    @jax.jit
    @jax.vmap
    def run(key):
        out = over_a_run(estimator, case.objective, case.inner, case.prior, case.problem, key)
        return out[1].sum(0)

    sums = np.asarray(run(jax.random.split(jax.random.key(8), 1000)))
    _, expected = estimate(Reverse(STEPS), case)
    error = sums.std(0, ddof=1) / np.sqrt(len(sums))
    assert np.all(np.abs(sums.mean(0) - expected) < 3 * error)
    _, truncated = estimate(Truncated(STEPS, 2), case)
    assert np.any(np.abs(truncated - expected) > 10 * error)


def test_the_outer_loop_sums_the_windows():
    case = make_case("Diagonal", "tight", "full", "quadratic")
    estimator = Evolution(STEPS, 4, 0.1, 2)
    outer = Descent(case.objective, estimator, optax.sgd(1.0))
    geometry = case.prior.geometry

    @jax.jit
    def update():
        prior = Prior(geometry, case.prior.start, None)
        problem = Problem(
            lambda x, shared, rows: case.problem.loss(x, {"scale": 1.2}, rows),
            case.problem.batches,
            case.problem.solution,
        )
        one = jax.tree.map(lambda leaf: leaf[None], problem)
        starts = jax.tree.map(lambda leaf: leaf[None, None], prior.start)
        runs = Runs(one, starts, KEY[None, None])
        moved, _, outcome = outer.update(case.inner, geometry, outer.init(geometry), runs)
        out = over_a_run(estimator, case.objective, case.inner, prior, problem, KEY)
        return learned(Prior(moved, None), ("geometry",)), outcome.value, out[0], out[1]

    moved, value, values, slopes = map(np.asarray, update())
    before = np.asarray(learned(case.prior, ("geometry",)))
    np.testing.assert_allclose(value, values.sum(), rtol=1e-12)
    assert_close(before - moved, slopes.sum(0), 1e-11)


def test_one_pair_states_no_error():
    case = make_case("Diagonal", "tight", "full", "quadratic")
    estimator = Evolution(STEPS, 1, 0.1)
    out = over_a_run(estimator, case.objective, case.inner, case.prior, case.problem, KEY)
    assert np.all(np.isfinite(out[1])) and np.all(np.isnan(out[2]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Evolution(4, 0, 0.1), r"Evolution\.pairs: expected at least 1, got 0"),
        (lambda: Evolution(4, 2, 0.0), r"Evolution\.spread: expected a positive .*, got 0\.0"),
        (lambda: Evolution(4, 2, float("inf")), r"Evolution\.spread: .*got inf"),
        (lambda: Evolution(4, 2, float("nan")), r"Evolution\.spread: .*got nan"),
        (lambda: Evolution(4, 2, 0.1, 3), r"Evolution\.window: .*\(4\) or None, got 3"),
        (lambda: Evolution(4, 2, 0.1, 0), r"Evolution\.window: .*got 0"),
        (lambda: Evolution(4, 2, 0.1, 8), r"Evolution\.window: .*got 8"),
        (lambda: Evolution(0, 2, 0.1), r"Evolution\.steps: expected at least 1, got 0"),
        (lambda: Evolution(4, 2, 0.1, wrt=()), r"Evolution\.wrt: .*got \(\)"),
    ],
)
def test_bad_fields_are_refused_by_name(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_prior_with_nothing_to_perturb_is_refused():
    with pytest.raises(ValueError, match="nothing to differentiate.*Euclidean"):
        Evolution(4, 2, 0.1).init(INNER, PRIOR)


def test_windows_need_their_own_state():
    state = EstimatorState(RunSummary.empty(jnp.zeros(1)))
    with pytest.raises(ValueError, match=r"Evolution\.estimate: .*Evolution\.init"):
        Evolution(4, 2, 0.1, 2, wrt=WRT).estimate(Costs(), INNER, PRIOR, PROBLEM, state, key=KEY)


def test_a_run_is_finite_as_long_as_all_its_particles_are():
    prior, inner = Prior(Diagonal.like(jnp.ones(2)), jnp.ones(2)), MirrorDescent(1e200)
    problem = Problem(lambda x, shared, none: jnp.sum(x**2) / 2, Repeat(None), jnp.zeros(2))
    for window, expected in ((None, [1]), (2, [1, 1, 1])):
        estimator = Evolution(6, 2, 0.1, window)

        @jax.jit
        def run(estimator=estimator):
            return over_a_run(estimator, RegretBound(1.0), inner, prior, problem, KEY)[3].summary

        assert run().finite_steps.tolist() == expected


@pytest.mark.parametrize("window", [None, 2])
def test_runs_in_batches_are_those_side_by_side(window):
    problem, found = noisy_problem(), []
    for at_once in (1024, 3):
        estimator = Evolution(LENGTH, 4, 0.1, window=window, wrt=WRT, at_once=at_once)
        found.append(over_a_run(estimator, Costs(), INNER, PRIOR, problem, KEY))
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_batches_have_a_size():
    with pytest.raises(ValueError, match=r"Evolution\.at_once: expected at least 1, got 0"):
        Evolution(4, 4, 0.1, at_once=0)
