"""What the benchmarks share: facts about the machine, interleaved timing, tables, records.

Every benchmark is a module with `main(argv)`, run from the root of the repository as
`python -m benchmarks.NAME`; `--json FILE` writes what it prints.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mirrax
from mirrax import _machine
from mirrax._xla import set_flags

set_flags()  # as the command line does

_BEGUN = time.perf_counter()
_SOURCES = (Path(str(mirrax.__file__)).parent, Path(__file__).parent)
PACKAGES = (
    "jax",
    "jaxlib",
    "equinox",
    "optax",
    "numpy",
    "torch",
    "torchopt",
    "higher",
    "betty-ml",
)


def machine() -> dict[str, Any]:
    """Cores, processor, load, and the versions of what is installed of `PACKAGES`."""
    return {**_machine.machine(PACKAGES), "load_before": load()}


def load() -> float | None:
    """The machine's load over the last minute, where the system tells it."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def interleave(
    sides: dict[str, Callable[[], Any]], rounds: int, *, pause: float = 0.05
) -> dict[str, dict[str, float]]:
    """Times each side once a round, so that whatever else the machine does meets all alike.

    Each side runs once untimed first (compilation, allocation). A pause before each run lets the
    worker threads of the side before fall asleep: some spin for a while when idle.

    **Arguments:**

    - `sides`: functions by name; each returns when its work is done.
    - `rounds`: how often each is timed.
    - `pause`: seconds of rest before each run.

    **Returns:**

    For each side `median`, `fastest` and `first` (the untimed run), in seconds, and
    `median_cpu`, the seconds of processor time over all threads: on a machine that others use too
    it changes far less from run to run.
    """
    first = {name: _seconds(run)[0] for name, run in sides.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            time.sleep(pause)
            times[name].append(_seconds(run))
    return {
        name: {
            "median": statistics.median(seconds for seconds, _ in pairs),
            "fastest": min(seconds for seconds, _ in pairs),
            "median_cpu": statistics.median(cpu for _, cpu in pairs),
            "first": first[name],
        }
        for name, pairs in times.items()
    }


def _seconds(run: Callable[[], Any]) -> tuple[float, float]:
    """Seconds on the clock, and of processor time."""
    clock, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - clock, time.process_time() - cpu


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in plain text; the first column is text, the others are aligned to the right."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "  ".join([row[0].ljust(widths[0]), *rest]).rstrip()

    return "\n".join([line(cells[0]), "  ".join("-" * w for w in widths), *map(line, cells[1:])])


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have."""
    options = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--json", type=Path, metavar="FILE", help="write the record here")
    return options


def begin() -> dict[str, Any]:
    """Prints the machine's facts and returns the record that holds them."""
    facts = machine()
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    print(
        f"{facts['cores']} cores, {facts['processor']}, {facts['system']}, "
        f"load {facts['load_before']}; Python {facts['python']}; {versions}\n"
    )
    made = {"started": _machine.now(), "commit": _machine.commit(*_SOURCES)}
    command = shlex.join(["python", *sys.orig_argv[1:]])
    return {"machine": facts, "record": {"command": command, "made_by": [made]}}


def finish(record: dict[str, Any], file: Path | None) -> None:
    """Writes the record, with the time the command took, if a file is named."""
    record["record"]["made_by"][0]["seconds"] = round(time.perf_counter() - _BEGUN, 1)
    if file is not None:
        file.write_text(json.dumps(record, indent=2) + "\n")
        print(f"\nwrote {file}")
