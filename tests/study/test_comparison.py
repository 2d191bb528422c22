"""Trials against plain loops; tuning, scores and tables."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import MODEL, TASKS, InThisThread

from mirrax.deploy import averaged, to_optax
from mirrax.geometry import Diagonal
from mirrax.meta import classification
from mirrax.models._conv4 import blocks_then_head
from mirrax.study import _trials
from mirrax.study._baselines import BASELINES, Method, product
from mirrax.study._compare import (
    band,
    best,
    control_methods,
    edge_note,
    learned_method,
    learned_methods,
    methods_of,
    score,
    spread,
    steps_to,
    tune,
)
from mirrax.study._kept import Kept
from mirrax.study._online_protocol import online_methods
from mirrax.study._trials import Trials, arena, run_trials

STEPS, STRIDE, SEEDS = 6, 3, 2
NORMALISED = blocks_then_head("one", (3, 3, 1), (4,), 3)
"""A network with batch statistics."""

FLOAT32 = 1e-6
"""A few dozen roundings of float32, 6e-8 each, in a run of six steps."""


@pytest.fixture(autouse=True)
def as_in_life(monkeypatch):
    """Studies run in float32 with JAX's standard promotion."""
    monkeypatch.setattr(_trials, "ThreadPoolExecutor", InThisThread)
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def place(rows=12, model=MODEL):
    return arena(TASKS, classification(TASKS, model, 5), model, rows)


def geometry():
    params = MODEL.init(jax.random.key(5))
    return Diagonal(jax.tree.map(lambda leaf: 0.3 * leaf, params))


def cross_entropy(params, images, labels, model=MODEL, first=None):
    """Mean loss and logits; batch statistics are those of `first`, or else of the images."""
    images = jnp.asarray(images, jnp.float32) / 16
    if first is None:
        logits = model.apply(params, images)
    else:
        first = jnp.asarray(first, jnp.float32) / 16
        logits = model.apply(params, jnp.concatenate([first, images]), reference=len(first))
        logits = logits[len(first) :]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits


def plain_loop(optimiser, read, task, seed, key, model=MODEL, reference=None):
    """One run, written out; `reference` training images give the statistics that judge it."""
    start_key, run_key = jax.random.split(key)
    start_key, run_key = (jax.random.fold_in(part, task) for part in (start_key, run_key))
    params = model.init(jax.random.split(start_key, SEEDS)[seed])
    key = jax.random.split(run_key, SEEDS)[seed]
    problems = classification(TASKS, model, 5)
    batches = jax.tree.map(lambda leaf: leaf[task], problems).batches
    data, state = TASKS[task], optimiser.init(params)
    first = None if reference is None else data.train_images[:reference]
    judged = jax.jit(lambda p, x, y: cross_entropy(p, x, y, model, first))
    shown = (data.train_images[:12], data.train_labels[:12])
    curve = [float(judged(params, *shown)[0])]
    draw, update = eqx.filter_jit(batches.draw), jax.jit(optimiser.update)
    slope = jax.jit(jax.grad(lambda p, x, y: cross_entropy(p, x, y, model)[0]))
    for number in range(STEPS):
        images, labels = draw(jnp.asarray(number), key=jax.random.fold_in(key, number))
        updates, state = update(slope(params, images, labels), state, params)
        params = optax.apply_updates(params, updates)
        if (number + 1) % STRIDE == 0:
            curve.append(float(judged(read(state, params), *shown)[0]))
    logits = judged(read(state, params), data.test_images, data.test_labels)[1]
    return curve, np.mean(np.argmax(logits, -1) == data.test_labels)


@pytest.mark.slow
def test_trials_are_those_of_a_plain_loop():
    key = jax.random.key(11)
    ours = learned_methods(geometry(), 0.2, averaging=True)
    others = ("SGD", "Adam", "AdamW, schedule-free", "Muon")
    methods = [*ours, *(BASELINES[name] for name in others)]
    decay = {"learning_rate": 0.1, "weight_decay": 0.01}
    jobs = [
        (0, {"rate_scale": 2.0, "momentum": 0.8}),
        (1, {"rate_scale": 2.0, "interpolation": 0.7}),
        *((position, decay) for position in range(2, 6)),
    ]
    plain = [
        to_optax(geometry(), 0.2 * 2 * (1 - 0.8), momentum=0.8, nesterov=True),
        averaged(to_optax(geometry(), 0.2 * 2), 0.7),
        optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1)),
        optax.chain(optax.add_decayed_weights(0.01), optax.adam(0.1)),
        optax.contrib.schedule_free_adamw(0.1, weight_decay=0.01),
        optax.contrib.muon(0.1, weight_decay=0.01),
    ]
    shares = []
    found = run_trials(
        methods,
        jobs,
        place(),
        steps=STEPS,
        stride=STRIDE,
        seeds=SEEDS,
        key=key,
        advance=shares.append,
    )
    assert np.shape(found.train_loss) == (6, 3, SEEDS, 3)
    assert abs(sum(shares) - 1) < 1e-9
    for job, task, seed in ((0, 1, 1), (1, 0, 1), (2, 2, 0), (3, 2, 1), (4, 0, 0), (5, 1, 0)):
        curve, accuracy = plain_loop(plain[job], methods[job].read, task, seed, key)
        np.testing.assert_allclose(
            found.train_loss[job, task, seed], curve, rtol=FLOAT32, atol=FLOAT32
        )
        # Exactly: equal numbers of hits are ties wherever methods are ranked.
        assert found.test_accuracy[job, task, seed] == np.float32(accuracy)


