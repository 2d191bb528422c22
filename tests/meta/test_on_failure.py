"""Rounds some of whose runs fail: skipped runs and halved steps against sums made by hand."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mirrax.geometry import AbstractConstrained, AbstractGeometry, Diagonal
from mirrax.hypergradient import Direct, Reverse
from mirrax.inner import MirrorDescent, Prior, RunSummary
from mirrax.meta import Descent, ManyShot, quadratic
from mirrax.meta._failures import Trail, backtrack, diverged, mean_of_sound, not_finite
from mirrax.objective import RegretBound
from mirrax.tasks import sample_quadratics

KEY = jax.random.key(3)
STEPS, RATE, TASKS = 6, 0.05, 3


def zeros(key):
    del key
    return jnp.ones(2)


def learner(on_failure, rho=0.1, optimiser=optax.sgd):
    worth = RegretBound(RATE, "solution")
    outer = Descent(worth, Reverse(STEPS), optimiser(rho), on_failure=on_failure)
    return ManyShot(MirrorDescent(RATE), outer, zeros)


def problems(poisoned=None):
    """Quadratics; the one of a number has a NaN in its gradient."""
    tasks = sample_quadratics(KEY, TASKS)
    if poisoned is not None:
        tasks = dataclasses.replace(tasks, vector=tasks.vector.at[poisoned, 0].set(jnp.nan))
    return quadratic(tasks)


def start():
    return Diagonal.like(jnp.zeros(2))


def one_round(which, where, geometry=None):
    state = which.init(start() if geometry is None else geometry, key=KEY)
    return which.round(state, where)


def leaves(state):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state.geometry)]


def test_without_failures_all_policies_go_the_same_way():
    plain, record = one_round(learner("stop"), problems())
    assert record.attempts is None
    for policy in ("skip", "halve"):
        state, found = one_round(learner(policy), problems())
        for ours, theirs in zip(leaves(state), leaves(plain), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-14)
        assert not found.failed and not found.attempts.failed_runs.any()
        assert found.attempts.halved == 0


def test_stop_leaves_the_state_as_it_was():
    state, record = one_round(learner("stop"), problems(1))
    assert record.failed and state.round == 0
    np.testing.assert_array_equal(leaves(state)[0], jax.tree.leaves(start())[0])


def test_skip_averages_over_the_others():
    state, record = one_round(learner("skip"), problems(1))
    assert not record.failed and state.round == 1
    assert record.attempts.failed_runs.ravel().tolist() == [False, True, False]
    grads, values = [], []
    for number in (0, 2):  # each alone, without the learner
        alone = jax.tree.map(lambda leaf, i=number: leaf[i], problems())
        prior = Prior(start(), zeros(None))
        value, grad, _ = Reverse(STEPS).over_a_run(
            RegretBound(RATE, "solution"), MirrorDescent(RATE), prior, alone, key=KEY
        )
        values.append(value)
        grads.append(jax.tree.leaves(grad.geometry)[0])
    expected = jax.tree.leaves(start())[0] - 0.1 * (grads[0] + grads[1]) / 2
    np.testing.assert_allclose(leaves(state)[0], expected, rtol=1e-12)
    np.testing.assert_allclose(record.value, (values[0] + values[1]) / 2, rtol=1e-12)


@pytest.mark.parametrize("policy", ["skip", "halve"])
def test_where_no_run_is_sound_the_state_stays(policy):
    broken = dataclasses.replace(problems(), solution=jnp.full((TASKS, 2), jnp.nan))
    state, record = one_round(learner(policy), broken)
    assert record.failed and state.round == 0
    assert np.isfinite(leaves(state)[0]).all()


def test_halve_goes_back_along_the_step_until_runs_are_sound():
    """By hand: the first length 2^-j of a step far too long at which no run diverges."""
    which = learner("halve", rho=30.0)
    first, _ = one_round(which, problems())
    before, step = jax.tree.leaves(start())[0], first.outer.step
    step = jax.tree.leaves(step)[0]

    def sound(share):
        geometry = eqx.tree_at(lambda g: jax.tree.leaves(g)[0], start(), before + share * step)
        return not one_round(learner("skip"), problems(), geometry)[1].attempts.failed_runs.any()

    halved = next(j for j in range(11) if sound(2.0**-j))
    assert 0 < halved <= 10
    second, record = which.round(first, problems())
    assert not record.failed and second.round == 2
    assert record.attempts.halved == halved and record.attempts.failed_runs.any()
    used = jax.tree.leaves(second.outer.before)[0]
    np.testing.assert_allclose(used, before + 2.0**-halved * step, rtol=1e-14)
    assert second.outer.share == 2.0**-halved
    # The next step is made at what is left of the rate.
    geometry = eqx.tree_at(lambda g: jax.tree.leaves(g)[0], start(), before + 2.0**-halved * step)
    whole, _ = one_round(learner("stop", rho=30.0), problems(), geometry)
    move = leaves(second)[0] - jax.tree.leaves(geometry)[0]
    np.testing.assert_allclose(
        move, 2.0**-halved * (leaves(whole)[0] - jax.tree.leaves(geometry)[0]), rtol=1e-9
    )


def test_what_is_behind_a_shorter_step_is_projected_as_well():
    """Into `b >= 3/4`, where `a` decides: from (1, 1) by (-4, -4), a quarter of it is sound."""
    start, step = jnp.ones(2), jnp.full(2, -4.0)
    within = lambda x: x.at[1].max(0.75)  # noqa: E731
    trail = Trail(None, start, step, jnp.ones(()))
    attempt = lambda x: ((x[0] < -0.5)[None], x)  # noqa: E731
    learned, made_with, attempts = backtrack(attempt, within(start + step), trail, within)
    assert attempts.halved == 2
    assert learned.tolist() == made_with.tolist() == [0.0, 0.75]


def test_halve_gives_up_where_no_length_helps():
    which = learner("halve")
    first, _ = one_round(which, problems())
    state, record = which.round(first, problems(0))
    assert record.failed and state.round == 1 and record.attempts.halved == 10
    for ours, theirs in zip(leaves(state), leaves(first), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_means_leave_out_what_failed_whatever_it_is():
    values = jnp.array([[1.0, jnp.inf], [jnp.nan, 4.0]])
    grads = {"a": jnp.array([[[1.0, 2.0], [5.0, 5.0]], [[3.0, 3.0], [jnp.nan, 1.0]]])}
    failed = not_finite(values, grads)
    assert failed.tolist() == [[False, True], [True, True]]
    assert mean_of_sound(grads, failed)["a"].tolist() == [1.0, 2.0]
    counts = mean_of_sound(jnp.array([[3, 5], [7, 9]]), jnp.array([[False, False], [True, True]]))
    assert counts.item() == 4.0
    # None of it is left: no number looks like one.
    assert not np.isfinite(mean_of_sound(values, jnp.ones((2, 2), bool)))


def test_a_round_that_is_sound_at_once_is_attempted_once():
    trail = Trail.begin((), jnp.zeros(2))
    seen = []

    def attempt(point):
        jax.debug.callback(seen.append, point)
        return jnp.zeros(2, bool), jnp.sum(point)

    point, _, found = backtrack(attempt, jnp.ones(2), trail, lambda point: point)
    jax.effects_barrier()
    assert len(seen) == 1 and found.halved == 0 and point.tolist() == [1.0, 1.0]


def test_an_estimator_without_a_loop_of_its_own_is_skipped_alike():
    worth = RegretBound(RATE, "solution")
    outer = Descent(worth, Direct(STEPS), optax.sgd(0.1), on_failure="skip")
    which = ManyShot(MirrorDescent(RATE), outer, zeros)
    state, record = one_round(which, problems(2))
    assert record.attempts.failed_runs.ravel().tolist() == [False, False, True]
    assert np.isfinite(leaves(state)[0]).all() and state.round == 1


# --- meta-parameters with a range ---------------------------------------------------------------


class Bounded(AbstractGeometry, AbstractConstrained):
    """`ψ = max(a, 0.5) x²/2`, which is blind to `a` below one half."""

    a: jax.Array

    def project(self):
        return Bounded(jnp.maximum(self.a, 0.5))

    def _metric(self):
        return jnp.maximum(self.a, 0.5)

    def potential(self, primal):
        return jnp.sum(self._metric() * primal**2) / 2

    def conjugate(self, dual):
        return jnp.sum(dual**2 / self._metric()) / 2

    def to_dual(self, primal):
        return self._metric() * primal

    def to_primal(self, dual):
        return dual / self._metric()

    def strong_convexity(self):
        return jnp.min(self._metric())


@pytest.mark.parametrize("policy", ["stop", "skip", "halve"])
def test_meta_parameters_are_brought_back_into_their_range(policy):
    """Against the step alone: left out of its range, a parameter would never move again."""
    begin = Bounded(jnp.array([0.6, 3.0]))
    state, record = one_round(learner(policy, rho=0.05), problems(), begin)
    assert not record.failed
    grads = [
        Reverse(STEPS).over_a_run(
            RegretBound(RATE, "solution"),
            MirrorDescent(RATE),
            Prior(begin, zeros(None)),
            jax.tree.map(lambda leaf, i=number: leaf[i], problems()),
            key=KEY,
        )[1]
        for number in range(TASKS)
    ]
    stepped = begin.a - 0.05 * sum(grad.geometry.a for grad in grads) / TASKS
    assert stepped.min() < 0.5 < stepped.max()
    np.testing.assert_allclose(state.geometry.a, np.maximum(stepped, 0.5), rtol=1e-12)


def test_half_a_step_is_brought_back_too():
    """The step leads to a geometry under which a run fails; half of it still leaves the range."""
    which, begin = learner("halve"), Bounded(jnp.array([0.6, 3.0]))
    state = which.init(begin, key=KEY)
    step, nowhere = Bounded(jnp.array([-0.4, 0.0])), Bounded(jnp.array([0.5, jnp.nan]))
    trail = dataclasses.replace(state.outer, step=step)
    failing = dataclasses.replace(state, geometry=nowhere, outer=trail)
    after, record = which.round(failing, problems())
    assert not record.failed and record.attempts.halved == 1
    assert after.outer.before.a.tolist() == [0.5, 3.0]


def test_what_cannot_be():
    with pytest.raises(ValueError, match=r"Descent.on_failure: expected one of .*, got 'skp'"):
        learner("skp")
    with pytest.raises(ValueError, match=r"expected 'geometry' in its wrt, got \('start',\)"):
        Descent(RegretBound(RATE, "solution"), Reverse(STEPS, wrt=("start",)), optax.sgd(0.1))


@pytest.mark.parametrize(
    ("first", "last", "finite", "failed"),
    [
        (2.0, 20.0, STEPS, False),
        (2.0, 20.1, STEPS, True),
        (-2.0, 20.1, STEPS, True),
        (2.0, 1.0, STEPS - 1, True),
        (2.0, jnp.nan, STEPS, True),
        (0.0, 0.0, STEPS, False),
        (0.0, 1e-30, STEPS, False),  # noise, of a run that begins at a minimum
        (0.0, jnp.nan, STEPS - 1, True),
    ],
)
def test_a_run_diverged_at_ten_times_its_first_loss_if_that_is_a_scale(first, last, finite, failed):
    summary = RunSummary(jnp.array(first), jnp.array(last), jnp.array(finite))
    assert diverged(summary, STEPS) == failed
