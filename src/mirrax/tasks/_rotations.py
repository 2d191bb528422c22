"""Families whose tasks differ by a rotation of the same images.

S000 §5.2 makes six domains of MNIST by rotating it by 0, 15, …, 75 degrees and holds each out in
turn. `rotated_mnist` does that with the complete set; `rotated_digits` does it in small with the
handwritten digits that scikit-learn carries, so it needs no download.
"""

import math

import numpy as np

from .._errors import DataError
from ._load import load_images
from ._resample import rotate
from ._sources import Folder
from ._types import ImageTask

ANGLES = (0.0, 15.0, 30.0, 45.0, 60.0, 75.0)
"""The six rotations of S000 §5.2, in degrees."""


def rotated_digits(
    *, angles: tuple[float | int, ...] = ANGLES, test: int = 500, seed: int = 0
) -> tuple[ImageTask, ...]:
    """The 1,797 real handwritten 8×8 digits of scikit-learn, once for each rotation.

    Every domain holds the same images in the same split, so that domains differ by their rotation
    alone. Rotation is bilinear about the centre, zero outside (`scipy.ndimage.rotate`).

    **Arguments:**

    - `angles`: degrees, one task each.
    - `test`: how many images are kept for testing, 1 … 1,796.
    - `seed`: chooses which.

    **Returns:**

    One `ImageTask` an angle, named `rotated-digits/45`: images `(1797 - test, 8, 8, 1)` and
    `(test, 8, 8, 1)`, float32 in `[0, 16]`, scale 1/16, 10 classes.

    **Raises:**

    - `ValueError`: no angle, one twice or not finite; `test` out of range.

    >>> tasks = rotated_digits(angles=(0, 45))
    >>> [task.name for task in tasks], tasks[1].train_images.shape
    (['rotated-digits/0', 'rotated-digits/45'], (1297, 8, 8, 1))
    """
    _check_angles("rotated_digits", angles)
    import scipy.ndimage
    import sklearn.datasets

    pixels, digits = sklearn.datasets.load_digits(return_X_y=True)
    images, labels = np.reshape(pixels, (-1, 8, 8)), np.asarray(digits, np.int32)
    if not 1 <= test < len(images):
        raise ValueError(f"rotated_digits: test is {test}; 1 … {len(images) - 1} is needed")
    order = np.random.default_rng(seed).permutation(len(images))
    for_train, for_test = np.sort(order[test:]), np.sort(order[:test])
    tasks = []
    for angle in angles:
        turned = scipy.ndimage.rotate(images, angle, axes=(2, 1), reshape=False, order=1)
        turned = turned[..., None].astype(np.float32)
        train_part = turned[for_train], labels[for_train]
        test_part = turned[for_test], labels[for_test]
        tasks.append(ImageTask(f"rotated-digits/{angle:g}", *train_part, *test_part, 10, 1 / 16))
    return tuple(tasks)


def rotated_mnist(
    folder: Folder = None,
    *,
    angles: tuple[float | int, ...] = ANGLES,
    train: int | None = None,
    test: int | None = None,
) -> tuple[ImageTask, ...]:
    """MNIST, complete by default, once for each rotation (S000 §5.2).

    Only the asked-for rotations are built, each of 55 MB: ask for the domains of one experiment.

    **Arguments:**

    - `folder`: the folder of data sets; the environment variable `MIRRAX_DATA` by default.
    - `angles`: degrees, one task each.
    - `train`, `test`: use only the first so many images of a part.

    **Returns:**

    One `ImageTask` an angle, named `rotated-mnist/45`: images `(60000, 28, 28, 1)` and
    `(10000, 28, 28, 1)`, uint8, scale 1/255, 10 classes.

    **Raises:**

    - `ValueError`: no angle, one twice or not finite; a number of images below 1.
    - `DataError`: as `load_images`, or more images asked for than there are.

    >>> rotated_mnist("nowhere", angles=(45,))
    Traceback (most recent call last):
        ...
    mirrax._errors.DataError: data folder nowhere does not exist; ...
    """
    _check_angles("rotated_mnist", angles)
    for field, count in (("train", train), ("test", test)):
        if count is not None and count < 1:
            raise ValueError(f"rotated_mnist: {field} is {count}; at least 1, or None, is needed")
    mnist = load_images("mnist", folder)
    train_images = _first(mnist.train_images, train, "train")
    test_images = _first(mnist.test_images, test, "test")
    train_labels, test_labels = mnist.train_labels[:train], mnist.test_labels[:test]
    return tuple(
        ImageTask(
            f"rotated-mnist/{angle:g}",
            train_images if angle == 0 else rotate(train_images, angle),
            train_labels,
            test_images if angle == 0 else rotate(test_images, angle),
            test_labels,
            mnist.classes,
            mnist.scale,
        )
        for angle in angles
    )


def _first(images: np.ndarray, count: int | None, field: str) -> np.ndarray:
    if count is not None and count > len(images):
        raise DataError(
            f"rotated_mnist: {field} is {count:,}, but MNIST has {len(images):,} such images; ask"
            " for fewer"
        )
    return images[:count]


def _check_angles(where: str, angles: tuple[float | int, ...]) -> None:
    valid = len(angles) > 0 and all(math.isfinite(angle) for angle in angles)
    if not valid or len({f"{angle:g}" for angle in angles}) < len(angles):
        raise ValueError(
            f"{where}: angles is {angles!r}; one or more distinct, finite degrees are needed"
        )
