"""Rounds of runs: against hand-written loops, by seed, cut and resumed, compiled once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mirrax._errors import NumericalError
from mirrax.geometry import Diagonal, MaxOfDiagonals
from mirrax.hypergradient import Direct, Implicit, Reverse, Truncated
from mirrax.inner import (
    BregmanProximal,
    DualDescent,
    Minibatch,
    MirrorDescent,
    PreconditionedDescent,
    Prior,
    Problem,
    Repeat,
    unroll,
)
from mirrax.meta import Alternating, Descent, ManyShot, Reference
from mirrax.objective import RegretBound, ValidationLoss, frozen
from repeats import slow

KEY, RATE, STEPS, TASKS, VISITS = jax.random.key(3), 0.1, 12, 3, 2
TRACES = []

ROUNDING = 1e-13
"""The same sums in another order, over the steps of a run; most differ by less than 1e-15."""


def regression(x, shared, batch):
    del shared
    TRACES.append(1)
    features, values = batch
    return jnp.mean((features @ x["w"] + x["b"] - values) ** 2) / 2


def initialise(key):
    return {"w": 0.3 * jax.random.normal(key, (4,)), "b": jnp.zeros(())}


@pytest.fixture(autouse=True)
def standard_promotion():
    """Adam of optax counts in int32 and multiplies by floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def problems():
    rng = np.random.default_rng(1)
    features = jnp.asarray(rng.normal(size=(TASKS, 20, 4)) * np.array([3.0, 1, 0.3, 0.1]))
    values = jnp.asarray(rng.normal(size=(TASKS, 20)))
    return jax.vmap(lambda f, v: Problem(regression, Minibatch((f, v), 5)))(features, values)


PROBLEMS = problems()
FLAT = Diagonal({"w": jnp.zeros(4), "b": jnp.zeros(())})
REFERENCE = Reference(0.05, 30)
OPTIMISER = optax.adam(0.05)


def descent(estimator, reference=REFERENCE, comparator="solution"):
    outer = Descent(RegretBound(RATE, comparator), estimator, OPTIMISER, reference)
    return ManyShot(MirrorDescent(RATE), outer, initialise, VISITS)


def alternating():
    outer = Alternating(RATE, STEPS, comparator="last")
    return ManyShot(MirrorDescent(RATE), outer, initialise, VISITS)


def bits(state):
    arrays = [
        jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for leaf in jax.tree.leaves(state)
    ]
    return [np.asarray(array).tobytes() for array in arrays]


def rounds(learner, count, geometry=FLAT, key=KEY):
    state, records = learner.init(geometry, key=key), []
    for _ in range(count):
        state, record = learner.round(state, PROBLEMS)
        records.append(record)
    return state, records


def runs_of(state_key, number):
    """The runs of a round, drawn as the module's docstring says."""
    start_key, run_key = jax.random.split(jax.random.fold_in(state_key, number))
    starts, keys = (jax.random.split(key, (TASKS, VISITS)) for key in (start_key, run_key))
    for task in range(TASKS):
        for visit in range(VISITS):
            problem = jax.tree.map(lambda leaf, t=task: leaf[t], PROBLEMS)
            yield problem, initialise(starts[task, visit]), keys[task, visit]


@pytest.mark.parametrize("reference", [REFERENCE, slow(None)])
def test_descent_equals_a_hand_written_loop_over_tasks(reference):
    estimator = Reverse(STEPS)
    objective = RegretBound(RATE, "solution" if reference else "last")
    inner = MirrorDescent(RATE)

    @jax.jit
    def hypergradient(geometry, problem, start, key):
        prior = Prior(geometry, start)
        if reference:
            problem = reference.solve(MirrorDescent(RATE), prior, problem, key=key)
        value, slope, _ = estimator.estimate(
            objective, inner, prior, problem, estimator.init(inner, prior), key=key
        )
        return value, slope.geometry

    geometry, state = FLAT, OPTIMISER.init(FLAT)
    values = []
    for number in range(3):
        found = [hypergradient(geometry, *run) for run in runs_of(KEY, number)]
        values.append(np.mean([value for value, _ in found]))
        mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *(s for _, s in found))
        updates, state = OPTIMISER.update(mean, state, geometry)
        geometry = optax.apply_updates(geometry, updates)
    learned, records = rounds(descent(estimator, reference, objective.comparator), 3)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=ROUNDING), learned.geometry, geometry
    )
    np.testing.assert_allclose([r.value for r in records], values, rtol=ROUNDING)
    assert records[-1].activation is None and not bool(records[-1].failed)


@pytest.mark.slow
def test_flagged_implicit_hypergradients_leave_the_state_and_say_why():
    """Two inner steps do not solve the proximal problem."""
    objective, proximal = ValidationLoss(), BregmanProximal(RATE)
    rows = PROBLEMS.batches.data
    judged = jax.vmap(lambda rows: Problem(regression, Repeat(rows), query=rows))(rows)
    # An optimiser that makes zeros of NaN: the geometry alone would not show the failure.
    optimiser = optax.chain(optax.zero_nans(), OPTIMISER)
    for steps, message in ((2, "the inner solver did not converge"), (500, None)):
        outer = Descent(objective, Implicit(steps), optimiser)
        many = ManyShot(proximal, outer, initialise, VISITS)
        state = many.init(FLAT, key=KEY)
        after, record = many.round(state, judged)
        assert record.report.flagged.shape == (TASKS, VISITS) and record.report.adjoint is None
        if message is None:
            assert not record.failed and after.round == 1
            record.report.require_sound()
        else:
            assert record.failed and bits(after.geometry) == bits(FLAT) and after.round == 0
            with pytest.raises(NumericalError, match=message):
                record.report.require_sound()


