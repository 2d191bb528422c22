r"""Trials of a search that workers on several machines share, and that goes on where it stopped.

The trials lie in a storage of Optuna's: a journal file, whose lock works on network file systems
too, or a database. Optuna is an extra, so this module is imported by those only that have seen to
it. Two rules keep workers from spoiling each other's work without clocks or locks
of their own. A trial is written in one piece with the number of trials that its choice took into
account, and counts only if that is its own number: of two workers that choose at once the second
finds its trial void, and chooses again, now knowing the first one's. And a trial's score follows
from its values, so anyone may finish a trial that was begun: one whose process is gone is taken
over first, and one that runs elsewhere when nothing else is left to do.
"""

import contextlib
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import (
    JournalFileBackend,
    JournalFileOpenLock,
    JournalFileSymlinkLock,
)
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from .._errors import ConfigError, MirraxError
from .._files import explain
from .._json import parse_json
from .._secrets import masked
from ._ranges import Space, point_of, values_at

optuna.logging.set_verbosity(optuna.logging.WARNING)

_ENTRY = b'{"op_code"'  # what every line of a journal begins with

_NO_TRIALS = (AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""How Optuna fails on entries that are no trials."""

Propose = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""`propose(points, scores, awaited) -> point`, in the unit cube."""


class Asked(NamedTuple):
    """A trial to be run: its number in the study, and its values."""

    number: int
    values: dict[str, float]


def open_storage(where: str) -> BaseStorage:
    """Opens the storage of trials, or makes it.

    **Arguments:**

    - `where`: a file, or the address of a database as Optuna takes it, such as `sqlite:///a.db`.

    **Raises:**

    - `ConfigError`: if the file is no journal or is damaged, or the database cannot be opened.
    - `MirraxError`: if the file cannot be written.
    """
    if "://" in where:
        return _open_database(where)
    # Windows lets few users make symbolic links.
    lock = (JournalFileOpenLock if os.name == "nt" else JournalFileSymlinkLock)(where)
    try:
        with open(where, "ab"):
            pass
        _check_journal(Path(where), lock)
        return JournalStorage(JournalFileBackend(where, lock))
    except OSError as error:
        raise MirraxError(f"cannot write {where}: {explain(error)}") from error
    except _NO_TRIALS as error:
        raise ConfigError(
            f"--storage: {where} is damaged; restore it, or name another file."
        ) from error


def _check_journal(path: Path, lock: Any) -> None:
    """Refuses a file of another kind, and drops a last line that a crash has cut short."""
    lock.acquire()
    try:
        with open(path, "rb+") as file:
            content = file.read()
            if not _is_journal(content):
                raise ConfigError(
                    f"--storage: {path} is not a journal of trials; name another file."
                )
            end = content.rfind(b"\n") + 1
            if not all(map(_is_entry, content[:end].split(b"\n")[:-1])):
                raise ValueError("a line is no entry")
            file.truncate(end)
    finally:
        lock.release()


def _is_journal(content: bytes) -> bool:
    """Whether the first line is an entry, or the beginning of one."""
    first, complete, _ = content.partition(b"\n")
    if not complete:
        return first[: len(_ENTRY)] == _ENTRY[: len(first)]
    try:
        return _is_entry(first)
    except ValueError:
        return False


def _is_entry(line: bytes) -> bool:
    entry = parse_json(line, finite=False)  # a trial may be infinitely bad
    return isinstance(entry, dict) and "op_code" in entry


@contextlib.contextmanager
def guarded(where: str) -> Iterator[None]:
    """Turns what a storage raises while it is used into one line.

    **Arguments:**

    - `where`: as for `open_storage`.

    **Raises:**

    - `MirraxError`: if it fails.
    """
    try:
        yield
    except (OptunaError, SQLAlchemyError, OSError) as error:
        why = explain(error) if isinstance(error, OSError) else type(error).__name__
        raise MirraxError(
            f"cannot use --storage {masked(where)}: {why}; finished trials are kept, and the run "
            "can be continued."
        ) from error


def _open_database(where: str) -> BaseStorage:
    try:
        return RDBStorage(where)
    except Exception as error:  # of SQLAlchemy or of any driver
        kind = where.partition("://")[0]  # the address may have a password in it
        raise ConfigError(
            f"--storage: cannot open the {kind} database ({type(error).__name__}); see Optuna's "
            "RDBStorage for the addresses it takes, or name a file."
        ) from error


def this_process() -> str:
    """The machine and the number of the process, by which its trials are known."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _is_gone(worker: str, shared: bool) -> bool:
    """Whether a process does not run any more; of other machines those of a storage not shared."""
    host, _, number = worker.rpartition(":")
    if host != socket.gethostname():
        return not shared
    if os.name != "posix" or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


class Search:
    """The trials of one optimiser.

    **Arguments:**

    - `storage`: what `open_storage` returned.
    - `name`: of the study; equal for all workers, different for whatever decides scores otherwise.
    - `space`: where to search.
    - `limit`: how many trials there shall be, of all workers together.
    - `propose`: chooses the next point.
    - `about`: what the study is, for people who look into the storage.
    - `worker`: by what name this worker is known.
    - `shared`: workers on other machines may be at work; what they began is left to them as long as
        there is anything else to do.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        space: Space,
        limit: int,
        propose: Propose,
        about: dict[str, Any],
        worker: str | None = None,
        shared: bool = True,
    ):
        self._space, self._limit, self._propose = space, limit, propose
        self._worker, self._shared = worker or this_process(), shared
        self._mine: set[int] = set()
        self._study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
        if not self._study.user_attrs:
            for key, value in about.items():
                self._study.set_user_attr(key, value)

    def ask(self) -> Asked | None:
        """A trial that nobody works on: one left behind, or a new one below `limit`; or `None`."""
        for trial in self._running():
            worker = trial.user_attrs["worker"]
            left = worker == self._worker and trial.number not in self._mine
            if left or _is_gone(worker, self._shared):
                return self._take(trial)
        while True:
            known = self._all()
            if sum(map(_counts, known)) >= self._limit:
                return None
            trial = self._begin(known)
            if _counts(trial):
                return self._take(trial)
            self._study.tell(trial.number, state=TrialState.FAIL)

    def help(self) -> Asked | None:
        """A trial that another worker has begun and not finished; `None` if there is none."""
        return next((self._take(trial) for trial in self._running()), None)

    def tell(self, asked: Asked, score: float) -> None:
        """Writes down what came of a trial, unless another worker has done so.

        **Arguments:**

        - `asked`: the trial.
        - `score`: what is minimised; a run that failed is infinitely bad.
        """
        with contextlib.suppress(UpdateFinishedTrialError):
            value = score if np.isfinite(score) else np.inf
            self._study.tell(asked.number, float(value), skip_if_finished=True)
        self._mine.discard(asked.number)

    @property
    def done(self) -> list[tuple[dict[str, float], float]]:
        """Values and score of every finished trial, in the order in which they were begun."""
        return [(dict(t.params), _score(t)) for t in self._trials() if t.state.is_finished()]

    def _trials(self) -> Iterator[FrozenTrial]:
        return filter(_counts, self._all())

    def _all(self) -> list[FrozenTrial]:
        """Every trial; a damaged file may have some that this search cannot have written."""
        trials = self._study.get_trials(deepcopy=False)
        for trial in filter(_counts, trials):
            same = trial.params.keys() == self._space.keys()
            if not same or len(trial.values or ()) > 1:
                raise ConfigError(
                    f"--storage: trial {trial.number} is not of this search: it has values of "
                    f"{', '.join(trial.params)}, and scores {trial.values}; expected "
                    f"{', '.join(self._space)}, and one; name another file."
                )
        return trials

    def _running(self) -> list[FrozenTrial]:
        return [trial for trial in self._trials() if not trial.state.is_finished()]

    def _take(self, trial: FrozenTrial) -> Asked:
        self._mine.add(trial.number)
        return Asked(trial.number, dict(trial.params))

    def _begin(self, known: list[FrozenTrial]) -> FrozenTrial:
        """Writes down a new trial, chosen with knowledge of some."""
        axes = len(self._space)
        done = [trial for trial in known if _counts(trial) and trial.state.is_finished()]
        others = [trial for trial in known if _counts(trial) and not trial.state.is_finished()]
        points, awaited = (
            np.array([point_of(self._space, trial.params) for trial in part]).reshape(-1, axes)
            for part in (done, others)
        )
        point = self._propose(points, np.array([_score(trial) for trial in done]), awaited)
        token = uuid.uuid4().hex
        self._study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=values_at(self._space, point),
                distributions={
                    name: FloatDistribution(found.low, found.high, log=found.scale == "log")
                    for name, found in self._space.items()
                },
                user_attrs={"worker": self._worker, "knows": len(known), "token": token},
            )
        )
        return next(t for t in reversed(self._all()) if t.user_attrs.get("token") == token)


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial was chosen with knowledge of all before it."""
    return trial.user_attrs.get("knows") == trial.number


def _score(trial: FrozenTrial) -> float:
    value = trial.value
    return np.inf if value is None else value
