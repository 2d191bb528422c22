"""Arrays of numbers in MATLAB's files of version 5, read within the sizes that the file states.

A file is a header of 128 bytes and elements: type and size in 32 bits each, then the data, in steps
of 8 bytes (*MAT-File Format*, The MathWorks). An element is an array (flags, sizes, name and
numbers, which are elements again) or a deflated one. Structures, text, sparse and complex arrays
are not read.
"""

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from .._errors import DataError
from ._bytes import ByteSource

_HEADER = 128
_VERSION = 0x0100
_MATRIX, _DEFLATED, _INT32, _UINT32, _INT8 = 14, 15, 5, 6, 1
_COMPLEX = 0x0800
_STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_CLASSES = {6: "double", 7: "single"} | {
    8 + i: name
    for i, name in enumerate(
        ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
    )
}
_MOST_HEAD = 256  # bytes of sizes or of a name
_CHUNK = 1 << 20


class Variable(NamedTuple):
    """What a file says of one array.

    **Arguments:**

    - `shape`: its sizes.
    - `kind`: the type of its numbers in MATLAB, such as `double`, or `other`.
    """

    shape: tuple[int, ...]
    kind: str


def declared(source: ByteSource) -> dict[str, Variable]:
    """The arrays of a file by name; none of their numbers is read.

    **Raises:**

    - `DataError`: not such a file, cut short or damaged.
    """
    return {matrix.name: matrix.variable for matrix in _matrices(source)}


def read_arrays(source: ByteSource, names: Collection[str]) -> dict[str, np.ndarray]:
    """Reads arrays by name.

    **Arguments:**

    - `source`: the file.
    - `names`: which; their sizes should have been looked at, see `declared`.

    **Returns:**

    Those that are there, column by column as in the file, in the type in which they are stored.

    **Raises:**

    - `DataError`: not such a file, cut short, damaged, or an array that holds something else.
    """
    return {m.name: m.numbers() for m in _matrices(source) if m.name in names}


class _Bytes(Protocol):
    """What is read forward: the file, or a deflated element of it."""

    name: str

    def take(self, count: int) -> bytes: ...

    def skip(self, count: int) -> None: ...


class _Inflated:
    """The bytes of a deflated element of `size` bytes, inflated as far as they are asked for."""

    def __init__(self, source: ByteSource, size: int):
        self.name, self._source, self._left = source.name, source, size
        self._engine, self._rest = zlib.decompressobj(), b""

    def take(self, count: int) -> bytes:
        parts, rest = [], count
        while rest:
            part = self._inflate(min(rest, _CHUNK))
            if not part:
                raise _damaged(self.name, "a compressed part ends early")
            parts.append(part)
            rest -= len(part)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        """Does nothing: what is behind an array that is not wanted is not inflated."""

    def finish(self) -> None:
        """Checks that nothing follows, and the checksum."""
        if self._inflate(1) or not self._engine.eof or self._engine.unused_data or self._left:
            raise _damaged(self.name, "a compressed part does not end where it should")

    def leave(self) -> None:
        """Passes over what has not been inflated, to the next element."""
        self._source.skip(self._left)
        self._left = 0

    def _inflate(self, most: int) -> bytes:
        """Some of the next bytes, none at the end."""
        while not self._engine.eof:
            if not self._rest:
                self._rest = self._source.take(min(self._left, _CHUNK))
                self._left -= len(self._rest)
            given = self._rest
            try:
                data = self._engine.decompress(given, most)
            except zlib.error as error:
                raise _damaged(self.name, f"{error}") from error
            self._rest = self._engine.unconsumed_tail
            if data or not given:
                return data
        return b""


class _Matrix:
    """An array whose head is read, and whose numbers may be."""

    def __init__(self, data: _Bytes, size: int, order: str):
        self._data, self._order, self._left = data, order, size
        flags = struct.unpack(order + "2I", self._head(_UINT32, 8))[0]
        sizes = self._head(_INT32)
        shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes[: len(sizes) // 4 * 4])
        self.name = self._head(_INT8).decode("latin-1")
        if len(shape) < 2 or min(shape) < 0:
            raise _damaged(data.name, f"an array of sizes {shape}")
        kind = _CLASSES.get(flags & 0xFF, "other")
        self.variable = Variable(shape, "other" if flags & _COMPLEX else kind)
        self.read = False

    def numbers(self) -> np.ndarray:
        kind, size, small = self._tag()
        dtype = np.dtype(_STORED.get(kind, "V1")).newbyteorder("<" if self._order == "<" else ">")
        if dtype.kind == "V" or size != math.prod(self.variable.shape) * dtype.itemsize:
            raise _damaged(self._data.name, f"{self.name} holds no array of {self.variable.shape}")
        data = self._content(size, small)
        self.rest()
        self.read = True
        return np.frombuffer(data, dtype).reshape(self.variable.shape, order="F")

    def rest(self) -> None:
        """Passes over what has not been read."""
        self._data.skip(self._left)
        self._left = 0

    def _head(self, kind: int, exactly: int | None = None) -> bytes:
        found, size, small = self._tag()
        if found != kind or size > _MOST_HEAD or size != (size if exactly is None else exactly):
            raise _damaged(self._data.name, "an array has another head")
        return self._content(size, small)

    def _tag(self) -> tuple[int, int, bytes]:
        """Type and size of an element, and its data if they are so few that they lie in the tag."""
        kind, size = struct.unpack(self._order + "2I", self._take(8))
        if kind >> 16 == 0:
            return kind, size, b""
        small = struct.pack(self._order + "I", size)
        return kind & 0xFFFF, kind >> 16, small

    def _content(self, size: int, small: bytes) -> bytes:
        if not small:
            data = self._take(size)
            self._take(-size % 8)
            return data
        if size > len(small):
            raise _damaged(self._data.name, "a short element is too long")
        return small[:size]

    def _take(self, count: int) -> bytes:
        if count > self._left:
            raise _damaged(self._data.name, "an array is shorter than what it holds")
        self._left -= count
        return self._data.take(count)


def _matrices(source: ByteSource) -> Iterator[_Matrix]:
    """The arrays of a file; the numbers of each, or none, are read before the next."""
    header = source.take(_HEADER)
    order = {b"IM": "<", b"MI": ">"}.get(header[126:])
    if order is None or struct.unpack(order + "H", header[124:126])[0] != _VERSION:
        raise _damaged(source.name, "its header is another")
    seen: set[str] = set()
    while tag := source.take_at_most(8):
        if len(tag) < 8:
            raise source.cut_short("in the tag of an element")
        kind, size = struct.unpack(order + "2I", tag)
        if kind == _MATRIX:
            matrix = _Matrix(source, size, order)
            yield _once(matrix, seen)
            matrix.rest()
        elif kind == _DEFLATED:
            inflated = _Inflated(source, size)
            kind, size = struct.unpack(order + "2I", inflated.take(8))
            if kind != _MATRIX:
                raise _damaged(source.name, f"a compressed element of type {kind}")
            matrix = _Matrix(inflated, size, order)
            yield _once(matrix, seen)
            if matrix.read:
                inflated.finish()
            inflated.leave()
        else:
            raise _damaged(source.name, f"an element of type {kind} and {size:,} bytes")


def _once(matrix: _Matrix, seen: set[str]) -> _Matrix:
    if matrix.name in seen:
        raise _damaged(matrix._data.name, f"two arrays are named {matrix.name!r}")
    seen.add(matrix.name)
    return matrix


def _damaged(name: str, how: str) -> DataError:
    return DataError(f"{name} is not a MATLAB 5 file or is damaged ({how}); get the file again")