@pytest.mark.slow
def test_truncated_windows_make_up_the_whole_run():
    whole, _ = rounds(descent(Reverse(STEPS)), 1)
    one, _ = rounds(descent(Truncated(steps=STEPS, window=STEPS)), 1)
    assert bits(whole.geometry) == bits(one.geometry)
    cut, records = rounds(descent(Truncated(steps=STEPS, window=4)), 2)
    exact, wanted = rounds(descent(Reverse(STEPS)), 1)
    assert not bool(records[0].failed)
    assert np.all(np.asarray(records[0].summary.finite_steps) == STEPS)
    np.testing.assert_allclose(records[0].value, wanted[0].value, rtol=ROUNDING)
    np.testing.assert_allclose(
        records[0].summary.last_loss, wanted[0].summary.last_loss, rtol=ROUNDING
    )


@pytest.mark.parametrize("make", [alternating, lambda: descent(Direct(STEPS))])
def test_a_seed_is_a_run_to_the_bit(make):
    first, again, other = (rounds(make(), 2, key=jax.random.key(seed))[0] for seed in (0, 0, 1))
    assert bits(first) == bits(again)
    assert bits(first.geometry) != bits(other.geometry)


@pytest.mark.parametrize("make", [alternating, lambda: descent(Direct(STEPS))])
def test_cut_and_resumed_from_disk_is_equal_to_the_bit(make, tmp_path):
    from mirrax.study._folder import RunFolder

    folder = RunFolder.create(tmp_path / "run", {"recipe": "r", "seed": 0, "fields": {}})
    whole, _ = rounds(make(), 4)
    half, _ = rounds(make(), 2)
    folder.save_checkpoint(half, 2)
    learner = make()
    state, notes = folder.load_checkpoint(learner.init(FLAT, key=jax.random.key(99)))
    assert notes == [] and bits(state) == bits(half)
    for _ in range(2):
        state, _ = learner.round(state, PROBLEMS)
    assert bits(state) == bits(whole)


def test_one_compilation_serves_every_round_and_every_seed():
    learner = ManyShot(
        MirrorDescent(RATE), Alternating(RATE, 5, comparator="last"), initialise, VISITS
    )
    rounds(learner, 1)
    seen = len(TRACES)
    rounds(learner, 4, key=jax.random.key(8))
    assert len(TRACES) == seen


def test_activation_counts_which_component_was_largest():
    geometry = MaxOfDiagonals.like(initialise(KEY), 3, key=jax.random.key(1))
    # The printed step: exact mirror steps end on ties, where rounding decides which is largest.
    inner, outer = PreconditionedDescent(RATE), descent(Direct(STEPS)).outer
    _, (record,) = rounds(ManyShot(inner, outer, initialise, VISITS), 1, geometry)
    table = np.asarray(record.activation)
    assert table.shape == (STEPS, 3)
    np.testing.assert_allclose(table.sum(axis=1), 1, rtol=ROUNDING)
    counted = np.zeros((STEPS, 3))

    @jax.jit
    def points(problem, start, key):
        prior = Prior(geometry, start)
        run = unroll(inner, prior, problem, STEPS, key=key)
        return jax.vmap(geometry.active)(jax.tree.map(lambda leaf: leaf[:-1], run.primal))

    for problem, start, key in runs_of(KEY, 0):
        active = np.asarray(points(problem, start, key))
        counted[np.arange(STEPS), active] += 1 / (TASKS * VISITS)
    np.testing.assert_allclose(table, counted, rtol=ROUNDING)


def test_the_share_of_frozen_runs_is_reported():
    _, (record,) = rounds(alternating(), 1)
    np.testing.assert_allclose(record.frozen, np.mean(frozen(record.summary)))


@pytest.mark.parametrize("outer", ["descent", "alternating"])
def test_a_rule_that_starts_from_duals_has_the_reference_of_its_first_point(outer):
    """Round for round what mirror descent does from that point, geometry included."""
    scaled = jax.tree.map(lambda leaf: leaf + 0.7, FLAT)
    whole = {
        "descent": Descent(RegretBound(RATE, "solution"), Direct(STEPS), OPTIMISER, REFERENCE),
        "alternating": Alternating(RATE, STEPS, comparator="solution", reference=REFERENCE),
    }[outer]
    dual = lambda key: scaled.to_dual(initialise(key))  # noqa: E731
    found = []
    for rule, begin in ((MirrorDescent, initialise), (DualDescent, dual)):
        many = ManyShot(rule(RATE), whole, begin, VISITS)
        state, record = many.round(many.init(scaled, key=KEY), PROBLEMS)
        assert np.isfinite(record.value)
        found.append([*jax.tree.leaves(state.geometry), record.value])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, one, rtol=ROUNDING)
