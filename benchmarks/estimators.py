r"""Time and memory of hypergradient estimators, against the run's length and what is learned.

    python -m benchmarks.estimators [--steps 10 ...] [--sizes 10 10x10000 ...] [--sides NAME ...]
                                    [--rounds N] [--seconds S] [--gigabytes G] [--json FILE]
                                    [--merge FILE ...] [--redo all|busy] [--discard]
                                    [--plan | --report]

Each case runs in a process of its own. A size `n` is a problem of `n` parameters with a learned
number each; `10x10000` has ten learned numbers, each shared by 10,000 parameters. The problem is
that of `benchmarks._estimator_problem`, in float32; `run` is the run without any derivative.

`ms` are medians of a few hypergradients after compilation on the clock, `CPU ms` of processor time;
the record has the least and the most too. XLA and PyTorch have one thread each, so that the second
is what the first is on an idle machine. `MB` is by how much the peak of resident memory rose in the
first one, above what was resident before; for mirrax the record also has what XLA planned, and the
time to compile. A case is not run if XLA's plan, or the growth from shorter runs, exceeds the
limits on processor time and memory; what was predicted or planned then stands in parentheses. Each
case has its limits in the record, and the machine's load before it; figures taken while the load by
others was above 1.5 are marked.

FILE is written after every case. The same command continues it, and it can be measured in parts
and put together with `--merge`: cases that it has are kept, unless they failed, or were left out
under other limits. A file is of one code, one machine and the same versions; others are refused.

Sides that compute the same number must agree to 1e-3: the exact ones with `reverse`, those of the
solution with `implicit, cg`; where that exceeds its limits, with the next exact side. For the
others the table of differences says how far they are; they are known to about 6% (see
`benchmarks._estimator_agreement`). The exit status is 1 if a side of mirrax disagrees, if a case
failed, and if what one is to be compared with was not run.
"""

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import begin, parser
from benchmarks._estimator_agreement import PROJECTIONS, SIDES, Case, judged, key, named
from benchmarks._estimator_case import Load, limits_of, one
from benchmarks._estimator_problem import Size
from benchmarks._estimator_record import Job, continued, jobs, made_by, merged, read, remaining
from benchmarks._estimator_tables import faults, figure, show, show_plan
from mirrax._errors import MirraxError
from mirrax._files import write_json

STEPS = (10, 100, 1_000, 10_000)
SIZES = ("10", "1000", "100000", "1000000", "10x10000")
PUBLISHED = Path("docs/results/estimator-cost.json")


def _options() -> ArgumentParser:
    options = parser(__doc__)
    options.add_argument("--steps", nargs="+", type=int, default=list(STEPS))
    options.add_argument("--sizes", nargs="+", type=Size.read, default=list(map(Size.read, SIZES)))
    options.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), metavar="NAME")
    options.add_argument("--rounds", type=int, default=3, help="timed runs of each case")
    options.add_argument("--seconds", type=float, default=20.0, help="of one hypergradient")
    options.add_argument("--gigabytes", type=float, default=6.0, help="of one hypergradient")
    options.add_argument("--merge", nargs="+", type=Path, default=[], help="files to add first")
    options.add_argument(
        "--redo", choices=("all", "busy"), default="", help="run again, of what is selected"
    )
    options.add_argument("--discard", action="store_true", help="begin FILE anew")
    only = options.add_mutually_exclusive_group()
    only.add_argument("--plan", action="store_true", help="run nothing: say what would be run")
    only.add_argument("--report", action="store_true", help="run nothing: show what is there")
    options.add_argument(
        "--times", type=Path, default=PUBLISHED, help="the record by which a plan estimates"
    )
    return options


class Record:
    """The cases, kept in a file if one is named."""

    def __init__(self, file: Path | None, header: Case, cases: Sequence[Case]):
        self.file, self.header = file, header
        self.found = {key(case): case for case in cases}

    @property
    def cases(self) -> list[Case]:
        """All cases by size, length and side, compared."""
        return judged(sorted(self.found.values(), key=_place))

    def put(self, case: Case) -> None:
        """Adds or replaces a case."""
        self.found[key(case)] = case

    def save(self) -> None:
        """Writes the file: all of it, or nothing."""
        if self.file is not None and self.found:
            machine = self.header["made_by"]["machine"]
            record = {"machine": machine, "estimators": self.header | {"cases": self.cases}}
            write_json(self.file, record)

    def shorter(self, job: Job) -> list[Case]:
        """A side's cases of the same size and fewer steps."""
        side, size, steps = key(job.case)
        same = (case for case in self.found.values() if key(case)[:2] == (side, size))
        return sorted((c for c in same if c["steps"] < steps), key=lambda case: case["steps"])


def _place(case: Case) -> tuple[Any, ...]:
    return Size.read(case["size"]), case["steps"], SIDES.index(case["side"])


def opened(arguments: Namespace) -> Record:
    """The record to be continued, with what is merged into it."""
    made = made_by(begin()["machine"])
    file = arguments.json
    known = [file] if file and file.exists() and not arguments.discard else []
    cases = merged(continued(part, made) for part in [*known, *arguments.merge])
    return Record(file, {"made_by": made, "projections": PROJECTIONS}, cases)


def run(record: Record, left: Sequence[Job], limits: Case) -> None:
    """Runs what is left, saving after each case."""
    load = Load()
    for count, job in enumerate(left, 1):
        case, begun = job.case | {"limits": limits} | load.before(), time.monotonic()
        case |= one(job.side, job.steps, job.size, limits, record.shorter(job))
        load.ran(begun)
        record.put(case)
        record.save()
        told = case.get("failed") or case.get("skipped") or f"{figure('cpu', 1e3, case)} ms"
        print(f"{count} of {len(left)}: {named(case)}: {told}", flush=True)
    print()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is left of all cases; the exit status is 1 if the table has a fault."""
    arguments = _options().parse_args(argv)
    limits = limits_of(arguments.rounds, arguments.seconds, arguments.gigabytes)
    try:
        record = opened(arguments)
        wanted = jobs(arguments.sides, arguments.sizes, arguments.steps)
        left = remaining(list(record.found.values()), wanted, limits, arguments.redo)
        if arguments.plan:
            earlier = read(arguments.times)["cases"] if arguments.times.exists() else []
            show_plan(left, [*earlier, *record.found.values()], limits)
            return 0
        run(record, [] if arguments.report else left, limits)
        record.save()
    except MirraxError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    show(record.cases)
    wrong = faults(record.cases)
    for line in wrong:
        print(line)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
