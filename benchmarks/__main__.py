r"""Every comparison with a peer, by one command: ours, the fastest peer, this machine's floor.

    python -m benchmarks [--parts NAME …] [--quick] [--json FILE]

Each part is a benchmark of its own, run in a process of its own, and prints what it finds; the
table of all is at the end. `ratio` is our median over that of the fastest setting of any peer,
`allowed` what it may be. `arithmetic` is the time that the operations of the textbook's formulas
take at the rate at which this machine multiplies matrices, `memory` the time to read and write once
what has to be; `over floor` is our median over the larger. What begins with `~` is extrapolated.

FILE is written after every part; what it holds of other parts is kept, so the whole can be measured
in several goes. The exit status is 1 where something is not held, and 2 where a part failed.
`--quick` runs everything once, to see that it runs: its figures mean nothing.
"""

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import parser, write
from benchmarks._sides import told

PARTS: dict[str, tuple[str, ...]] = {
    "meta_step": ("--sizes", "omniglot", "--methods", "maml", "--rounds", "1"),
    "evaluation": ("--sizes", "omniglot", "--tasks", "2", "--rounds", "1"),
    "hypergradient": ("--steps", "5", "--rounds", "1", "--no-memory"),
    "implicit": ("--sizes", "1000", "--rounds", "1"),
    "deployed_step": ("--rounds", "1"),
}
"""The parts, and what makes them quick."""


def part(name: str, words: Sequence[str]) -> dict[str, Any] | None:
    """One benchmark in a process of its own; its record, or `None` if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "record.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", *words, "--json", str(file)]
        subprocess.run(command, check=False)
        if not file.exists():
            return None
        found = json.loads(file.read_text())
    found["record"]["command"] = shlex.join(["python", "-m", f"benchmarks.{name}", *words])
    return found


def joined(parts: dict[str, dict[str, Any]], quick: bool) -> dict[str, Any]:
    """One record of all parts: each says what made it, and has its lines of the table."""
    made = [
        {**one["machine"], **session, "command": one["record"]["command"]}
        for one in parts.values()
        for session in one["record"]["made_by"]
    ]
    lines = [line for one in parts.values() for line in one["standings"]]
    record = {"command": "python -m benchmarks", "made_by": made}
    return {"record": record, "quick": quick, "parts": parts, "standings": lines}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the parts; the exit status is 1 where something is not held, 2 where one failed."""
    options = parser(__doc__)
    options.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="NAME")
    options.add_argument("--quick", action="store_true", help="everything once")
    chosen = options.parse_args(argv)
    before, file = joined({}, chosen.quick), chosen.json
    if file is not None and file.exists():
        before = json.loads(file.read_text())
    if before["quick"] != chosen.quick:
        options.error(f"{file} is a record {'with' if before['quick'] else 'without'} --quick")
    parts, failed = before["parts"], []
    for name in chosen.parts:
        print(f"\n# {name}\n", flush=True)
        found = part(name, PARTS[name] if chosen.quick else ())
        if found is None:
            failed.append(name)
            continue
        parts[name] = found
        parts = {known: parts[known] for known in PARTS if known in parts}
        write(joined(parts, chosen.quick), file)
    lines = joined(parts, chosen.quick)["standings"]
    print("\n# all\n\n" + told(lines))
    for name in failed:
        print(f"{name} failed: see what it said above")
    if failed:
        return 2
    return int(not all(line["held"] for line in lines))


if __name__ == "__main__":
    sys.exit(main())
