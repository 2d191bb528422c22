"""Implicit against central differences and the reverse pass; what it refuses, and its flags."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from registry import EVERYTHING, GEOMETRIES, KEY, PROBLEMS, assert_close, learned, make_case

from mirrax._errors import NumericalError
from mirrax.geometry import AbstractMirrorMap, Diagonal, Euclidean
from mirrax.hypergradient import EstimatorState, Implicit, Reverse
from mirrax.inner import (
    AbstractObjective,
    AbstractStationaryInner,
    BregmanProximal,
    InnerState,
    MirrorDescent,
    Prior,
    Problem,
    Repeat,
    Step,
    evaluate,
)
from mirrax.objective import LipschitzRegretBound, RegretBound, ValidationLoss, WeightedSum
from repeats import slow

SOLVERS = ("cg", "neumann", "gmres")
UNROLLED = 80
"""Enough for the residual to fall below 1e-12 in every case here; the slowest takes 56."""


class AtBothEnds(AbstractObjective):
    """The loss on other data, the potential and the start."""

    @property
    def judges_steps(self):
        return False

    def stage(self, prior, problem, step):
        return jnp.zeros(())

    def terminal(self, prior, problem, first, last):
        held_out = jax.tree.map(lambda rows: rows[::-1][:5] * 0.9, problem.batches.data)
        ends = jnp.sum(ravel_pytree(first)[0] ** 2) + prior.geometry.potential(last)
        return problem.loss(last, prior.shared, held_out) + 0.1 * ends


OBJECTIVE = AtBothEnds()
INNER = BregmanProximal(0.4)


@functools.lru_cache
def case(geometry):
    """A prior and a problem; the problems take turns."""
    problem = list(PROBLEMS)[list(GEOMETRIES).index(geometry) % len(PROBLEMS)]
    made = make_case(geometry, "paper", "full", problem)
    return made.prior, made.problem


def compiled(estimator, problem, inner=INNER, objective=OBJECTIVE):
    @jax.jit
    def run(prior, state):
        return estimator.estimate(objective, inner, prior, problem, state, key=KEY)

    return run


def estimate(estimator, prior, problem, inner=INNER, objective=OBJECTIVE):
    state = estimator.init(inner, prior)
    return compiled(estimator, problem, inner, objective)(prior, state)


@functools.lru_cache
def references(geometry):
    """The solved value, its differences along random directions, and the reverse pass."""
    prior, problem = case(geometry)
    moving, fixed = eqx.partition(prior, eqx.is_inexact_array)
    flat, restore = ravel_pytree(moving)
    directions = np.random.default_rng(4).normal(size=(4, len(flat)))

    def value(point):
        whole = eqx.combine(restore(point), fixed)
        return evaluate(OBJECTIVE, INNER, whole, problem, UNROLLED, key=KEY)[0]

    # One program for all: the values of the reverse pass serve the differences too.
    both = jax.jit(lambda points: jax.lax.map(jax.value_and_grad(value), points))
    shifts = 1e-5 * directions
    values, slopes = both(jnp.concatenate([flat[None], flat + shifts, flat - shifts]))
    ahead, behind = np.split(np.asarray(values[1:]), 2)
    return values[0], directions, (ahead - behind) / 2e-5, np.asarray(slopes[0])


FAST = [("Diagonal", "cg")]
REST = [slow(*pair) for pair in itertools.product(GEOMETRIES, SOLVERS) if pair not in FAST]


@pytest.mark.parametrize(("geometry", "solver"), [*FAST, *REST])
def test_exact_on_every_geometry(geometry, solver):
    # The series needs most: of radius 0.959, on `Scaled`, 661 terms to 1e-12.
    estimator = Implicit(400, solver, EVERYTHING, 1e-12, linear_steps=800, linear_tolerance=1e-12)
    value, slope, state = estimate(estimator, *case(geometry))
    expected, directions, differences, reverse = references(geometry)
    report = state.implicit
    assert not report.flagged and report.linear_residual < 1e-8
    report.require_sound()
    np.testing.assert_allclose(value, expected, rtol=1e-11)
    found = np.asarray(learned(slope, EVERYTHING))
    assert_close(directions @ found, differences, 1e-6)
    assert_close(found, reverse, 1e-9)


# --- warm starts -------------------------------------------------------------------------------


def test_the_next_call_starts_from_the_last_solution_and_adjoint():
    prior, problem = case("Diagonal")
    estimator = Implicit(400, tolerance=1e-12)
    run, fresh = compiled(estimator, problem), estimator.init(INNER, prior)
    first = run(prior, fresh)
    again = run(prior, first[2])
    assert first[2].implicit.inner_steps > 8 and first[2].implicit.linear_steps > 2
    assert again[2].implicit.inner_steps == 0 and again[2].implicit.linear_steps <= 2
    assert jax.tree.leaves(first[1].start) == jax.tree.leaves(first[1].shared) == []
    found, expected = np.asarray(learned(first[1])), references("Diagonal")[3]
    assert_close(found, expected[: len(found)], 1e-9)
    assert_close(np.asarray(learned(again[1])), found, 1e-9)

    moved = jax.tree.map(lambda x: x + 1e-7, prior.geometry)
    nearby = eqx.tree_at(lambda p: p.geometry, prior, moved)
    warm, cold = run(nearby, first[2]), run(nearby, fresh)
    assert warm[2].implicit.inner_steps < cold[2].implicit.inner_steps
    assert_close(np.asarray(learned(warm[1])), np.asarray(learned(cold[1])), 1e-9)

    nan = jax.tree.map(lambda x: x * jnp.nan if eqx.is_inexact_array(x) else x, first[2])
    np.testing.assert_array_equal(learned(run(prior, nan)[1]), learned(first[1]))
    # A solution of something else, further away than the start, is not gone on from.
    lost = eqx.tree_at(
        lambda s: s.inner.primal, first[2], jax.tree.map(lambda x: x + 9.0, first[2].inner.primal)
    )
    np.testing.assert_array_equal(learned(run(prior, lost)[1]), learned(first[1]))
    # An adjoint that is worse than none is dropped.
    stale = eqx.tree_at(
        lambda s: s.implicit.adjoint, fresh, jax.tree.map(lambda x: x + 1e9, fresh.implicit.adjoint)
    )
    np.testing.assert_array_equal(learned(run(prior, stale)[1]), learned(first[1]))


# --- flags -------------------------------------------------------------------------------------


def bent(x, shared, curvature):
    """A quadratic of any curvature."""
    del shared
    return x @ (curvature * x) / 2 + jnp.sum(x)


class Resting(AbstractStationaryInner):
    """Stands from the start at the root of `(a + 1)(θ − θ_1)`, saddle or not."""

    def init(self, prior):
        return InnerState(prior.start, None, jnp.zeros((), int))

    def step(self, prior, problem, state, *, key):
        return eqx.tree_at(lambda s: s.primal, state, state.primal + jnp.nan), None

    def residual(self, prior, problem, primal):
        return (problem.batches.data + 1) * (primal - prior.start)

    def hold(self, prior, state):
        return state


START = np.array([0.3, -0.2, 0.5])
CURVATURES = {
    "sound": (3.0, 1.0, 1.0),
    "saddle": (3.0, -1.5, -1.5),
    "singular": (3.0, -1.0, -1.0),
    "three values": (9.0, 1.0, 4.0),
}
FLAGS = ("inner_unconverged", "indefinite", "expanding", "linear_unconverged")


@functools.lru_cache
def side_by_side(estimator, proximal=False):
    """One compiled program for all of those curvatures, one above the other."""
    prior, inner = Prior(Euclidean(), jnp.asarray(START)), Resting()
    if proximal:
        inner = BregmanProximal(0.5)

    @jax.jit
    @jax.vmap
    def run(curvature):
        problem = Problem(bent, Repeat(curvature), query=jnp.ones(3))
        state = estimator.init(inner, prior)
        return estimator.estimate(ValidationLoss(), inner, prior, problem, state, key=KEY)

    return run(jnp.asarray(list(CURVATURES.values())))


def outcome(estimator, name, **options):
    """Value, gradient, report and summary of one of those problems, and the flags it has."""
    place = list(CURVATURES).index(name)
    every = side_by_side(estimator, **options)
    value, slope, state = jax.tree.map(lambda leaf: leaf[place], every)
    flags = {flag for flag in FLAGS if getattr(state.implicit, flag)}
    return value, slope.start, state.implicit, state.summary, flags


def assert_refused(found, flags, message):
    value, slope, report, summary, raised = found
    assert raised == flags
    assert np.isfinite(value) and np.isnan(slope).all()
    assert summary.finite_steps == STEPS  # nothing diverged
    with pytest.raises(NumericalError, match=message):
        report.require_sound()


STEPS = 8
TWO_PRODUCTS = Implicit(STEPS, "cg", ("start",), linear_steps=2)
GMRES = Implicit(STEPS, "gmres", ("start",))
SERIES = Implicit(
    STEPS, "neumann", ("start",), neumann_rate=0.3, linear_tolerance=None, linear_steps=3
)


@pytest.mark.parametrize("estimator", [TWO_PRODUCTS, GMRES], ids=["cg", "gmres"])
def test_what_is_sound_is_not_flagged(estimator):
    value, slope, report, summary, flags = outcome(estimator, "sound")
    report.require_sound()
    assert flags == set() and summary.finite_steps == STEPS
    np.testing.assert_allclose(value, START @ START / 2 + START.sum(), rtol=1e-12)
    np.testing.assert_allclose(slope, START + 1, rtol=1e-12)


def test_an_inner_solver_that_did_not_converge():
    found = outcome(GMRES, "three values", proximal=True)
    message = r"Implicit: the inner solver did not converge: relative residual .* after 8 steps"
    assert_refused(found, {"inner_unconverged"}, message)


@pytest.mark.parametrize("name", ["saddle", "singular"])
def test_conjugate_gradients_without_positive_curvature(name):
    found = outcome(TWO_PRODUCTS, name)
    smallest = -0.5 if name == "saddle" else 0.0
    # A rounding or two of the largest eigenvalue. Found: 2e-16.
    np.testing.assert_allclose(found[2].smallest, smallest, rtol=0, atol=1e-15)
    message = "no positive curvature in some direction at the point found: eigenvalues reach"
    flags = {"indefinite", "linear_unconverged"}
    assert_refused(found, flags, message)


def test_what_conjugate_gradients_meet_is_told_without_a_tolerance():
    """One product for the spectrum sees positive curvature only."""
    estimator = Implicit(
        STEPS, "cg", ("start",), linear_tolerance=None, linear_steps=9, spectrum_steps=1
    )
    found = outcome(estimator, "saddle")
    assert found[2].smallest > 0
    assert_refused(found, {"indefinite"}, "no positive curvature")


def test_gmres_inverts_what_is_indefinite_and_not_what_is_singular():
    _, slope, report, _, flags = outcome(GMRES, "saddle")
    assert flags == set() and np.isnan(report.smallest)
    np.testing.assert_allclose(slope, START + 1, rtol=1e-11)
    message = "the adjoint system was not solved: relative residual"
    assert_refused(outcome(GMRES, "singular"), {"linear_unconverged"}, message)


def test_an_adjoint_that_was_not_solved():
    """Three different eigenvalues, two iterations."""
    message = r"the adjoint system was not solved: relative residual 0\.19 after 2 iterations"
    assert_refused(outcome(TWO_PRODUCTS, "three values"), {"linear_unconverged"}, message)


def test_a_neumann_series_by_its_spectral_radius():
    """Eigenvalues 4 and 2, then 10, then −½, at the rate 0.3."""
    _, slope, report, _, flags = outcome(SERIES, "sound")
    assert flags == set() and report.linear_steps == 3
    np.testing.assert_allclose(report.radius, 0.4, rtol=1e-12)
    short = 1 - (1 - 0.3 * np.array([4.0, 2.0, 2.0])) ** 3
    np.testing.assert_allclose(slope, short * (START + 1), rtol=1e-12)
    diverging = outcome(SERIES, "three values")
    np.testing.assert_allclose(diverging[2].radius, 2.0, rtol=1e-12)
    message = r"Neumann's series diverges: spectral radius 2; .* below 2/10"
    assert_refused(diverging, {"expanding"}, message)
    saddle = outcome(SERIES, "saddle")
    np.testing.assert_allclose(saddle[2].radius, 1.15, rtol=1e-12)
    assert_refused(saddle, {"indefinite", "expanding"}, "no positive curvature")


def test_runs_side_by_side_are_counted():
    with pytest.raises(NumericalError, match=r"Implicit \(\d of 4 runs\): the inner solver"):
        side_by_side(GMRES, proximal=True)[2].implicit.require_sound()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_start_that_is_the_solution_is_no_failure(dtype):
    """The residual is rounding from the start, and no multiple of it can be reached."""
    start, curvature = jnp.array([-1 / 3, -1.0, -1 / 7], dtype), jnp.array([3.0, 1.0, 7.0], dtype)
    prior = Prior(Diagonal.like(start, 1.5), start)
    problem = Problem(bent, Repeat(curvature), query=jnp.ones(3, dtype))
    value, slope, state = estimate(
        Implicit(100, wrt=("start",)), prior, problem, BregmanProximal(0.5), ValidationLoss()
    )
    state.implicit.require_sound()
    assert {leaf.dtype for leaf in jax.tree.leaves((value, slope))} == {np.dtype(dtype)}
    # A start that is the solution stays it, and moves it by the share of the proximal term.
    share = 1.5**2 / (1.5**2 + np.asarray(curvature))
    expected = share * (np.asarray(start) + 1)
    np.testing.assert_allclose(slope.start, expected, rtol=1e-5 if dtype == "float32" else 1e-12)


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"Implicit\.steps: expected at least 1, got 0"),
        ({"solver": "lu"}, r"Implicit\.solver: expected one of .*'neumann'.*, got 'lu'"),
        ({"wrt": ("loss",)}, r"Implicit\.wrt: expected names among"),
        ({"linear_steps": 0}, r"Implicit\.linear_steps: expected at least 1, got 0"),
        ({"spectrum_steps": 0}, r"Implicit\.spectrum_steps: expected at least 1, got 0"),
        ({"tolerance": 0.0}, r"Implicit\.tolerance: expected a number between 0 and 1, got 0"),
        ({"tolerance": None}, r"Implicit\.tolerance: expected a number between 0 and 1, got None"),
        ({"linear_tolerance": 2.0}, r"Implicit\.linear_tolerance: expected a number .* got 2"),
        ({"neumann_rate": -1.0}, r"Implicit\.neumann_rate: expected a positive .*, got -1"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Implicit(**{"steps": 10, **options})


def test_plain_mirror_descent_is_refused_with_the_reason():
    prior, problem = case("Diagonal")
    message = (
        "got MirrorDescent; at an isolated minimiser the derivative of the solution with respect "
        "to the geometry is zero, only the direct term remains: use Direct"
    )
    with pytest.raises(ValueError, match=message):
        Implicit(10).init(MirrorDescent(0.1), prior)
    state = Implicit(10).init(INNER, prior)
    with pytest.raises(ValueError, match=message):
        Implicit(10).estimate(OBJECTIVE, MirrorDescent(0.1), prior, problem, state, key=KEY)


def test_objectives_that_judge_steps_are_refused():
    prior, problem = case("Diagonal")
    state, sums = Implicit(10).init(INNER, prior), WeightedSum(((1.0, RegretBound(0.1)),))
    for objective in (RegretBound(0.1), sums):
        with pytest.raises(ValueError, match=f"got {type(objective).__name__}, which sums over"):
            Implicit(10).estimate(objective, INNER, prior, problem, state, key=KEY)


@pytest.mark.parametrize(
    "objective",
    [
        ValidationLoss(),
        LipschitzRegretBound(0.1),
        WeightedSum(((1.0, ValidationLoss()), (2.0, LipschitzRegretBound(0.1)))),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_objectives_that_say_they_judge_no_steps_do_not(objective):
    prior, problem = case("Diagonal")
    record = Step(prior.start, prior.start, jnp.ones(()))
    assert not objective.judges_steps
    assert objective.stage(prior, problem, record) == 0


def test_a_state_of_another_estimator_is_refused():
    prior, problem = case("Diagonal")
    other = Reverse(3).init(INNER, prior)
    assert isinstance(other, EstimatorState)
    with pytest.raises(ValueError, match=r"state carries no solution; use Implicit\.init"):
        Implicit(10).estimate(OBJECTIVE, INNER, prior, problem, other, key=KEY)


def test_a_preconditioner_needs_a_potential():
    class Map(AbstractMirrorMap):
        def to_dual(self, primal):
            return primal

        def to_primal(self, dual):
            return dual

    problem = Problem(bent, Repeat(jnp.ones(2)), query=jnp.ones(2))
    estimator, prior = Implicit(10, wrt=("start",), precondition=True), Prior(Map(), jnp.ones(2))
    state = estimator.init(Resting(), prior)
    with pytest.raises(ValueError, match=r"Implicit\.precondition: expected False .* with Map"):
        estimator.estimate(ValidationLoss(), Resting(), prior, problem, state, key=KEY)


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_preconditioner_changes_the_way_not_the_result(solver):
    prior, problem = case("Diagonal")
    uneven = {"left": jnp.array([-1.0, 2.0]), "right": jnp.array([1.0, 3.0])}
    wide = eqx.tree_at(lambda p: p.geometry.log_diagonal, prior, uneven)
    found = [
        estimate(
            Implicit(3000, solver, tolerance=1e-12, linear_steps=20_000, precondition=given),
            wide,
            problem,
        )
        for given in (False, True)
    ]
    for _, _, state in found:
        state.implicit.require_sound()
    plain, conditioned = (np.asarray(learned(slope)) for _, slope, _ in found)
    assert_close(conditioned, plain, 1e-8)
    if solver == "neumann":
        steps = [int(state.implicit.linear_steps) for _, _, state in found]
        assert steps[1] < steps[0] / 3


@pytest.mark.parametrize("target", [-3.0, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_one_number_has_a_spectrum_whatever_the_random_direction(target, seed):
    """A direction opposite to the right-hand side must not cancel it."""
    prior = Prior(Euclidean(), start=jnp.asarray(4.0))
    problem = Problem(lambda x, shared, y: (x - y) ** 2 / 2, Repeat(0.0), query=target)
    inner, estimator = BregmanProximal(0.5), Implicit(steps=100, wrt=("start",))
    key, begin = jax.random.key(seed), estimator.init(inner, prior)
    _, slope, state = estimator.estimate(ValidationLoss(), inner, prior, problem, begin, key=key)
    assert not state.implicit.flagged
    np.testing.assert_allclose(slope.start, (2.0 - target) / 2, rtol=1e-12)
    np.testing.assert_allclose([state.implicit.smallest, state.implicit.largest], 2.0, rtol=1e-12)
