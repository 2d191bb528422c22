r"""Evaluation of few-shot tasks, Conv4-64, five steps each: mirrax against three sides of PyTorch.

    python -m benchmarks.evaluation [--tasks N] [--sizes NAME …] [--rounds N] [--threads N …]
                                    [--json FILE]

Each task is learned from the common start by five steps of MAML and judged on its 75 query images.
mirrax's side is the call that studies make, but for the curves, which go beyond the fifth step
there; it draws the tasks and finds accuracies and the losses of every step. The others are given
the same tasks, and keep no graph. The query losses of all tasks are compared before the sides are
timed, interleaved. Times are for 1,000 tasks; `--tasks` of them are run. Needs the extra `[bench]`.
"""

import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks._episodes import QUERY, SHOT, SIZES, STEPS, WAY, Work
from benchmarks._episodes_torch import PEERS, evaluation
from benchmarks._floor import Machine
from benchmarks._sides import (
    OURS,
    Run,
    at_threads,
    begun,
    concluded,
    require_agreement,
    standing,
    timing_options,
)
from mirrax._clock import interleave
from mirrax.study._few_shot_learn import judge

ALLOWED = 0.25
WHOLE = 1000
KEY = jax.random.key(5)
TOLERANCE = 1e-3  # of a loss; five steps make more of roundings


def with_mirrax(work: Work, count: int) -> Run:
    """The call that studies make, without curves beyond the last step."""

    def run() -> np.ndarray:
        prior = work.state.prior
        return judge(work.learner, prior, work.episodes, count, further=None, key=KEY).query_loss

    return run


def operations(work: Work) -> float:
    """Multiplications and additions of one task, by the definition of convolutions."""
    first, rest = work.forward[0], sum(work.forward[1:])
    return WAY * SHOT * STEPS * (2 * first + 3 * rest) + WAY * QUERY * (first + rest)


def compare(
    size: str, count: int, rounds: int, threads: Sequence[int], machine: Machine
) -> dict[str, Any]:
    """Checks that all sides agree and times them."""
    work = Work.make(size, "maml")
    sides, tests = {OURS: with_mirrax(work, count)}, work.tests(KEY, count)
    for name in PEERS:
        sides |= at_threads(name, evaluation(name, work, tests), threads)
    losses = {name: run() for name, run in sides.items()}
    reference = next(found for name, found in losses.items() if name != OURS)
    difference = {n: float(np.max(abs(found / reference - 1))) for n, found in losses.items()}
    require_agreement(difference, TOLERANCE)
    scale = WHOLE / count
    times = {
        name: {field: scale * seconds for field, seconds in t.items()}
        for name, t in interleave(sides, rounds).items()
    }
    learned = sum(leaf.size for leaf in work.start.values())
    images = WHOLE * WAY * (SHOT + QUERY) * np.prod(SIZES[size])
    line = standing(
        f"evaluation of 1,000 tasks, {size}",
        times,
        machine,
        operations=WHOLE * operations(work),
        moved=float(images + 4 * learned),
        allowed=ALLOWED,
    )
    return {"tasks": count, "rounds": rounds, "seconds": times, "difference": difference} | {
        "standing": line
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparisons; the exit status is 1 where the required ratio is missed."""
    options = timing_options(__doc__, 5)
    options.add_argument("--tasks", type=int, default=60, help="how many are run")
    options.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), metavar="NAME")
    chosen = options.parse_args(argv)
    record, machine = begun()
    found = {
        size: compare(size, chosen.tasks, chosen.rounds, chosen.threads, machine)
        for size in chosen.sizes
    }
    lines = [one["standing"] for one in found.values()]
    return concluded({**record, "evaluation": found}, lines, chosen.json)


if __name__ == "__main__":
    sys.exit(main())
