"""Records of CIFAR's binary form: one or two bytes of labels, then 32×32 pixels, plane by plane.

A record of CIFAR-10 has 3,073 bytes, its class first; one of CIFAR-100 has 3,074, superclass and
class first. Pixels are all red, then all green, then all blue, each by rows (Krizhevsky 2009). The
form with Python pickles is not read: to unpickle is to run what the file says.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ._bytes import open_bytes
from ._sources import Located
from ._tar import read_members

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

    - `DataError`: unreadable, damaged, cut short, not in the tar, or of other than `count` records.
    """
    path = located.paths.get("all")
    if path is None:
        return [_read(located.paths[role], count, labels) for role, _, count in files]
    sizes = {name: count * (labels + _PIXELS) for _, name, count in files}
    with open_bytes(path) as source:
        members = read_members(source, sizes)
    return [
        (_records(members[name], labels), f"{os.fspath(path)} ({name})") for _, name, _ in files
    ]


def pixels_of(records: np.ndarray, labels: int) -> np.ndarray:
    """The images of records, `(n, 32, 32, 3)`."""
    return records[:, labels:].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)


def _read(path: Path, count: int, labels: int) -> tuple[np.ndarray, str]:
    with open_bytes(path) as source:
        data = source.take(count * (labels + _PIXELS))
        source.finish()
    return _records(data, labels), source.name


def _records(data: bytes, labels: int) -> np.ndarray:
    return np.frombuffer(data, np.uint8).reshape(-1, labels + _PIXELS)
