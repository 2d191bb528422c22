r"""Reverse hypergradients through long runs: mirrax against torchopt, higher and plain PyTorch.

    python -m benchmarks.hypergradient [--places NAME …] [--steps N …] [--rounds N]
                                       [--threads N …] [--json FILE]

Every side runs the same steps of diagonal mirror descent, `θ ← θ − η g/m²`, on the same minibatches
of digits from the same start, and differentiates
`E = ½ Σ m² (θ_T − θ_1)² + k/min m²` with respect to one `log m` for each parameter, in MLPs of two
hidden layers and in LeNet-5. First all values and gradients are compared in float64, in a process
of its own; then all sides are timed in float32, interleaved in one process, each PyTorch side with
one thread and with all cores. A ratio is the median of mirrax over that of the fastest setting of a
peer.

PyTorch keeps every step, so runs beyond 1,000 steps are not made by it: its time is then that of
its longest run, in proportion, and its memory follows the line through three short runs, each in a
process of its own. Needs the extra `[bench]`.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks import table
from benchmarks._floor import Machine
from benchmarks._long_runs import PLACES, Result, Work, with_mirrax
from benchmarks._long_runs_torch import PEERS, TorchWork
from benchmarks._sides import (
    FIELDS,
    OURS,
    Run,
    at_threads,
    begun,
    concluded,
    fresh,
    of_memory,
    ratios,
    require_agreement,
    standing,
    timing_options,
)
from benchmarks.memory import MEGABYTE, peak, settle
from mirrax._clock import interleave

ALLOWED = {"mlp-32": 0.2, "mlp-100": 0.5, "mlp-256": 0.5}
STEPS = {
    "mlp-32": (10, 200, 1000, 10_000),
    "mlp-100": (200,),
    "mlp-256": (10, 200, 1000),
    "lenet5": (10, 200),
}
MOST_OF_PEERS = 1000
# In float64. In float32 a rounding can decide which entry of a pooling window is largest: there
# PyTorch's derivative of 200 steps of LeNet-5 with one thread was 3e-3 from its own with two.
TOLERANCE = 1e-9
CHECKPOINTS = f"{OURS}, checkpoints"
MEMORY_AT, MEMORY_ALLOWED, MEMORY_FROM = 10_000, 0.02, (100, 200, 400)


def side(name: str, work: Work) -> Run:
    """A side by name."""
    if name in (OURS, CHECKPOINTS):
        return with_mirrax(work, checkpoint=name == CHECKPOINTS)
    return PEERS[name](TorchWork(work))


def disagreement(one: Result, other: Result) -> float:
    """The relative difference of two results: of the values or of the gradients, the larger."""
    names = sorted(one[1])
    first, second = (np.concatenate([grads[n].ravel() for n in names]) for _, grads in (one, other))
    gradient = np.linalg.norm(first - second) / np.linalg.norm(second)
    return max(float(gradient), abs(one[0] - other[0]) / abs(other[0]))


def agreement(name: str, steps: int) -> dict[str, float]:
    """How far every side is from the last of them, in this process's precision."""
    work = Work.make(name, steps)
    names = [OURS, CHECKPOINTS, *(PEERS if steps <= MOST_OF_PEERS else ())]
    found = {one: side(one, work)() for one in names}
    return {one: disagreement(result, found[names[-1]]) for one, result in found.items()}


def measure(
    name: str, steps: int, rounds: int, counts: Sequence[int]
) -> tuple[Work, dict[str, Any]]:
    """Checks that all sides agree and times them."""
    difference = fresh("hypergradient", "--agreement", name, str(steps), JAX_ENABLE_X64="1")
    require_agreement(difference, TOLERANCE)
    work = Work.make(name, steps)
    sides = {OURS: side(OURS, work), CHECKPOINTS: side(CHECKPOINTS, work)}
    if steps <= MOST_OF_PEERS:
        for peer in PEERS:
            sides |= at_threads(peer, side(peer, work), counts)
    times = interleave(sides, rounds)
    return work, {"rounds": rounds, "seconds": times, "difference": difference}


