"""Bayesian tuning of image studies: equal budgets, one program, what decides a score, no leaks."""

import dataclasses
import importlib.util

import jax
import numpy as np
import pytest
from test_leave_one_out import accuracies, drawn
from test_run_folder import QUIET
from toys import TASKS, InThisThread

from mirrax._errors import ConfigError
from mirrax.geometry import Diagonal
from mirrax.study import _compare, _images, _leave_one_out, _train, _trials, _tuning
from mirrax.study._compare import score
from mirrax.study._folder import RunFolder
from mirrax.study._images import ImageStudy, prepare
from mirrax.study._leave_one_out import leave_one_out
from mirrax.study._search import open_storage
from mirrax.study._trials import Trials, run_trials
from mirrax.study._tuning import JOURNAL, tuned

STUDY = ImageStudy(
    held_out="1",
    model="linear",
    steps=4,
    stride=2,
    rounds=1,
    batch=5,
    baselines=("SGD", "Adam"),
    seeds=2,
    tune_seeds=1,
    rows=12,
    comparator="last",
    tuner="bayes",
    trials=3,
    timed=False,
)


@pytest.fixture(autouse=True)
def as_in_life(monkeypatch):
    """Studies run in float32 with JAX's standard promotion."""
    monkeypatch.setattr(_images, "load_family", lambda *_: TASKS)
    monkeypatch.setattr(_trials, "ThreadPoolExecutor", InThisThread)
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def without_training(monkeypatch):
    """Accuracies that depend on method, configuration, task and seed alone; returns what ran."""
    seen = []

    def compiled(methods, names, jobs, place, *, steps, stride, seeds, key):
        def run(asked):
            seen.append([(methods[index].name, dict(values)) for index, values in asked])
            return drawn(
                methods,
                asked,
                place,
                steps=steps,
                stride=stride,
                seeds=seeds,
                key=key,
                advance=lambda share: None,
            )

        return run

    monkeypatch.setattr(_tuning, "compile_trials", compiled)
    monkeypatch.setattr(_compare, "run_trials", drawn)
    return seen


def identity(setting, log_rate=0.0):
    geometry = Diagonal.like(setting.template)
    return jax.tree.map(lambda leaf: leaf + log_rate, geometry)


def test_trials_are_runs_on_the_tuning_tasks_in_one_program(tmp_path, monkeypatch):
    setting = prepare(dataclasses.replace(STUDY, baselines=("SGD",), control=False), None)
    methods = _train.roster(setting, identity(setting))
    built, compile_trials = [], _tuning.compile_trials

    def counted(*args, **kwargs):
        built.append(args)
        return compile_trials(*args, **kwargs)

    monkeypatch.setattr(_tuning, "compile_trials", counted)
    found = tuned(setting, methods, tmp_path, 0, QUIET)
    assert len(built) == 1 and {one.record["trials"] for one in found} == {3}
    place = setting.tuning.select((0, 2))
    jobs = [(index, one.values) for index, one in enumerate(found)]
    key = jax.random.fold_in(jax.random.key(0), 1)
    again = run_trials(methods, jobs, place, steps=4, stride=4, seeds=1, key=key)
    expected = score(again, "validation").mean(axis=1)
    np.testing.assert_allclose([one.record["score"] for one in found], expected, rtol=0, atol=1e-6)
    # Everything is in the folder: nothing is run again.
    monkeypatch.setattr(_tuning, "compile_trials", None)
    assert tuned(setting, methods, tmp_path, 0, QUIET) == found


def test_all_methods_have_as_many_trials_and_the_best_is_chosen(tmp_path, without_training):
    setting = prepare(dataclasses.replace(STUDY, trials=10), None)
    methods = _train.roster(setting, identity(setting))
    found = tuned(setting, methods, tmp_path, 0, QUIET)
    assert len(without_training) == 10
    for method, one in zip(methods, found, strict=True):
        tried = [
            dict(values)
            for asked in without_training
            for name, values in asked
            if name == method.name
        ]
        errors = [
            np.mean([1 - accuracies(method.name, values, task, 1) for task in (0, 2)])
            for values in tried
        ]
        assert len(tried) == 10 and tried[int(np.argmin(errors))] == one.values
        np.testing.assert_allclose(one.record["score"], min(errors), rtol=1e-6)


