"""Records of `benchmarks.estimators`: read, checked, continued and merged.

A file holds cases that the same code made on the same machine: its cases are comparable, whenever
they were measured. What is left to run of it are the cases it lacks, those that failed, those left
out under other limits, and those asked for again.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mirrax
from benchmarks._estimator_agreement import EXACT, SIDES, SOLUTION, Case, key
from benchmarks._estimator_case import busy, others
from benchmarks._estimator_problem import Size
from mirrax._errors import MirraxError

SOURCES = ("_checks.py", "_tree.py", "_spectrum.py", "_views.py")
SOURCES += ("geometry", "hypergradient", "inner")
"""What the sides use of mirrax."""

PROBLEM = ("_estimator_problem.py", "_estimator_sides.py", "_estimator_peers.py", "memory.py")


class Job(NamedTuple):
    """A case to be run."""

    side: str
    size: Size
    steps: int

    @property
    def case(self) -> Case:
        """The beginning of its record."""
        return {"side": self.side, "size": str(self.size), "steps": self.steps}


def jobs(sides: Iterable[str], sizes: Iterable[Size], steps: Iterable[int]) -> list[Job]:
    """All cases: small problems first, and in each the references before the others."""
    return sorted(itertools.starmap(Job, itertools.product(sides, sizes, steps)), key=_order)


def _order(job: Job) -> tuple[Any, ...]:
    first = job.side in (EXACT[0], SOLUTION[0])
    return job.size.parameters * job.steps, job.size, not first, SIDES.index(job.side)


def made_by(machine: Case) -> Case:
    """What must be equal for two cases to stand in one table: code, settings, machine."""
    facts = {name: value for name, value in machine.items() if name != "load_before"}
    return {"code": _digest(), "flags": os.environ.get("XLA_FLAGS", ""), "machine": facts}


def sources() -> list[Path]:
    """The files that decide what a case computes and how it is measured."""
    roots = [Path(str(mirrax.__file__)).with_name(name) for name in SOURCES]
    found = [file for root in roots for file in ([root] if root.is_file() else root.rglob("*.py"))]
    return sorted(found) + [Path(__file__).with_name(name) for name in PROBLEM]


def _digest() -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in sources())).hexdigest()[:16]


def read(file: Path) -> Case:
    """The `estimators` of a record."""
    try:
        found = json.loads(file.read_text())["estimators"]
        for case in found["cases"]:
            Job(case["side"], Size.read(case["size"]), int(case["steps"]))
    except OSError as error:
        raise MirraxError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise MirraxError(f"{file}: not a record of this benchmark, or damaged") from error
    return found


def continued(file: Path, made: Case) -> list[Case]:
    """The cases of a file that can stand beside those made now."""
    found = read(file)
    then = found.get("made_by")
    if then != made:
        differing = [
            name for name in made if not isinstance(then, dict) or then.get(name) != made[name]
        ]
        raise MirraxError(
            f"{file}: its {len(found['cases'])} cases were made with other {', '.join(differing)}; "
            "name another file, or measure all of it again with --discard"
        )
    return found["cases"]


def merged(parts: Iterable[Sequence[Case]]) -> list[Case]:
    """The cases of all parts; of two alike the one that was run, while the machine was calmer."""
    found: dict[Any, Case] = {}
    for case in (case for part in parts for case in part):
        best = found.get(key(case))
        if best is None or _worth(case) > _worth(best):
            found[key(case)] = case
    return list(found.values())


def _worth(case: Case) -> tuple[bool, bool, float]:
    return "cpu" in case, "failed" not in case, -others(case)


def remaining(found: Sequence[Case], wanted: Sequence[Job], limits: Case, redo: str) -> list[Job]:
    """The jobs that a file has no valid case of; `redo` is `all`, `busy` or empty."""
    known = {key(case): case for case in found}
    return [job for job in wanted if _to_run(known.get(key(job.case)), limits, redo)]


def _to_run(case: Case | None, limits: Case, redo: str) -> bool:
    if case is None or "failed" in case or redo == "all":
        return True
    if "skipped" in case:
        return case["limits"] != limits
    return redo == "busy" and busy(case)
