r"""One checksummed file for everything mirrax stores: named arrays and a JSON record.

The file is a safetensors file, so any reader of that format opens it and nothing in it is code.
Its one metadata entry, `mirrax`, holds `{"sha256": …, "format": 1, "metadata": "…"}`. The checksum
is the SHA-256 of the *whole file* with the 64 digits of the checksum itself set to zero: names,
types, shapes, numbers, record and even the spaces between them. Equal content gives equal bytes.
Only numpy and safetensors are imported here: readers without JAX use this file as it is.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from .._errors import ArtifactError
from .._files import write_atomically
from .._json import parse_json

FORMAT = 1
"""The version of the file format that is written, and the newest that is read."""

_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64") + (
    "float16",
    "float32",
    "float64",
)
_ENTRY = "mirrax"
_DIGITS = 64
_NO_DIGEST = b"0" * _DIGITS
# A quote that is not escaped cannot occur inside a JSON string, so this is found at most once.
_PLACE = re.compile(rb'"mirrax"\s*:\s*"\{\\"sha256\\":\\"')
_AGAIN = "copy it again from where it came, or write it again"
_FOREIGN = "give a file that mirrax wrote, such as geometry.safetensors"


def write_archive(
    path: str | os.PathLike[str], arrays: Mapping[str, Any], metadata: Mapping[str, Any]
) -> None:
    """Writes arrays and a record to one checksummed file, atomically.

    **Arguments:**

    - `path`: the file to write or replace; its folder must exist.
    - `arrays`: names and numpy or JAX arrays: booleans, integers, or floats of 16, 32 or 64 bits.
    - `metadata`: what JSON holds (tuples come back as lists); NaN and infinity are kept.

    **Raises:**

    - `ValueError`: an array or a record that the file cannot hold.
    - `MirraxError`: the file cannot be written; one of that name is then untouched.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_archive(Path(folder) / "a.safetensors", {"x": np.ones(2)}, {"round": 3})
    ...     read_archive(Path(folder) / "a.safetensors")
    ({'x': array([1., 1.])}, {'round': 3})
    """
    entry = {"sha256": _NO_DIGEST.decode(), "format": FORMAT, "metadata": _canonical(metadata)}
    text = json.dumps(entry, separators=(",", ":"), ensure_ascii=False)
    ready = {name: _storable(name, array) for name, array in arrays.items()}
    blank = save(ready, metadata={_ENTRY: text})
    place = _PLACE.search(blank)
    if place is None:  # the library would have to have changed how it writes JSON
        raise RuntimeError("write_archive: found no place for the checksum in the header.")
    start = place.end()
    digest = hashlib.sha256(blank).hexdigest().encode()
    write_atomically(path, b"".join([blank[:start], digest, blank[start + _DIGITS :]]))


def read_archive(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a file of `write_archive`, or says in one line why it cannot be trusted.

    No more than the file's own size is ever asked of the memory on the word of its header.

    **Arguments:**

    - `path`: the file.

    **Returns:**

    The arrays (read-only) by name, and the record.

    **Raises:**

    - `ArtifactError`: the file is missing, cut short, changed in any byte, of another kind, or in
        a newer format. The line names the file and what to do.
    """
    try:
        with open(path, "rb") as file:
            data, start, entry = _read_checked(Path(path), file)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {_reason(error)}") from error
    checksum = hashlib.sha256(memoryview(data)[:start])
    checksum.update(_NO_DIGEST)
    checksum.update(memoryview(data)[start + _DIGITS :])
    if checksum.hexdigest() != entry["sha256"]:
        raise _damaged(path, "its checksum does not match its content")
    try:
        arrays, metadata = load(data), parse_json(entry["metadata"], finite=False)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"its content cannot be decoded ({error})") from error
    if not isinstance(metadata, dict):
        raise _damaged(path, "its record is no object")
    return arrays, metadata


def _read_checked(path: Path, file: BinaryIO) -> tuple[bytes, int, dict[str, Any]]:
    """The bytes of the file, where its checksum starts, and the header's entry."""
    size = os.fstat(file.fileno()).st_size
    first = file.read(9)
    if len(first) < 9 or first[8:] != b"{":
        raise ArtifactError(f"{path} is not a mirrax file ({size} bytes); {_FOREIGN}")
    length = int.from_bytes(first[:8], "little")
    if length > size - 8:
        raise _damaged(path, f"it is cut short: {size} bytes, with a header of {length}")
    head = first + file.read(length - 1)
    header = _header(path, head[8:])
    entry = _entry(path, header)
    place = _PLACE.search(head)
    if place is None or head[place.end() :][:_DIGITS] != entry["sha256"].encode():
        raise _damaged(path, "its checksum is not where it was written")
    expected = 8 + length + _data_length(path, header)
    if size != expected:
        raise _damaged(path, f"it has {size} bytes and should have {expected}")
    return head + file.read(expected - len(head)), place.end(), entry


def _header(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = parse_json(text)
        if isinstance(header, dict):
            return header
    except ValueError:
        pass
    raise _damaged(path, "its header is not readable")


def _entry(path: Path, header: dict[str, Any]) -> dict[str, Any]:
    """The `mirrax` entry of the header, of a format that this version reads."""
    own = header.get("__metadata__")
    text = own.get(_ENTRY) if isinstance(own, dict) else None
    if not isinstance(text, str):
        raise ArtifactError(f"{path} is a safetensors file that mirrax did not write; {_FOREIGN}")
    try:
        entry = parse_json(text)
        version = entry["format"]
        if type(version) is not int or version < 1:
            raise ValueError(version)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, "its header is not readable") from error
    if version > FORMAT:
        raise ArtifactError(
            f"{path} is in format {version} of a newer mirrax, and this one reads up to {FORMAT}; "
            "upgrade mirrax"
        )
    if not (isinstance(entry.get("sha256"), str) and isinstance(entry.get("metadata"), str)):
        raise _damaged(path, "its header is not complete")
    return entry


def _data_length(path: Path, header: dict[str, Any]) -> int:
    try:
        ends = [info["data_offsets"][1] for name, info in header.items() if name != "__metadata__"]
        if not all(type(end) is int for end in ends):
            raise TypeError(ends)
        return max([0, *ends])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _damaged(path, "its header is not complete") from error


def _damaged(path: str | os.PathLike[str], what: str) -> ArtifactError:
    return ArtifactError(f"{os.fspath(path)} is damaged: {what}; {_AGAIN}")


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file; check the path"
    if isinstance(error, IsADirectoryError):
        return "it is a folder; name the file inside it, such as geometry.safetensors"
    if isinstance(error, PermissionError):
        return "no permission; change it, or copy the file to a folder of your own"
    return f"{error.strerror or error}; check the disk, or copy the file elsewhere"


def _canonical(metadata: Mapping[str, Any]) -> str:
    try:
        return json.dumps(
            dict(metadata),
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
            default=_as_list,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"write_archive.metadata: expected what JSON holds, got {error}."
        ) from error


def _as_list(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy and JAX, without importing the latter
        return value.tolist()
    raise TypeError(f"an object of type {type(value).__name__}")


def _storable(name: str, array: Any) -> np.ndarray:
    ready = np.asarray(array, order="C")
    if ready.dtype.name not in _DTYPES:
        raise ValueError(
            f"write_archive.arrays: {name!r} has type {ready.dtype}; convert it to one of "
            f"{', '.join(_DTYPES)}."
        )
    return ready.astype(ready.dtype.newbyteorder("<"), copy=False)
