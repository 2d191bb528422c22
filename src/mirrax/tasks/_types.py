"""What a classification task is: images, labels, and the factor that brings pixels to `[0, 1]`.

A *family* is a tuple of tasks of equal image shape and class count; a learner that holds one task
out and trains on the others needs nothing else.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from .._errors import DataError


@dataclasses.dataclass(frozen=True)
class ImageTask:
    """One image classification task with a fixed split into training and test images.

    Pixels are kept as published (often one byte each) and scaled where they are used:
    `pixels = images * scale`, in `[0, 1]`. The arrays are checked once, here, and held as
    read-only views, since the domains of a family share labels.

    **Arguments:**

    - `name`: unique within a family, such as `rotated-mnist/45`.
    - `train_images`: `(n, height, width, channels)`, uint8 or float32.
    - `train_labels`: `(n,)`, int32, each in `0 … classes - 1`.
    - `test_images`, `test_labels`: the same for the test part.
    - `classes`: number of classes, at least 2.
    - `scale`: the factor that brings raw pixels to `[0, 1]`.
    - `note`: what a reader of results must know about these data; empty where nothing.

    **Raises:**

    - `DataError`: a shape, type, label or value that cannot be right (see `check`).

    >>> images, labels = np.zeros((4, 8, 8, 1), np.uint8), np.arange(4, dtype=np.int32)
    >>> task = ImageTask("toy", images[:3], labels[:3], images[3:], labels[3:], 4, 1 / 255)
    >>> task.image_shape
    (8, 8, 1)
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: int
    scale: float
    note: str = ""

    def __post_init__(self) -> None:
        for field in ("train_images", "train_labels", "test_images", "test_labels"):
            array = getattr(self, field)
            if not isinstance(array, np.ndarray):
                raise _wrong(self, field, f"is {type(array).__name__}", "pass a numpy array")
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(self, field, view)
        check(self)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        _, height, width, channels = self.train_images.shape
        return height, width, channels

    def validation(self, share: float = 0.2, seed: int = 0) -> "ImageTask":
        """The same task within its training part: a share of it, drawn at random, is the test part.

        Choices made on it never see a test image, which in a family of rotations would be the
        twin of one of the held-out task's.

        **Arguments:**

        - `share`: of the training images, strictly between 0 and 1.
        - `seed`: chooses which; equal seeds choose the same ones in tasks of equal size.

        **Raises:**

        - `ValueError`: if `share` leaves one of the parts without an image.

        >>> images, labels = np.zeros((10, 8, 8, 1), np.uint8), np.zeros(10, np.int32)
        >>> part = ImageTask("toy", images, labels, images, labels, 4, 1 / 255).validation()
        >>> len(part.train_labels), len(part.test_labels)
        (8, 2)
        """
        train, test = kept_apart("ImageTask", len(self.train_labels), share, seed)
        images, labels = self.train_images, self.train_labels
        return dataclasses.replace(
            self,
            train_images=images[train],
            train_labels=labels[train],
            test_images=images[test],
            test_labels=labels[test],
        )


