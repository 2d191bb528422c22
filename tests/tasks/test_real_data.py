"""The published files themselves, against figures published or counted independently."""

import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.ndimage

from mirrax.tasks import (
    check_family,
    cifar_fs,
    diverse_digits,
    fc100,
    load_images,
    mini_imagenet,
    missing,
    omniglot,
    rotated_mnist,
    verify,
)

pytestmark = pytest.mark.needs_data


def need(real_data, name):
    """Skips, in sight, a set that this machine does not have."""
    lines = missing(real_data, [name])
    if lines:
        pytest.skip(lines[name])


def test_mnist(real_data):
    task = load_images("mnist", real_data)
    assert task.train_images.shape == (60_000, 28, 28, 1)
    assert task.test_images.shape == (10_000, 28, 28, 1)
    assert abs(task.train_images.mean() / 255 - 0.1307) < 5e-5
    assert abs(task.train_images.std() / 255 - 0.3081) < 5e-5
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(task.train_labels).tolist() == counts
    assert task.train_labels[:5].tolist() == [5, 0, 4, 1, 9]


def test_fashion_mnist(real_data):
    need(real_data, "fashion-mnist")
    task = load_images("fashion-mnist", real_data)
    assert abs(task.train_images.mean() / 255 - 0.28604) < 5e-6
    assert abs(task.train_images.std() / 255 - 0.35302) < 5e-6
    assert np.bincount(task.train_labels).tolist() == [6000] * 10
    assert np.bincount(task.test_labels).tolist() == [1000] * 10


def test_kmnist(real_data):
    need(real_data, "kmnist")
    task = load_images("kmnist", real_data)
    counts = np.bincount(task.train_labels), np.bincount(task.test_labels)
    if task.note:
        assert [set(part) for part in counts] == [{800}, {200}]
    else:
        assert [set(part) for part in counts] == [{6000}, {1000}]


def test_usps(real_data):
    need(real_data, "usps")
    task = load_images("usps", real_data)
    train = [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644]
    test = [359, 264, 198, 166, 200, 160, 170, 147, 166, 177]
    assert np.bincount(task.train_labels).tolist() == train
    assert np.bincount(task.test_labels).tolist() == test
    assert task.train_images.min() == 0 and task.train_images.max() == 1


def test_cifar10(real_data):
    """Published means: .4914 .4822 .4465 of all training images, .4942 .4851 .4504 of the test."""
    need(real_data, "cifar-10")
    task = load_images("cifar-10", real_data)
    assert np.bincount(task.test_labels).tolist() == [1000] * 10
    means = task.test_images.mean(axis=(0, 1, 2)) / 255
    assert np.abs(means - [0.4942, 0.4851, 0.4504]).max() < 1e-4
    counts = set(np.bincount(task.train_labels))
    assert counts == ({1000} if task.note else {5000})
    means = task.train_images.mean(axis=(0, 1, 2)) / 255
    # A mean of 10,000 images, whose own means have a deviation of 0.13, is known to 0.0013.
    tolerance = 0.005 if task.note else 1e-4
    assert np.abs(means - [0.4914, 0.4822, 0.4465]).max() < tolerance


FEW_SHOT = ["omniglot", "cifar-100", "mini-imagenet"]


@pytest.mark.parametrize(
    "name", ["mnist", "fashion-mnist", "kmnist", "usps", "cifar-10", *FEW_SHOT]
)
def test_checksums(real_data, name):
    need(real_data, name)
    assert all("matches" in file.evidence for file in verify(name, real_data))


def filed_split(real_data, below: str) -> dict[str, list]:
    """The split as torchmeta's files have it."""
    folder = real_data / "splits" / below
    if not folder.is_dir():
        pytest.skip(f"no splits/{below} in the data folder")
    files = {"train": "train", "validation": "val", "test": "test"}
    return {part: json.loads((folder / f"{name}.json").read_text()) for part, name in files.items()}


def names_of(family) -> dict[str, set[str]]:
    return {p: set(getattr(family, p).class_names) for p in ("train", "validation", "test")}


