"""Runs: cut and continued to the bit, judged as they go, divergence named by its step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import Diagonal, Euclidean, MaxOfDiagonals, NegativeEntropy
from mirrax.inner import (
    AbstractObjective,
    DualDescent,
    InnerState,
    Minibatch,
    MirrorDescent,
    PreconditionedDescent,
    Prior,
    Problem,
    Repeat,
    Stream,
    evaluate,
    fold,
    unroll,
    with_reference,
)

KEY = jax.random.key(11)

ROUNDING = 1e-14
"""The same operations, compiled apart: a few dozen roundings of 2e-16."""


def regression(x, shared, batch):
    del shared
    features, values = batch
    return jnp.mean((features @ x - values) ** 2) / 2


def minibatches(size=4):
    rng = np.random.default_rng(5)
    features = rng.normal(size=(30, 3))
    return Minibatch((jnp.asarray(features), jnp.asarray(rng.normal(size=30))), size)


def priors():
    start = jnp.array([0.5, -1.0, 0.25])
    several = MaxOfDiagonals.like(start, key=jax.random.key(2), spread=0.4)
    return {
        "mirror": (MirrorDescent(0.1), Prior(Diagonal.like(start, 1.2), start)),
        "mirror, max": (MirrorDescent(0.1), Prior(several, start)),
        "printed, max": (PreconditionedDescent(0.1), Prior(several, start)),
        "dual": (DualDescent(0.1), Prior(NegativeEntropy(), start)),
    }


def count_and_sum(seen, step, number):
    del number
    return seen[0] + 1, seen[1] + step.loss


@functools.partial(jax.jit, static_argnames=("steps", "checkpoint"))
def window(inner, prior, problem, steps, start, state, checkpoint=False):
    return fold(
        inner,
        prior,
        problem,
        steps,
        count_and_sum,
        start,
        key=KEY,
        state=state,
        checkpoint=checkpoint,
    )


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("name", list(priors()))
def test_a_run_cut_in_two_is_the_same_run_to_the_bit(name):
    inner, prior = priors()[name]
    problem = Problem(regression, minibatches())
    begin, nothing = inner.init(prior), (jnp.array(0), jnp.array(0.0))
    whole = window(inner, prior, problem, 20, nothing, begin)
    state, seen = window(inner, prior, problem, 13, nothing, begin)
    assert bits(window(inner, prior, problem, 7, seen, state)) == bits(whole)
    assert int(whole[0].count) == 20 and int(whole[1][0]) == 20


@pytest.mark.parametrize("steps", [1, 3, 4, 17, 100])
def test_checkpoints_change_a_run_by_rounding_only(steps):
    inner, prior = priors()["mirror"]
    problem, nothing = Problem(regression, minibatches()), (jnp.array(0), jnp.array(0.0))
    begin = inner.init(prior)
    plain = window(inner, prior, problem, steps, nothing, begin)
    kept = window(inner, prior, problem, steps, nothing, begin, checkpoint=True)
    assert int(kept[0].count) == steps
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(kept), strict=True):
        np.testing.assert_allclose(one, other, rtol=ROUNDING)


def test_unroll_and_fold_see_the_same_run():
    inner, prior = priors()["mirror"]
    problem = Problem(regression, minibatches())
    trajectory = jax.jit(lambda: unroll(inner, prior, problem, 9, key=KEY))()
    assert trajectory.primal.shape == (10, 3)
    assert trajectory.gradients.shape == (9, 3) and trajectory.losses.shape == (9,)
    state, (_, total) = window(inner, prior, problem, 9, (jnp.array(0), jnp.array(0.0)), None)
    np.testing.assert_allclose(state.primal, trajectory.last, rtol=ROUNDING)
    np.testing.assert_allclose(total, trajectory.losses.sum(), rtol=ROUNDING)


def test_another_key_draws_other_batches():
    inner, prior = priors()["mirror"]
    problem = Problem(regression, minibatches())
    last = jax.jit(lambda key: unroll(inner, prior, problem, 5, key=key).last)
    assert (last(KEY) != last(jax.random.key(12))).any()


class EndsAndSum(AbstractObjective):
    """`Σ_t (t-th loss) + ⟨x_1, x_{T+1}⟩`, to see what reaches an objective."""

    def stage(self, prior, problem, step):
        return step.loss + jnp.sum(step.gradient * step.primal)

    def terminal(self, prior, problem, first, last):
        return first @ last


def test_evaluate_sums_stages_and_adds_the_ends():
    inner, prior = priors()["mirror"]
    problem = Problem(regression, minibatches())
    value, summary = jax.jit(lambda: evaluate(EndsAndSum(), inner, prior, problem, 23, key=KEY))()
    run = jax.jit(lambda: unroll(inner, prior, problem, 23, key=KEY))()
    stages = run.losses.sum() + (run.gradients * run.primal[:-1]).sum()
    np.testing.assert_allclose(value, stages + run.first @ run.last, rtol=ROUNDING)
    np.testing.assert_allclose(summary.first_loss, run.losses[0], rtol=ROUNDING)
    np.testing.assert_allclose(summary.last_loss, run.losses[-2:].mean(), rtol=ROUNDING)
    assert int(summary.finite_steps) == 23


def square(x, shared, batch):
    del shared, batch
    return jnp.sum(x**2) / 2


@pytest.mark.parametrize("rule", [MirrorDescent, PreconditionedDescent, DualDescent])
def test_divergence_is_detected_at_its_step(rule):
    @jax.jit
    def summary():
        prior = Prior(Euclidean(), jnp.ones(1, jnp.float32))
        return evaluate(EndsAndSum(), rule(1e4), prior, Problem(square, Repeat(None)), 60, key=KEY)

    value, seen = summary()
    # x_t = (1 − 10⁴)^t in float32: its square passes 3.4e38 first at t = 5.
    assert int(seen.finite_steps) == 5
    assert not np.isfinite(value)


def test_one_bad_step_among_good_ones_is_not_forgotten():
    @jax.jit
    def seen():
        def loss(x, shared, batch):
            return jnp.where(batch == 3, jnp.nan, 1.0) + 0 * x

        prior = Prior(Euclidean(), jnp.zeros(()))
        problem = Problem(loss, Stream(jnp.arange(10)))

        class Nothing(AbstractObjective):
            def stage(self, prior, problem, step):
                return jnp.zeros(())

            def terminal(self, prior, problem, first, last):
                return jnp.zeros(())

        return evaluate(Nothing(), MirrorDescent(1e-3), prior, problem, 10, key=KEY)[1]

    assert int(seen().finite_steps) == 3


def test_with_reference_fills_the_solution_with_a_constant():
    inner, prior = priors()["mirror"]
    problem = Problem(regression, minibatches(size=30), query=jnp.ones(3))

    @jax.jit
    def reference(prior):
        return with_reference(problem, inner, prior, 50, key=KEY)

    filled = reference(prior)
    last = jax.jit(lambda: unroll(inner, prior, problem, 50, key=KEY).last)()
    np.testing.assert_allclose(filled.solution, last, rtol=ROUNDING)
    assert filled.loss is problem.loss
    np.testing.assert_array_equal(filled.query, problem.query)

    def total(start):
        return jnp.sum(reference(Prior(prior.geometry, start)).solution)

    slope = jax.jit(jax.grad(total))
    np.testing.assert_array_equal(slope(prior.start), 0)


def test_shared_parameters_reach_the_loss_and_stay():
    def loss(x, shared, batch):
        return jnp.sum((x - shared["offset"]) ** 2) / 2

    prior = Prior(Euclidean(), jnp.zeros(2), shared={"offset": jnp.array([1.0, 2.0])})
    problem = Problem(loss, Repeat(None))
    last = jax.jit(lambda: unroll(MirrorDescent(0.5), prior, problem, 40, key=KEY).last)()
    np.testing.assert_allclose(last, [1.0, 2.0], rtol=1e-9)


def test_tasks_vectorise():
    inner, prior = priors()["mirror, max"]
    data = jnp.asarray(np.random.default_rng(8).normal(size=(4, 12, 3)))
    values = jnp.asarray(np.random.default_rng(9).normal(size=(4, 12)))

    def last(features, target):
        problem = Problem(regression, Minibatch((features, target), 5))
        return unroll(inner, prior, problem, 15, key=KEY).last

    together = jax.jit(jax.vmap(last))(data, values)
    alone = jnp.stack([jax.jit(last)(f, v) for f, v in zip(data, values, strict=True)])
    np.testing.assert_allclose(together, alone, rtol=1e-9)


@pytest.mark.parametrize("name", ["mirror", "mirror, max"])
def test_a_geometry_that_changes_between_windows_moves_no_held_point(name):
    inner, prior = priors()[name]
    problem = Problem(regression, minibatches())
    state, _ = fold(inner, prior, problem, 5, lambda n, *_: n, None, key=KEY)
    changed = jax.tree.map(lambda leaf: leaf + 0.05, prior.geometry)
    held = inner.hold(Prior(changed, prior.start), state)
    np.testing.assert_array_equal(held.primal, state.primal)
    np.testing.assert_allclose(changed.to_primal(held.dual), state.primal, rtol=ROUNDING)


def test_the_dual_of_a_tie_is_held():
    """On a tie `∇ψ` is a set; the run's own element of it must survive from window to window."""
    geometry = MaxOfDiagonals(jnp.log(jnp.array([[1.0, 2.0], [2.0, 1.0]])))
    dual = jnp.array([2.5, 2.5])
    inner, prior = MirrorDescent(0.1), Prior(geometry, geometry.to_primal(dual))
    state = InnerState(prior.start, dual, jnp.array(3))
    assert not np.allclose(geometry.to_dual(prior.start), dual)
    np.testing.assert_array_equal(inner.hold(prior, state).dual, dual)


