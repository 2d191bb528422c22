"""From the published files of a data set to an `ImageTask`: verify, read, count.

Nothing is resized or recoloured here: images come at the size they were published in.
"""

from pathlib import Path

import numpy as np

from .._errors import DataError
from ._cifar10 import read_cifar10
from ._editions import Edition
from ._idx import read_idx
from ._sources import Folder, Located, find_source, locate, verify_located
from ._svhn import read_svhn
from ._types import ImageTask
from ._usps import read_usps_h5, read_usps_text

_Part = tuple[np.ndarray, np.ndarray]


def load_images(name: str, folder: Folder = None) -> ImageTask:
    """Loads a data set from its published files, after verifying them.

    **Arguments:**

    - `name`: `mnist`, `qmnist`, `kmnist`, `fashion-mnist`, `usps`, `svhn` or `cifar-10`.
    - `folder`: the folder of data sets; the environment variable `MIRRAX_DATA` by default.

    **Returns:**

    An `ImageTask` named `name` with the images as published: uint8 with scale 1/255, or float32
    with scale 1 (USPS). Where only a test part is there (KMNIST), it is split in a fixed way, the
    classes in equal shares, and the task's `note` says so, as it does of a part of CIFAR-10.

    **Raises:**

    - `DataError`: one line for an unknown name, a set of episodes or one that is streamed, missing
        or unreadable files, another checksum, another format, or counts, shapes and labels other
        than published.

    >>> load_images("mnist", "nowhere")
    Traceback (most recent call last):
        ...
    mirrax._errors.DataError: data folder nowhere does not exist; ...
    """
    if any(edition.per_class for edition in find_source(name).editions):
        raise DataError(
            f"{find_source(name).title} is read in episodes, not as one task; use"
            " mirrax.tasks.omniglot, cifar_fs, fc100 or mini_imagenet"
        )
    if find_source(name).streamed:
        raise DataError(
            f"{find_source(name).title} is too large to be loaded; use mirrax.tasks.imagenet, which"
            " reads it batch by batch"
        )
    located = locate(name, folder)
    source, edition = located.source, located.edition
    verify_located(located)
    test = _read(located, "test")
    _check_part(located, "test", test, edition.test)
    if edition.split:
        train, test = _split(test, edition.split, source.classes)
        note = _split_note(source.title, edition, source.classes)
    else:
        train, note = _read(located, "train"), edition.note
        _check_part(located, "train", train, edition.train)
    scale = 1 / 255 if train[0].dtype == np.uint8 else 1.0
    return ImageTask(source.name, *train, *test, source.classes, scale, note)


def _read(located: Located, part: str) -> _Part:
    paths = located.paths
    if located.edition.reader == "usps_text":
        return read_usps_text(paths[part])
    if located.edition.reader == "usps_h5":
        return read_usps_h5(paths["all"], part)
    if located.edition.reader == "svhn":
        return read_svhn(paths[part])
    if located.edition.reader in ("cifar_binary", "folders"):
        return read_cifar10(located, part)
    return _read_idx_pair(paths[f"{part}_images"], paths[f"{part}_labels"])


def _read_idx_pair(images_path: Path, labels_path: Path) -> _Part:
    images = read_idx(images_path, rank=3)
    # QMNIST's labels carry eight numbers an image (class, NIST series, writer, …), the class first.
    wide = "idx2" in labels_path.name
    labels = read_idx(labels_path, rank=2 if wide else 1)
    if images.dtype != np.uint8 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{images_path} holds {images.dtype} and {labels_path.name} {labels.dtype}; bytes and"
            " integers are needed"
        )
    return images[..., None], (labels[:, 0] if wide else labels).astype(np.int32)


def _check_part(located: Located, part: str, data: _Part, count: int) -> None:
    """Refuses what a file without a published checksum could get wrong."""
    (images, labels), source = data, located.source
    own = (path for role, path in located.paths.items() if role.startswith(part))
    path = located.paths.get("all") or next(own)
    found, needed = (images.shape, labels.shape), ((count, *source.image_shape), (count,))
    if found != needed:
        raise DataError(
            f"{path}: the {part} part of {source.title} has images {found[0]} and labels"
            f" {found[1]}; {needed[0]} and {needed[1]} are published; get it again from"
            f" {source.site}"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= source.classes))
    if wrong.size:
        index = int(wrong[0])
        raise DataError(
            f"{path}: label {index:,} of the {part} part of {source.title} is {labels[index]};"
            f" 0 … {source.classes - 1} are published; get it again from {source.site}"
        )


def _split(data: _Part, test: int, classes: int) -> tuple[_Part, _Part]:
    """Keeps `test / classes` images of each class for testing, the same ones at every call."""
    images, labels = data
    order = np.random.default_rng(0).permutation(len(labels))
    chosen = [order[labels[order] == label][: test // classes] for label in range(classes)]
    for_test = np.zeros(len(labels), bool)
    for_test[np.concatenate(chosen)] = True
    return (images[~for_test], labels[~for_test]), (images[for_test], labels[for_test])


def _split_note(title: str, edition: Edition, classes: int) -> str:
    rest = edition.test - edition.split
    return (
        f"{title}: only the published test part is present; its {edition.test:,} images are split"
        f" into {rest:,} for training and {edition.split:,} for testing"
        f" ({edition.split // classes} a class), so accuracies are not those of the published split"
    )
