"""Image studies made concrete: fewer training images."""

import jax
import numpy as np
import pytest
from toys import TASKS

from mirrax._errors import ConfigError
from mirrax.study import _images
from mirrax.study._config import override
from mirrax.study._images import ImageStudy, prepare

STUDY = ImageStudy(held_out="1", model="mlp-4", batch=5, rows=12)


@pytest.fixture(autouse=True)
def as_in_life(monkeypatch):
    """Studies run in float32 with JAX's standard promotion."""
    monkeypatch.setattr(_images, "load_family", lambda *_: TASKS)
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def pixels(arena, position):
    """The images of one task that count, of training and of test."""
    return [
        [images[position, row].tobytes() for row in np.flatnonzero(weights[position])]
        for images, _, weights in (arena.train, arena.test)
    ]


def test_examples_keeps_the_first_training_images_and_every_test_image():
    setting = prepare(override(STUDY, ["--examples", "6"]), None)
    for position, (task, short) in enumerate(zip(TASKS, setting.tasks, strict=True)):
        first = [image.tobytes() for image in task.train_images[:6]]
        assert [image.tobytes() for image in short.train_images] == first
        np.testing.assert_array_equal(short.train_labels, task.train_labels[:6])
        train, test = pixels(setting.place, position)
        assert train == first
        assert test == [image.tobytes() for image in task.test_images]
        # Tuning divides those six again.
        assert sorted(sum(pixels(setting.tuning, position), [])) == sorted(first)
    images, labels = setting.place.problems.batches.data
    drawn = {row.tobytes() for row in np.asarray(images).reshape(-1, 3, 3, 1)}
    assert drawn == {row.tobytes() for task in TASKS for row in task.train_images[:6]}
    assert labels.shape[:2] == images.shape[:2]


@pytest.mark.parametrize("examples", [0, 100])
def test_no_limit_and_one_beyond_the_data_keep_everything(examples):
    setting = prepare(override(STUDY, ["--examples", str(examples)]), None)
    for task, kept in zip(TASKS, setting.tasks, strict=True):
        np.testing.assert_array_equal(kept.train_images, task.train_images)


def test_too_few_examples_to_keep_some_apart_are_refused_where_tuning_does():
    for examples in ("1", "2"):
        with pytest.raises(ConfigError, match=f"--examples: .* got {examples}; give more"):
            prepare(override(STUDY, ["--examples", examples]), None)
    assert prepare(override(STUDY, ["--examples", "3"]), None).tuning
    whole = prepare(override(STUDY, ["--examples", "1", "--criterion", "loss"]), None)
    assert [len(task.train_labels) for task in whole.tasks] == [1, 1, 1]


def test_a_number_below_zero_is_refused():
    with pytest.raises(ConfigError, match="--examples"):
        override(STUDY, ["--examples", "-1"])