@pytest.mark.slow
def test_a_network_with_batch_statistics_is_judged_by_its_first_training_images():
    """As many as the smallest task shows, 10, whatever the others have."""
    found = run_trials(
        [BASELINES["SGD"]],
        [(0, {"learning_rate": 0.1, "weight_decay": 0.0})],
        place(model=NORMALISED),
        steps=STEPS,
        stride=STRIDE,
        seeds=SEEDS,
        key=jax.random.key(11),
    )
    for task, seed in ((0, 1), (1, 0)):
        run = functools.partial(
            plain_loop, optax.sgd(0.1), BASELINES["SGD"].read, task, seed, jax.random.key(11)
        )
        curve, accuracy = run(NORMALISED, 10)
        np.testing.assert_allclose(found.train_loss[0, task, seed], curve, rtol=1e-5)
        np.testing.assert_allclose(
            found.test_accuracy[0, task, seed], accuracy, rtol=0, atol=FLOAT32
        )
        other, _ = run(NORMALISED, 9)
        assert np.abs(np.subtract(curve, other)).max() > 1e-4


@pytest.fixture
def made(monkeypatch):
    """The digests of the chunks that have been computed and kept."""
    found, once = [], Kept.once

    def noted(kept, digest, compute):
        return once(kept, digest, lambda: found.append(digest) or compute())

    monkeypatch.setattr(Kept, "once", noted)
    return found


def a_run(kept, rate=0.1, seed=0, methods=(BASELINES["SGD"],), where=None, **changes):
    values = {"weight_decay": 0.0, "rate_scale": 1.0, "momentum": 0.5}
    jobs = [(0, {"learning_rate": rate, **values})]
    options = {"steps": STEPS, "stride": STRIDE, "seeds": SEEDS, **changes}
    key = jax.random.key(seed)
    return run_trials(methods, jobs, where or place(), key=key, kept=kept, **options)


def test_chunks_that_are_kept_are_not_computed_again(tmp_path, made):
    """Nor is anything else: one that is lost or damaged is."""
    kept = Kept(tmp_path / "parts")
    plain = a_run(None)
    first = a_run(kept)
    count = len(made)
    files = sorted(kept.folder.iterdir())
    assert count == len(set(made)) == len(files) > 1
    again = a_run(kept)
    assert len(made) == count
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-9])
    repaired = a_run(kept)
    assert len(made) == count + 2
    for found in (first, again, repaired):
        jax.tree.map(np.testing.assert_array_equal, found, plain)
    kept.clear()
    assert not kept.folder.exists()


