"""Files that are either complete or absent: write beside the target, flush to disk, rename.

A rename within one folder is atomic, so a reader, a crash or a full disk never meets half a file.
What is no file, such as `/dev/stdout` or a pipe, has nothing to be renamed and is written as it is.
A process holds a lock on what it writes: a temporary file that nobody holds was left by a kill, and
`sweep` removes it. A line of a growing file is one system call, taken back where it does not fit.
"""

import contextlib
import errno
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Any

from ._errors import MirraxError
from ._json import to_json

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed anyway
    fcntl = None

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
    errno.EFBIG: "files may not be so large here; raise the limit (ulimit -f)",
}
_SUFFIX = ".tmp"
_TEMPORARY = re.compile(rf"\.[0-9a-f]{{16}}{re.escape(_SUFFIX)}")


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

    A file that is replaced keeps its rights, and a link still leads to it.

    **Arguments:**

    - `path`: the file to write or replace; its folder must exist. A device or a pipe is written as
      it is, which nothing takes back.
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
    try:
        before = _state(path)
        if before is not None and stat.S_IFMT(before.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            _write_as_it_is(path, data)
            return
        target = Path(os.path.realpath(path))
        while not _write_and_rename(target, data, before):
            pass
        _flush_folder(target.parent)
    except OSError as error:
        raise MirraxError(f"cannot write {os.fspath(path)}: {explain(error)}") from error


def append_line(path: str | os.PathLike[str], line: str) -> None:
    r"""Adds a line to a file in one system call, flushed to disk.

    **Arguments:**

    - `path`: the file, made where there is none; its folder must exist.
    - `line`: the line, without its end.

    **Raises:**

    - `MirraxError`: one line naming file and cause. The file is then as it was before.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     append_line(Path(folder) / "a.jsonl", "{}")
    ...     append_line(Path(folder) / "a.jsonl", "[]")
    ...     (Path(folder) / "a.jsonl").read_text()
    '{}\n[]\n'
    """
    try:
        descriptor, is_new = _open_to_append(path)
        try:
            before = os.fstat(descriptor).st_size
            if not before:  # it may be new
                _flush_folder(Path(path).parent)
            try:
                _write_all(descriptor, f"{line}\n".encode())
                os.fsync(descriptor)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, before)
                    if is_new:
                        os.unlink(path)
                raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise MirraxError(f"cannot write {path}: {explain(error)}") from error


def is_temporary(path: Path) -> bool:
    """Whether a file has a name under which something is, or was, being written.

    >>> is_temporary(Path("run/.0123456789abcdef.tmp")), is_temporary(Path("run/.tmp"))
    (True, False)
    """
    return _TEMPORARY.fullmatch(path.name) is not None


def sweep(folder: str | os.PathLike[str]) -> None:
    """Removes the temporary files, of a folder and those within, that killed processes have left.

    **Arguments:**

    - `folder`: where to look. What a living process writes, on whichever machine, stays.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / ".0123456789abcdef.tmp").write_bytes(b"half a fi")
    ...     sweep(folder)
    ...     os.listdir(folder)
    []
    """
    for path in Path(folder).rglob(f".*{_SUFFIX}"):
        if not is_temporary(path):
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR)
            try:
                if fcntl is not None:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(path)
            finally:
                os.close(descriptor)
            if fcntl is None:
                os.unlink(path)


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Writes an object as indented JSON, atomically.

    JSON has no NaN and no infinity: non-finite numbers are written as `null`, as in the run
    folder's "never reached". Arrays and scalars with `tolist` become lists and numbers.

    **Arguments:**

    - `path`: as in `write_atomically`.
    - `obj`: nested dicts, lists, tuples, strings, numbers, booleans, `None`, paths, arrays. Text
      that UTF-8 cannot hold, as the bytes of some paths, is written with backslash escapes.

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


def _state(path: str | os.PathLike[str]) -> os.stat_result | None:
    """What is at the end of a path's links; `None` where nothing is."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _write_as_it_is(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes what is no file: a rename would put a file in the place of the device."""
    descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NOCTTY", 0))
    try:
        _write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _open_to_append(path: str | os.PathLike[str]) -> tuple[int, bool]:
    """Opens a file at its end; whether it was made for that."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(path, flags, 0o666), False


def _write_and_rename(target: Path, data: bytes, before: os.stat_result | None) -> bool:
    """Writes a file, unless it was swept away before it could be locked."""
    # A random name that must not exist yet: two processes writing one target never share it.
    temporary = target.with_name(f".{secrets.token_hex(8)}{_SUFFIX}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(temporary, flags, 0o666)
        try:
            if not _locked(descriptor, temporary):
                return False
            _write_all(descriptor, data)
            if before is not None:
                _keep_rights(descriptor, before)
            os.fsync(descriptor)
            if fcntl is not None:
                os.replace(temporary, target)
        finally:
            os.close(descriptor)
        if fcntl is None:
            os.replace(temporary, target)
    except BaseException:  # also on Ctrl-C: leave no half-written file
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return True


def _locked(descriptor: int, path: Path) -> bool:
    """Locks a new file until it is closed; whether it is there still."""
    if fcntl is None:
        return True
    # File systems without locks have none to sweep by either.
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _keep_rights(descriptor: int, before: os.stat_result) -> None:
    """Gives a file the owner and the rights of the one whose place it takes."""
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        with contextlib.suppress(OSError):  # only root may give files away
            os.fchown(descriptor, before.st_uid, before.st_gid)
    if now.st_mode != before.st_mode and hasattr(os, "fchmod"):  # Windows has it from Python 3.13
        os.fchmod(descriptor, stat.S_IMODE(before.st_mode))


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:  # one call may write less than it was given
        rest = rest[os.write(descriptor, rest) :]


def _flush_folder(folder: Path) -> None:
    """Makes the rename itself survive a power cut, where the system lets folders be flushed."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
