"""What made a result: command, fields, commit, versions, machine, date and time, by sessions.

A run that was stopped and continued has several sessions, perhaps of other machines. Those alike
are one entry, whose seconds are their sum; what a session took that was killed is known up to its
last sign of progress, at most some seconds earlier.
"""

import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax

from .._errors import ConfigError, MirraxError
from .._files import explain, sweep, write_json
from .._machine import commit, machine, now
from ._config import fields_of, made_otherwise, option
from ._folder import RunFolder

FILE = "record.json"
_PAUSE = 10.0  # seconds between two writes
_DEFAULTS: Mapping[str, Any] = {"seed": 0, "budget": "default"}
_FREE = frozenset(("resume", "out", "data", "log", "json"))  # options that decide no result


def _device() -> dict[str, Any]:
    """What JAX computes on."""
    devices = jax.devices()
    return {"device": devices[0].device_kind, "devices": len(devices)}


class Recorder:
    """Keeps `record.json` of a run folder true while a command works in it.

    Nothing is written before there is a folder and a first sign of progress, so that a command
    that is refused, or finds everything done, leaves the record as it was.

    **Arguments:**

    - `path`: the run folder.
    - `config`: the study.
    - `name`: the verb, and the recipe or reproduction.
    - `command`, `seed`, `budget`: as on the command line; those of an earlier record count where it
        is continued, and its parts have commands of their own.
    - `varies`: fields that differ from part to part of the run, which are left out.
    """

    def __init__(
        self,
        path: Path,
        config: Any,
        *,
        name: str,
        command: str,
        seed: int,
        budget: str | None,
        varies: Collection[str] = (),
    ):
        self._folder, self._lock = RunFolder(path), threading.Lock()
        self._head = {"name": name, "command": command, "seed": seed, "budget": budget}
        self._fields = {k: v for k, v in fields_of(config).items() if k not in varies}
        self._session = {"started": now(), "command": command, "commit": commit(), **machine()}
        self._begun, self._written, self._told = time.perf_counter(), -_PAUSE, 0.0
        self.begun = False

    def keep(self, *, least: float = _PAUSE) -> None:
        """Writes the record with the time spent so far.

        **Arguments:**

        - `least`: not if it was written so many seconds ago or later.
        """
        with self._lock:
            spent = time.perf_counter() - self._begun
            if spent - self._written < least or not self._folder.path.is_dir():
                return
            if not self.begun:
                self._session |= _device()
            # Another command may have written meanwhile: only what is new is added.
            earlier, told = self.read() or self._before(), round(spent, 1)
            session = {**self._session, "seconds": round(told - self._told, 1)}
            session["sessions"] = 0 if self.begun else 1
            made_by = added(earlier["made_by"], session)
            write_json(self._folder / FILE, {**earlier, "fields": self._fields, "made_by": made_by})
            self.begun, self._written, self._told = True, spent, told

    @property
    def revised(self) -> bool:
        """Whether the record is of other fields, as where finished runs make another table."""
        earlier = self.read() or {}
        return earlier.get("fields", self._fields) != self._fields

    def _before(self) -> dict[str, Any]:
        """A record to begin with; of a run that was begun without one, what its files tell."""
        files = ("config", "cells", "summary")
        config, cells, summary = (self._folder.read_json(f"{it}.json") or {} for it in files)
        known = {name: config.get(name, told) for name, told in self._head.items()}
        if not cells and not self._folder.begun:
            return {**known, "made_by": []}
        seconds = cells.get("seconds", summary.get("wall_seconds"))
        part = {
            "started": None,
            "command": known["command"],
            "commit": None,
            "seconds": None if seconds is None else round(seconds, 1),
            "sessions": 1,
        }
        return {**known, "made_by": [part]}

    def read(self) -> dict[str, Any] | None:
        """The record, or `None` of a run that has none."""
        return self._folder.read_json(FILE)


@contextmanager
def beside(folder: RunFolder, name: str) -> Iterator[Path]:
    """A folder in that of a run, for what is found of it later; gone again where nothing was.

    **Arguments:**

    - `folder`: the run's.
    - `name`: of the folder in it.

    **Raises:**

    - `MirraxError`: if it cannot be made.
    """
    path = folder / name
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise MirraxError(f"cannot write {path}: {explain(error)}") from error
    try:
        yield path
    finally:
        with suppress(OSError):  # it is not empty
            path.rmdir()


