"""A run folder read back: what `mirrax train` and `mirrax compare` wrote, checked and in one place.

A run in progress has only some of the files; a killed run may have a last line of metrics that is
cut short. Both are normal and are noted. Anything else that is wrong is one `MirraxError` line
that names the file and the remedy.
"""

import json
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mirrax._errors import MirraxError
from mirrax._files import explain
from mirrax._json import parse_json

from ._checks import (
    check_config,
    check_curves,
    check_geometry,
    check_record,
    check_summary,
    check_trajectories,
    has_rounds,
    known_kind,
    numbers,
)
from ._format import clean
from ._made_by import hardware_line, wall_seconds
from ._summaries import summary_tables


@dataclass(frozen=True)
class Run:
    """One run folder as plain data.

    **Arguments:**

    - `folder`: where it lies.
    - `config`: the content of `config.json`.
    - `rounds`: the meta-rounds of `metrics.jsonl`, by round number; a round that was run again
        after a resume is kept once, as it was run last.
    - `summary`, `curves`, `geometry`, `trajectories`: the content of the files of these names, or
        `None`; the summary with wall time and hardware, which are in `record.json`.
    - `record`: the content of `record.json`: what made it, session by session.
    - `notes`: what a reader should know: files not there yet, a last line that was cut short.

    >>> Run(Path("runs/a"), {"recipe": "rotated-digits"}).recipe
    'rotated-digits'
    """

    folder: Path
    config: dict[str, Any]
    rounds: tuple[dict[str, Any], ...] = ()
    summary: dict[str, Any] | None = None
    curves: dict[str, Any] | None = None
    geometry: dict[str, Any] | None = None
    trajectories: dict[str, Any] | None = None
    record: dict[str, Any] | None = None
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> "Run":
        """Reads and checks a run folder.

        **Arguments:**

        - `folder`: a folder with at least `config.json`.

        **Returns:**

        A `Run`.

        **Raises:**

        - `MirraxError`: one line that names the file that is missing or damaged, and the remedy.

        >>> Run.read("no/such/folder")
        Traceback (most recent call last):
            ...
        mirrax._errors.MirraxError: no run folder at no/such/folder; make one with `mirrax train ...
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise MirraxError(
                f"no run folder at {folder}; make one with `mirrax train rotated-digits --out "
                f"{shlex.quote(str(folder))}`, or give the folder of an existing run."
            )
        config = _read_json(folder / "config.json", check_config, "train")
        if config is None:
            raise MirraxError(
                f"{folder} is not a run folder: it has no config.json; give the folder that "
                "`mirrax train` wrote."
            )
        rounds, notes = _read_metrics(folder / "metrics.jsonl")
        summary = _read_json(folder / "summary.json", check_summary, "resume")
        _check_tables(folder / "summary.json", summary)
        curves = _read_json(folder / "curves.json", check_curves, "resume")
        geometry = _read_json(folder / "geometry.json", check_geometry, "resume")
        trajectories = _read_json(folder / "trajectories.json", check_trajectories, "resume")
        record = _read_json(folder / "record.json", check_record, "train")
        if summary is not None and record is not None:
            facts = {"wall_seconds": wall_seconds(record), "hardware": hardware_line(record)}
            summary = {**facts, **summary}
        if not rounds and has_rounds(summary):
            notes.append("No meta-round is finished yet.")
        elif geometry is None and has_rounds(summary):
            notes.append("There is no geometry.json yet: what was learned is not shown.")
        if summary is None:
            notes.append("There is no summary.json yet: the comparison has not been run.")
        elif not known_kind(summary):
            notes.append(f"This version has no tables for runs of kind {clean(summary['kind'])}.")
        elif summary.get("cells"):
            notes.append(
                "Each held-out task has a folder of its own inside this one; report on "
                f"{_named(folder, summary['cells'])} to see what was learned there."
            )
        found = (summary, curves, geometry, trajectories, record)
        return cls(folder, config, rounds, *found, tuple(notes))

    @property
    def recipe(self) -> str:
        """The name of the recipe, ready to print."""
        return clean(self.config["recipe"])

    @property
    def command(self) -> str:
        """The exact command that made the run, on one line."""
        return clean(self.config.get("command") or f"mirrax train {self.recipe}")

    @property
    def activation_by_step(self) -> list[list[float]] | None:
        """How often each component was active at each inner step, in the last round that says."""
        for record in reversed(self.rounds):
            if record.get("activation_by_step"):
                return record["activation_by_step"]
        return None


def _named(folder: Path, cells: Any) -> str:
    """The folders of a leave-one-out run, or the first of them and how many there are."""
    names = [clean(folder / str(name)) for name in cells]
    return names[0] + (f", or any of the {len(names)}," if len(names) > 1 else "")


def _read_bytes(path: Path) -> bytes | None:
    """The content of a file, or `None` where it does not exist."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror or explain(error)
        raise MirraxError(f"cannot read {path}: {reason}; check its permissions.") from error


