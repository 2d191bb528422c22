"""Rotated digits: one split for all domains, SciPy's rotation, every misuse named."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.ndimage
from sklearn.datasets import load_digits

from mirrax._errors import DataError
from mirrax.tasks import ANGLES, check_family, rotated_digits, rotated_mnist


def test_six_domains_of_the_same_images():
    family = check_family(rotated_digits())
    assert [task.name for task in family] == [f"rotated-digits/{angle:g}" for angle in ANGLES]
    for task in family:
        assert task.train_images.shape == (1297, 8, 8, 1) and len(task.test_labels) == 500
        assert task.train_images.dtype == np.float32 and task.scale == 1 / 16
        assert 0 <= task.train_images.min() and task.train_images.max() <= 16.0001
        np.testing.assert_array_equal(task.train_labels, family[0].train_labels)
        np.testing.assert_array_equal(task.test_labels, family[0].test_labels)


def test_train_and_test_share_no_image_and_lose_none():
    (task,) = rotated_digits(angles=(0,))
    digits = load_digits()
    together = np.concatenate([task.train_images, task.test_images]).reshape(-1, 64)
    assert sorted(map(tuple, together)) == sorted(map(tuple, digits.data))
    assert np.bincount(np.concatenate([task.train_labels, task.test_labels])).tolist() == list(
        np.bincount(digits.target)
    )


def test_rotation_is_scipys_image_by_image():
    upright, turned = rotated_digits(angles=(0, 30), test=5)
    for before, after in zip(upright.test_images, turned.test_images, strict=True):
        expected = scipy.ndimage.rotate(before[..., 0], 30, reshape=False, order=1)
        np.testing.assert_allclose(after[..., 0], expected, rtol=0, atol=1e-5)


def test_seeds():
    first, again, other = (rotated_digits(angles=(0,), seed=seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.test_images, again.test_images)
    assert not np.array_equal(first.test_images, other.test_images)


@pytest.mark.parametrize("angles", [(), (0, 0), (0, float("nan")), (30, 30.0), (float("inf"),)])
@pytest.mark.parametrize("family", [rotated_digits, rotated_mnist])
def test_angles(family, angles):
    with pytest.raises(ValueError, match=f"{family.__name__}: angles is"):
        family(angles=angles)


@pytest.mark.parametrize("test", [0, -1, 1797])
def test_size_of_the_test_part(test):
    with pytest.raises(ValueError, match=f"rotated_digits: test is {test}"):
        rotated_digits(test=test)


def test_size_of_rotated_mnist(tmp_path):
    with pytest.raises(ValueError, match="rotated_mnist: train is 0"):
        rotated_mnist(tmp_path, train=0)
    with pytest.raises(DataError, match="MNIST is missing"):
        rotated_mnist(tmp_path)


def test_import_is_light():
    """Readers' libraries are imported when a file is read, not with the package."""
    heavy = ("sklearn", "scipy.io", "scipy.ndimage", "h5py", "pooch", "PIL")
    program = f"import sys, mirrax.tasks; print([n for n in {heavy} if n in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", ran.stderr
