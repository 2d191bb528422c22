"""Runs that go on where a task fails: named in metrics and notes, and continued to the bit."""

import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from mirrax._errors import ConfigError, NumericalError
from mirrax.meta import quadratic
from mirrax.methods import meta_md
from mirrax.study._folder import RunFolder
from mirrax.study._images import ImageStudy
from mirrax.study._learn import learn
from mirrax.study._progress import Progress
from mirrax.tasks import sample_quadratics

pytestmark = pytest.mark.usefixtures("as_in_life")  # optax's Adam mixes types of numbers
KEY = jax.random.key(4)
CONFIG = {"recipe": "quadratics", "seed": 0, "fields": {}}


def zeros(key):
    del key
    return jnp.zeros(2)


def meta_train(path, rounds, on_failure):
    """Three quadratics, the second of which is not a number."""
    folder = RunFolder(path) if path.exists() else RunFolder.create(path, CONFIG)
    learner, initial = meta_md(
        zeros,
        steps=20,
        rate=0.05,
        comparator="solution",
        estimator="direct",
        on_failure=on_failure,
        key=KEY,
    )
    tasks = sample_quadratics(KEY, 3)
    tasks = dataclasses.replace(tasks, vector=tasks.vector.at[1, 0].set(jnp.nan))
    learned = learn(
        learner,
        initial,
        quadratic(tasks),
        ["a", "b", "c"],
        rounds=rounds,
        rate=0.05,
        folder=folder,
        progress=Progress(Console(file=io.StringIO(), quiet=True)),
        key=KEY,
    )
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return learned, [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_a_task_that_is_skipped_is_recorded_and_a_run_of_it_continued(tmp_path):
    whole, lines = meta_train(tmp_path / "whole", 3, "skip")
    assert [line["failed"] for line in lines] == [["b"]] * 3
    assert all(line["halved"] == 0 and line["value"] > 0 for line in lines)
    assert whole.notes == (
        "On failure: runs of b failed and were left out, in 3 lines of metrics of 3 rounds.",
    )
    meta_train(tmp_path / "cut", 1, "skip")
    again, continued = meta_train(tmp_path / "cut", 3, "skip")
    assert continued == lines and again.notes == whole.notes
    for ours, theirs in zip(
        jax.tree.leaves(again.geometry), jax.tree.leaves(whole.geometry), strict=True
    ):
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("on_failure", ["stop", "halve"])
def test_the_others_end_with_the_name_of_the_task(tmp_path, on_failure):
    with pytest.raises(NumericalError, match="diverged: round 0, task b"):
        meta_train(tmp_path / "run", 3, on_failure)


def test_the_closed_form_has_a_way_of_its_own():
    with pytest.raises(ConfigError, match="--on-failure skip needs an estimator"):
        ImageStudy(on_failure="skip")
    assert ImageStudy(on_failure="skip", estimator="direct").on_failure == "skip"