def test_a_search_stopped_at_any_trial_ends_as_if_it_had_not_been(
    tmp_path, without_training, monkeypatch
):
    setting = prepare(dataclasses.replace(STUDY, trials=10), None)
    methods = _train.roster(setting, identity(setting))
    whole = tuned(setting, methods, tmp_path / "..", 0, QUIET)
    folder, counted = tmp_path, score

    def stops(trials, criterion):
        if len(without_training) % 4 == 0:
            raise KeyboardInterrupt
        return counted(trials, criterion)

    monkeypatch.setattr(_tuning, "score", stops)
    for _ in range(5):
        try:
            found = tuned(setting, methods, folder, 0, QUIET)
        except KeyboardInterrupt:
            continue
        break
    assert found == whole


def test_what_decides_a_score_keeps_studies_apart(tmp_path, without_training):
    whole = prepare(dataclasses.replace(STUDY, storage=str(tmp_path / "shared")), None)

    def ran(seed=0, log_rate=0.0, training=(0, 2), **changes):
        del without_training[:]
        config = dataclasses.replace(whole.config, **changes)
        setting = dataclasses.replace(whole, config=config, training=training)
        tuned(setting, _train.roster(setting, identity(setting, log_rate)), tmp_path, seed, QUIET)
        return sorted({name for asked in without_training for name, _ in asked})

    everything = ["Adam", "Euclidean", "MetaMD", "SGD"]
    assert ran() == everything and ran() == []
    assert ran(log_rate=0.1) == ["MetaMD"]  # another geometry has not been tried, the others have
    assert ran(training=(0, 1)) == everything and ran(steps=8) == everything
    assert ran(criterion="loss") == everything and ran(seed=1) == everything
    assert ran(seeds=5, targets=(0.5,)) == []  # of the runs on the task held out only
    with pytest.raises(ConfigError, match="--trials: MetaMD has 3 trials in .* already"):
        ran(trials=2)
    assert ran(trials=5) == everything
    assert not (tmp_path / JOURNAL).exists()


def test_a_configuration_that_fails_is_counted_and_not_chosen(tmp_path, monkeypatch):
    def compiled(methods, names, jobs, place, **_):
        def run(asked):
            good = np.array([v.get("learning_rate", v.get("rate_scale")) < 0.1 for _, v in asked])
            loss = np.where(good, 1.0, np.nan)[:, None, None, None]
            shape = (len(asked), place.count, 1)
            return Trials(np.broadcast_to(loss, (*shape, 2)), np.full(shape, 0.5))

        return run

    monkeypatch.setattr(_tuning, "compile_trials", compiled)
    setting = prepare(dataclasses.replace(STUDY, trials=12), None)
    methods = _train.roster(setting, identity(setting))
    ours, *others = tuned(setting, methods, tmp_path, 0, QUIET)
    for one in others:
        assert one.record["score"] == 0.5 and 0 < one.record["failed"] < 12
        assert one.values.get("learning_rate", one.values.get("rate_scale")) < 0.1
    assert ours.record["failed"] == 12  # none of its scales is so small
    told = "Every configuration of MetaMD diverged on the tuning tasks."
    assert ours.note == told and all(one.note != told for one in others)
    scores = np.full((len(methods[0].grid), 2), np.inf)
    assert _tuning.by_grid(methods[0], scores, setting.config).note == told


def test_nothing_of_the_task_held_out_decides_what_is_tried_on_it(tmp_path, without_training):
    config = dataclasses.replace(STUDY, trials=4, control=False)
    result = leave_one_out(
        config,
        tmp_path / "run",
        recipe="toys",
        seed=0,
        budget="smoke",
        data=None,
        resume=False,
        progress=QUIET,
        command="mirrax reproduce toys",
    )
    for held, cells in enumerate(result["cells"].values()):
        others = [task for task in range(3) if task != held]
        for name, cell in cells.items():
            values = cell["hyperparameters"]
            error = np.mean([1 - accuracies(name, values, task, 1) for task in others])
            np.testing.assert_allclose(cell["tuning"]["score"], error, rtol=1e-6)
    chosen = [cells["SGD"]["hyperparameters"] for cells in result["cells"].values()]
    assert chosen[0] != chosen[1]
    storage = open_storage(str(tmp_path / "run" / JOURNAL))
    assert len(storage.get_all_studies()) == 3 * 3  # methods, and tasks held out


