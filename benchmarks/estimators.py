r"""Time and memory of hypergradient estimators, against the run's length and what is learned.

    python -m benchmarks.estimators [--steps 10 ...] [--sizes 10 10x10000 ...] [--sides NAME ...]
                                    [--rounds N] [--seconds S] [--gigabytes G] [--json FILE]

Each case runs in a process of its own. A size `n` is a problem of `n` parameters with a learned
number each; `10x10000` has ten learned numbers, each shared by 10,000 parameters. The problem is
that of `benchmarks._estimator_problem`, in float32; `run` is the run without any derivative.

`ms` are medians of a few hypergradients after compilation on the clock, `CPU ms` of processor time.
XLA and PyTorch have one thread each, so that the second is what the first is on an idle machine.
`MB` is by how much the peak of resident memory rose in the first one, above what was resident
before; for mirrax the record also has what XLA planned, and the time to compile. A case is not run
if XLA's plan, or the growth from shorter runs, exceeds the limits on processor time and memory;
what was predicted or planned then stands in parentheses. Cases that FILE has already are kept, so
that the whole can be measured in parts.

Sides that compute the same number must agree to 1e-3: the exact ones with `reverse`, those of the
solution with `implicit, cg`. For the others the table of differences says how far they are from
`reverse`. A side that disagrees is marked; the exit status is 1 if it is one of mirrax.
"""

import functools
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import begin, finish, parser, table
from benchmarks._estimator_problem import Size, one_thread

STEPS = (10, 100, 1_000, 10_000)
SIZES = ("10", "1000", "100000", "1000000", "10x10000")
EXACT = ("reverse", "reverse, checkpoints", "reverse, mixed", "forward")
APPROXIMATE = (
    "reverse, first order",
    "truncated, K = 10",
    "truncated, K = 1",
    "direct",
    "pathwise",
    "evolution",
    "evolution, windows",
)
SOLUTION = ("implicit, cg", "implicit, neumann", "implicit, gmres")
UNROLLED_PEERS = ("torchopt, unroll", "higher")
SOLUTION_PEERS = ("torchopt, cg", "torchopt, neumann", "betty, cg", "betty, neumann")
OURS = ("run", *EXACT, *APPROXIMATE, *SOLUTION)
SIDES = (*OURS, *UNROLLED_PEERS, *SOLUTION_PEERS)
AGREEMENT = 1e-3
PATIENCE, BEGINNING = 4, 30
"""A process is stopped after so many times the limit on seconds, and these seconds to begin."""

Case = dict[str, Any]


def reference(side: str) -> str | None:
    """The side whose derivative a side's is compared with."""
    if side in ("run", "reverse", "implicit, cg"):
        return None
    return "implicit, cg" if side in SOLUTION + SOLUTION_PEERS else "reverse"


def must_agree(side: str) -> bool:
    """Whether the side computes the same number as its reference."""
    return side not in APPROXIMATE and reference(side) is not None


# what is left out


def predicted(cases: Sequence[Case], steps: int, field: str) -> float:
    """A figure at a longer run: by the line through the last two shorter ones, or from zero.

    Implicit sides stop when they have converged: a single one of theirs is repeated.
    """
    known = [(case["steps"], case[field]) for case in cases if case.get(field) is not None]
    if not known:
        return 0.0
    if len(known) == 1:
        constant = cases[0]["side"] in SOLUTION + SOLUTION_PEERS
        return known[0][1] * (1 if constant else steps / known[0][0])
    (before, low), (last, high) = known[-2:]
    return max(high + (high - low) / (last - before) * (steps - last), high)


def too_large(side: str, steps: int, size: Size, shorter: Sequence[Case], memory: float) -> str:
    """Why a case is not even compiled; nothing if it is."""
    tangents = 16.0 * size.learned * size.parameters  # four arrays in float32
    if side == "forward" and tangents > memory:
        return f"{_bytes(tangents)} of tangents"
    needed = predicted(shorter, steps, "measured_bytes")
    if side not in OURS and needed > memory:  # XLA plans before it runs
        return f"{_bytes(needed)} predicted"
    return ""


