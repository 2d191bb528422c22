"""From classes of images to a `FewShotFamily`: what every reader of few-shot sets shares.

A split is a mapping of `train`, `validation` and `test` to names of classes; it must name every
class of the files once, and no other.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .._errors import DataError, nearest
from ._classes import FewShotFamily, ImageClasses, check_disjoint
from ._sources import Located

Split = Mapping[str, Sequence[str]]


def assemble(
    name: str,
    located: Located,
    split: Split,
    counts: Mapping[str, int],
    read: Callable[[str], np.ndarray],
    *,
    sizes: Mapping[str, int] | None = None,
) -> FewShotFamily:
    """Reads the classes of a split.

    **Arguments:**

    - `name`: of the family.
    - `located`: the files they come from.
    - `split`: `train`, `validation` and `test` to names of classes.
    - `counts`: images of each class there is.
    - `read`: the images of a class, `(n, height, width, channels)`, uint8.
    - `sizes`: classes that each part must have, where the split is read from the files themselves.

    **Returns:**

    The family, with the edition's note.

    **Raises:**

    - `DataError`: a class in two parts, one that the files lack, one that the split does not know,
        another number of images than the edition has, or of classes than `sizes`; all seen before
        an image is read.
    """
    title, per_class = located.source.title, located.edition.per_class
    where = f"{title} in {next(iter(located.paths.values())).parent}"
    check_disjoint(f"{where}: its split", split)
    known = {label for labels in split.values() for label in labels}
    for label in sorted(known - counts.keys()):
        raise DataError(f"{where} lacks class {label!r} of the split; get it again")
    for label in sorted(counts.keys() - known):
        raise DataError(
            f"{where} has class {label!r}, which is in no part of the split;"
            f"{nearest(label, known)} Remove it, or get the set again"
        )
    for label, count in counts.items():
        if count != per_class:
            raise DataError(
                f"{where}: class {label!r} has {count} images, and {per_class} are published; get"
                " it again"
            )
    for part, size in (sizes or {}).items():
        if len(split[part]) != size:
            raise DataError(
                f"{where}: the {part} part has {len(split[part])} classes, and {size} are published"
            )
    parts = {
        part: _stack(f"{name}/{part}", labels, read, per_class) for part, labels in split.items()
    }
    return FewShotFamily(name, **parts, note=located.edition.note)


def _stack(
    name: str, labels: Sequence[str], read: Callable[[str], np.ndarray], per_class: int
) -> ImageClasses:
    # Filled class by class: miniImageNet has 1.3 GB, which a list of classes would hold twice.
    first = read(labels[0])
    images = np.empty((len(labels), *first.shape), np.uint8)
    images[0] = first
    for row, label in zip(images[1:], labels[1:], strict=True):
        row[:] = read(label)
    counts = np.full(len(labels), per_class, np.int32)
    return ImageClasses(name, tuple(labels), images, counts, 1 / 255)