@pytest.mark.slow
def test_chunks_are_taken_for_nothing_else(tmp_path, made):
    """Whatever differs: configuration, seed, curve, data, what was learned, a constant in code."""
    kept = Kept(tmp_path / "parts")
    a_run(kept)
    count, where = len(made), place()
    data = lambda arena: jax.tree.leaves(arena.problems)[0]  # noqa: E731
    darker = eqx.tree_at(data, where, replace_fn=lambda x: x // 2)
    wider = jax.tree.map(lambda leaf: 2 * leaf, geometry())
    learned = [learned_methods(found, 0.2, False)[0] for found in (geometry(), wider)]
    constant = [
        dataclasses.replace(BASELINES["SGD"], make=lambda job, context, rate=rate: optax.sgd(rate))
        for rate in (0.1, 0.2)
    ]
    others = [{"rate": 0.2}, {"seed": 1}, {"stride": STEPS}, {"where": darker}]
    others += [{"methods": (method,)} for method in (*learned, *constant)]
    for number, changes in enumerate(others, 2):
        a_run(kept, **changes)
        assert len(set(made)) == len(made) == number * count, changes


def test_every_method_meets_the_same_weights_and_batches_and_failures_are_infinite():
    still = {"learning_rate": 0.0, "weight_decay": 0.0}
    methods = [BASELINES["SGD"], BASELINES["Adam"]]
    jobs = [(0, still), (1, still), (0, {"learning_rate": 1e30, "weight_decay": 0.0})]
    found = run_trials(
        methods, jobs, place(), steps=STEPS, stride=STRIDE, seeds=SEEDS, key=jax.random.key(0)
    )
    np.testing.assert_array_equal(found.train_loss[0], found.train_loss[1])
    assert len(np.unique(np.asarray(found.train_loss[0, ..., 0]))) == 3 * SEEDS
    np.testing.assert_array_equal(found.train_loss[0, ..., 0], found.train_loss[0, ..., -1])
    scores = score(found, "loss")
    assert scores.shape == (3, 3) and np.all(np.isinf(scores[2])) and np.isfinite(scores[:2]).all()
    assert np.all(np.isinf(score(found, "validation")[2]))
    # What is no number is no answer, not that of the first class.
    gone = np.isnan(found.final_loss[2])
    assert gone.any() and not np.any(np.asarray(found.test_accuracy[2])[gone])
    with pytest.raises(ValueError, match=r"compile_trials\.stride.*got 4"):
        run_trials(methods, jobs, place(), steps=6, stride=4, seeds=1, key=jax.random.key(0))


def test_a_task_is_run_alike_whichever_others_there_are():
    values = {"learning_rate": 0.1, "weight_decay": 0.0}
    runs = dict(steps=STEPS, stride=STRIDE, seeds=SEEDS, key=jax.random.key(2))
    one, many = (
        run_trials([BASELINES["SGD"]], [(0, values)], where, **runs)
        for where in (place().select([2]), place())
    )
    np.testing.assert_allclose(one.train_loss[0, 0], many.train_loss[0, 2], rtol=FLOAT32)
    assert len(np.unique(many.train_loss[..., 0])) == 3 * SEEDS  # no two begin alike


def poisoned(whole, task):
    def spoil(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        return leaf.at[task].set(jnp.nan)

    spoilt = jax.tree.map(spoil, (whole.problems, whole.train, whole.test))
    return dataclasses.replace(whole, problems=spoilt[0], train=spoilt[1], test=spoilt[2])


def test_neither_tuning_nor_meta_training_sees_the_held_out_task(tmp_path, monkeypatch):
    from test_run_folder import QUIET

    from mirrax.study import _images, _train
    from mirrax.study._folder import RunFolder

    monkeypatch.setattr(_images, "load_family", lambda *_: TASKS)
    config = _images.ImageStudy(
        held_out="1",
        model="mlp-4",
        steps=4,
        stride=2,
        rounds=2,
        batch=5,
        baselines=("SGD",),
        control=False,
        seeds=1,
        rows=12,
        reference_steps=4,
    )
    setting = _images.prepare(config, None)
    other = TASKS[1].train_images[::-1].copy(), TASKS[1].test_images[::-1].copy()
    other = dataclasses.replace(TASKS[1], train_images=other[0], test_images=other[1])
    spoilt = dataclasses.replace(
        setting, place=poisoned(setting.place, 1), tasks=(TASKS[0], other, TASKS[2])
    )
    assert setting.held_out == 1 and setting.training == (0, 2)
    assert setting.cost == (
        "Learning a geometry took 4 runs of 4 steps, and 4 reference runs of 4: as many steps as 8 "
        "ordinary runs."
    )
    evolving = dataclasses.replace(config, estimator="evolution", pairs=3)
    assert dataclasses.replace(setting, config=evolving).cost == (
        "Learning a geometry took 24 runs of 4 steps, and 4 reference runs of 4: as many steps as "
        "28 ordinary runs."
    )
    found = []
    for number, one in enumerate((setting, spoilt)):
        folder = RunFolder.create(tmp_path / str(number), {})
        learned = _train.meta_train(one, folder, 0, QUIET)
        methods = _train.roster(one, learned.geometry)
        scores = tune(
            methods,
            one.tuning.select(one.training),
            steps=4,
            criterion="validation",
            seeds=1,
            key=jax.random.key(1),
        )
        found.append(((folder / "geometry.safetensors").read_bytes(), scores))
    assert found[0][0] == found[1][0]
    for name in ("MetaMD", "SGD"):
        assert found[0][1][name].shape == (15, 2)
        np.testing.assert_array_equal(found[0][1][name], found[1][1][name])
        assert np.isfinite(found[0][1][name]).all()
    assert not np.isfinite(spoilt.place.train[0][1]).any()


def test_tuning_sees_no_test_image(monkeypatch):
    from mirrax.study import _images

    monkeypatch.setattr(_images, "load_family", lambda *_: TASKS)
    setting = _images.prepare(_images.ImageStudy(held_out="1", model="mlp-4", batch=5), None)
    place = setting.tuning.select((0, 2))
    for position, task in enumerate((TASKS[0], TASKS[2])):
        rows = [
            {images[position, row].tobytes() for row in np.flatnonzero(weights[position])}
            for images, _, weights in (place.train, place.test)
        ]
        train, test = rows
        known = {image.tobytes() for image in task.train_images}
        assert train | test == known and not train & test and test
    by_loss = dataclasses.replace(setting.config, criterion="loss")
    whole = dataclasses.replace(setting, config=by_loss).tuning.select((0, 2))
    np.testing.assert_array_equal(whole.test[0], setting.place.test[0][np.array([0, 2])])


def trials(losses, accuracy=0.5):
    losses = np.asarray(losses, dtype=float)
    shape = losses.shape[:-1]
    return Trials(losses, np.full(shape, accuracy))


def test_the_best_configuration_is_the_best_mean_over_tasks():
    ends = np.array([[[1.0], [5.0]], [[2.0], [2.0]], [[0.1], [np.nan]], [[np.inf], [0.1]]])
    scores = score(trials(np.stack([ends, ends], axis=-1)), "loss")
    np.testing.assert_array_equal(scores, [[1, 5], [2, 2], [0.1, np.inf], [np.inf, 0.1]])
    method = Method("m", lambda v, c: optax.sgd(1.0), product(learning_rate=(1.0, 2.0, 3.0, 4.0)))
    assert best(method, scores) == {"learning_rate": 2.0}
    assert edge_note(method, {"learning_rate": 2.0}) is None
    assert "edge of its grid" in edge_note(method, {"learning_rate": 4.0})
    assert edge_note(method, {"rate_scale": 1.0}) is None
    ours = learned_method(geometry(), 0.1)
    assert "momentum 0.95" in edge_note(ours, {"rate_scale": 2.0, "momentum": 0.95})
    assert edge_note(ours, {"rate_scale": 2.0, "momentum": 0.9}) is None
    _, online, _ = online_methods(1.0, (0.1, 0.5, 1.0), (0.1, 1.0, 10.0))
    assert "best meta scale 10 lies" in edge_note(online, {"learning_rate": 0.5, "meta_scale": 10})
    assert edge_note(online, {"learning_rate": 0.5, "meta_scale": 1.0}) is None


def test_a_momentum_of_zero_is_plain_descent():
    """A number that is written down, not traced, as where trajectories are drawn."""
    params = jnp.ones(2)
    method = learned_method(Diagonal.like(params), 0.5)
    transformation = method.make({"rate_scale": 2.0, "momentum": 0.0}, method.context)
    updates, _ = transformation.update(params, transformation.init(params), params)
    np.testing.assert_array_equal(updates, -params)


def test_spread_and_steps_to():
    values = [1.0, 2.0, 4.0]
    row = spread(values)
    assert row["values"] == values and np.isclose(row["mean"], 7 / 3)
    assert np.isclose(row["se"], np.std(values, ddof=1) / np.sqrt(3))
    assert spread([2.0]) == {"mean": 2.0, "se": None, "values": [2.0]}
    of_tasks = spread([1.0, 3.0, 2.0, 4.0, 6.0, 8.0], tasks=3)  # of which the means are 2, 3 and 7
    assert of_tasks["mean"] == 4 and np.isclose(of_tasks["se"], np.sqrt(7 / 3)), of_tasks
    assert of_tasks["tasks"] == 3 and spread([1.0, None], tasks=2)["tasks"] == 2
    assert spread([1.0, None, np.nan]) == {"mean": None, "se": None, "values": [1.0, None, None]}
    curve = np.array([2.0, 0.3, 0.4, 0.1])
    assert steps_to(curve, [0, 4, 8, 12], 0.3) == 4
    assert steps_to(curve, [0, 4, 8, 12], 0.05) is None
    assert steps_to(np.array([np.nan, np.nan]), [0, 4], 0.3) is None
    shown = band(trials([[1.0, 3.0], [3.0, np.inf]]))
    assert shown == {"mean": [2.0, None], "low": [1.0, 3.0], "high": [3.0, None]}


def test_every_method_has_as_many_configurations_as_the_learned_one():
    ours = learned_methods(geometry(), 0.1, averaging=True)
    control = control_methods(geometry().log_diagonal, averaging=True)
    methods = methods_of([*ours, *control], BASELINES, wide=False)
    own = ["MetaMD", "MetaMD, averaged", "Euclidean", "Euclidean, averaged"]
    assert [method.name for method in methods] == [*own, *BASELINES]
    assert {len(method.grid) for method in methods} == {15}
    wide = methods_of(ours, BASELINES, wide=True)
    assert all(len(method.grid) > 15 for method in wide[len(ours) :])
    alone = learned_methods(geometry(), 0.1, averaging=False)
    assert [method.name for method in alone] == ["MetaMD"]
