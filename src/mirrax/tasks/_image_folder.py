"""A few-shot family of one's own images: a folder, or a zip, with one folder a class.

Classes are shared out at random between meta-training, validation and test, so that no class is in
two of them; images of any size are brought to one. They are seen as a viewer shows them: turned as
a camera says, what is transparent on white, 16 bits scaled to 8.
"""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .._errors import DataError
from ._classes import FewShotFamily, ImageClasses
from ._filed import Entry, file_by_class, open_images

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_MOST_BYTES = 1 << 26  # of one file, before it is made smaller
_REMEDY = "mend it, or leave it out"
_PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_ORIENTATION = 0x0112  # the tag in which a camera says how it was held


def image_folder(
    path: str | os.PathLike[str],
    shape: tuple[int, int, int] = (28, 28, 1),
    *,
    shares: tuple[float, float, float] = (0.6, 0.2, 0.2),
    seed: int = 0,
) -> FewShotFamily:
    """Reads images that are filed by class, `class/image.png`.

    Folders may lie in folders: a class is named by its whole path, as `Greek/character01`. Of a
    data set that was split by images, `train/cat` and `test/cat`, give one part: a class in two
    parts would be two, one perhaps to learn from and the other to test on.

    **Arguments:**

    - `path`: the folder or zip, of PNG or JPEG files.
    - `shape`: height, width and channels that images are brought to; one channel is grey.
    - `shares`: of the classes, to meta-train, to validate and to test on.
    - `seed`: chooses which.

    **Returns:**

    A family; classes may have different numbers of images.

    **Raises:**

    - `DataError`: no images, a damaged one or one of another format, one that lies in no class, a
        class in two parts, or too few classes for three parts.
    - `ValueError`: shares that do not sum to one, or a shape that is none.

    >>> image_folder("no-such-folder")
    Traceback (most recent call last):
    ...
    mirrax._errors.DataError: cannot read no-such-folder: ...
    """
    if len(shares) != 3 or min(shares) <= 0 or not math.isclose(sum(shares), 1):
        raise ValueError(
            f"image_folder.shares: expected three positive numbers of sum 1, got {shares!r}."
        )
    whole = all(isinstance(size, int | np.integer) for size in shape)
    if len(shape) != 3 or not whole or min(shape) < 1 or shape[2] not in (1, 3):
        raise ValueError(
            f"image_folder.shape: expected height, width and 1 or 3 channels, got {shape!r}."
        )
    with open_images(Path(path), _REMEDY) as filed:
        entries = file_by_class([filed], levels=None)
        _check_parts(entries, filed.name)
        parts = _shared_out(list(entries), shares, seed, filed.name)
        name = Path(path).stem
        train, validation, test = (
            _read(f"{name}/{part}", {label: entries[label] for label in labels}, shape)
            for part, labels in zip(("train", "validation", "test"), parts, strict=True)
        )
    return FewShotFamily(name, train, validation, test)


def _check_parts(labels: Iterable[str], where: str) -> None:
    """Refuses two labels that differ in the name of a part alone, `train` and `test`."""
    seen: dict[tuple[str, ...], str] = {}
    for label in labels:
        folders = label.split("/")
        if len(folders) == 1:  # a class of that name
            continue
        for place, name in enumerate(folders):
            if name.casefold() not in _PARTS:
                continue
            other = seen.setdefault((*folders[:place], "", *folders[place + 1 :]), label)
            if other != label:
                raise DataError(
                    f"{where}: {other} and {label} are one class in two parts, and would count as"
                    " two; give the folder of one part, or file each class in one folder"
                )


def _shared_out(
    labels: Sequence[str], shares: Sequence[float], seed: int, where: str
) -> list[list[str]]:
    """The classes of each part, in order."""
    ends = np.rint(np.cumsum(shares) * len(labels)).astype(int)
    parts = np.split(np.random.default_rng(seed).permutation(len(labels)), ends[:-1])
    if any(len(part) == 0 for part in parts):
        raise DataError(
            f"{where} has {len(labels)} classes, too few for parts of {tuple(shares)}; add classes,"
            " or pass other shares"
        )
    return [[str(labels[place]) for place in sorted(part)] for part in parts]


def _read(name: str, entries: dict[str, list[Entry]], shape: tuple[int, int, int]) -> ImageClasses:
    def fit(image: "Picture") -> np.ndarray:
        mode = "L" if shape[2] == 1 else "RGB"
        shown = _as_shown(image).convert(mode).resize((shape[1], shape[0]))
        return np.asarray(shown).reshape(shape)

    counts = np.array([len(found) for found in entries.values()], np.int32)
    images = np.zeros((len(entries), counts.max(), *shape), np.uint8)
    for row, found in zip(images, entries.values(), strict=True):
        for place, (filed, path) in enumerate(found):
            row[place] = filed.convert(path, fit, _MOST_BYTES)
    return ImageClasses(name, tuple(entries), images, counts, 1 / 255)


def _as_shown(image: "Picture") -> "Picture":
    """An image as a viewer shows it, on white, of 8 bits; Pillow alone would drop or clip these."""
    from PIL import Image

    image = _turned(image)
    if image.mode.startswith("I"):
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    ink = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", ink.size, "white"), ink)


def _turned(image: "Picture") -> "Picture":
    """An image turned as its camera says; what else is told of it may be damaged, and is left."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    image.load()  # a PNG may say it behind its pixels
    try:
        turn = turns.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged in one of many ways; the pixels are whole
        turn = None
    return image if turn is None else image.transpose(turn)
