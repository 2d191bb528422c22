"""CIFAR-10 from small files in the published forms, refusals, and the small tasks made of it."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from families import refused

from mirrax._errors import DataError
from mirrax.tasks import check_family, cifar10_subsets, load_images, missing
from mirrax.tasks._subsets import deal
from published import image_bytes, write_filed
from small_cifar10 import TEST, TRAIN, batches, expect_small, small_parts

NAMES = ["airplane", "automobile", "bird", "cat", "deer"]
NAMES += ["dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    expect_small(monkeypatch)
    return tmp_path


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    """Batches in a gzipped tar, below `cifar-10-batches-bin/`, beside a file of another kind."""
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, data in {"batches.meta.txt": b"airplane\n", **files}.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def by_class(part: str) -> dict[str, bytes]:
    images, labels = small_parts()[part]
    return {
        f"{part}/{NAMES[label]}/{number:04}.png": image_bytes(image)
        for number, (image, label) in enumerate(zip(images, labels, strict=True))
    }


def write(folder: Path, layout: str) -> None:
    if layout == "tar":
        write_tar(folder / "cifar-10/cifar-10-binary.tar.gz", batches(small_parts()))
    elif layout == "bin":
        write_filed(folder / "cifar-10-batches-bin", batches(small_parts()))
    elif layout == "folders":
        write_filed(folder / "cifar-10", by_class("train") | by_class("test"))
    else:
        for part, name in (("train", "train_subset1000perclass"), ("test", "test")):
            write_filed(folder / f"cifar-10/cifar-10_{name}_png_stored.zip", by_class(part))


@pytest.mark.parametrize("layout", ["tar", "bin"])
def test_binary_form(small, layout):
    write(small, layout)
    task, parts = load_images("cifar-10", small), small_parts()
    assert (task.name, task.classes, task.scale, task.note) == ("cifar-10", 10, 1 / 255, "")
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(task, f"{part}_images"), parts[part][0])
        np.testing.assert_array_equal(getattr(task, f"{part}_labels"), parts[part][1])


@pytest.mark.parametrize("layout", ["folders", "zips"])
def test_images_filed_by_class(small, layout):
    """All images with their labels, mixed, in the same order at every call."""
    write(small, layout)
    task, parts = load_images("cifar-10", small), small_parts()
    for part in ("train", "test"):
        labels = getattr(task, f"{part}_labels")
        known = {image.tobytes(): label for image, label in zip(*parts[part], strict=True)}
        found = [image.tobytes() for image in getattr(task, f"{part}_images")]
        assert set(found) == set(known) and [known[image] for image in found] == labels.tolist()
    assert len(set(task.train_labels[:40].tolist())) == 10
    np.testing.assert_array_equal(task.train_images, load_images("cifar-10", small).train_images)
    assert ("accuracies are not those of the published set" in task.note) == (layout == "zips")


@pytest.mark.parametrize("layout", ["tar", "bin"])
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (slice(3073, 3074), b"\x0a", "label 33 of the train part of CIFAR-10 is 10; 0 … 9 are"),
        (slice(-1, None), b"", "data_batch_2.bin.* is cut short"),
        (slice(0, 0), b"x", "data_batch_2.bin.*: more bytes follow"),
    ],
)
def test_records_that_cannot_be_right(small, layout, place, value, message):
    files = batches(small_parts())
    changed = bytearray(files["data_batch_2.bin"])
    changed[place] = value
    files["data_batch_2.bin"] = bytes(changed)
    if layout == "tar":
        write_tar(small / "cifar-10/cifar-10-binary.tar.gz", files)
    else:
        write_filed(small / "cifar-10", files)
    with pytest.raises(DataError, match=message) as raised:
        load_images("cifar-10", small)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("train/ship/", None), "train lacks class 'ship'. Get it again"),
        (("train/shop/1.png", "train/ship/"), "train has no business with class 'shop'"),
        (("train/truck/new.png", "train/ship/"), "class 'truck' has 17 images, and 16 are"),
    ],
)
def test_classes_that_cannot_be_right(small, change, message):
    name, like = change
    files = by_class("train")
    if like is None:
        files = {key: data for key, data in files.items() if not key.startswith(name)}
    else:
        files[name] = next(data for key, data in files.items() if key.startswith(like))
    write_filed(small / "cifar-10", files | by_class("test"))
    assert message in refused(load_images, "cifar-10", small)


def test_a_tar_without_a_batch(small):
    files = batches(small_parts())
    del files["data_batch_4.bin"]
    write_tar(small / "cifar-10/cifar-10-binary.tar.gz", files)
    text = refused(load_images, "cifar-10", small)
    assert "has no file cifar-10-batches-bin/data_batch_4.bin; get it again" in text


def test_what_is_missing_is_said(small):
    line = missing(small, ["cifar-10"])["cifar-10"]
    assert "CIFAR-10 is missing cifar-10-binary.tar.gz (or data_batch_1.bin, " in line
    assert "run `mirrax data cifar-10 --fetch`, or get it from https://www.cs.toronto" in line


# Small tasks


def test_subsets_are_disjoint_and_together_all(small):
    write(small, "bin")
    whole, family = load_images("cifar-10", small), check_family(cifar10_subsets(small))
    assert [task.name.rpartition("/")[2] for task in family] == ["1", "2", "3", "4", "rest"]
    assert [len(task.train_labels) for task in family] == [20, 20, 20, 20, 80]
    for task in family:
        shares = np.bincount(task.train_labels, minlength=10)
        assert set(shares) == {len(task.train_labels) // 10}
        np.testing.assert_array_equal(task.test_images, whole.test_images)
    pairs = [
        {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}
        for images, labels in ((task.train_images, task.train_labels) for task in (*family, whole))
    ]
    assert sum(map(len, pairs[:-1])) == TRAIN and set().union(*pairs[:-1]) == pairs[-1]
    assert len(whole.test_labels) == TEST


def test_a_seed_chooses_the_subsets(small):
    write(small, "bin")
    first, again, other = (cifar10_subsets(small, seed=seed)[0].train_images for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_too_few_images_for_subsets(small):
    write(small, "bin")
    task = load_images("cifar-10", small).validation(0.9)
    with pytest.raises(DataError, match="cifar-10 has . training images of class .; at least 8"):
        deal(task, 0)
