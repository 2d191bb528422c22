"""CIFAR-100 for few-shot learning: CIFAR-FS and FC100, its training and test images joined."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from .._errors import DataError
from ._cifar_classes import CIFAR_FS, CLASSES, FC100, SUPERCLASSES
from ._cifar_records import pixels_of, read_records
from ._classes import FewShotFamily
from ._few_shot import Split, assemble
from ._filed import file_by_class, open_images, read_entries
from ._sources import Folder, Located, locate, verify_located

_SUPERCLASS_OF = [
    next(i for i, members in enumerate(SUPERCLASSES.values()) if name in members)
    for name in CLASSES
]


def cifar_fs(folder: Folder = None) -> FewShotFamily:
    """Reads CIFAR-FS, 64, 16 and 20 classes of CIFAR-100 (Bertinetto et al. 2019).

    **Arguments:**

    - `folder`: the folder of data sets; the environment variable `MIRRAX_DATA` by default.

    **Returns:**

    A `FewShotFamily`: images `(classes, 600, 32, 32, 3)`, scale 1/255; where fewer images a class
    are there, its `note` says so.

    **Raises:**

    - `DataError`: missing files, another checksum, damaged files, a label or class unknown, or
        another number of images.

    >>> cifar_fs("nowhere")
    Traceback (most recent call last):
        ...
    mirrax._errors.DataError: data folder nowhere does not exist; ...
    """
    return _family("cifar-fs", CIFAR_FS, folder)


def fc100(folder: Folder = None) -> FewShotFamily:
    """Reads FC100, 12, 4 and 4 superclasses of CIFAR-100 (Oreshkin et al. 2018).

    **Arguments:**

    - `folder`: the folder of data sets; the environment variable `MIRRAX_DATA` by default.

    **Returns:**

    A `FewShotFamily` as `cifar_fs`, with 60, 20 and 20 classes.

    **Raises:**

    - `DataError`: as `cifar_fs`.

    >>> fc100("nowhere")
    Traceback (most recent call last):
        ...
    mirrax._errors.DataError: data folder nowhere does not exist; ...
    """
    return _family("fc100", FC100, folder)


def _family(name: str, split: Split, folder: Folder) -> FewShotFamily:
    located = locate("cifar-100", folder)
    verify_located(located)
    open_classes = _open_binary if located.edition.reader == "cifar_binary" else _open_filed
    with open_classes(located) as (counts, read):
        return assemble(name, located, split, counts, read)


_Classes = tuple[Mapping[str, int], Callable[[str], np.ndarray]]


@contextlib.contextmanager
def _open_filed(located: Located) -> Iterator[_Classes]:
    with contextlib.ExitStack() as stack:
        filed = [stack.enter_context(open_images(path)) for path in located.paths.values()]
        entries = file_by_class(filed)
        counts = {name: len(images) for name, images in entries.items()}
        yield counts, lambda name: read_entries(entries[name], located.source.image_shape)


@contextlib.contextmanager
def _open_binary(located: Located) -> Iterator[_Classes]:
    counts = {"train": located.edition.train, "test": located.edition.test}
    files = [(part, f"cifar-100-binary/{part}.bin", count) for part, count in counts.items()]
    parts = read_records(located, files, 2)
    for records, name in parts:
        _check_labels(records, name)
    together = np.concatenate([records for records, _ in parts])
    members = {name: np.flatnonzero(together[:, 1] == i) for i, name in enumerate(CLASSES)}

    def read(name: str) -> np.ndarray:
        return pixels_of(together[members[name]], 2)

    yield {name: len(rows) for name, rows in members.items()}, read


def _check_labels(records: np.ndarray, name: str) -> None:
    classes = len(CLASSES)
    above = np.array(_SUPERCLASS_OF, np.uint8)[np.minimum(records[:, 1], classes - 1)]
    wrong = np.flatnonzero((records[:, 1] >= classes) | (records[:, 0] != above))
    if wrong.size:
        index = int(wrong[0])
        found = ", ".join(map(str, records[index, :2]))
        raise DataError(
            f"{name}: record {index:,} has the labels {found}, no superclass and class of"
            " CIFAR-100; get it again"
        )
