"""What a reader may do with any bytes: accept them rightly, or refuse them in one line.

Everything else is a finding: another exception, a warning, seconds of the processor, a gigabyte of
memory for a small file, a file written, read, moved or removed elsewhere, a pickle, a process, a
connection. A bare `ValueError` is one too: the command line would show it with a traceback.
"""

import contextlib
import os
import pickle
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
from target import Target

from mirrax._errors import MirraxError

SECONDS = 5.0  # of the processor, for files of a few kilobytes
ROOM = 1 << 30  # bytes of address space beyond those in use
_FORBIDDEN = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
_FORBIDDEN += ("os.fork", "socket.connect", "shutil.unpack_archive")
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_LIBRARIES = tuple(
    os.path.realpath(path)
    for path in (sys.prefix, sys.base_prefix, Path(__file__).parents[2], "/proc", "/sys", "/usr")
)


class Finding(BaseException):
    """What must not happen; not an `Exception`, which a reader might swallow."""


class _Watch:
    """The one audit hook of the process; Python has no way to take one out again."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        self.installed = False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in _FORBIDDEN:
            self.seen.append(f"{event} {args!r:.200}")
        elif event == "open" and isinstance(args[0], str | bytes):
            self._opened(os.path.realpath(os.fsdecode(args[0])), args[1], args[2])
        elif event in _CHANGES and args[-1] == -1:  # else below a folder that was seen opened
            self._changed(event, [os.fsdecode(it) for it in args if not isinstance(it, int)])

    def _changed(self, event: str, paths: list[str]) -> None:
        # Of a link itself: its folder's real path, and its own name.
        real = [os.path.join(os.path.realpath(Path(p).parent), Path(p).name) for p in paths]
        self.seen += [f"{event} {path}" for path in real if not self._inside(path)]

    def _inside(self, path: str) -> bool:
        compiled = os.path.realpath(jax.config.jax_compilation_cache_dir or os.devnull)
        return f"{path}/".startswith((f"{self.folder}/", f"{compiled}/"))

    def _opened(self, path: str, mode: str | None, flags: int) -> None:
        inside = self._inside(path) or path == os.devnull
        writes = flags & _WRITES or bool(set(mode or "") & set("wax+"))
        if not inside and (writes or not path.startswith(_LIBRARIES)):
            self.seen.append(f"{'writes' if writes else 'reads'} {path}")


_WATCH = _Watch()


def judge(target: Target, data: bytes, folder: Path) -> str:
    """Lets a reader read some bytes, under watch.

    **Arguments:**

    - `target`: the reader, with assertions on what it accepts.
    - `data`: the bytes, to be mended first.
    - `folder`: where they are written; nothing else is.

    **Returns:**

    `"accepted"` or `"refused"`.

    **Raises:**

    - `Finding`: whatever else happened.
    """
    path = target.write(folder, data)
    try:
        with _watched(folder), _limited():
            target.read(path)
    except MirraxError as error:
        _check_line(str(error))
        answer = "refused"
    except Exception as error:
        raise Finding(f"{type(error).__name__}: {error}") from error
    else:
        answer = "accepted"
    if _WATCH.seen:
        raise Finding("; ".join(_WATCH.seen))
    return answer


def _check_line(text: str) -> None:
    if not text.strip() or len(text.splitlines()) != 1 or len(text) > 2000:
        raise Finding(f"no one-line message: {text[:300]!r}")
    text.encode()  # a terminal must be able to show it


@contextlib.contextmanager
def _watched(folder: Path) -> Iterator[None]:
    if not _WATCH.installed:
        sys.addaudithook(_WATCH)
        _WATCH.installed = True
    _WATCH.seen.clear()
    _WATCH.folder = os.path.realpath(folder)
    try:
        with (
            warnings.catch_warnings(record=True) as told,
            mock.patch.multiple(pickle, **_NO_PICKLE),
        ):
            warnings.simplefilter("always")
            yield
    finally:
        _WATCH.folder = None
        # Pillow says of damaged remarks on an image that it passes over them.
        ours = [warning for warning in told if "PIL" not in Path(warning.filename).parts]
        _WATCH.seen += [f"warns {warning.message}" for warning in ours]


def _unpickled(*args: Any, **kwargs: Any) -> Any:
    raise Finding("a pickle is loaded")


_NO_PICKLE = dict.fromkeys(("load", "loads", "Unpickler", "_Unpickler"), _unpickled)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Ends what takes too long or too much; of the main thread only, which signals reach."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGPROF, _too_slow)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _too_slow(*_: Any) -> None:
    raise Finding(f"more than {SECONDS:g} seconds")