def test_a_comparison_is_not_made_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(_compare, "run_trials", drawn)
    setting = prepare(dataclasses.replace(STUDY, tuner="grid"), None)
    folder = RunFolder.create(tmp_path / "run", {})
    geometry = _train.meta_train(setting, folder, 0, QUIET).geometry
    first = _train.compare_images(setting, geometry, folder, 0, QUIET)
    monkeypatch.setattr(_train, "tuned", None)
    assert _train.compare_images(setting, geometry, folder, 0, QUIET) == first
    fewer = dataclasses.replace(
        setting, config=dataclasses.replace(setting.config, baselines=("SGD",))
    )
    rows, _, _ = _train.compare_images(fewer, geometry, folder, 0, QUIET)
    assert [row["optimiser"] for row in rows] == ["MetaMD", "Euclidean", "SGD"]
    assert not any("terms" in row for row in rows)


def test_a_row_of_another_grid_or_version_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(_compare, "run_trials", drawn)
    setting = prepare(dataclasses.replace(STUDY, tuner="grid"), None)
    folder = RunFolder.create(tmp_path / "run", {})
    geometry = _train.meta_train(setting, folder, 0, QUIET).geometry
    first, _, _ = _train.compare_images(setting, geometry, folder, 0, QUIET)
    tuned, asked = _train.tuned, []

    def watched(setting, methods, *rest):
        asked.append([method.name for method in methods])
        return tuned(setting, methods, *rest)

    monkeypatch.setattr(_train, "tuned", watched)
    shorter = dataclasses.replace(found := _compare.find_baseline("SGD"), grid=found.grid[:2])
    known = {"SGD": shorter}
    find = _compare.find_baseline
    monkeypatch.setattr(_compare, "find_baseline", lambda name: known.get(name) or find(name))
    rows, _, _ = _train.compare_images(setting, geometry, folder, 0, QUIET)
    assert asked == [["SGD"]]
    trials = {row["optimiser"]: row["tuning"]["trials"] for row in rows}
    assert trials.pop("SGD") == 2 and set(trials.values()) == {15}
    monkeypatch.setattr(_tuning, "__version__", "0.0.1")
    _train.compare_images(setting, geometry, folder, 0, QUIET)
    assert asked[1] == [row["optimiser"] for row in first]


def test_seconds_follow_from_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(_compare, "run_trials", drawn)
    costs = {"MetaMD": 0.5, "Euclidean": 0.25, "SGD": 0.125, "Adam": 1.0}
    monkeypatch.setattr(_train, "seconds_a_step", lambda *_: costs)
    monkeypatch.setattr(_leave_one_out, "seconds_a_step", lambda *_: costs)
    moments = iter("ab")
    monkeypatch.setattr(_train, "now", lambda: next(moments))
    config = dataclasses.replace(STUDY, tuner="grid", timed=True, targets=(1.5,))
    setting = prepare(config, None)
    folder = RunFolder.create(tmp_path / "run", {})
    geometry = _train.meta_train(setting, folder, 0, QUIET).geometry
    rows, _, first = _train.compare_images(setting, geometry, folder, 0, QUIET)
    for row in rows:
        cost = costs[row["optimiser"]]
        assert row["seconds_a_step"] == cost
        steps = row["steps_to"]["1.5"]["values"]
        assert row["seconds_to"]["1.5"]["values"] == [cost * step for step in steps]
    costs["RMSprop"] = 2.0
    more = dataclasses.replace(config, baselines=(*config.baselines, "RMSprop"))
    rows, _, notes = _train.compare_images(
        dataclasses.replace(setting, config=more), geometry, folder, 0, QUIET
    )
    assert not any("timed at" in note for note in first) and "timed_at" not in rows[0]
    assert any(note.startswith("Steps were timed at 2 times") for note in notes)


def test_without_optuna_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'mirrax\[tune\]'") as caught:
        prepare(STUDY, None)
    assert "\n" not in str(caught.value)
    prepare(dataclasses.replace(STUDY, tuner="grid"), None)
