"""`ImageTask` refuses what cannot be right, in one line; families agree in shape and classes."""

import dataclasses

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mirrax._errors import DataError
from mirrax.tasks import ImageTask, check, check_family


def make(**changes) -> ImageTask:
    fields = {
        "name": "toy",
        "train_images": np.zeros((4, 8, 8, 1), np.uint8),
        "train_labels": np.array([0, 1, 2, 3], np.int32),
        "test_images": np.zeros((2, 8, 8, 1), np.uint8),
        "test_labels": np.array([3, 0], np.int32),
        "classes": 4,
        "scale": 1 / 255,
    }
    return ImageTask(**{**fields, **changes})


def with_nan() -> np.ndarray:
    images = np.zeros((2, 8, 8, 1), np.float32)
    images[1, 3, 3, 0] = np.nan
    return images


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((4, 8, 8), np.uint8)}, r"train_images has shape \(4, 8, 8\)"),
        ({"train_images": np.zeros((0, 8, 8, 1), np.uint8)}, "none of them 0"),
        ({"train_images": np.zeros((4, 8, 8, 1))}, "train_images is float64; use uint8 or float32"),
        ({"test_images": np.zeros((2, 8, 9, 1), np.uint8)}, "both parts must agree"),
        ({"test_images": with_nan()}, "test_images has a non-finite pixel in image 1"),
        ({"train_labels": np.zeros(3, np.int32)}, r"has shape \(3,\); one label an image: \(4,\)"),
        ({"train_labels": np.zeros(4, np.int64)}, "train_labels is int64; use int32"),
        ({"test_labels": np.array([0, 4], np.int32)}, r"test_labels\[1\] is 4; .* 0 … 3"),
        ({"test_labels": np.array([-1, 0], np.int32)}, r"test_labels\[0\] is -1"),
        ({"classes": 1}, "classes is 1; at least 2"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"scale": float("nan")}, "scale is nan"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(DataError, match=message) as raised:
        make(**changes)
    assert "\n" not in str(raised.value) and str(raised.value).startswith("ImageTask 'toy': ")


def test_lists_are_refused():
    # Where the suite checks annotations at run time, jaxtyping refuses them first.
    with pytest.raises((DataError, TypeCheckError), match="train_images"):
        make(train_images=[[0]])


def test_infinities_of_both_signs_do_not_cancel():
    images = np.zeros((2, 8, 8, 1), np.float32)
    images[0, 0, 0, 0], images[1, 0, 0, 0] = np.inf, -np.inf
    with np.errstate(invalid="ignore"), pytest.raises(DataError, match="non-finite .* image 0"):
        make(test_images=images)


def test_large_finite_pixels_are_fine():
    largest = np.full((2, 8, 8, 1), np.finfo(np.float32).max)
    assert check(make(test_images=largest)) is None


def test_arrays_are_read_only_and_the_owner_s_stay_writable():
    images = np.zeros((4, 8, 8, 1), np.uint8)
    task = make(train_images=images)
    with pytest.raises(ValueError, match="read-only"):
        task.train_images[0] = 1
    images[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.name = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_families():
    first, second = make(), make(name="second")
    assert check_family([first, second]) == (first, second)
    wide = np.zeros((2, 8, 9, 1), np.uint8)
    labels = np.zeros(2, np.int32)
    other = ImageTask("wide", wide, labels, wide, labels, 4, 1.0)
    with pytest.raises(DataError, match=r"'wide': train_images is of \(8, 9, 1\) pixels; 'toy'"):
        check_family([first, other])
    with pytest.raises(DataError, match="'second': classes is 5; 'toy' has 4"):
        check_family([first, make(name="second", classes=5)])
    with pytest.raises(DataError, match="two tasks named 'toy'"):
        check_family([first, first])
    with pytest.raises(DataError, match="at least one task"):
        check_family([])


def test_a_validation_part_is_a_share_of_the_training_part():
    images = np.arange(20 * 4, dtype=np.uint8).reshape(20, 2, 2, 1)
    labels = np.arange(20, dtype=np.int32) % 5
    task = ImageTask("toy", images, labels, images[:1] + 100, labels[:1], 5, 1 / 255)
    part = task.validation(0.25, seed=3)
    both = np.concatenate([part.train_images, part.test_images])
    assert len(part.test_images) == 5
    np.testing.assert_array_equal(np.sort(both[:, 0, 0, 0]), images[:, 0, 0, 0])
    for found, label in (
        (part.train_images, part.train_labels),
        (part.test_images, part.test_labels),
    ):
        np.testing.assert_array_equal(found[:, 0, 0, 0] // 4 % 5, label)
    assert not np.array_equal(part.test_images, task.validation(0.25, seed=4).test_images)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 0.01, 0.99, float("nan")])
def test_a_validation_part_leaves_both_parts_some_images(share):
    images, labels = np.zeros((20, 2, 2, 1), np.uint8), np.zeros(20, np.int32)
    with pytest.raises(ValueError, match=r"ImageTask\.validation\.share"):
        ImageTask("toy", images, labels, images, labels, 5, 1 / 255).validation(share)
