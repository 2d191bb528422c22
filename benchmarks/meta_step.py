r"""A second-order meta-step of Conv4-64: mirrax against torchopt, higher and plain PyTorch.

    python -m benchmarks.meta_step [--sizes NAME …] [--methods NAME …] [--rounds N]
                                   [--threads N …] [--json FILE]

Four tasks of 5 classes, one support and 15 query images a class, of Omniglot's size (28×28×1) or
CIFAR's (32×32×3), float32. Each task takes five steps `θ ← θ − α P ∇L_support(θ)` from one start;
the meta-step is the mean query loss and its gradient with respect to the start and to `P`, through
all steps: MAML (`P = I`), MetaSGD (a diagonal), MetaCurvature (a matrix for each mode). mirrax's
side is the learner that studies run, with drawing the episodes and the outer step, and as there a
call of it makes several steps, of which a quotient is timed; the others are given the same tasks.
All sides begin with the same numbers. Their values and gradients are compared in float64, in a
process of its own, before they are timed in float32, interleaved in one process, PyTorch with one
thread and with all cores. A ratio is a side's median over that of the fastest setting of a peer.
Each side's peak of resident memory is measured in a process of its own. Needs the extra `[bench]`.
"""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import table
from benchmarks._episodes import METHODS, SHOT, SIZES, STEPS, TASKS, WAY, Work
from benchmarks._episodes_torch import PEERS, Result, meta_step
from benchmarks._floor import Machine
from benchmarks._sides import (
    FIELDS,
    OURS,
    Run,
    at_threads,
    begun,
    concluded,
    fresh,
    ratios,
    require_agreement,
    standing,
    timing_options,
)
from benchmarks.memory import MEGABYTE, peak, settle
from mirrax._clock import interleave

ALLOWED = {"omniglot": 0.4, "cifar": 0.5}
OF_FLOOR = {"omniglot": 4.0}
COMPILATION = 20.0
A_CALL = 4
"""Meta-steps of one timed call of mirrax; studies make ten."""
# In float64. In float32 a rounding can decide which entry of a pooling window is largest: there
# PyTorch's gradient with one thread may differ by 5e-4 from its own with two.
TOLERANCE = 1e-10


def with_mirrax(work: Work, steps: int = 1) -> Run:
    """Meta-steps of the library's learner, with its draws of episodes and its outer steps."""

    def run() -> Result:
        after, record = jax.block_until_ready(work.learner.run(work.state, work.episodes, steps))
        return float(record.value[0]), work.hypergradient(after)

    return run


def seconds_to_compile(work: Work) -> float:
    """Seconds of a first call, tracing and compiling, less those of a second."""
    run, clocks = with_mirrax(work), []
    jax.config.update("jax_enable_compilation_cache", False)
    jax.clear_caches()
    for _ in range(2):
        clock = time.perf_counter()
        run()
        clocks.append(time.perf_counter() - clock)
    return clocks[0] - clocks[1]


def side(name: str, work: Work) -> Run:
    """A side by name."""
    return with_mirrax(work) if name == OURS else meta_step(name, work)


def differences(one: Result, other: Result) -> dict[str, float]:
    """Relative differences of values and of gradients, the latter on one common scale."""
    names = sorted(one[1])
    first, second = (np.concatenate([grads[n].ravel() for n in names]) for _, grads in (one, other))
    gradient = np.linalg.norm(first - second) / np.linalg.norm(second)
    return {"value": abs(one[0] - other[0]) / abs(other[0]), "gradient": float(gradient)}


def agreement(size: str, method: str) -> dict[str, dict[str, float]]:
    """How far every side is from the first peer, in this process's precision."""
    work = Work.make(size, method)
    found = {name: side(name, work)() for name in (OURS, *PEERS)}
    return {name: differences(result, found[next(iter(PEERS))]) for name, result in found.items()}


def rise(name: str, size: str, method: str) -> int:
    """By how much one more run of a side, of one thread, lifts the peak of resident memory."""
    run = side(name, Work.make(size, method))
    torch.set_num_threads(1)
    run()
    before = settle()
    run()
    return peak() - before


def compare(
    size: str, method: str, rounds: int, counts: Sequence[int], machine: Machine
) -> dict[str, Any]:
    """Checks that all sides agree, times them, prints a table and returns the record."""
    difference = fresh("meta_step", "--agreement", size, method, JAX_ENABLE_X64="1")
    each = {f"{s}, {of}": d for s, found in difference.items() for of, d in found.items()}
    require_agreement(each, TOLERANCE)
    work = Work.make(size, method)
    compilation = seconds_to_compile(work)  # before PyTorch's threads are there to spin
    sides = {OURS: with_mirrax(work, A_CALL)}
    for name in PEERS:
        sides |= at_threads(name, meta_step(name, work), counts)
    times = interleave(sides, rounds)
    times[OURS] = {field: seconds / A_CALL for field, seconds in times[OURS].items()}
    compared = ratios(times)
    rows = [
        [
            name,
            *(f"{times[name][field]:.3f}" for field in FIELDS),
            *(f"{compared[name][field]:.2f}" for field in FIELDS),
            f"{difference[name.split(',')[0]]['gradient']:.0e}",
        ]
        for name in times
    ]
    header = ["side", "median s", "fastest s", "CPU s", "ratio", "of fastest", "of CPU", "differs"]
    what = f"meta-step, {size}, {method}"
    print(f"{what}: {TASKS} tasks, {WAY}-way {SHOT}-shot, {STEPS} steps, {rounds} rounds")
    print(table(header, rows))
    memory = {name: fresh("meta_step", "--rise", name, size, method) for name in (OURS, *PEERS)}
    print(f"compilation {compilation:.1f} s (at most {COMPILATION:.0f} wanted)")
    print("memory: " + ", ".join(f"{s} {b / MEGABYTE:.0f} MB" for s, b in memory.items()) + "\n")
    line = standing(
        what,
        times,
        machine,
        operations=work.operations,
        moved=work.bytes,
        allowed=ALLOWED[size],
        floors=OF_FLOOR.get(size),
        compilation=compilation,
        memory_bytes=memory,
    )
    return {"rounds": rounds, "seconds": times, "difference": difference, "standing": line}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparisons; the exit status is 1 where a required ratio is missed."""
    options = timing_options(__doc__, 7)
    options.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), metavar="NAME")
    options.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME"
    )
    options.add_argument(
        "--rise",
        nargs=3,
        metavar=("SIDE", "SIZE", "METHOD"),
        help="print one side's memory, in bytes",
    )
    options.add_argument(
        "--agreement", nargs=2, metavar=("SIZE", "METHOD"), help="print how far the sides differ"
    )
    chosen = options.parse_args(argv)
    if chosen.rise:
        print(json.dumps(rise(*chosen.rise)))
        return 0
    if chosen.agreement:
        print(json.dumps(agreement(*chosen.agreement)))
        return 0
    record, machine = begun()
    found = {
        f"{size}, {method}": compare(size, method, chosen.rounds, chosen.threads, machine)
        for size in chosen.sizes
        for method in chosen.methods
    }
    lines = [one["standing"] for one in found.values()]
    return concluded({**record, "meta_step": found}, lines, chosen.json)


if __name__ == "__main__":
    sys.exit(main())
