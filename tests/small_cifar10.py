"""A small CIFAR-10 in exactly the published binary form, for tests of its reader and its users."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mirrax.tasks import SOURCES

TRAIN, TEST = 160, 20

Part = tuple[np.ndarray, np.ndarray]


def expect_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of data sets that expects so few images, and no checksums."""
    source = SOURCES["cifar-10"]
    editions = tuple(
        dataclasses.replace(
            edition,
            files=tuple(
                dataclasses.replace(file, size=None, md5=None, sha256=None)
                for file in edition.files
            ),
            train=TRAIN,
            test=TEST,
        )
        for edition in source.editions
    )
    monkeypatch.setitem(SOURCES, "cifar-10", dataclasses.replace(source, editions=editions))


def images_of(count: int, seed: int) -> Part:
    """Noise with a tint of its own for each class; classes in equal shares, in any order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % 10)
    tints = np.random.default_rng(9).integers(0, 200, (10, 1, 1, 3))
    noise = rng.integers(0, 56, (count, 32, 32, 3))
    return (tints[labels] + noise).astype(np.uint8), labels


def small_parts() -> dict[str, Part]:
    return {"train": images_of(TRAIN, 0), "test": images_of(TEST, 1)}


def records(images: np.ndarray, labels: np.ndarray) -> bytes:
    """The class, then 1,024 bytes each of red, green and blue, a record an image."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.column_stack([labels, planes]).astype(np.uint8).tobytes()


def batches(parts: dict[str, Part]) -> dict[str, bytes]:
    """Five files of training images and one of test images, by their published names."""
    train, size = parts["train"], TRAIN // 5
    cut = [slice(i * size, (i + 1) * size) for i in range(5)]
    files = {
        f"data_batch_{i + 1}.bin": records(train[0][rows], train[1][rows])
        for i, rows in enumerate(cut)
    }
    return files | {"test_batch.bin": records(*parts["test"])}


def write_batches(folder: Path) -> Path:
    """Writes the files below a data folder."""
    below = folder / "cifar-10" / "cifar-10-batches-bin"
    below.mkdir(parents=True)
    for name, data in batches(small_parts()).items():
        (below / name).write_bytes(data)
    return folder