def test_a_start_outside_the_domain_is_the_first_point_of_every_run():
    """`∇ψ*(∇ψ(x))` is another point there; a run that carries duals alone must not begin at it."""
    start = jnp.array([1.0, 1.0, 1.0])
    inner, prior = MirrorDescent(0.1), Prior(NegativeEntropy(), start)
    problem = Problem(regression, minibatches())
    points = jax.jit(lambda: unroll(inner, prior, problem, 3, key=KEY))().primal
    assert not np.allclose(prior.geometry.to_primal(prior.geometry.to_dual(start)), start)
    np.testing.assert_array_equal(points[0], start)

    def collect(seen, step, number):
        return seen.at[number].set(step.primal)

    end, seen = fold(inner, prior, problem, 3, collect, jnp.zeros((3, 3)), key=KEY)
    np.testing.assert_allclose(seen, points[:3], rtol=ROUNDING)
    np.testing.assert_allclose(end.primal, points[3], rtol=ROUNDING)


def test_a_small_change_of_a_small_block_is_a_change():
    start = {"weight": jnp.array([10.0, -10.0]), "bias": jnp.array([1e-3])}
    before = Diagonal.like(start)
    after = Diagonal({**before.log_diagonal, "bias": before.log_diagonal["bias"] + 1e-3})
    state = MirrorDescent(0.1).init(Prior(before, start))
    held = MirrorDescent(0.1).hold(Prior(after, start), state)
    image = after.to_primal(held.dual)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=ROUNDING), image, start)
