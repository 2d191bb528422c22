"""Eq. 10 of S000 against independent values, and the ways in which it degenerates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import (
    AbstractMirrorMap,
    Blockwise,
    Diagonal,
    Euclidean,
    MaxOfDiagonals,
    NegativeEntropy,
    PNorm,
)
from mirrax.inner import (
    MirrorDescent,
    PreconditionedDescent,
    Prior,
    Problem,
    Repeat,
    RunSummary,
    evaluate,
)
from mirrax.objective import LipschitzRegretBound, RegretBound, frozen

KEY = jax.random.key(0)


def quadratic(x, shared, data):
    del shared
    hessian, target = data
    return (x - target) @ hessian @ (x - target) / 2


@functools.partial(jax.jit, static_argnames="steps")
def value_and_slope(objective, inner, make_m, start, data, steps):
    """Mean value over tasks and its derivative with respect to `m` itself."""

    def mean_value(m):
        geometry = Diagonal(jnp.log(m)) if m.ndim == 1 else MaxOfDiagonals(jnp.log(m))
        prior = Prior(geometry, start)

        def worth(task):
            problem = Problem(quadratic, Repeat(task))
            return evaluate(objective, inner, prior, problem, steps, key=KEY)

        values, summaries = jax.vmap(worth)(data)
        return jnp.mean(values), summaries

    return jax.value_and_grad(mean_value, has_aux=True)(make_m)


@pytest.mark.parametrize("modulus", ["m2", "m"])
@pytest.mark.parametrize("row", [0, 1, 2])
def test_diagonal_goldens_for_both_conventions_of_lambda(golden, modulus, row):
    c06 = golden("c06_metamd_diag")
    objective = LipschitzRegretBound(float(c06["k"]), comparator="last", modulus=modulus)
    (value, _), slope = value_and_slope(
        objective,
        MirrorDescent(float(c06["eta"])),
        c06["m"],
        c06["theta1"],
        (c06["H"], c06["target"]),
        int(c06["T"][row]),
    )
    name = f"lambda_min_{modulus}"
    np.testing.assert_allclose(value, c06[f"E_{name}"][row], rtol=1e-9)
    np.testing.assert_allclose(slope, c06[f"E_grad_{name}"][row], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(slope, c06[f"E_grad_fd_{name}"][row], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("count", "rule"),
    [("N2", PreconditionedDescent), ("N3", PreconditionedDescent), ("N3", MirrorDescent)],
)
def test_max_of_diagonals_goldens(golden, count, rule):
    c06 = golden("c06_metamd_max_traj")
    objective = LipschitzRegretBound(float(c06[f"{count}__E_k"]), comparator="last")
    (value, _), slope = value_and_slope(
        objective,
        rule(float(c06[f"{count}__eta"])),
        c06[f"{count}__M"],
        c06[f"{count}__theta1"],
        (c06[f"{count}__H"][None], c06[f"{count}__target"][None]),
        int(c06[f"{count}__E_T"]),
    )
    if rule is PreconditionedDescent:
        np.testing.assert_allclose(value, c06[f"{count}__E_printed"], rtol=1e-9)
        np.testing.assert_allclose(slope, c06[f"{count}__E_printed_grad"], rtol=1e-9, atol=1e-10)
    else:
        np.testing.assert_allclose(value, c06[f"{count}__E_exact"], rtol=1e-9)
        expected = c06[f"{count}__E_exact_grad_fd"]
        np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-5)


def test_with_min_m_for_lambda_eq_9_is_no_bound():
    """One step from 0 on `|θ + 4|` with `m = ½`, by hand: the regret is 4, the printed bound 3."""
    prior = Prior(Diagonal(jnp.log(jnp.array([0.5]))), jnp.zeros(1))
    problem = Problem(lambda x, shared, data: jnp.abs(x[0] + 4), Repeat(None), jnp.array([-4.0]))
    regret = problem.loss(prior.start, None, None) - problem.loss(problem.solution, None, None)

    def bound(modulus):
        objective = LipschitzRegretBound.from_lipschitz(1.0, 1, 1.0, modulus=modulus)
        return float(objective.terminal(prior, problem, prior.start, prior.start))

    np.testing.assert_allclose([bound("m"), regret, bound("m2")], [3.0, 4.0, 4.0], rtol=1e-15)


def descend(objective, m, start, solutions, rounds):
    """Minimises eq. 10 over `m` with the comparator fixed: a run of no length decides nothing."""

    @jax.jit
    def minimise(log_m):
        def mean_value(log_m):
            prior = Prior(Diagonal(log_m), start)

            def worth(solution):
                problem = Problem(quadratic, Repeat(None), solution)
                return objective.terminal(prior, problem, start, start)

            return jnp.mean(jax.vmap(worth)(solutions))

        def step(number, carry):
            log_m, best, lowest = carry
            value, slope = jax.value_and_grad(mean_value)(log_m)
            best = jnp.where(value < lowest, log_m, best)
            lowest = jnp.minimum(value, lowest)
            length = 0.3 / (1 + number) ** 0.7
            return log_m - length * slope / jnp.linalg.norm(slope), best, lowest

        return jax.lax.fori_loop(0, rounds, step, (log_m, log_m, jnp.inf))[1:]

    best, value = minimise(jnp.log(m))
    return np.exp(np.asarray(best)), float(value)


@pytest.mark.parametrize("modulus", ["m2", "m"])
def test_the_optimum_for_a_fixed_comparator_is_isotropic(golden, modulus):
    c06 = golden("c06_metamd_diag")
    objective = LipschitzRegretBound(float(c06["k"]), modulus=modulus)
    target, start = jnp.asarray(c06["target"]), jnp.asarray(c06["theta1"])
    best, value = descend(objective, c06["m"], start, target, rounds=20_000)
    closed = float(c06[f"iso_value_lambda_min_{modulus}"])
    assert closed <= value < closed * 1.002
    isotropic = {
        "m2": np.sqrt(c06["iso_m2_lambda_min_m2"]),
        "m": c06["iso_m_lambda_min_m"],
    }[modulus]
    np.testing.assert_allclose(best, isotropic, rtol=0.05)


def test_flattening_any_diagonal_to_its_smallest_entry_never_hurts():
    rng = np.random.default_rng(4)
    objective = LipschitzRegretBound(0.7)
    start = jnp.zeros(5)

    @jax.jit
    def worth(m, solution):
        problem = Problem(quadratic, Repeat(None), solution)
        return objective.terminal(Prior(Diagonal(jnp.log(m)), start), problem, start, start)

    for _ in range(100):
        m, solution = rng.uniform(0.1, 3, 5), rng.normal(size=5)
        assert worth(np.full(5, m.min()), solution) <= worth(m, solution)


def test_with_the_last_point_the_infimum_is_zero_at_learning_nothing(golden):
    c06 = golden("c06_metamd_diag")
    inner, steps = MirrorDescent(float(c06["eta"])), 50
    data = (c06["H"], c06["target"])
    values, stuck, losses = [], [], []
    for scale in (1.0, 10.0, 100.0, 1000.0, 10_000.0):
        (value, summary), slope = value_and_slope(
            LipschitzRegretBound(float(c06["k"]), comparator="last"),
            inner,
            c06["m"] * scale,
            c06["theta1"],
            data,
            steps,
        )
        values.append(float(value))
        stuck.append(np.asarray(frozen(summary)))
        losses.append(float(summary.last_loss.mean()))
        if scale > 1:
            assert (slope < 0).any() and slope @ c06["m"] < 0, "larger m is always better"
    assert np.all(np.diff(values) < 0) and values[-1] < 1e-4 * values[0]
    assert np.all(np.diff(losses) > 0), "while nothing is learned"
    assert not stuck[0].any() and stuck[-1].all(), "and frozen says so"


def test_with_the_solution_as_comparator_not_moving_is_worth_nothing(golden):
    c06 = golden("c06_metamd_diag")
    objective = RegretBound(float(c06["eta"]))

    @jax.jit
    def worth(m):
        prior = Prior(Diagonal(jnp.log(m)), jnp.asarray(c06["theta1"]))
        problem = Problem(quadratic, Repeat((c06["H"][0], c06["target"][0])), c06["target"][0])
        return evaluate(objective, MirrorDescent(objective.rate), prior, problem, 50, key=KEY)[0]

    assert worth(c06["m"] * 100) > 100 * worth(c06["m"])


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (2.0, 1.9, True),
        (2.0, 1.0, False),
        (2.0, 5.0, True),
        (-1.0, -1.0, True),
        (-1.0, -1.05, True),
        (-1.0, -2.0, False),
        (1.0, -3.0, False),
        (1.0, np.nan, False),
    ],
)
def test_frozen_compares_with_the_size_of_the_first_loss(first, last, expected):
    summary = RunSummary(jnp.asarray(first), jnp.asarray(last), jnp.array(10))
    assert bool(frozen(summary)) is expected


def test_from_lipschitz_gives_k_of_eq_9():
    built = LipschitzRegretBound.from_lipschitz(0.3, 7, 2.0, comparator="last", modulus="m")
    np.testing.assert_allclose(built.k, 0.3**2 * 7 * 4 / 2)
    assert (built.comparator, built.modulus) == ("last", "m")


class Sheared(AbstractMirrorMap):
    """A mirror map whose Jacobian is not symmetric, hence without potential."""

    def to_dual(self, primal):
        return primal - jnp.roll(primal, 1) * jnp.array([0.0, 0.5])

    def to_primal(self, dual):
        return dual + jnp.roll(dual, 1) * jnp.array([0.0, 0.5])


OBJECTIVES = [RegretBound(0.1), LipschitzRegretBound(0.1)]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (Sheared(), "must have a potential, got Sheared"),
        (NegativeEntropy("orthant"), "strongly convex"),
        (PNorm(3.0), "strongly convex"),
        (PNorm(1.5, separable=True), "strongly convex"),
        (Blockwise([Euclidean(), PNorm(4.0)]), "strongly convex"),
    ],
)
def test_geometries_without_a_bound_are_refused(objective, geometry, message):
    point = [jnp.ones(2), jnp.ones(2)] if isinstance(geometry, Blockwise) else jnp.ones(2)
    prior, problem = Prior(geometry, point), Problem(quadratic, Repeat(None), point)
    with pytest.raises(ValueError, match=rf"{type(objective).__name__}.*{message}"):
        objective.terminal(prior, problem, point, point)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RegretBound(0.0), r"RegretBound\.rate: .*got 0"),
        (lambda: RegretBound(-1), r"RegretBound\.rate: .*got -1"),
        (lambda: RegretBound(jnp.array(-1.0)), r"RegretBound\.rate: .*got -1"),
        (lambda: RegretBound(float("nan")), r"RegretBound\.rate: .*got nan"),
        (lambda: RegretBound(np.inf), r"RegretBound\.rate: .*got inf"),
        (lambda: RegretBound(0.1, "final"), r"RegretBound\.comparator: .*got 'final'"),
        (lambda: LipschitzRegretBound(0.0), r"LipschitzRegretBound\.k: .*got 0"),
        (lambda: LipschitzRegretBound(1.0, "x"), r"LipschitzRegretBound\.comparator: .*got 'x'"),
        (lambda: LipschitzRegretBound(1.0, modulus="M"), r"LipschitzRegretBound\.modulus.*got 'M'"),
    ],
)
def test_bad_fields_are_refused_by_name(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_a_missing_solution_is_explained(objective):
    prior, problem = Prior(Euclidean(), jnp.ones(2)), Problem(quadratic, Repeat(None))
    with pytest.raises(ValueError, match="with_reference, or choose comparator='last'"):
        objective.terminal(prior, problem, jnp.ones(2), jnp.ones(2))
