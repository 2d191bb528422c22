"""DiverseDigits, S000's six data sets of ten classes, as 28×28 grey images (S000 §5.2).

MNIST, QMNIST, KMNIST, FashionMNIST, USPS and SVHN. Colour becomes grey (ITU-R BT.601 luma) at the
published size, then the image is resized to 28×28 with the triangle filter; USPS grows from 16×16,
SVHN shrinks from 32×32. Every image ends as bytes.
"""

from collections.abc import Iterable

import numpy as np

from .._errors import DataError
from ._load import load_images
from ._resample import resize, to_bytes, to_grey
from ._sources import Folder, data_folder, find_source, missing_line
from ._types import ImageTask, check_family

DIVERSE_DIGITS = ("mnist", "qmnist", "kmnist", "fashion-mnist", "usps", "svhn")
"""The data sets of S000's DiverseDigits, in its order."""

_SIDE = 28


def diverse_digits(
    folder: Folder = None, *, names: Iterable[str] | None = None
) -> tuple[ImageTask, ...]:
    """DiverseDigits: those of the six data sets that are present, as 28×28 grey.

    `missing(folder, DIVERSE_DIGITS)` says which are absent, what files they need and who publishes
    them; a data set that is there but damaged is an error, never skipped.

    **Arguments:**

    - `folder`: the folder of data sets; the environment variable `MIRRAX_DATA` by default.
    - `names`: the data sets to use, all of which must be present; by default those that are.

    **Returns:**

    One `ImageTask` a data set, in S000's order or that of `names`: images `(n, 28, 28, 1)`, uint8,
    scale 1/255, 10 classes. KMNIST from its test part alone says so in its `note`.

    **Raises:**

    - `ValueError`: `names` is empty, or names a data set that is not of the collection.
    - `DataError`: as `load_images`; or none of the six is present.

    >>> diverse_digits(".", names=["omniglot"])
    Traceback (most recent call last):
        ...
    ValueError: diverse_digits: names has 'omniglot'; its data sets are mnist, qmnist, ...
    """
    chosen = _present(folder) if names is None else _checked(tuple(names))
    return check_family([_grey28(load_images(name, folder)) for name in chosen])


def _present(folder: Folder) -> tuple[str, ...]:
    # Not by `missing`, for which a folder that cannot be read is one more line.
    root, sources = data_folder(folder), map(find_source, DIVERSE_DIGITS)
    absent = [source.name for source in sources if missing_line(source, root)]
    if len(absent) == len(DIVERSE_DIGITS):
        sites = "; ".join(f"{find_source(name).title}: {find_source(name).site}" for name in absent)
        raise DataError(
            f"none of the DiverseDigits data sets is in {root}; `mirrax data` lists"
            f" the files each needs. Published at {sites}"
        )
    return tuple(name for name in DIVERSE_DIGITS if name not in absent)


def _checked(names: tuple[str, ...]) -> tuple[str, ...]:
    known = ", ".join(DIVERSE_DIGITS)
    if not names:
        raise ValueError(f"diverse_digits: names is empty; name some of {known}")
    for name in names:
        if name not in DIVERSE_DIGITS:
            raise ValueError(f"diverse_digits: names has {name!r}; its data sets are {known}")
    return names


def _grey28(task: ImageTask) -> ImageTask:
    train, test = (
        _to_grey28(images, task.scale) for images in (task.train_images, task.test_images)
    )
    labels = task.train_labels, task.test_labels
    return ImageTask(task.name, train, labels[0], test, labels[1], task.classes, 1 / 255, task.note)


def _to_grey28(images: np.ndarray, scale: float) -> np.ndarray:
    if images.shape[-1] == 3:
        images = to_grey(images)
    if images.shape[1:3] == (_SIDE, _SIDE):
        return images
    return to_bytes(resize(images, _SIDE, _SIDE) * np.float32(scale))
