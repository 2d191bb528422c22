"""Metrics in TensorBoard and Weights & Biases, copied from what a run writes anyway.

A run's `metrics.jsonl` files are the truth; a log is their copy, line by line, with the fields of
`config.json` and the tables at the end. What has been copied is kept beside the log, so a run that
is continued adds what is missing and repeats nothing, and a log may begin with any `--resume`.
Everything stays in the run folder, under `logs`; Weights & Biases runs offline. A log that cannot
be written stops with one line, and the run goes on.
"""

import abc
import contextlib
import importlib.util
import math
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import report
from .._errors import ConfigError
from .._files import explain, write_json
from .._json import parse_json

NEEDS = {"tensorboard": "tensorboardX", "wandb": "wandb"}
"""The logs there are, and the package that each needs."""


class Sink(abc.ABC):
    """Where scalars and texts go."""

    @abc.abstractmethod
    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds numbers of one step, and flushes them.

        **Arguments:**

        - `step`: a round, a meta-step, or whatever the run counts.
        - `scalars`: numbers by name.
        """

    @abc.abstractmethod
    def text(self, name: str, markdown: str) -> None:
        """Adds a text.

        **Arguments:**

        - `name`: what it is.
        - `markdown`: the text.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the log; it may be opened again."""


class TensorBoard(Sink):
    """Event files.

    **Arguments:**

    - `folder`: where they are.
    """

    def __init__(self, folder: Path):
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.record_writer import RecordWriter

        # Records are written by hand: tensorboardX's own writer has a thread whose errors are lost.
        name = f"events.out.tfevents.{time.time_ns()}.{secrets.token_hex(4)}"
        self._event, self._file = Event, RecordWriter(str(folder / name))
        self._add(file_version="brain.Event:2")

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """One event for each number."""
        from tensorboardX.summary import scalar

        for name, value in scalars.items():
            self._add(step=step, summary=scalar(name, value))
        self._file.flush()

    def text(self, name: str, markdown: str) -> None:
        """One event of TensorBoard's text plugin."""
        from tensorboardX.summary import text

        self._add(summary=text(name, markdown))
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _add(self, **fields: Any) -> None:
        self._file.write(self._event(wall_time=time.time(), **fields).SerializeToString())


class WandB(Sink):
    """An offline run of Weights & Biases; `wandb sync` sends it wherever the user wants.

    **Arguments:**

    - `folder`: where it is.
    - `name`: what the run is called.
    - `identity`: letters and digits that tell runs apart; the same one continues a run.
    - `fields`: the hyperparameters.
    """

    def __init__(self, folder: Path, name: str, identity: str, fields: Mapping[str, Any]):
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it would need a network
        import wandb

        quiet = wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True
        )
        self._run = wandb.init(
            mode="offline",
            project="mirrax",
            name=name,
            id=identity,
            dir=str(folder),
            config=dict(fields),
            settings=quiet,
        )
        self._run.define_metric("round")
        self._run.define_metric("*", step_metric="round")

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """One row of its history, over `round`, for parts of a run count anew."""
        self._run.log({"round": step, **scalars})

    def text(self, name: str, markdown: str) -> None:
        """An entry of its summary."""
        self._run.summary[name] = markdown

    def close(self) -> None:
        """Finishes the run."""
        self._run.finish()