def kept_apart(owner: str, count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the images that stay, and of a share drawn at random, each in order.

    **Arguments:**

    - `owner`: what errors call whoever asks.
    - `count`, `share`, `seed`: how many images there are, and as `ImageTask.validation`.

    >>> kept_apart("ImageTask", 5, 0.4, 0)
    (array([0, 1, 3]), array([2, 4]))
    """
    kept = round(count * share) if 0 < share < 1 else 0
    if not 0 < kept < count:
        raise ValueError(
            f"{owner}.validation.share: expected a share that leaves both parts of {count} "
            f"images some, got {share!r}."
        )
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[kept:]), np.sort(order[:kept])


def check(task: ImageTask) -> None:
    """Checks shapes, types, finite values and labels of a task.

    **Arguments:**

    - `task`: any `ImageTask`; its constructor calls this.

    **Raises:**

    - `DataError`: one line naming task, field, what was found and what is needed.

    >>> images, labels = np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 7], np.int32)
    >>> ImageTask("toy", images, labels, images, labels, 4, 1 / 255)
    Traceback (most recent call last):
        ...
    mirrax._errors.DataError: ImageTask 'toy': train_labels[1] is 7; labels must be in 0 … 3
    """
    if task.classes < 2:
        raise _wrong(task, "classes", f"is {task.classes}", "at least 2 are needed")
    if not (math.isfinite(task.scale) and task.scale > 0):
        raise _wrong(task, "scale", f"is {task.scale}", "it must be positive and finite")
    for part in ("train", "test"):
        _check_images(task, f"{part}_images")
        _check_labels(task, f"{part}_labels", len(getattr(task, f"{part}_images")))
    if task.train_images.shape[1:] != task.test_images.shape[1:]:
        shapes = f"is of {task.test_images.shape[1:]} pixels"
        needed = f"train_images has {task.train_images.shape[1:]}; both parts must agree"
        raise _wrong(task, "test_images", shapes, needed)


def check_family(tasks: Sequence[ImageTask]) -> tuple[ImageTask, ...]:
    """Checks that tasks can be learned together: distinct names, one image shape, one class count.

    **Arguments:**

    - `tasks`: at least one task.

    **Returns:**

    The tasks as a tuple.

    **Raises:**

    - `DataError`: no task at all, a name twice, or a task that differs from the first.

    >>> images, labels = np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 1], np.int32)
    >>> task = ImageTask("toy", images, labels, images, labels, 4, 1 / 255)
    >>> check_family([task, task])
    Traceback (most recent call last):
        ...
    mirrax._errors.DataError: the family has two tasks named 'toy'; give each its own name
    """
    family = tuple(tasks)
    if not family:
        raise DataError("a family needs at least one task; received none")
    names = [task.name for task in family]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"the family has two tasks named {name!r}; give each its own name")
    first = family[0]
    for task in family[1:]:
        if task.image_shape != first.image_shape:
            found = f"is of {task.image_shape} pixels"
            raise _wrong(task, "train_images", found, f"{first.name!r} has {first.image_shape}")
        if task.classes != first.classes:
            raise _wrong(
                task, "classes", f"is {task.classes}", f"{first.name!r} has {first.classes}"
            )
    return family


def _check_images(task: ImageTask, field: str) -> None:
    images = getattr(task, field)
    if images.ndim != 4 or 0 in images.shape:
        found = f"has shape {images.shape}"
        raise _wrong(task, field, found, "(n, height, width, channels) is needed, none of them 0")
    if images.dtype not in (np.uint8, np.float32):
        raise _wrong(task, field, f"is {images.dtype}", "use uint8 or float32")
    # The sum is non-finite if any pixel is, and needs no array of flags; a finite sum of finite
    # float32 cannot overflow in float64.
    if images.dtype == np.float32 and not np.isfinite(images.sum(dtype=np.float64)):
        image = int(np.argwhere(~np.isfinite(images))[0][0])
        raise _wrong(task, field, f"has a non-finite pixel in image {image}", "mend the data")


def _check_labels(task: ImageTask, field: str, count: int) -> None:
    labels = getattr(task, field)
    if labels.shape != (count,):
        raise _wrong(task, field, f"has shape {labels.shape}", f"one label an image: ({count},)")
    if labels.dtype != np.int32:
        raise _wrong(task, field, f"is {labels.dtype}", "use int32")
    outside = np.flatnonzero((labels < 0) | (labels >= task.classes))
    if outside.size:
        index = int(outside[0])
        needed = f"labels must be in 0 … {task.classes - 1}"
        raise _wrong(task, f"{field}[{index}]", f"is {int(labels[index])}", needed)


def _wrong(task: ImageTask, field: str, found: str, needed: str) -> DataError:
    return DataError(f"ImageTask {task.name!r}: {field} {found}; {needed}")
