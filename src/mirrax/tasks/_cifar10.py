"""The parts of CIFAR-10, from its binary form or from images filed by class (Krizhevsky 2009)."""

import numpy as np

from .._errors import DataError, nearest
from ._cifar_records import pixels_of, read_records
from ._filed import file_by_class, open_images, read_entries
from ._sources import Located

CLASSES = ("airplane", "automobile", "bird", "cat", "deer") + (
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""The ten classes in the order of their labels."""

_BATCHES = 5


def read_cifar10(located: Located, part: str) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of a part.

    Images filed by class are mixed, always in the same way: whoever takes the first so many has
    some of every class, as in the binary form.

    **Arguments:**

    - `located`: the verified files.
    - `part`: `train` or `test`.

    **Returns:**

    Images `(n, 32, 32, 3)`, uint8, and labels `(n,)`, int32.

    **Raises:**

    - `DataError`: damaged files, another number of records, a class that is missing, unknown or of
        another number of images.
    """
    count = located.edition.train if part == "train" else located.edition.test
    if located.edition.reader == "cifar_binary":
        return _from_records(located, part, count)
    return _from_images(located, part, count // len(CLASSES))


def _from_records(located: Located, part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    names = {"test": "test_batch"}
    if part == "train":
        names = {f"train_{i}": f"data_batch_{i}" for i in range(1, _BATCHES + 1)}
    size = count // len(names)
    files = [(role, f"cifar-10-batches-bin/{name}.bin", size) for role, name in names.items()]
    read = read_records(located, files, 1)
    records = np.concatenate([found for found, _ in read])
    return np.ascontiguousarray(pixels_of(records, 1)), records[:, 0].astype(np.int32)


def _from_images(located: Located, part: str, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    path = located.paths[part]
    with open_images(path) as filed:
        entries = file_by_class([filed])
        for name in sorted({*CLASSES} ^ entries.keys()):
            problem = "lacks class" if name in CLASSES else "has no business with class"
            hint = "" if name in CLASSES else nearest(name, CLASSES)
            raise DataError(f"{path} {problem} {name!r}.{hint} Get it again")
        for name, images in entries.items():
            if len(images) != per_class:
                raise DataError(
                    f"{path}: class {name!r} has {len(images)} images, and {per_class} are"
                    " published; get it again"
                )
        shape = located.source.image_shape
        images = np.concatenate([read_entries(entries[name], shape) for name in CLASSES])
    order = np.random.default_rng(0).permutation(len(images))
    return images[order], np.repeat(np.arange(len(CLASSES), dtype=np.int32), per_class)[order]
