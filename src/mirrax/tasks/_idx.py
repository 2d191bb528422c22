"""The idx format of MNIST and its descendants, plain or gzipped.

A file is `0 0 type rank`, then `rank` sizes as big-endian 32-bit integers, then the entries in
row-major, big-endian order (LeCun, Cortes and Burges, *The MNIST database of handwritten digits*).
"""

import math
import os
import struct

import numpy as np

from .._errors import DataError
from ._bytes import ByteSource, open_bytes

_TYPES = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_MOST_DIMENSIONS = 8
_MOST_BYTES = 1 << 31


def read_idx(path: str | os.PathLike[str], *, rank: int | None = None) -> np.ndarray:
    """Reads an idx file of any of the format's six number types.

    **Arguments:**

    - `path`: the file; gzip is recognised by its first bytes, whatever the name.
    - `rank`: how many dimensions are needed (3 for images, 1 for labels, 2 for QMNIST's labels).

    **Returns:**

    An array in native byte order: uint8, int8, int16, int32, float32 or float64.

    **Raises:**

    - `DataError`: no such file, not idx, cut short, damaged, bytes left over, another number of
        dimensions, an empty dimension, non-finite numbers, or a header that promises more than the
        file can hold (no more than that is ever decompressed).

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "labels-idx1-ubyte"
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     read_idx(path, rank=1).tolist()
    [7, 2, 1]
    """
    with open_bytes(path) as source:
        return parse_idx(source, rank=rank)


def parse_idx(source: ByteSource, *, rank: int | None = None) -> np.ndarray:
    """Reads idx from an open source; see `read_idx`."""
    dtype, shape = _header(source, rank)
    promised = math.prod(shape) * dtype.itemsize
    if promised > min(source.most, _MOST_BYTES):
        size = " × ".join(f"{extent:,}" for extent in shape)
        raise source.cut_short(f"its header promises {size} entries")
    data = source.take(promised)
    source.finish()
    array = np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{source.name}: it holds non-finite numbers; mend or replace the file")
    return array


def _header(source: ByteSource, rank: int | None) -> tuple[np.dtype, tuple[int, ...]]:
    magic = source.take(4)
    dtype = _TYPES.get(magic[2])
    if magic[:2] != b"\0\0" or dtype is None or not 1 <= magic[3] <= _MOST_DIMENSIONS:
        raise DataError(
            f"{source.name} is not an idx file (it begins with {magic.hex(' ')}); check that it is"
            " the published file"
        )
    if rank is not None and magic[3] != rank:
        raise DataError(
            f"{source.name} has {magic[3]} dimensions where {rank} are needed; images and labels"
            " may have been exchanged"
        )
    shape = struct.unpack(f">{magic[3]}I", source.take(4 * magic[3]))
    if 0 in shape:
        raise DataError(f"{source.name} is empty (its header promises {shape}); get it again")
    return dtype, shape