def _remedy(path: Path, kind: str) -> str:
    if kind == "resume":
        return f"delete it and run the command in {path.parent / 'config.json'} with --resume."
    return "restore it from a copy, or train again into a new folder with `mirrax train`."


def _read_json(path: Path, check: Callable[[Any], str | None], kind: str) -> dict[str, Any] | None:
    """One JSON object, checked, or `None` where the file does not exist."""
    data = _read_bytes(path)
    if data is None:
        return None
    try:
        content = parse_json(data)
    except json.JSONDecodeError as error:
        raise MirraxError(
            f"{path} is damaged at line {error.lineno}: not valid JSON; {_remedy(path, kind)}"
        ) from error
    except ValueError as error:
        raise MirraxError(f"{path} is damaged: {error}; {_remedy(path, kind)}") from error
    fault = check(content) if isinstance(content, dict) else "it does not hold a JSON object"
    if fault:
        raise MirraxError(f"{path} cannot be used: {fault}; {_remedy(path, kind)}")
    return content


def _check_tables(path: Path, summary: dict[str, Any] | None) -> None:
    """Refuses a summary of which no table can be made: tables ask for more than is checked."""
    try:
        summary_tables(summary or {})
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise MirraxError(
            f"{path} cannot be used: it lacks what its tables show ({clean(error, 200)}); "
            f"{_remedy(path, 'resume')}"
        ) from error


def _read_metrics(path: Path) -> tuple[tuple[dict[str, Any], ...], list[str]]:
    """The rounds by number, and a note where the last line was cut short."""
    data = _read_bytes(path)
    if data is None:
        return (), []
    lines = data.split(b"\n")
    unfinished = lines.pop()  # empty where the last line is complete
    rounds, notes = {}, []
    for i, line in enumerate(lines, 1):
        if not line.strip():
            continue
        record = _round(line)
        if record is None:
            raise MirraxError(
                f"{path} is damaged at line {i}: not a record of a meta-round; delete that line, "
                "or train again into a new folder with `mirrax train`."
            )
        rounds[record["round"]] = record
    if unfinished.strip():
        record = _round(unfinished)
        if record is None:
            notes.append(
                "The last line of metrics.jsonl is cut short, as in a run that was stopped while "
                "writing; that line is left out."
            )
        else:
            rounds[record["round"]] = record
    return tuple(rounds[key] for key in sorted(rounds)), notes


def _round(line: bytes) -> dict[str, Any] | None:
    """One record of a meta-round, or `None` where the line is not one."""
    try:
        record = parse_json(line, finite=False)
    except ValueError:
        return None
    if not isinstance(record, dict) or type(record.get("round")) is not int:
        return None
    if not numbers([record.get(key) for key in ("value", "first_loss", "last_loss", "seconds")]):
        return None
    shares = record.get("activation")
    by_step = record.get("activation_by_step")
    if shares is not None and not numbers(shares):
        return None
    if by_step is not None and not (isinstance(by_step, list) and all(map(numbers, by_step))):
        return None
    return record