def with_that_of(run: RunFolder, path: Path) -> dict[str, Any]:
    """The record of what was found of a run later: the sessions of the run had a part in it.

    **Arguments:**

    - `run`: the run.
    - `path`: the folder of what was found later.
    """
    first, own = (folder.read_json(FILE) or {"made_by": []} for folder in (run, RunFolder(path)))
    return {**own, "made_by": [*first["made_by"], *own["made_by"]]}


def check_same(path: Path, name: str) -> None:
    """Refuses to continue a folder whose record is of something else.

    **Arguments:**

    - `path`: the run folder.
    - `name`: as for `Recorder`.

    **Raises:**

    - `ConfigError`: naming what it is of.
    """
    made = (RunFolder(path).read_json(FILE) or {}).get("name", name)
    if made != name:
        raise ConfigError(f"{path} was made by mirrax {made}; choose another --out.")


def asked_for(
    path: Path, name: str, *, seed: int | None, budget: str | None, resume: bool
) -> dict[str, Any]:
    """What a command asks for that says it or not; a run goes on with the seed and budget it has.

    **Arguments:**

    - `path`, `name`: as for `Recorder`.
    - `seed`, `budget`, `resume`: as on the command line, `None` where it says nothing.

    **Returns:**

    Seed and budget: as given, else those of the run that goes on, else the defaults.

    **Raises:**

    - `ConfigError`: if the run that shall go on is of something else, or has not what is given.
    """
    asked = {"seed": seed, "budget": budget}
    given = {field: value for field, value in asked.items() if value is not None}
    if not resume:
        return {**_DEFAULTS, **given}
    check_same(path, name)
    made = _made_with(path)
    for field, value in given.items():
        if value != made.get(field, value):
            raise made_otherwise(path, option(field), made[field], value)
    return {**_DEFAULTS, **given, **made}


def _made_with(path: Path) -> dict[str, Any]:
    """The seed and budget of a run, as far as its files tell."""
    found = RunFolder(path).read_json(FILE) or {}
    if (path / "config.json").exists():
        found |= RunFolder.open(path)[1]
    return {
        option: found[option]
        for option, value in _DEFAULTS.items()
        if type(found.get(option)) is type(value)
    }


@contextmanager
def recorded(path: Path, config: Any, **told: Any) -> Iterator[Recorder]:
    """Keeps the record of a run while it is worked on, to its end, whichever that is.

    What killed processes have left half-written there is removed first.

    **Arguments:**

    - `path`, `config`, `told`: as for `Recorder`.
    """
    sweep(path)
    recorder = Recorder(path, config, **told)
    try:
        yield recorder
    except BaseException:
        if recorder.begun:
            with suppress(MirraxError):  # what went wrong first is what is told
                recorder.keep(least=0.0)
        raise
    if recorder.begun or recorder.revised:
        recorder.keep(least=0.0)


def added(parts: Sequence[Mapping[str, Any]], session: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of a record with a session added to the last of them, if that is alike.

    **Arguments:**

    - `parts`: each with `started`, `command`, `seconds`, `sessions` (how many it stands for) and
        facts.
    - `session`: the same; one that goes on, of 0 new sessions, is added to the last part alike.

    >>> one = {"started": "then", "command": "run", "seconds": 1.0, "sessions": 1, "cores": 2}
    >>> added([one], {**one, "started": "later", "command": "run --resume"})
    [{'started': 'then', 'command': 'run', 'seconds': 2.0, 'sessions': 2, 'cores': 2}]
    """
    found = [dict(part) for part in parts]
    for part in found[-1:] if session["sessions"] else reversed(found):
        if _facts(part) == _facts(session) and _asks(session) <= _asks(part):
            part["seconds"] = round(part["seconds"] + session["seconds"], 1)
            part["sessions"] += session["sessions"]
            return found
    return [*found, dict(session)]


def _facts(session: Mapping[str, Any]) -> dict[str, Any]:
    free = ("started", "command", "seconds", "sessions")
    return {name: value for name, value in session.items() if name not in free}


def _asks(session: Mapping[str, Any]) -> set[str]:
    """The options of its command that may decide what is found."""
    options = session.get("command", "").split(" --")
    return {option for option in options if option.split(" ")[0].split("=")[0] not in _FREE}
