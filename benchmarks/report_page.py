"""The page of five runs of different kinds: seconds from a cold process, and its size.

    python -m benchmarks.report_page [--runs FOLDER] [--rounds N] [--json FILE]

The runs are made first at smoke budget, in minutes, unless the folder has them. Each round is a new
process, `mirrax report DIR… --html FILE`, which reads the runs, writes every figure as SVG and PNG,
and the page. `CPU s` is the processor time of that process, which other programs disturb less.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import begin, finish, parser, table

RUNS = {
    "diagonal": ("train", "rotated-digits"),
    "components": (
        *("train", "rotated-digits"),
        *("--geometry", "max-of-diagonals", "--components", "3", "--estimator", "direct"),
    ),
    "quadratics": ("train", "quadratics"),
    "online-rates": ("reproduce", "s002-fig1"),
    "online-quadratics": ("reproduce", "s002-fig2"),
}
MIRRAX = (sys.executable, "-m", "mirrax.cli")
SECONDS, MEGABYTES = 10.0, 5.0


def make(folder: Path) -> list[Path]:
    """The run folders, made where they are missing."""
    paths = []
    for name, words in RUNS.items():
        paths.append(folder / name)
        if not paths[-1].exists():
            print(f"making {paths[-1]}", flush=True)
            command = [*MIRRAX, *words, "--budget", "smoke", "--json", "--out", str(paths[-1])]
            subprocess.run(command, check=True, capture_output=True)
    return paths


def report(runs: Sequence[Path], page: Path) -> tuple[float, float]:
    """Seconds on the clock, and of processor time, of one new process."""
    command = [*MIRRAX, "report", *map(str, runs), "--html", str(page)]
    before = os.times()
    subprocess.run(command, check=True, capture_output=True)
    clock = os.times().elapsed - before.elapsed
    user, system = (
        getattr(os.times(), key) - getattr(before, key)
        for key in ("children_user", "children_system")
    )
    return clock, user + system


def main(argv: Sequence[str] | None = None) -> int:
    """Times the command; the exit status is 1 where time or size is above what is required."""
    options = parser(__doc__)
    options.add_argument("--runs", type=Path, default=Path("runs/report-page"), help="their folder")
    options.add_argument("--rounds", type=int, default=5, help="new processes")
    arguments = options.parse_args(argv)
    record = begin()
    runs = make(arguments.runs)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        pairs = [report(runs, page) for _ in range(arguments.rounds)]
        size = page.stat().st_size / 1e6
    clock, cpu = zip(*pairs, strict=True)
    found = {"median": statistics.median(clock), "median_cpu": statistics.median(cpu)}
    row = [f"{value:.2f}" for value in (*found.values(), size)]
    print(table(["page of five runs", "median s", "CPU s", "MB"], [["mirrax report", *row]]))
    print(f"\nallowed: {SECONDS:g} s, {MEGABYTES:g} MB")
    record["report_page"] = {
        **{"runs": list(RUNS), "rounds": arguments.rounds, "seconds": found, "megabytes": size},
        "allowed": {"seconds": SECONDS, "megabytes": MEGABYTES},
    }
    finish(record, arguments.json)
    return int(found["median"] > SECONDS or size > MEGABYTES)


if __name__ == "__main__":
    sys.exit(main())
