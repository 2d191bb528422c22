"""Families of few-shot tasks: disjoint sets of classes to meta-train, validate and test on.

A family is `(𝒞_train, 𝒞_validation, 𝒞_test)` with no class in two of them, so that a test episode
shows classes that meta-training never saw (Ravi and Larochelle 2017, §2).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from .._errors import DataError
from ._episodes import Episodes, check_episodes


@dataclasses.dataclass(frozen=True)
class ImageClasses:
    """Images filed by class, on the host.

    Pixels are kept as bytes and scaled where they are used: `pixels = images * scale`.

    **Arguments:**

    - `name`: such as `omniglot/train`.
    - `class_names`: one a class, distinct.
    - `images`: `(classes, per_class, height, width, channels)`, uint8; held as a read-only view.
    - `counts`: `(classes,)`, int32: images each class really has; what follows is padding.
    - `scale`: the factor that brings raw pixels to `[0, 1]`.

    **Raises:**

    - `DataError`: no class, an empty class, a name twice, or arrays that do not belong together.

    >>> images, counts = np.zeros((2, 3, 8, 8, 1), np.uint8), np.array([3, 2], np.int32)
    >>> ImageClasses("toy", ("a", "b"), images, counts, 1 / 255).image_shape
    (8, 8, 1)
    """

    name: str
    class_names: tuple[str, ...]
    images: np.ndarray
    counts: np.ndarray
    scale: float

    def __post_init__(self) -> None:
        for field in ("images", "counts"):
            view = np.asarray(getattr(self, field)).view()
            view.flags.writeable = False
            object.__setattr__(self, field, view)
        _check(self)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        height, width, channels = self.images.shape[2:]
        return height, width, channels

    def episodes(self, way: int, shot: int, query: int, rotations: bool = False) -> Episodes:
        """Puts the images on the device, ready to draw episodes from.

        **Arguments:**

        - `way`, `shot`, `query`: classes, support images a class and query images a class.
        - `rotations`: whether each quarter turn of a class is a class of its own.

        **Returns:**

        An `Episodes`.

        **Raises:**

        - `ConfigError`: as `Episodes`; a class with too few images is named.

        >>> images, counts = np.zeros((2, 3, 8, 8, 1), np.uint8), np.array([3, 2], np.int32)
        >>> toy = ImageClasses("toy", ("a", "b"), images, counts, 1 / 255)
        >>> toy.episodes(way=2, shot=1, query=2)
        Traceback (most recent call last):
            ...
        mirrax._errors.ConfigError: episodes of 1 shots and 2 queries need 3 images a class, and...
        """
        size = self.image_shape[:2]
        check_episodes(self.counts, size, way, shot, query, rotations, self.class_names)
        images, counts = jnp.asarray(self.images), jnp.asarray(self.counts)
        return Episodes(images, counts, way, shot, query, self.scale, rotations)


@dataclasses.dataclass(frozen=True)
class FewShotFamily:
    """Classes to meta-train on, to choose hyper-parameters on, and to test on.

    **Arguments:**

    - `name`: such as `omniglot`.
    - `train`, `validation`, `test`: `ImageClasses` of one image shape and scale, without a common
        class.
    - `note`: what a reader of results must know about these data; empty where nothing.

    **Raises:**

    - `DataError`: a class in two of them, or other image shapes or scales.

    >>> images, counts = np.zeros((1, 3, 8, 8, 1), np.uint8), np.array([3], np.int32)
    >>> parts = [ImageClasses(name, (name,), images, counts, 1 / 255) for name in "abc"]
    >>> FewShotFamily("toy", parts[0], parts[1], parts[0])
    Traceback (most recent call last):
        ...
    mirrax._errors.DataError: FewShotFamily 'toy': class 'a' is in train and in test; ...
    """

    name: str
    train: ImageClasses
    validation: ImageClasses
    test: ImageClasses
    note: str = ""

    def __post_init__(self) -> None:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        check_disjoint(
            f"FewShotFamily {self.name!r}",
            {part: classes.class_names for part, classes in parts.items()},
        )
        needed = self.train.image_shape, self.train.scale
        for part, classes in parts.items():
            if (classes.image_shape, classes.scale) != needed:
                raise DataError(
                    f"FewShotFamily {self.name!r}: train has images of shape and scale {needed},"
                    f" {part} {(classes.image_shape, classes.scale)}; all parts must agree"
                )

    def episodes(
        self, way: int, shot: int, query: int, test_query: int, rotations: bool = False
    ) -> tuple[Episodes, Episodes, Episodes]:
        """Puts all images on the device once, and draws from each part.

        The parts share their images, and validation and test whatever is compiled for them.

        **Arguments:**

        - `way`, `shot`: classes, and support images a class.
        - `query`, `test_query`: query images a class in meta-training, and after it.
        - `rotations`: whether each quarter turn of a class is a class of its own in meta-training.

        **Returns:**

        Episodes to meta-train, to validate and to test on.

        **Raises:**

        - `ConfigError`: as `Episodes`; a class with too few images is named.

        >>> images, counts = np.zeros((1, 3, 8, 8, 1), np.uint8), np.array([3], np.int32)
        >>> parts = [ImageClasses(name, (name,), images, counts, 1 / 255) for name in "abc"]
        >>> train, _, test = FewShotFamily("toy", *parts).episodes(1, 1, 2, 1)
        >>> train.query, test.query, test.allowed.tolist()
        (2, 1, [False, False, True])
        """
        parts = (self.train, self.validation, self.test)
        wanted = ((query, rotations), (test_query, False), (test_query, False))
        for part, (queries, turned) in zip(parts, wanted, strict=True):
            size, names = part.image_shape[:2], part.class_names
            check_episodes(part.counts, size, way, shot, queries, turned, names)
        room = max(part.images.shape[1] for part in parts)
        images = jnp.asarray(np.concatenate([_padded(part.images, room) for part in parts]))
        counts = jnp.asarray(np.concatenate([part.counts for part in parts]))
        owner = np.repeat(np.arange(len(parts)), [len(part.counts) for part in parts])
        train, validation, test = (
            Episodes(
                images, counts, way, shot, queries, part.scale, turned, jnp.asarray(owner == i)
            )
            for i, (part, (queries, turned)) in enumerate(zip(parts, wanted, strict=True))
        )
        return train, validation, test


def check_disjoint(what: str, split: Mapping[str, Sequence[str]]) -> None:
    """Checks that no class is in two parts of a split, or twice in one.

    **Arguments:**

    - `what`: what errors call the split.
    - `split`: part to names of classes.

    **Raises:**

    - `DataError`: naming the class and both parts.
    """
    part_of: dict[str, str] = {}
    for part, names in split.items():
        for name in names:
            if name in part_of:
                raise DataError(
                    f"{what}: class {name!r} is in {part_of[name]} and in {part}; a class may be in"
                    " one part only"
                )
            part_of[name] = part


def _padded(images: np.ndarray, room: int) -> np.ndarray:
    """Images with room for so many a class."""
    missing = room - images.shape[1]
    return np.pad(images, ((0, 0), (0, missing), *[(0, 0)] * 3)) if missing else images


def _check(classes: ImageClasses) -> None:
    images, counts, names = classes.images, classes.counts, classes.class_names
    if images.ndim != 5 or images.dtype != np.uint8:
        found = f"images is {images.dtype} of shape {images.shape}"
        needed = "uint8 of shape (classes, per_class, height, width, channels) is needed"
        raise _wrong(classes, found, needed)
    if not names:
        raise _wrong(classes, "it has no class", "give it at least one")
    if counts.shape != (len(names),) or counts.dtype != np.int32 or len(images) != len(names):
        found = f"{len(names)} names, images of {len(images)} classes, counts {counts.dtype}"
        needed = "names, images and int32 counts of the same classes are needed"
        raise _wrong(classes, f"{found} of shape {counts.shape}", needed)
    if 0 in images.shape[2:]:
        raise _wrong(classes, f"images are of shape {images.shape[2:]}", "pixels are needed")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise _wrong(classes, f"class {twice!r} is there twice", "names must be distinct")
    for name, count in zip(names, counts, strict=True):
        if not 0 < count <= images.shape[1]:
            state = "is empty" if count == 0 else f"counts {count} images"
            needed = f"1 … {images.shape[1]} images are needed"
            raise _wrong(classes, f"class {name!r} {state}", needed)
    if not (math.isfinite(classes.scale) and classes.scale > 0):
        raise _wrong(classes, f"scale is {classes.scale}", "it must be positive and finite")


def _wrong(classes: ImageClasses, found: str, needed: str) -> DataError:
    return DataError(f"ImageClasses {classes.name!r}: {found}; {needed}")
