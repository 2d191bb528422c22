r"""Implicit hypergradients of a solution: mirrax against torchopt and betty, interleaved.

    python -m benchmarks.implicit [--sizes N …] [--rounds N] [--threads N …] [--json FILE]

The problem is the proximal one of `benchmarks._estimator_problem`: the solution `θ*` of
`∇ℓ(θ) + m² θ/(2η) = 0` is sought in at most 1,000 steps to one accuracy, and what it is worth is
differentiated by `log m` at it, by conjugate gradients or Neumann's series. Values and derivatives
are compared first. betty's conjugate gradients stop after 20 steps whatever is left and are not
compared; its Neumann series is. `mirrax` is the library's default, conjugate gradients. Needs
`[bench]`, and betty (`pip install --no-deps betty-ml`) if that is to take part.
"""

import importlib.util
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import _estimator_peers as peers
from benchmarks import _estimator_sides as ours
from benchmarks._estimator_problem import Numbers, Result, Size
from benchmarks._floor import Machine
from benchmarks._sides import OURS, Run, at_threads, begun, concluded, standing, timing_options
from mirrax._clock import interleave

STEPS = 1000
SIZES = (1_000, 100_000, 1_000_000)
PEERS = ("torchopt, cg", "torchopt, neumann", "betty, neumann")
TOLERANCE = 1e-3
_A_STEP = 10  # operations a parameter and step, at least: a gradient and a move
_ARRAYS = 6  # weights, both centres, `log m`, the solution and the derivative


def with_mirrax(name: str, numbers: Numbers) -> Run:
    """The library's estimator, compiled."""
    function, arguments = ours.program(name, STEPS, numbers)
    compiled = jax.jit(function).lower(*arguments).compile()
    return lambda: ours.result_of(compiled(*arguments))


def disagreement(one: Result, other: Result) -> float:
    """The relative difference of two results: of values or of derivatives, the larger."""
    assert one.slope is not None and other.slope is not None
    slope = np.linalg.norm(one.slope - other.slope) / np.linalg.norm(other.slope)
    return max(float(slope), abs(one.value - other.value) / abs(other.value))


def compare(size: int, rounds: int, counts: Sequence[int], machine: Machine) -> dict[str, Any]:
    """Checks that all sides agree and times them."""
    numbers = Numbers.make(Size(size))
    sides = {OURS: with_mirrax("implicit, cg", numbers)}
    sides[f"{OURS}, neumann"] = with_mirrax("implicit, neumann", numbers)
    for name in PEERS:
        if name.startswith("betty") and importlib.util.find_spec("betty") is None:
            continue
        run = peers.SIDES[name](peers.Task(numbers, STEPS))
        sides |= at_threads(name, run, counts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torchopt 0.7.3 calls what is renamed
        results = {name: run() for name, run in sides.items()}
    reference = results[OURS]
    flagged = {name: result.report["flags"] for name, result in results.items()}
    difference = {name: disagreement(result, reference) for name, result in results.items()}
    wrong = {n: d for n, d in difference.items() if not d <= TOLERANCE} or {
        name: flags for name, flags in flagged.items() if flags
    }
    if wrong:
        raise SystemExit(f"these sides compute something else: {wrong}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        times = interleave(sides, rounds)
    made = reference.report["inner_steps"] + reference.report["linear_steps"]
    line = standing(
        f"implicit hypergradient, {size:,} parameters",
        times,
        machine,
        operations=float(_A_STEP * made * size),
        moved=4.0 * _ARRAYS * size,
    )
    return {"rounds": rounds, "seconds": times, "difference": difference, "standing": line}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparisons; the exit status is 1 where a required ratio is missed."""
    options = timing_options(__doc__, 9)
    options.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), metavar="N")
    chosen = options.parse_args(argv)
    record, machine = begun()
    found = {
        str(size): compare(size, chosen.rounds, chosen.threads, machine) for size in chosen.sizes
    }
    lines = [one["standing"] for one in found.values()]
    return concluded({**record, "implicit": found}, lines, chosen.json)


if __name__ == "__main__":
    sys.exit(main())
