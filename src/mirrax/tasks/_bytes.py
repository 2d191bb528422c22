"""Bytes of a possibly compressed file, never more of them than the file may honestly hold.

A gzip stream expands at most 1032 times, so what a header promises is compared with the size on
disk before anything is allocated, and no more than the promise is ever decompressed.
"""

import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from .._errors import DataError

_CHUNK = 1 << 20
_MAGIC = b"\x1f\x8b"
LARGEST_RATIO = 1032
"""What deflate makes of one byte at most: 258 bytes from 2 bits."""


class ByteSource:
    """A file read forward, decompressed where it begins with gzip's magic number.

    **Arguments:**

    - `stream`: a binary file object at its beginning, able to seek.
    - `name`: what errors call the file.

    **Raises:**

    - `DataError`: on `take` and `finish`, where the file is cut short or damaged.
    """

    def __init__(self, stream: io.BufferedIOBase, name: str) -> None:
        self.name = name
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        compressed = stream.read(len(_MAGIC)) == _MAGIC
        stream.seek(0)
        self._stream: io.BufferedIOBase = stream
        self.most = size
        if compressed:
            self._stream = gzip.GzipFile(fileobj=stream, mode="rb")
            self.most = size * LARGEST_RATIO

    def take(self, count: int) -> bytes:
        """Reads exactly `count` bytes."""
        data = self.take_at_most(count)
        if len(data) < count:
            raise self.cut_short(f"it ends {count - len(data):,} bytes early")
        return data

    def take_at_most(self, count: int) -> bytes:
        """Reads `count` bytes, or fewer where the file ends."""
        parts, rest = [], count
        with self._explained():
            while rest and (part := self._stream.read(min(rest, _CHUNK))):
                parts.append(part)
                rest -= len(part)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        """Reads past exactly `count` bytes and keeps none of them."""
        while count > 0:
            count -= len(self.take(min(count, _CHUNK)))

    def finish(self) -> None:
        """Checks that nothing follows; for gzip this also compares the stream's own checksum."""
        if self.take_at_most(1):
            raise DataError(
                f"{self.name}: more bytes follow than its header promises; get it again"
            )

    def cut_short(self, how: str) -> DataError:
        """The error for a file that ends too early."""
        return DataError(f"{self.name} is cut short ({how}); get the file again")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except EOFError as error:
            raise self.cut_short("its gzip stream has no end") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{self.name} is damaged ({error}); get the file again") from error


@contextlib.contextmanager
def open_bytes(path: str | os.PathLike[str]) -> Iterator[ByteSource]:
    """Opens a plain or gzip file for reading.

    **Arguments:**

    - `path`: the file; its first two bytes, not its name, say whether it is compressed.

    **Returns:**

    A context manager that gives a `ByteSource`.

    **Raises:**

    - `DataError`: the file does not exist or cannot be read.
    """
    try:
        stream = Path(path).open("rb")
    except OSError as error:
        raise unreadable(path, error) from error
    with stream:
        try:
            yield ByteSource(stream, os.fspath(path))
        except OSError as error:
            raise unreadable(path, error) from error


def unreadable(path: str | os.PathLike[str], error: OSError) -> DataError:
    """The error for a file the system does not let us read."""
    reason = error.strerror or str(error)
    return DataError(f"cannot read {os.fspath(path)}: {reason}; check the path and its rights")
