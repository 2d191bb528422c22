"""Families of few-shot tasks: disjoint sets of classes to meta-train, validate and test on.

A family is `(𝒞_train, 𝒞_validation, 𝒞_test)` with no class in two of them, so that a test episode
shows classes that meta-training never saw (Vinyals et al. 2016, §4; Ravi and Larochelle 2017, §2).
"""

import dataclasses
import itertools
import math

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
        # The fields' converters move the arrays.
        return Episodes(
            self.images,  # pyright: ignore[reportArgumentType]
            self.counts,  # pyright: ignore[reportArgumentType]
            way,
            shot,
            query,
            self.scale,
            rotations,
        )


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
        for (first, one), (second, other) in itertools.combinations(parts.items(), 2):
            taken = set(one.class_names)
            twice = next((name for name in other.class_names if name in taken), None)
            if twice is not None:
                raise DataError(
                    f"FewShotFamily {self.name!r}: class {twice!r} is in {first} and in {second};"
                    " a class may be in one part only"
                )
            kinds = [(part.image_shape, part.scale) for part in (one, other)]
            if kinds[0] != kinds[1]:
                raise DataError(
                    f"FewShotFamily {self.name!r}: {first} has images of shape and scale"
                    f" {kinds[0]}, {second} {kinds[1]}; all parts must agree"
                )


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
