"""Meta-steps some of whose tasks fail: skipped tasks and halved steps against sums made by hand."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_few_shot import KEY, MODEL, STEPS, classes, episodes, learner, prior

from mirrax.hypergradient import split
from mirrax.models import cross_entropy
from mirrax.tasks import Episodes


def poisoned():
    """Images of the first class are infinite, all others black."""
    images = np.zeros_like(classes())
    images[0] = 255
    counts = np.full(len(images), images.shape[1], np.int32)
    return Episodes(images, counts, way=3, shot=2, query=3, scale=1e307)


def worth(start, key, sampler):
    """One task with plain gradient descent."""
    episode = sampler.draw(key=jax.random.split(key)[0])
    for _ in range(STEPS):

        def loss(point, episode=episode):
            logits = MODEL.apply(point, episode.support_images)
            return cross_entropy(logits, episode.support_labels)

        start = jax.tree.map(lambda x, g: x - 0.3 * g, start, jax.grad(loss)(start))
    return cross_entropy(MODEL.apply(start, episode.query_images), episode.query_labels)


def test_skip_averages_over_the_tasks_that_are_numbers():
    sampler, rate = poisoned(), 0.1
    teacher = learner(optax.sgd(rate), on_failure="skip")
    state, record = teacher.run(teacher.init(prior(), key=KEY), sampler, 1)
    keys = jax.random.split(jax.random.fold_in(KEY, 0), 4)
    both = jax.jit(jax.value_and_grad(lambda start, key: worth(start, key, sampler)))
    found = [both(prior().start, key) for key in keys]
    sound = [pair for pair in found if np.isfinite(pair[0])]
    assert 0 < len(sound) < 4  # by the choice of the key
    failed = [not np.isfinite(value) for value, _ in found]
    assert record.attempts.failed_runs[0].tolist() == failed and not record.failed.any()
    np.testing.assert_allclose(record.value[0], np.mean([v for v, _ in sound]), rtol=1e-12)
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *(grad for _, grad in sound))
    expected = jax.tree.map(lambda x, g: x - rate * g, prior().start, mean)
    for ours, theirs in zip(
        jax.tree.leaves(state.prior.start), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_stop_is_what_it_was():
    teacher = learner(optax.sgd(0.1))
    state, record = teacher.run(teacher.init(prior(), key=KEY), poisoned(), 1)
    assert record.failed.all() and record.attempts is None and state.step == 0


def bounded(prior):
    """A constraint on part of what is learned."""
    last = lambda prior: prior.start["dense_1"]["bias"]  # noqa: E731
    return eqx.tree_at(last, prior, jnp.clip(last(prior), -1, 1))


@pytest.mark.parametrize(
    "project",
    [pytest.param(lambda prior: prior, marks=pytest.mark.slow), bounded],
    ids=["free", "bounded"],
)
def test_halve_goes_back_along_the_step_until_tasks_are_numbers(monkeypatch, project):
    """The first length at which a learner that stops would not, of a step far too long."""
    monkeypatch.setattr("mirrax.meta._few_shot.project", project)
    optimiser = optax.sgd(0.1)
    halving, stopping = (learner(optimiser, on_failure=how) for how in ("halve", "stop"))
    begin = halving.init(prior(), key=KEY)
    learned, complete = split(prior(), ("start",))
    direction = jax.tree.map(lambda leaf: jnp.sign(leaf) + 0.5, learned)
    plain, seen = stopping.init(prior(), key=KEY), set()
    for size in 10.0 ** np.arange(8, 156, 2.0):
        step = jax.tree.map(lambda leaf, s=size: s * leaf, direction)

        def at(share, step=step):
            moved = jax.tree.map(lambda x, d: x + share * d, learned, step)
            return dataclasses.replace(plain, prior=project(complete(moved)))

        def sound(share, at=at):
            return not stopping.run(at(share), episodes(), 1)[1].failed.any()

        first = next((j for j in range(11) if sound(2.0**-j)), None)
        trail = dataclasses.replace(begin.outer, step=step)
        far = dataclasses.replace(begin, prior=at(1.0).prior, outer=trail)
        after, record = halving.run(far, episodes(), 1)
        assert bool(record.failed[0]) == (first is None)
        assert record.attempts.halved[0] == (10 if first is None else first)
        assert record.attempts.failed_runs.any() == (first != 0)
        seen.add(first)
        if first is None:
            assert after.step == 0
            continue
        assert after.step == 1 and after.outer.share == 2.0**-first
        used = at(2.0**-first).prior.start
        jax.tree.map(np.testing.assert_array_equal, after.outer.before.start, used)
        whole, _ = stopping.run(at(2.0**-first), episodes(), 1)
        # Differences of two points, each known to a rounding of 1e-16 of its size; the steps are
        # from two programs, and may differ by some more.
        ends = used, after.prior.start, whole.prior.start
        for layer, name in (("dense_0", "weight"), ("dense_0", "bias"), ("dense_1", "weight")):
            here, moved, far = (np.asarray(end[layer][name]) for end in ends)
            np.testing.assert_allclose(
                moved - here, 2.0**-first * (far - here), rtol=0, atol=1e-15 * abs(here).max()
            )
    assert seen & set(range(1, 11)), seen
