"""Several processes, one run: each makes the same calls on the same values, and one writes.

All that a process decides follows from what it reads, so all read the same: the others work in a
copy of the first one's run folder, taken when they begin and thrown away at the end. No folder need
therefore be shared. Arrays that a round returns lie whole on every device, and so on every process.
"""

import atexit
import dataclasses
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from .._errors import ConfigError, LostProcess, MirraxError
from .._json import to_json
from .._machine import machine
from ._config import Config, override

ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
JOIN, HEARTBEAT = "MIRRAX_JOIN_SECONDS", "MIRRAX_HEARTBEAT_SECONDS"

_WEEK = 7 * 24 * 3600  # the others may wait so long for the first to finish alone
_AGAIN = "start all of them again with --resume to continue"
_UNREACHED = (
    f"mirrax: not all processes of this run have met within {JOIN}; check that {ADDRESS} can be "
    "reached by all, and that all were started."
)
_LOST = f"mirrax: another process of this run was lost, or this one was killed; {_AGAIN}."
# What the errors of a collective have in common, whose types differ from back end to back end.
_OF_OTHERS = re.compile(r"gloo|nccl|rccl|coordination|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED", re.I)
_LAST_WORD = """\
import sys
word = ""
for word in sys.stdin:
    pass
sys.stderr.write(word.lstrip())
"""


class Dismissed(BaseException):
    """What is left of a command is done by the first process alone."""


def dismiss_others() -> None:
    """Ends the work of all processes but the first, which goes on alone.

    **Raises:**

    - `Dismissed`: in all others; `together` catches it.
    """
    if not leads():
        raise Dismissed


def leads() -> bool:
    """Whether this is the process that writes and speaks: the first, or the only one."""
    return jax.process_index() == 0


def override_over_all(config: Config, values: Sequence[str]) -> Config:
    """`override`, and tasks spread over all devices of all processes unless told otherwise.

    **Arguments:**

    - `config`, `values`: as for `override`.
    """
    config = override(config, values)
    if not hasattr(config, "devices") or any(word.startswith("--devices") for word in values):
        return config
    there = max(1, jax.device_count() // getattr(config, "batch_devices", 1))
    return dataclasses.replace(config, devices=there)  # type: ignore[type-var]


class _LastWord:
    """Says a line on standard error if this process ends without taking it back.

    JAX ends a process from within, with a trace of its own, where its coordinator is lost; no code
    of that process runs any more. So a small child waits for the end of a pipe.
    """

    def __init__(self):
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAST_WORD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is not for it
        )

    def be(self, line: str) -> None:
        """Replaces the line.

        **Arguments:**

        - `line`: the new one; an empty one says nothing.
        """
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):
            self._child.stdin.write(line + "\n")
            self._child.stdin.flush()

    def take_back(self) -> None:
        """Ends the child without a word."""
        self.be("")
        self._child.communicate()


@contextmanager
def together(folder: Path, asked: Mapping[str, Any], *, resume: bool) -> Iterator[Path]:
    """Joins the processes of one run, before anything is computed; leaves them in the end.

    **Arguments:**

    - `folder`: the run folder, of which that of the first process counts.
    - `asked`: what this process was asked for, in which all must agree.
    - `resume`: whether a run goes on, so that all begin with what the first one's folder holds.

    **Returns:**

    The folder to work in.

    **Raises:**

    - `ConfigError`: if the environment does not say who takes part, or processes disagree.
    - `LostProcess`: if another process ends before its work is done.
    """
    settings = _environment()
    with _output_of_its_own():
        yield from _together(settings, folder, {**asked, "--resume": resume}, resume)


def _together(
    settings: Mapping[str, Any], folder: Path, asked: Mapping[str, Any], resume: bool
) -> Iterator[Path]:
    word = _LastWord()
    try:
        word.be(_UNREACHED)
        _join(settings)
        word.be(_LOST)
    except BaseException as error:
        _leave_at_once(error, word)
        raise
    try:
        _agree({**asked, "versions": machine()["versions"], "precision": _precision()})
        with _own(folder, resume) as own:
            yield own
    except Dismissed:
        pass
    except BaseException as error:
        _leave_at_once(error, word)
        if not isinstance(error, MirraxError | OSError) and _OF_OTHERS.search(str(error)):
            reason = str(error).splitlines()[0]
            raise LostProcess(f"another process of this run was lost ({reason}); {_AGAIN}.") from (
                error
            )
        raise
    jax.distributed.shutdown()  # waits for the others
    word.take_back()


