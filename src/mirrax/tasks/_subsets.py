"""Small tasks out of a large one: disjoint parts of its training images, and the rest of them.

S000 §5.3 learns a geometry on small data sets (STL-10 and DiverseDigits) and trains a network on
CIFAR-10 with it. Here the small sets are parts of CIFAR-10 itself: half of its training images make
four small tasks, and the other half is the large one, of which meta-training sees nothing.
"""

import dataclasses

import numpy as np

from .._errors import DataError
from ._load import load_images
from ._sources import Folder
from ._types import ImageTask

_SMALL, _SHARE = 4, 8
"""So many small tasks, each with one of so many shares of the training images."""


def cifar10_subsets(folder: Folder = None, *, seed: int = 0) -> tuple[ImageTask, ...]:
    """Four small tasks of an eighth of CIFAR-10's training images each, and one of the other half.

    Parts are disjoint, and classes have equal shares in each. All have the published test images.

    **Arguments:**

    - `folder`: the folder of data sets; the environment variable `MIRRAX_DATA` by default.
    - `seed`: chooses which image is in which part.

    **Returns:**

    `ImageTask`s named `cifar-10/1` to `cifar-10/4`, with 6,250 training images each of the complete
    set's 50,000, and `cifar-10/rest` with the others.

    **Raises:**

    - `DataError`: as `load_images`, or fewer than eight training images of a class.

    >>> cifar10_subsets("nowhere")
    Traceback (most recent call last):
        ...
    mirrax._errors.DataError: data folder nowhere does not exist; ...
    """
    return deal(load_images("cifar-10", folder), seed)


def deal(task: ImageTask, seed: int) -> tuple[ImageTask, ...]:
    """As `cifar10_subsets`, of any task."""
    part = np.full(len(task.train_labels), _SMALL)
    rng = np.random.default_rng(seed)
    for label in range(task.classes):
        rows = rng.permutation(np.flatnonzero(task.train_labels == label))
        size = len(rows) // _SHARE
        if not size:
            raise DataError(
                f"{task.name} has {len(rows)} training images of class {label}; at least {_SHARE}"
                " are needed for small tasks"
            )
        part[rows[: _SMALL * size]] = np.repeat(np.arange(_SMALL), size)
    names = [*map(str, range(1, _SMALL + 1)), "rest"]
    return tuple(
        dataclasses.replace(
            task,
            name=f"{task.name}/{name}",
            train_images=task.train_images[part == i],
            train_labels=task.train_labels[part == i],
        )
        for i, name in enumerate(names)
    )