@pytest.mark.slow
def test_omniglot(real_data):
    need(real_data, "omniglot")
    family = omniglot(real_data)
    filed = {
        part: {
            f"{alphabet}/{character}"
            for alphabets in content.values()
            for alphabet, characters in alphabets.items()
            for character in characters
        }
        for part, content in filed_split(real_data, "omniglot").items()
    }
    assert names_of(family) == filed
    assert family.train.images.shape == (1028, 20, 28, 28, 1)
    # Ink is the rarer of the two; each image has some.
    images = np.concatenate([family.train.images, family.validation.images, family.test.images])
    assert 0.04 < images.mean() / 255 < 0.12
    assert images.reshape(-1, 28 * 28).max(axis=1).min() > 100
    distinct = {image.tobytes() for image in images.reshape(-1, 28 * 28)}
    assert len(distinct) > 32_000  # of 32,460; a few are drawn alike


@pytest.mark.slow
def test_splits_of_cifar(real_data):
    need(real_data, "cifar-100")
    bertinetto, oreshkin = cifar_fs(real_data), fc100(real_data)
    filed = filed_split(real_data, "cifar100/cifar-fs")
    assert names_of(bertinetto) == {
        part: {name for _, name in names} for part, names in filed.items()
    }
    above = {name: superclass for names in filed.values() for superclass, name in names}
    for part, superclasses in filed_split(real_data, "cifar100/fc100").items():
        assert {above[name] for name in names_of(oreshkin)[part]} == set(superclasses)
    images = bertinetto.train.images / 255
    assert images.shape[2:] == (32, 32, 3)
    # The published means of the channels, .5071 .4865 .4409, are of all 100 classes.
    assert np.abs(images.mean(axis=(0, 1, 2, 3)) - [0.507, 0.487, 0.441]).max() < 0.02


@pytest.mark.slow
def test_mini_imagenet(real_data):
    need(real_data, "mini-imagenet")
    family = mini_imagenet(real_data)
    parts = family.train, family.validation, family.test
    assert [len(part.class_names) for part in parts] == [64, 16, 20]
    assert "n01532829" in family.train.class_names and "n01930112" in family.test.class_names
    means = family.train.images.mean(axis=(0, 1, 2, 3), dtype=np.float64) / 255
    # Of all 600 images a class: .47099 .45027 .40530; a sixth of them is within their noise.
    assert np.abs(means - [0.47099, 0.45027, 0.40530]).max() < 0.01


@pytest.mark.parametrize("angle", [15, 45, 75])
def test_rotated_mnist_is_scipys(real_data, angle):
    upright, turned = rotated_mnist(real_data, angles=(0, angle), train=500, test=500)
    images = upright.test_images.astype(np.float64)
    exact = scipy.ndimage.rotate(images, angle, axes=(2, 1), reshape=False, order=1)
    assert np.abs(turned.test_images - exact).max() <= 0.5002
    np.testing.assert_array_equal(upright.train_labels, turned.train_labels)


_MEASURE = """
import pathlib, sys, time
from mirrax.tasks import rotated_mnist
start = time.process_time()
family = rotated_mnist(sys.argv[1])
seconds = time.process_time() - start
assert [len(task.train_images) for task in family] == [60_000] * 6
status = pathlib.Path("/proc/self/status").read_text()
print(seconds, status.partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_six_complete_rotations_are_quick_and_small(real_data):
    """In a fresh process: at most four seconds of one core a rotation, and 1.5 GB in all."""
    command = [sys.executable, "-c", _MEASURE, str(real_data)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    seconds, kilobytes = map(float, ran.stdout.split())
    assert seconds < 24 and kilobytes < 1.5e6


def test_diverse_digits(real_data):
    family = check_family(diverse_digits(real_data))
    names = {task.name for task in family}
    assert "mnist" in names and names.isdisjoint(missing(real_data))
    for task in family:
        assert task.image_shape == (28, 28, 1)
        assert np.bincount(task.train_labels, minlength=10).min() > 0
        assert 0.1 < task.train_images.mean() * task.scale < 0.6