@contextmanager
def _output_of_its_own() -> Iterator[None]:
    """Leaves standard output to Python: gloo, which connects CPUs, would write there too."""
    sys.stdout.flush()
    before, output = sys.stdout, os.dup(1)
    os.dup2(2, 1)
    try:
        with open(os.dup(output), "w", encoding=before.encoding) as sys.stdout:
            yield
    finally:
        sys.stdout = before
        os.dup2(output, 1)
        os.close(output)


def _leave_at_once(error: BaseException, word: _LastWord) -> None:
    """Has this process end without JAX's farewell, which waits for the others.

    They notice, and say so: nobody waits for somebody who will not come.
    """
    code = 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)
    code = LostProcess.exit_code if _OF_OTHERS.search(str(error)) and code == 1 else code

    def leave() -> None:
        word.take_back()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    atexit.register(leave)  # the last to be registered is the first to be called


def _environment() -> dict[str, Any]:
    """What the environment says of the processes, as arguments of `jax.distributed.initialize`."""
    numbers: dict[str, int | None] = {}
    for name, least in ((COUNT, 1), (NUMBER, 0), (JOIN, 1), (HEARTBEAT, 1)):
        text = os.environ.get(name)
        if text is not None and not (text.isdecimal() and int(text) >= least):
            raise ConfigError(f"{name}: expected a whole number from {least}, got {text!r}.")
        numbers[name] = None if text is None else int(text)
    count, number = numbers[COUNT], numbers[NUMBER]
    if count is not None and number is not None and number >= count:
        raise ConfigError(f"{NUMBER}: expected 0 to {count - 1}, as {COUNT} is {count}.")
    address = os.environ.get(ADDRESS)
    if address is not None and not re.fullmatch(r".+:\d+", address):
        raise ConfigError(f"{ADDRESS}: expected HOST:PORT of the first process, got {address!r}.")
    return {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": number,
        "initialization_timeout": numbers[JOIN] or 300,
        "heartbeat_timeout_seconds": numbers[HEARTBEAT] or 100,
        "shutdown_timeout_seconds": _WEEK,
    }


def _join(settings: Mapping[str, Any]) -> None:
    try:
        jax.distributed.initialize(**settings)
    except ValueError as error:  # something is neither set nor found out
        missing = [name for name in (ADDRESS, COUNT, NUMBER) if name not in os.environ]
        raise ConfigError(
            "--distributed: the environment does not say which processes take part; start them by "
            f"srun, mpirun or on a Cloud TPU, or set {', '.join(missing)}."
        ) from error
    except RuntimeError as error:  # such as a port that is taken
        raise ConfigError(f"--distributed: {str(error).splitlines()[0]}") from error


def _precision() -> str:
    return str(np.dtype(jax.numpy.result_type(float)))


def _agree(said: Mapping[str, Any]) -> None:
    """Refuses processes that would not make the same calls."""
    said = {**said, "number of devices": jax.local_device_count()}
    digests = [hashlib.sha256(to_json(value).encode()).digest() for value in said.values()]
    own = np.frombuffer(b"".join(digests), np.uint8).reshape(len(said), -1)
    found = np.asarray(multihost_utils.process_allgather(own)).reshape(-1, *own.shape)
    process, topic = np.nonzero((found != found[0]).any(axis=-1))
    if len(process):
        raise ConfigError(
            f"process {process[0]} differs from process 0 in its {list(said)[topic[0]]}; start all "
            "processes of a run alike."
        )


@contextmanager
def _own(folder: Path, resume: bool) -> Iterator[Path]:
    """The folder that this process works in: the first one's, or a copy of it."""
    packed = _told(_packed(folder) if leads() else b"") if resume else b""
    if leads():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="mirrax-") as private:
        own = Path(private) / folder.name
        if packed:
            with zipfile.ZipFile(io.BytesIO(packed)) as archive:
                archive.extractall(own)
        yield own


def _packed(folder: Path) -> bytes:
    """All files of a folder, but for copies that only viewers read."""
    packed = io.BytesIO()
    # Times of files count for nothing here, and those of 1970 are no error.
    with zipfile.ZipFile(packed, "w", strict_timestamps=False) as archive:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if name.parts[0] != "logs" and path.is_file():
                archive.write(path, name)
    return packed.getvalue()


def _told(data: bytes) -> bytes:
    """The bytes of the first process, in every process."""
    length = np.frombuffer(len(data).to_bytes(8, "little"), np.uint8)
    length = np.asarray(multihost_utils.broadcast_one_to_all(length)).tobytes()
    content = np.frombuffer(data, np.uint8)
    if not leads():
        content = np.zeros(int.from_bytes(length, "little"), np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(content)).tobytes()