def _bytes(count: float) -> str:
    """A number of bytes to read."""
    return f"{count / 1e9:,.0f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


# one case


def child(side: str, steps: int, size: Size, limits: Case, file: Path) -> Case:
    """Runs one case in this process; writes its derivative to a file."""
    one_thread()
    if side in OURS:  # imported here: the parent only starts processes
        from benchmarks._estimator_sides import case as ours

        result, record = ours(side, steps, size, limits["rounds"], limits["memory"])
    else:
        from benchmarks._estimator_peers import case as theirs

        result, record = theirs(side, steps, size, limits["rounds"])
    if result.slope is not None:
        np.save(file, result.slope)
    return record | {"value": result.value} | result.report


def _sent(pipe: Any, *given: Any) -> None:
    """`child`, its record or its error sent back."""
    try:
        pipe.send(child(*given))
    except Exception as error:
        pipe.send({"skipped": f"failed: {type(error).__name__}: {error}"[:200]})


def fresh(*given: Any) -> Case:
    """Runs one case in a process of its own; says so where it fails or takes too long.

    The processes are forked from one that has imported the frameworks and not used them.
    """
    start, limits = multiprocessing.get_context("forkserver"), given[3]
    start.set_forkserver_preload(["benchmarks._estimator_sides", "benchmarks._estimator_peers"])
    receive, send = start.Pipe(duplex=False)
    process = start.Process(target=_sent, args=(send, *given))
    process.start()
    send.close()
    # A limit of the system's own would make the clock of processor time coarse.
    while not receive.poll(0.5):
        if _processor_time(process.pid) > limits["processor"]:
            process.kill()
            return {"skipped": f"stopped after {limits['processor']:.0f} s of processor time"}
    try:
        record = receive.recv()
    except EOFError:
        process.join()
        return {"skipped": f"ended with status {process.exitcode}"}
    process.join()
    if record.get("skipped") == "memory":
        record["skipped"] = f"{_bytes(record['planned_bytes'])} planned"
        del record["value"]
    return record


def _processor_time(process: int | None) -> float:
    """Seconds of the processor that a process has used; zero where the system does not say."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def one(side: str, steps: int, size: Size, limits: Case, shorter: list[Case], file: Path) -> Case:
    """The record of one case, run, planned or predicted."""
    reason = too_large(side, steps, size, shorter, limits["memory"])
    cpu = predicted(shorter, steps, "cpu")
    if cpu <= limits["seconds"]:
        return {"skipped": reason} if reason else fresh(side, steps, size, limits, file)
    case = {"skipped": reason or f"{cpu:.0f} s predicted", "predicted_cpu": cpu}
    if side in OURS and not reason:
        plan = fresh(side, steps, size, limits | {"memory": -1}, file)  # compiled only
        case |= {key: value for key, value in plan.items() if key != "skipped"}
    return case


def compared(case: Case, files: dict[str, Path]) -> Case:
    """Adds how far a side's derivative is from its reference, relatively, and their cosine."""
    other = reference(case["side"])
    known = (case["side"], other)
    if other is None or not all(name in files and files[name].exists() for name in known):
        return case
    mine, theirs = (np.load(files[name]).astype(np.float64).ravel() for name in known)
    if not np.isfinite(theirs).all():  # flagged itself
        return case
    if not np.isfinite(mine).all():
        return case | {"difference": None}
    scale = np.linalg.norm(theirs)
    product = np.linalg.norm(mine) * scale
    return case | {
        "difference": float(np.linalg.norm(mine - theirs) / scale),
        "cosine": float(mine @ theirs / product) if product else 0.0,
    }


def disagrees(case: Case) -> bool:
    """Whether a side computes another number than it should; a flagged one says so itself."""
    if not must_agree(case["side"]) or "difference" not in case or case.get("flags"):
        return False
    return case["difference"] is None or case["difference"] > AGREEMENT


# tables