class Log:
    """The copy of a run folder in one sink, which is opened when there is something to write.

    **Arguments:**

    - `root`: the run folder.
    - `kind`: a key of `NEEDS`.
    - `say`: takes a line for the user.
    """

    def __init__(self, root: Path, kind: str, say: Callable[[str], None]):
        self._root, self._kind, self._say = root, kind, say
        self._folder = root / "logs" / kind
        self._sink: Sink | None = None
        self._known: dict[str, Any] = {"id": secrets.token_hex(4), "rounds": {}, "texts": {}}
        self._failed = False

    def line(self, folder: Path, record: Mapping[str, Any]) -> None:
        """Copies a line that `metrics.jsonl` has gained.

        **Arguments:**

        - `folder`: the run folder, or that of a part of it.
        - `record`: the line.
        """
        self._try(lambda: self._copy(folder, [record]))

    def end(self, tables: Iterable[report.Table] = ()) -> None:
        """Adds the tables of a finished run, and closes the log.

        **Arguments:**

        - `tables`: what the run led to.
        """
        found = "\n\n".join(table.markdown() for table in tables)
        if found:
            self._try(lambda: self._text("results", found))
        if self._sink is not None:
            self._try(self._sink.close)

    def _try(self, action: Callable[[], None]) -> None:
        """Acts, and turns any failure into one line; nothing but the log stops then."""
        if self._failed:
            return
        try:
            action()
        except Exception as error:  # whatever a logging library may raise
            self._failed = True
            with contextlib.suppress(Exception):
                if self._sink is not None:
                    self._sink.close()
            with contextlib.suppress(Exception):  # nor may what cannot be said end the run
                told = explain(error) if isinstance(error, OSError) else str(error)
                why = told.splitlines()[0] if told else type(error).__name__
                self._say(f"--log {self._kind} stops here: {why}. The run goes on without it.")

    def _opened(self) -> Sink:
        if self._sink is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            config = _read(self._root / "config.json")
            self._known |= _read(self._folder / "written.json")
            fields = {key: config.get(key) for key in ("recipe", "seed", "budget")}
            fields |= config.get("fields", {})
            self._sink = self._made(fields)
            self._text("hyperparameters", _listed(fields))
            for path in sorted(self._root.rglob("metrics.jsonl")):
                self._copy(path.parent, _records(path))
        return self._sink

    def _made(self, fields: Mapping[str, Any]) -> Sink:
        if self._kind == "tensorboard":
            return TensorBoard(self._folder)
        return WandB(self._folder, self._root.name, self._known["id"], fields)

    def _copy(self, folder: Path, records: Iterable[Mapping[str, Any]]) -> None:
        """Copies those lines of a part of the run that are not copied yet; rounds only grow."""
        sink, part = self._opened(), folder.relative_to(self._root).as_posix()
        last = before = self._known["rounds"].get(part, -1)
        for record in records:
            if record["round"] > last:
                last = record["round"]
                sink.write(last, scalars(record, "" if part == "." else f"{part}/"))
        if last != before:
            self._known["rounds"][part] = last
            write_json(self._folder / "written.json", self._known)

    def _text(self, name: str, markdown: str) -> None:
        sink = self._opened()
        if self._known["texts"].get(name) != markdown:
            sink.text(name, markdown)
            self._known["texts"][name] = markdown
            write_json(self._folder / "written.json", self._known)


# What runs at the moment: folders are made in many places, and all of them append alike.
_logs: list[Log] = []


def log_kinds(choice: str | None) -> tuple[str, ...]:
    """The logs that an option asks for.

    **Arguments:**

    - `choice`: a key of `NEEDS`, `both`, or `None` for no log.

    **Raises:**

    - `ConfigError`: if a package is missing.

    >>> log_kinds(None)
    ()
    """
    kinds = () if choice is None else tuple(NEEDS) if choice == "both" else (choice,)
    for kind in kinds:
        if importlib.util.find_spec(NEEDS[kind]) is None:
            raise ConfigError(f"--log {kind} needs {NEEDS[kind]}; pip install 'mirrax[log]'.")
    return kinds


@contextlib.contextmanager
def logging_to(
    root: Path, kinds: Iterable[str], say: Callable[[str], None]
) -> Iterator[Callable[[Iterable[report.Table]], None]]:
    """Copies metrics that are appended below a folder while the block runs.

    **Arguments:**

    - `root`: the run folder, which need not exist yet.
    - `kinds`: of `log_kinds`.
    - `say`: takes a line for the user.

    **Returns:**

    What takes the tables of a finished run.
    """
    logs, results = [Log(root, kind, say) for kind in kinds], []
    _logs.extend(logs)
    try:
        yield results.extend
    finally:
        for log in logs:
            _logs.remove(log)
            log.end(results)


def mirror(folder: Path, record: Mapping[str, Any]) -> None:
    """Copies a line of metrics to the logs that are open.

    **Arguments:**

    - `folder`: the folder whose `metrics.jsonl` has gained it.
    - `record`: the line.
    """
    for log in _logs:
        log.line(folder, record)


def scalars(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The finite numbers of a line; those of a list by their places.

    **Arguments:**

    - `record`: a line of `metrics.jsonl`.
    - `prefix`: what their names begin with.

    >>> scalars({"round": 3, "value": 0.5, "active": [0.25, 0.75], "tasks": ["a"]})
    {'value': 0.5, 'active/0': 0.25, 'active/1': 0.75}
    """
    found: dict[str, float] = {}
    for key, value in record.items():
        entries = enumerate(value) if isinstance(value, list) else [("", value)]
        for place, number in entries:
            is_number = isinstance(number, int | float) and not isinstance(number, bool)
            if key != "round" and is_number and math.isfinite(number):
                found[f"{prefix}{key}/{place}".rstrip("/")] = float(number)
    return found


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file; one that was cut short is made again by the run."""
    for line in path.read_bytes().splitlines():
        try:
            yield parse_json(line)
        except ValueError:
            return


def _read(path: Path) -> dict[str, Any]:
    try:
        return parse_json(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}


def _listed(fields: Mapping[str, Any]) -> str:
    """A table of fields."""
    rows = [f"| {name} | {value} |" for name, value in fields.items()]
    return "\n".join(["| field | value |", "|---|---|", *rows])
