"""What the benchmarks share: facts about the machine, tables, records.

Every benchmark is a module with `main(argv)`, run from the root of the repository as
`python -m benchmarks.NAME`; `--json FILE` writes what it prints.
"""

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mirrax
from mirrax import _machine
from mirrax._xla import set_devices, set_flags

set_flags()  # as the command line does
set_devices()

_BEGUN = time.perf_counter()
_SOURCES = (Path(str(mirrax.__file__)).parent, Path(__file__).parent)
PACKAGES = (*_machine.PACKAGES, "torch", "torchopt", "higher", "betty-ml")


def machine() -> dict[str, Any]:
    """Cores, processor, load, and the versions of what is installed of `PACKAGES`."""
    return {**_machine.machine(PACKAGES), "load_before": load()}


def load() -> float | None:
    """The machine's load over the last minute, where the system tells it."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


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
    write(record, file)


def write(record: dict[str, Any], file: Path | None) -> None:
    """Writes the record, if a file is named."""
    if file is not None:
        file.write_text(json.dumps(record, indent=2) + "\n")
        print(f"\nwrote {file}")
