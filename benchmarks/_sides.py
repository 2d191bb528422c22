"""Sides of a comparison: PyTorch's with several numbers of threads, and who stands where."""

import functools
import json
import os
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import begin, finish, parser, table
from benchmarks._floor import Machine

OURS = "mirrax"
FIELDS = ("median", "fastest", "median_cpu")
_UNITS = {
    "s": (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)),
    "B": (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)),
}

Run = Callable[[], Any]


def thread_counts() -> list[int]:
    """One thread and all cores."""
    return sorted({1, torch.get_num_threads()})


def timing_options(doc: str | None, rounds: int) -> ArgumentParser:
    """A parser with the options of all comparisons with PyTorch."""
    options = parser(doc)
    options.add_argument("--rounds", type=int, default=rounds, help="timed runs of each side")
    options.add_argument(
        "--threads", nargs="+", type=int, default=thread_counts(), help="of PyTorch"
    )
    return options


def begun() -> tuple[dict[str, Any], Machine]:
    """The record that holds the machine's facts, and its floors; prints both."""
    record, machine = begin(), Machine.measure()
    print(machine.told() + "\n")
    return record, machine


def concluded(
    record: dict[str, Any], standings: Sequence[dict[str, Any]], file: Path | None
) -> int:
    """Prints the table of lines and writes the record; the exit status, 1 if one is not held."""
    print(told(standings))
    finish({**record, "standings": list(standings)}, file)
    return int(not all(line["held"] for line in standings))


def fresh(benchmark: str, *words: str, **environment: str) -> Any:
    """What a benchmark prints with these options, in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", *words]
    env = os.environ | environment
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env)
    return json.loads(done.stdout)


def require_agreement(difference: Mapping[str, float], tolerance: float) -> None:
    """Ends the benchmark where a side is further than that from the others, or is no number."""
    wrong = {name: found for name, found in difference.items() if not found <= tolerance}
    if wrong:
        raise SystemExit(f"these sides compute something else: {wrong}")


def at_threads(name: str, run: Run, counts: Sequence[int]) -> dict[str, Run]:
    """A side of PyTorch, once for each number of threads."""

    def threads(count: int) -> Any:
        torch.set_num_threads(count)
        return run()

    return {
        f"{name}, {count} thread{'s' if count > 1 else ''}": functools.partial(threads, count)
        for count in counts
    }


def ratios(times: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """What each side takes, over the fastest setting of a peer, by field."""
    others = [side for side in times if not side.startswith(OURS)]
    best = {field: min(times[side][field] for side in others) for field in FIELDS}
    return {side: {field: t[field] / best[field] for field in FIELDS} for side, t in times.items()}


def standing(
    what: str,
    times: Mapping[str, Mapping[str, float]],
    machine: Machine,
    *,
    operations: float,
    moved: float,
    allowed: float | None = None,
    floors: float | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A line of the table of all benchmarks: ours, the fastest peer, the floor of this machine.

    **Arguments:**

    - `what`: what is measured.
    - `times`: from `interleave`; ours is called `mirrax`.
    - `machine`, `operations`, `moved`: see `Machine.floors`.
    - `allowed`: our time over that of the fastest peer, at most, where that is required.
    - `floors`: our time over the higher floor, at most, where that is required.
    - `more`: anything else worth keeping.
    """
    others = [side for side in times if not side.startswith(OURS)]
    peer = min(others, key=lambda side: times[side]["median"])
    ours, floor = times[OURS]["median"], machine.floors(float(operations), float(moved))
    line = _line(what, "s", ours, peer, times[peer]["median"], allowed)
    of_floor = ours / max(floor.values())
    line |= {"cpu_ratio": ratios(times)[OURS]["median_cpu"], "floor": floor, "of_floor": of_floor}
    line["held"] &= floors is None or of_floor <= floors
    return {**line, "of_floor_allowed": floors, **more}


def of_memory(
    what: str, ours: float, peer: str, theirs: float, *, allowed: float, **more: Any
) -> dict[str, Any]:
    """Such a line of bytes."""
    return {**_line(what, "B", ours, peer, theirs, allowed), **more}


def _line(
    what: str, unit: str, ours: float, peer: str, theirs: float, allowed: float | None
) -> dict[str, Any]:
    return {
        "what": what,
        "unit": unit,
        "ours": ours,
        "peer": peer,
        "theirs": theirs,
        "ratio": ours / theirs,
        "allowed": allowed,
        "held": allowed is None or ours / theirs <= allowed,
    }


def told(lines: Sequence[Mapping[str, Any]]) -> str:
    """Such lines as a table; `~` stands before what is extrapolated."""
    header = ["", "ours", "fastest peer", "takes", "ratio", "of CPU", "allowed"]
    header += ["arithmetic", "memory", "over floor", "held"]
    return table(header, [_cells(line) for line in lines])


def _cells(line: Mapping[str, Any]) -> list[str]:
    floor = line.get("floor")
    cells = ["-"] * 3
    if floor:
        cells = [short(floor[name], "s") for name in ("arithmetic", "memory")]
        most = line["of_floor_allowed"]
        cells.append(f"{line['of_floor']:.3g}" + (f" of {most:g}" if most else ""))
    return [
        line["what"],
        short(line["ours"], line["unit"]),
        line["peer"],
        ("~" if line.get("predicted") else "") + short(line["theirs"], line["unit"]),
        f"{line['ratio']:.2g}",
        f"{line['cpu_ratio']:.2g}" if "cpu_ratio" in line else "-",
        "-" if line["allowed"] is None else f"{line['allowed']:g}",
        *cells,
        "yes" if line["held"] else "NO",
    ]


def short(value: float, unit: str) -> str:
    """A time or a number of bytes with a unit that suits it.

    >>> short(0.0123, "s"), short(2.5e6, "B")
    ('12.3 ms', '2.5 MB')
    """
    name, size = next((u for u in _UNITS[unit] if abs(value) >= u[1]), _UNITS[unit][-1])
    return f"{value / size:.3g} {name}"
