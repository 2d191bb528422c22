"""SVHN's MATLAB files: order of axes, label 10, and what is not SVHN."""

import numpy as np
import pytest
import scipy.io

from mirrax._errors import DataError
from mirrax.tasks._svhn import read_svhn
from published import write_svhn


@pytest.fixture
def house_numbers(rng):
    return rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8), np.array([0, 9, 1, 0, 5, 7])


def test_images_and_labels(tmp_path, house_numbers):
    images, digits = house_numbers
    read_images, labels = read_svhn(write_svhn(tmp_path / "train_32x32.mat", images, digits))
    assert read_images.dtype == np.uint8 and read_images.flags.c_contiguous
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(read_images, images)
    np.testing.assert_array_equal(labels, digits)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, r"X has shape \(\)"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, r"y \(\)"),
        ({"X": np.zeros((32, 32, 3), np.uint8), "y": np.ones((1, 1))}, r"\(32, 32, 3, n\)"),
        ({"X": np.zeros((28, 28, 3, 2), np.uint8), "y": np.ones((2, 1))}, r"\(28, 28, 3, 2\)"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones((3, 1))}, r"y \(3, 1\)"),
        ({"X": np.zeros((32, 32, 3, 2)), "y": np.ones((2, 1))}, "X is double"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.zeros((2, 1))}, "label 0 is 0"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.full((2, 1), 11)}, "label 0 is 11"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.full((2, 1), np.nan)}, "is nan"),
    ],
)
def test_not_svhn(tmp_path, variables, message):
    path = tmp_path / "train_32x32.mat"
    scipy.io.savemat(path, variables)
    with pytest.raises(DataError, match=message) as raised:
        read_svhn(path)
    assert "\n" not in str(raised.value)


def test_damaged(tmp_path, house_numbers):
    path = write_svhn(tmp_path / "train_32x32.mat", *house_numbers)
    data = path.read_bytes()
    for length in (0, 50, 130, 1000, len(data) // 2, len(data) - 10):
        path.write_bytes(data[:length])
        with pytest.raises(DataError) as raised:
            read_svhn(path)
        assert "\n" not in str(raised.value) and "train_32x32.mat" in str(raised.value)


def test_missing(tmp_path):
    with pytest.raises(DataError, match="cannot read .*train_32x32.mat: No such file"):
        read_svhn(tmp_path / "train_32x32.mat")
