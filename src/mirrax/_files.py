"""Files that are either complete or absent: write beside the target, flush to disk, rename.

A rename within one folder is atomic, so a reader, a crash or a full disk never meets half a file.
"""

import contextlib
import errno
import json
import math
import os
import re
import secrets
from pathlib import Path
from typing import Any

from ._errors import MirraxError

_DEEPEST = 100  # levels of JSON; what is written here has a dozen
_MOST_DIGITS = 300  # of a whole number, so that it is a float as well

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "the folder is read-only for this user; choose another folder",
    errno.EPERM: "the folder is read-only for this user; choose another folder",
    errno.ENOENT: "its folder does not exist; create it or choose another folder",
    errno.ENOTDIR: "its folder is a file; choose another folder",
    errno.EISDIR: "a folder of that name exists; choose another name",
    errno.ENAMETOOLONG: "its name is too long; choose a shorter one",
}


def explain(error: OSError) -> str:
    """Says in a few words what an `OSError` means and what to do about it.

    >>> explain(OSError(errno.ENOSPC, "No space left on device"))
    'the disk is full; free some space or choose another folder'
    """
    known = _REMEDIES.get(error.errno) if error.errno is not None else None
    return known or error.strerror or str(error) or type(error).__name__


def slug(name: str) -> str:
    """A name as part of a file's name.

    >>> slug("MetaMD, max of 3")
    'metamd-max-of-3'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file so that it is afterwards either complete or as it was before.

    **Arguments:**

    - `path`: the file to write or replace; its folder must exist.
    - `data`: the whole content.

    **Raises:**

    - `MirraxError`: one line naming file and cause (disk full, read-only, no such folder). Nothing
        new is left in the folder then, and an older file of that name is untouched.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder) / "note.txt", b"geometry")
    ...     sorted(os.listdir(folder)), (Path(folder) / "note.txt").read_bytes()
    (['note.txt'], b'geometry')
    """
    target = Path(path)
    # A random name that must not exist yet: two processes writing one target never share it.
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        try:
            _write_and_flush(temporary, data)
            os.replace(temporary, target)
        except BaseException:  # also on Ctrl-C: leave no half-written file
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _flush_folder(target.parent)
    except OSError as error:
        raise MirraxError(f"cannot write {target}: {explain(error)}") from error


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Writes an object as indented JSON, atomically.

    JSON has no NaN and no infinity: non-finite numbers are written as `null`, as in the run
    folder's "never reached". Arrays and scalars with `tolist` become lists and numbers.

    **Arguments:**

    - `path`: as in `write_atomically`.
    - `obj`: nested dicts, lists, tuples, strings, numbers, booleans, `None`, paths, arrays.

    **Raises:**

    - `MirraxError`: the file cannot be written.
    - `TypeError`: an object that JSON cannot hold.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json(Path(folder) / "a.json", {"rate": 0.5, "steps": float("inf")})
    ...     print((Path(folder) / "a.json").read_text(), end="")
    {
      "rate": 0.5,
      "steps": null
    }
    """
    write_atomically(path, (to_json(obj, indent=2) + "\n").encode())


def to_json(obj: Any, *, indent: int | None = None) -> str:
    """An object as JSON, in the form of `write_json`.

    >>> to_json({"bound": float("nan")})
    '{"bound": null}'
    """
    return json.dumps(plain(obj), indent=indent, ensure_ascii=False, allow_nan=False)


def parse_json(data: bytes | str, *, finite: bool = True) -> Any:
    """Parses JSON that anybody may have written, and refuses what has no single meaning.

    **Arguments:**

    - `data`: the whole text, in UTF-8 where it is bytes.
    - `finite`: refuse NaN and infinite numbers, which `write_json` never writes.

    **Raises:**

    - `ValueError`: in one line, for text that is no JSON, a key that stands twice in one object,
        half a character, a number that no float holds, or more than 100 levels.

    >>> parse_json(b'{"rate": 0.5, "rate": 5.0}')
    Traceback (most recent call last):
        ...
    ValueError: the key 'rate' stands twice
    """
    text = data.decode() if isinstance(data, bytes) else data
    number = _finite if finite else None
    deep = ValueError(f"it has more than {_DEEPEST} levels")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_without_repeats,
            parse_int=_whole,
            parse_float=number,
            parse_constant=number,
        )
    except RecursionError as error:
        raise deep from error
    level = [value]
    for _ in range(_DEEPEST):
        level = [child for node in level for child in _inner(node)]
    if level:
        raise deep
    if "\\ud" in text.casefold():  # half a pair cannot be written again
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _write_and_flush(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        rest = memoryview(data)
        while rest:  # one call may write less than it was given
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Makes the rename itself survive a power cut, where the system lets folders be flushed."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def plain(obj: Any) -> Any:
    """An object in JSON's own types: lists for tuples, `None` for numbers that are not finite.

    >>> plain({"bounds": (1.0, float("inf"))})
    {'bounds': [1.0, None]}
    """
    if isinstance(obj, dict):
        return {str(key): plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [plain(value) for value in obj]
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) else None
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    if hasattr(obj, "tolist"):  # numpy and JAX, without importing either
        return plain(obj.tolist())
    return obj


def _inner(node: Any) -> list[Any]:
    """The objects and lists in a value."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [child for child in inner if isinstance(child, dict | list)]


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {max(keys, key=keys.count)[:80]!r} stands twice")
    return found


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(text):,} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:80]} is no finite number")
    return value
