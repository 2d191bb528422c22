"""The few-shot learner: cut and continued to the bit, stopped by divergence, on two devices."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mirrax.geometry import ConvexPotential, Diagonal, Euclidean, RandomMask, Transformed
from mirrax.hypergradient import Pathwise, Reverse, Truncated
from mirrax.inner import MirrorDescent, PreconditionedDescent, Prior, unroll
from mirrax.meta import FewShot, episode_problem
from mirrax.models import accuracy, cross_entropy, mlp
from mirrax.models._conv4 import blocks_then_head
from mirrax.objective import ValidationLoss
from mirrax.tasks import Episodes
from repeats import slow

KEY = jax.random.key(5)
MODEL = mlp((4, 4, 1), (16,), 3)
STEPS = 3

ROUNDING = 1e-13
"""A few dozen roundings of numbers of about one, summed in another order."""


def classes(count=7, images=6):
    rng = np.random.default_rng(0)
    middle = rng.integers(0, 255, size=(count, 1, 4, 4, 1))
    pixels = np.clip(middle + rng.normal(0, 30, size=(count, images, 4, 4, 1)), 0, 255)
    return pixels.astype(np.uint8)


def episodes(**changes):
    images = classes()
    counts = np.full(len(images), images.shape[1], np.int32)
    return Episodes(
        images, counts, **{"way": 3, "shot": 2, "query": 3, "scale": 1 / 255, **changes}
    )


def learner(optimiser=None, **changes):
    fields = {
        "inner": MirrorDescent(0.3),
        "objective": ValidationLoss(),
        "estimator": Reverse(STEPS, wrt=("start",)),
        "optimiser": optimiser or optax.sgd(0.1, momentum=0.9),
        "tasks": 4,
    }
    return FewShot(MODEL, **{**fields, **changes})


def prior():
    return Prior(Euclidean(), MODEL.init(KEY))


def test_a_step_is_the_mean_over_tasks_by_hand():
    """Episodes, runs and hypergradients one by one, with plain gradient descent."""
    rate, sampler, begin = 0.1, episodes(), prior()
    teacher = learner(optax.sgd(rate))
    state, record = teacher.run(teacher.init(begin, key=KEY), sampler, 1)

    def worth(start, key):
        draw_key, _ = jax.random.split(key)
        episode = sampler.draw(key=draw_key)
        for _ in range(STEPS):

            def loss(point, episode=episode):
                logits = MODEL.apply(point, episode.support_images)
                return cross_entropy(logits, episode.support_labels)

            slopes = jax.grad(loss)(start)
            start = jax.tree.map(lambda x, g: x - 0.3 * g, start, slopes)
        return cross_entropy(MODEL.apply(start, episode.query_images), episode.query_labels)

    keys = jax.random.split(jax.random.fold_in(KEY, 0), 4)
    judge = jax.jit(jax.value_and_grad(worth))
    found = [judge(begin.start, key) for key in keys]
    values = [value for value, _ in found]
    np.testing.assert_allclose(record.value[0], np.mean(values), rtol=ROUNDING)
    expected = jax.tree.map(
        lambda x, *g: x - rate * sum(g) / 4, begin.start, *(grad for _, grad in found)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=ROUNDING),
        state.prior.start,
        expected,
    )


def test_windows_of_an_estimator_make_up_a_task():
    """What is judged is the end of the last window; the first alone would be worth nothing."""
    sampler, found = episodes(), []
    for estimator in (Reverse, functools.partial(Truncated, window=1)):
        teacher = learner(estimator=estimator(STEPS, wrt=("geometry",)))
        begin = teacher.init(Prior(Diagonal.like(prior().start), prior().start), key=KEY)
        found.append(teacher.run(begin, sampler, 1)[1])
    whole, cut = found
    np.testing.assert_allclose(cut.value, whole.value, rtol=ROUNDING)
    assert cut.gradient_norm > 0 and STEPS > 1


def test_a_run_cut_in_two_is_the_same_run():
    teacher, sampler = learner(), episodes()
    begin = teacher.init(prior(), key=KEY)
    whole, records = teacher.run(begin, sampler, 6)
    half, first = teacher.run(begin, sampler, 3)
    rest, second = teacher.run(half, sampler, 3)
    assert int(whole.step) == 6
    assert eqx.tree_equal(whole, rest)
    np.testing.assert_array_equal(records.value, np.append(first.value, second.value))


def test_it_learns():
    teacher, sampler = learner(), episodes()
    state, _ = teacher.run(teacher.init(prior(), key=KEY), sampler, 150)
    before, after = (
        teacher.evaluate(p, sampler, jnp.arange(40), key=jax.random.key(9))
        for p in (prior(), state.prior)
    )
    assert after.query_loss.mean() < 0.5 * before.query_loss.mean()
    assert after.query_accuracy.mean() > before.query_accuracy.mean()


def test_divergence_leaves_the_state_and_says_when():
    """The first update sends the start to infinity; nothing is lost of what came before it."""
    boom = optax.stateless(lambda updates, params: jax.tree.map(lambda g: g * jnp.inf, updates))
    teacher, sampler = learner(optax.chain(optax.sgd(0.1), boom)), episodes()
    state, records = teacher.run(teacher.init(prior(), key=KEY), sampler, 4)
    assert records.failed.tolist() == [False, True, True, True]
    assert int(state.step) == 1

    broken = eqx.tree_at(
        lambda p: p.start["dense_0"]["bias"], prior(), jnp.full(16, jnp.nan, jnp.float64)
    )
    begin = teacher.init(broken, key=KEY)
    state, records = teacher.run(begin, sampler, 2)
    assert records.failed.all()
    assert eqx.tree_equal(state.prior.start["dense_1"], begin.prior.start["dense_1"])
    assert int(state.step) == 0


@pytest.mark.parametrize(
    "inside", [slow(False, id="alone"), pytest.param(True, id="in coordinates")]
)
def test_an_outer_step_keeps_constraints(inside):
    """The outer optimiser would make every amplitude −1; the nearest that is allowed is 0."""
    down = optax.stateless(lambda updates, _: jax.tree.map(lambda g: -jnp.ones_like(g), updates))
    start = MODEL.init(KEY)
    potential = ConvexPotential.like(start, MODEL.roles, units=2, key=KEY)
    geometry = Transformed.like(potential, start, MODEL.roles) if inside else potential
    teacher = learner(down, estimator=Reverse(1, wrt=("geometry",)), tasks=1)
    state, _ = teacher.run(teacher.init(Prior(geometry, start), key=KEY), episodes(), 1)
    found = state.prior.geometry.geometry if inside else state.prior.geometry
    np.testing.assert_array_equal(found.amplitudes, np.zeros(2))
    np.testing.assert_array_equal(found.offsets, -np.ones(2))


def test_scores_are_those_of_a_run():
    teacher, sampler, begin = learner(), episodes(), prior()
    scores = teacher.evaluate(begin, sampler, jnp.arange(4), further=2, key=KEY)
    draw_key, run_key = jax.random.split(jax.random.fold_in(KEY, 2))
    problem = episode_problem(sampler.draw(key=draw_key), MODEL)
    path = unroll(teacher.inner, begin, problem, 6, key=run_key)
    np.testing.assert_allclose(scores.support_loss[2], path.losses, rtol=ROUNDING)
    norms = [optax.tree.norm(jax.tree.map(lambda g: g[i], path.gradients)) for i in range(6)]  # noqa: B023
    np.testing.assert_allclose(scores.gradient_norm[2], jnp.stack(norms), rtol=ROUNDING)
    end = jax.tree.map(lambda leaf: leaf[STEPS], path.primal)
    logits = MODEL.apply(end, problem.query[0])
    np.testing.assert_allclose(scores.query_accuracy[2], accuracy(logits, problem.query[1]))
    np.testing.assert_allclose(
        scores.query_loss[2], cross_entropy(logits, problem.query[1]), rtol=ROUNDING
    )
    # Without a point behind the last step, the rest is as it was.
    short = teacher.evaluate(begin, sampler, jnp.arange(4), further=None, key=KEY)
    for name in ("query_loss", "query_accuracy", "support_loss", "gradient_norm"):
        kept = getattr(scores, name)
        kept = kept if kept.ndim == 1 else kept[:, :STEPS]
        np.testing.assert_allclose(getattr(short, name), kept, rtol=ROUNDING)


def test_a_task_whose_run_diverges_has_nothing_right():
    """Not the share of the first class, which the largest of numbers that are none would be."""
    start = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), MODEL.init(KEY))
    scores = learner().evaluate(Prior(Euclidean(), start), episodes(), jnp.arange(2), key=KEY)
    assert scores.query_accuracy.tolist() == [0.0, 0.0]
    assert not np.isfinite(scores.query_loss).any()


def test_a_task_is_the_same_in_any_company():
    teacher, sampler = learner(), episodes()
    first = teacher.evaluate(prior(), sampler, jnp.arange(8), key=KEY)
    other = teacher.evaluate(prior(), sampler, jnp.array([6, 1, 2, 3, 0, 9, 8, 7]), key=KEY)
    np.testing.assert_allclose(other.query_loss[0], first.query_loss[6], rtol=ROUNDING)
    np.testing.assert_allclose(other.query_loss[4], first.query_loss[0], rtol=ROUNDING)


def test_a_mask_is_drawn_once_a_task_and_kept():
    """Output units, whose gradients never vanish, move at every step or at none."""
    start = MODEL.init(KEY)
    begin = Prior(RandomMask.like(start), start)
    problem = episode_problem(episodes().draw(key=KEY), MODEL)
    found = set()
    for seed in range(8):
        path = unroll(PreconditionedDescent(0.3), begin, problem, STEPS, key=jax.random.key(seed))
        moved = np.diff(np.asarray(path.primal["dense_1"]["bias"]), axis=0) != 0
        assert (moved == moved[0]).all()
        found.add(tuple(moved[0].tolist()))
    assert len(found) > 1


def test_units_are_adapted_as_often_as_their_logit_says():
    logits = jnp.array([-2.0, 0.0, 1.0])
    keys = jax.random.split(KEY, 20_000)
    masks = jax.vmap(lambda key: RandomMask({"a": logits}).draw(key=key).mask["a"])(keys)
    assert set(np.unique(masks)) == {0.0, 1.0}
    expected = jax.nn.sigmoid(logits)
    error = np.sqrt(expected * (1 - expected) / len(keys))
    assert (np.abs(masks.mean(axis=0) - expected) < 5 * error).all()


@pytest.mark.parametrize("statistics", ["query", "support"])
def test_query_images_are_normalised_as_asked_for(statistics):
    """A block of convolution, normalisation, ReLU and pooling, and a head, written out."""
    model = blocks_then_head("one", (4, 4, 1), (5,), 3)
    params, episode = model.init(KEY), episodes().draw(key=KEY)

    @jax.jit
    def convolved(images):
        kernel, bias = (params["conv_0"][part] for part in ("weight", "bias"))
        layout = ("NHWC", "HWIO", "NHWC")
        return (
            jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=layout)
            + bias
        )

    hidden = convolved(episode.query_images)
    few = convolved(episode.support_images) if statistics == "support" else hidden
    mean, spread = np.mean(few, axis=(0, 1, 2)), np.sqrt(np.var(few, axis=(0, 1, 2)) + 1e-5)
    gain, bias = (np.asarray(params["norm_0"][part]) for part in ("gain", "bias"))
    hidden = np.maximum((hidden - mean) / spread * gain + bias, 0)
    pooled = hidden.reshape(-1, 2, 2, 2, 2, 5).max(axis=(2, 4)).reshape(len(hidden), -1)
    logits = pooled @ params["dense_0"]["weight"] + params["dense_0"]["bias"]
    expected = cross_entropy(logits, episode.query_labels)

    problem = episode_problem(episode, model, statistics)
    found = jax.jit(problem.loss)(params, None, problem.query)
    np.testing.assert_allclose(found, expected, rtol=ROUNDING)


def test_what_cannot_be():
    with pytest.raises(ValueError, match=r"FewShot.on_failure: expected one of .*, got 'skp'"):
        learner(on_failure="skp")
    with pytest.raises(ValueError, match=r"FewShot.tasks: expected at least 1, got 0"):
        learner(tasks=0)
    with pytest.raises(ValueError, match=r"FewShot.devices: expected a divisor of the 4 tasks"):
        learner(devices=3)
    with pytest.raises(ValueError, match=r"FewShot.evaluate.further: expected at least 0, got -1"):
        learner().evaluate(prior(), episodes(), jnp.arange(2), further=-1, key=KEY)
    with pytest.raises(ValueError, match="statistics"):
        episode_problem(episodes().draw(key=KEY), MODEL, "both")
    with pytest.raises(ValueError, match=r"Pathwise.ahead: expected at least 0, got -1"):
        Pathwise(3, ahead=-1)
    with pytest.raises(ValueError, match=r"Pathwise.wrt: expected 'shared' or 'geometry' besides"):
        Pathwise(3, wrt=("start",))
    start = MODEL.init(KEY)
    with pytest.raises(ValueError, match="MirrorDescent: prior.geometry must be a mirror map"):
        MirrorDescent(0.1).init(Prior(RandomMask.like(start), start))
    sampler = episodes()
    problem = episode_problem(sampler.draw(key=KEY), MODEL)
    rule, undrawn = PreconditionedDescent(0.1), Prior(RandomMask.like(start), start)
    with pytest.raises(ValueError, match="RandomMask; use DualDescent for a mirror map"):
        rule.step(undrawn, problem, rule.init(undrawn), key=KEY)


SHARDED = """
import sys
sys.path[:0] = {folders!r}
import jax
jax.config.update("jax_enable_x64", True)
import numpy as np
from test_few_shot import KEY, episodes, learner, prior
assert jax.device_count() == 2
for devices in (1, 2):
    teacher = learner(devices=devices)
    begin, drawn = teacher.grid.place((teacher.init(prior(), key=KEY), episodes()))
    state, records = teacher.run(begin, drawn, 5)
    twice = teacher.grid.place((drawn, drawn))
    assert twice[0].images is twice[1].images
    scores = teacher.evaluate(state.prior, drawn, jax.numpy.arange(3), key=KEY)
    assert scores.query_loss.shape == (3,)
    found = *records.value, *scores.query_loss, *scores.query_accuracy, *scores.support_loss[2]
    print(",".join(float(value).hex() for value in found))
"""


@pytest.mark.slow
def test_two_devices_compute_what_one_does():
    """In a process of its own, because devices are counted once; sums may round differently."""
    here = Path(__file__).parent
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", SHARDED.format(folders=[str(here), str(here.parent)])],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (
        [float.fromhex(word) for word in line.split(",")] for line in done.stdout.splitlines()
    )
    np.testing.assert_allclose(two, one, rtol=ROUNDING)


def test_rates_of_meta_sgd_are_learned_through_the_diagonal():
    start = MODEL.init(KEY)
    teacher = learner(
        inner=PreconditionedDescent(0.3), estimator=Reverse(STEPS, wrt=("geometry", "start"))
    )
    begin = teacher.init(Prior(Diagonal.like(start), start), key=KEY)
    state, _ = teacher.run(begin, episodes(), 3)
    rates = jax.tree.leaves(state.prior.geometry.log_diagonal)
    assert any(np.abs(leaf).max() > 1e-3 for leaf in rates)