def compare(
    name: str, lengths: Sequence[int], rounds: int, counts: Sequence[int], machine: Machine
) -> dict[str, Any]:
    """All lengths of one place, the shortest first."""
    found: dict[str, Any] = {}
    longest: tuple[int, Mapping[str, Any]] | None = None
    for steps in sorted(lengths):
        work, case = measure(name, steps, rounds, counts)
        times = dict(case["seconds"])
        predicted = steps > MOST_OF_PEERS
        if not predicted:
            longest = steps, times
        elif longest is not None:
            of_peers = {s: t for s, t in longest[1].items() if not s.startswith(OURS)}
            share = steps / longest[0]
            times |= {s: {f: share * x for f, x in t.items()} for s, t in of_peers.items()}
        what = f"hypergradient, {name}, T = {steps:,}"
        print(
            what + (f"; peers in proportion to T = {longest[0]:,}" if predicted and longest else "")
        )
        if len(times) > 2:
            case["standing"] = standing(
                what,
                times,
                machine,
                operations=work.operations,
                moved=work.bytes,
                allowed=ALLOWED.get(name),
                predicted=predicted,
            )
            _show(times, case["difference"])
        found[str(steps)] = case
    return found


def _show(times: Mapping[str, Any], difference: Mapping[str, float]) -> None:
    compared = ratios(times)

    def differs(name: str) -> str:
        found = difference.get(name, difference.get(name.split(", ")[0]))
        return "-" if found is None else f"{found:.0e}"

    rows = [
        [
            name,
            *(f"{times[name][field]:.4f}" for field in FIELDS),
            *(f"{compared[name][field]:.2f}" for field in FIELDS),
            differs(name),
        ]
        for name in times
    ]
    header = ["side", "median s", "fastest s", "CPU s", "ratio", "of fastest", "of CPU", "differs"]
    print(table(header, rows) + "\n")


def rise(name: str, place: str, steps: int) -> int:
    """By how much a run of a side, of one thread, lifts the peak of resident memory."""
    torch.set_num_threads(1)
    run = side(name, Work.make(place, steps))
    run()  # compiles, and fills what is kept
    before = settle()
    run()
    return peak() - before


def memory(place: str) -> dict[str, Any]:
    """Ours with checkpoints over a long run; torchopt's by a line through short ones."""

    def rises(name: str, steps: int) -> int:
        return fresh("hypergradient", "--rise", name, place, str(steps))

    ours = rises(CHECKPOINTS, MEMORY_AT)
    theirs = {steps: rises("torchopt", steps) for steps in MEMORY_FROM}
    slope, offset = np.polyfit([*theirs], [*theirs.values()], 1)
    predicted = float(offset + slope * MEMORY_AT)
    print(
        f"memory, {place}, T = {MEMORY_AT:,}: {ours / MEGABYTE:.1f} MB with checkpoints; torchopt "
        + ", ".join(f"{b / MEGABYTE:.0f} MB at {steps}" for steps, b in theirs.items())
        + f", so {predicted / MEGABYTE:,.0f} MB\n"
    )
    line = of_memory(
        f"memory, {place}, T = {MEMORY_AT:,}, checkpoints",
        ours,
        "torchopt",
        predicted,
        allowed=MEMORY_ALLOWED,
        predicted=True,
    )
    measured = {str(steps): found for steps, found in theirs.items()}
    return {"ours": ours, "torchopt": measured, "standing": line}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparisons; the exit status is 1 where a required ratio is missed."""
    options = timing_options(__doc__, 7)
    options.add_argument(
        "--places", nargs="+", choices=PLACES, default=list(PLACES), metavar="NAME"
    )
    options.add_argument("--steps", nargs="+", type=int, default=[], help="the same for all places")
    options.add_argument("--no-memory", action="store_true", help="time alone")
    options.add_argument(
        "--rise",
        nargs=3,
        metavar=("SIDE", "PLACE", "STEPS"),
        help="print a side's memory, in bytes",
    )
    options.add_argument(
        "--agreement", nargs=2, metavar=("PLACE", "STEPS"), help="print how far the sides differ"
    )
    chosen = options.parse_args(argv)
    if chosen.rise:
        name, place, steps = chosen.rise
        print(json.dumps(rise(name, place, int(steps))))
        return 0
    if chosen.agreement:
        place, steps = chosen.agreement
        print(json.dumps(agreement(place, int(steps))))
        return 0
    record, machine = begun()
    found = {
        name: compare(name, chosen.steps or STEPS[name], chosen.rounds, chosen.threads, machine)
        for name in chosen.places
    }
    lines = [
        case["standing"]
        for cases in found.values()
        for case in cases.values()
        if "standing" in case
    ]
    if not chosen.no_memory:
        record["memory"] = memory("mlp-32")
        lines.append(record["memory"]["standing"])
    return concluded({**record, "hypergradient": found}, lines, chosen.json)


if __name__ == "__main__":
    sys.exit(main())