def grid(cases: Sequence[Case], cell: Callable[[Case], str]) -> str:
    """A table of one figure: sides by lengths of the run."""
    steps = sorted({case["steps"] for case in cases})
    found = {(case["side"], case["steps"]): case for case in cases}
    rows = []
    for side in SIDES:
        own = [found.get((side, count)) for count in steps]
        if any(own):
            rows.append([side, *("" if case is None else cell(case) for case in own)])
    return table(["T =", *(f"{count:,}" for count in steps)], rows)


INSTEAD = {"cpu": "predicted_cpu", "measured_bytes": "planned_bytes"}
"""What stands for a figure of a case that was not run."""


def figure(field: str, scale: float, case: Case) -> str:
    """One number, marked if the side disagrees or was flagged."""
    if field in case:
        mark = "*" if disagrees(case) else "†" if case.get("flags") else ""
        return f"{case[field] * scale:,.4g}{mark}"
    other = INSTEAD.get(field, "")
    return f"({case[other] * scale:,.4g})" if other in case else "–"


def show(size: Size, cases: Sequence[Case]) -> None:
    """Prints the tables of one size."""
    print(f"## {size.learned:,} learned numbers, {size.parameters:,} parameters\n")
    figures = {"ms": ("seconds", 1e3), "CPU ms": ("cpu", 1e3), "MB": ("measured_bytes", 1e-6)}
    for title, (field, scale) in figures.items():
        print(f"{title}\n{grid(cases, functools.partial(figure, field, scale))}\n")
    print(f"relative difference\n{grid(cases, _difference)}\n")
    for case in cases:
        reason = case.get("skipped") or ("flagged: " + ", ".join(case.get("flags") or []))
        if not reason.endswith(": "):
            print(f"{case['side']}, T = {case['steps']:,}: {reason}")
    print(flush=True)


def _difference(case: Case) -> str:
    value = case.get("difference")
    return "–" if value is None else f"{value:.1e}"


# everything


def of_size(size: Size, arguments: Any, limits: Case, known: Sequence[Case]) -> list[Case]:
    """All cases of one size, shorter runs first; known ones are predicted from and not repeated."""
    cases = sorted(
        (case for case in known if case["size"] == str(size)), key=lambda case: case["steps"]
    )
    done = {(case["side"], case["steps"]) for case in cases}
    with tempfile.TemporaryDirectory() as folder:
        for steps in sorted(arguments.steps):
            files = {side: Path(folder, f"{steps}-{i}.npy") for i, side in enumerate(SIDES)}
            for side in arguments.sides:
                if (side, steps) in done:
                    continue
                shorter = [c for c in cases if c["side"] == side and c["steps"] < steps]
                case = {"side": side, "size": str(size), "steps": steps}
                case |= one(side, steps, size, limits, shorter, files[side])
                cases.append(compared(case, files))
    return cases


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all cases; the exit status is 1 where a side of mirrax computes another number."""
    options = parser(__doc__)
    options.add_argument("--steps", nargs="+", type=int, default=list(STEPS))
    options.add_argument("--sizes", nargs="+", type=Size.read, default=list(map(Size.read, SIZES)))
    options.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), metavar="NAME")
    options.add_argument("--rounds", type=int, default=3, help="timed runs of each case")
    options.add_argument("--seconds", type=float, default=20.0, help="of one hypergradient")
    options.add_argument("--gigabytes", type=float, default=6.0, help="of one hypergradient")
    arguments = options.parse_args(argv)
    limits = {
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "memory": arguments.gigabytes * 1e9,
        "processor": BEGINNING + PATIENCE * arguments.seconds,
    }
    file = arguments.json
    known = json.loads(file.read_text())["estimators"]["cases"] if file and file.exists() else []
    record = begin()
    record["estimators"] = limits | {"cases": known}
    for size in arguments.sizes:
        cases = of_size(size, arguments, limits, known)
        show(size, cases)
        known = [case for case in known if case["size"] != str(size)] + cases
        record["estimators"]["cases"] = known
        finish(record, file)
    wrong = [case for case in known if disagrees(case)]
    for case in wrong:
        print(f"{case['side']}, {case['size']}, T = {case['steps']}: computes something else")
    return int(any(case["side"] in OURS for case in wrong))


if __name__ == "__main__":
    sys.exit(main())
