"""What made a result: command, fields, commit, versions, machine, date and time, by sessions.

A run that was stopped and continued has several sessions, perhaps of other machines. Those alike
are one entry, whose seconds are their sum; what a session took that was killed is known up to its
last sign of progress, at most some seconds earlier.
"""

import dataclasses
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax

from .._errors import MirraxError
from .._files import write_json
from .._machine import commit, machine, now
from ._folder import RunFolder

FILE = "record.json"
_PAUSE = 10.0  # seconds between two writes


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
    - `command`, `seed`, `budget`: as on the command line; an earlier record's count where it is
        continued.
    """

    def __init__(self, path: Path, config: Any, *, command: str, seed: int, budget: str | None):
        self._folder, self._lock = RunFolder(path), threading.Lock()
        self._head = {"command": command, "seed": seed, "budget": budget}
        self._fields = dataclasses.asdict(config)
        self._session = {"started": now(), "sessions": 1, "commit": commit(), **machine()}
        self._begun, self._written = time.perf_counter(), -_PAUSE
        self._earlier: dict[str, Any] | None = None

    def keep(self, *, least: float = _PAUSE) -> None:
        """Writes the record with the time spent so far.

        **Arguments:**

        - `least`: not if it was written so many seconds ago or later.
        """
        with self._lock:
            spent = time.perf_counter() - self._begun
            if spent - self._written < least or not self._folder.path.is_dir():
                return
            if self._earlier is None:
                self._session |= _device()
            earlier = self._earlier or self.read() or {**self._head, "made_by": []}
            session = {**self._session, "seconds": round(spent, 1)}
            made_by = merged([*earlier["made_by"], session])
            found = {**earlier, "fields": self._fields, "made_by": made_by}
            write_json(self._folder / FILE, found)
            self._earlier, self._written = earlier, spent

    @property
    def begun(self) -> bool:
        """Whether anything was written."""
        return self._earlier is not None

    def read(self) -> dict[str, Any] | None:
        """The record, or `None` of a run that has none."""
        return self._folder.read_json(FILE)


@contextmanager
def recorded(path: Path, config: Any, **told: Any) -> Iterator[Recorder]:
    """Keeps the record of a run while it is worked on, to its end, whichever that is.

    **Arguments:**

    - `path`, `config`, `told`: as for `Recorder`.
    """
    recorder = Recorder(path, config, **told)
    try:
        yield recorder
    except BaseException:
        if recorder.begun:
            with suppress(MirraxError):  # what went wrong first is what is told
                recorder.keep(least=0.0)
        raise
    if recorder.begun:
        recorder.keep(least=0.0)


def merged(sessions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sessions with those that follow one alike added to it.

    **Arguments:**

    - `sessions`: each with `started`, `seconds`, `sessions` (how many it stands for) and facts.

    >>> one = {"started": "then", "seconds": 1.0, "sessions": 1, "cores": 2}
    >>> merged([one, {**one, "started": "later"}])
    [{'started': 'then', 'seconds': 2.0, 'sessions': 2, 'cores': 2}]
    """
    found: list[dict[str, Any]] = []
    for session in map(dict, sessions):
        if found and _facts(found[-1]) == _facts(session):
            found[-1]["seconds"] = round(found[-1]["seconds"] + session["seconds"], 1)
            found[-1]["sessions"] += session["sessions"]
        else:
            found.append(session)
    return found


def _facts(session: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in session.items() if k not in ("started", "seconds", "sessions")}
