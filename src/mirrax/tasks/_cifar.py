"""CIFAR-100 for few-shot learning: CIFAR-FS and FC100, its training and test images joined.

In the binary form a record has 3,074 bytes: superclass, class, and 32×32 pixels, all red, then all
green, then all blue (Krizhevsky 2009). The form with Python pickles is not read: to unpickle is to
run what the file says.
"""

import contextlib
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import DataError
from ._bytes import ByteSource, open_bytes
from ._cifar_classes import CIFAR_FS, CLASSES, FC100, SUPERCLASSES
from ._classes import FewShotFamily
from ._few_shot import Split, assemble
from ._filed import file_by_class, open_images, read_entries
from ._sources import Folder, Located, locate, verify_located

_RECORD = 2 + 3 * 32 * 32
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
    edition = located.edition
    records = []
    for part, count in (("train", edition.train), ("test", edition.test)):
        with _open_part(located, part) as source:
            data = source.take(count * _RECORD)
            source.finish()
            records.append(np.frombuffer(data, np.uint8).reshape(count, _RECORD))
            _check_labels(records[-1], source.name)
    together = np.concatenate(records)
    members = {name: np.flatnonzero(together[:, 1] == i) for i, name in enumerate(CLASSES)}

    def read(name: str) -> np.ndarray:
        planes = together[members[name], 2:].reshape(-1, 3, 32, 32)
        return planes.transpose(0, 2, 3, 1)

    yield {name: len(rows) for name, rows in members.items()}, read


@contextlib.contextmanager
def _open_part(located: Located, part: str) -> Iterator[ByteSource]:
    path = located.paths.get("all")
    if path is None:
        with open_bytes(located.paths[part]) as source:
            yield source
        return
    name = f"cifar-100-binary/{part}.bin"
    try:
        with tarfile.open(path) as archive, _member(archive, name, path) as stream:
            yield ByteSource(stream, f"{os.fspath(path)} ({name})")
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{os.fspath(path)} is damaged ({reason}); get it again") from error


def _member(archive: tarfile.TarFile, name: str, path: Path) -> Any:
    try:
        stream = archive.extractfile(name)
    except KeyError:
        stream = None
    if stream is None:
        raise DataError(f"{os.fspath(path)} has no file {name}; get it again")
    return stream


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
