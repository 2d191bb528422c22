"""Records of CIFAR's binary form: one or two bytes of labels, then 32×32 pixels, plane by plane.

A record of CIFAR-10 has 3,073 bytes, its class first; one of CIFAR-100 has 3,074, superclass and
class first. Pixels are all red, then all green, then all blue, each by rows (Krizhevsky 2009). The
form with Python pickles is not read: to unpickle is to run what the file says.
"""

import os
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import DataError
from ._bytes import ByteSource, open_bytes
from ._sources import Located

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


def read_records(
    located: Located, files: Sequence[tuple[str, str, int]], labels: int
) -> list[tuple[np.ndarray, str]]:
    """Reads files of records, by themselves or out of the tar that holds all.

    **Arguments:**

    - `located`: the data set; its file of role `all`, if it has one, is the tar.
    - `files`: for each the role it has by itself, its name in the tar, and how many records.
    - `labels`: bytes of labels a record.

    **Returns:**

    For each `(count, labels + 3072)`, uint8, and what errors call the file.

    **Raises:**

    - `DataError`: unreadable, damaged, cut short, not in the tar, or more bytes than records.
    """
    path, found = located.paths.get("all"), []
    if path is None:
        for role, _, count in files:
            with open_bytes(located.paths[role]) as source:
                found.append(_take(source, count, labels))
        return found
    try:
        with tarfile.open(path) as archive:
            for _, name, count in files:
                with _member(archive, name, path) as stream:
                    source = ByteSource(stream, f"{os.fspath(path)} ({name})")
                    found.append(_take(source, count, labels))
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{os.fspath(path)} is damaged ({reason}); get it again") from error
    return found


def pixels_of(records: np.ndarray, labels: int) -> np.ndarray:
    """The images of records, `(n, 32, 32, 3)`."""
    return records[:, labels:].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)


def _take(source: ByteSource, count: int, labels: int) -> tuple[np.ndarray, str]:
    size = labels + _PIXELS
    data = source.take(count * size)
    source.finish()
    return np.frombuffer(data, np.uint8).reshape(count, size), source.name


def _member(archive: tarfile.TarFile, name: str, path: Path) -> Any:
    try:
        stream = archive.extractfile(name)
    except KeyError:
        stream = None
    if stream is None:
        raise DataError(f"{os.fspath(path)} has no file {name}; get it again")
    return stream
