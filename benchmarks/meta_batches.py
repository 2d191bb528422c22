r"""Few-shot tasks a second at meta-batches of 4 to 256 tasks, Conv4-64, second-order MAML.

    python -m benchmarks.meta_batches [--tasks N …] [--sizes NAME …] [--rounds N] [--json FILE]

A meta-step is that of `benchmarks.meta_step`, with drawing the episodes and the outer step; sizes
of meta-batches take turns. An accelerator has all tasks of a step side by side and needs many to be
busy; a CPU's cores take them one after another.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax

from benchmarks import begin, finish, parser, table
from benchmarks._episodes import SIZES, Work
from mirrax._clock import interleave

TASKS = (4, 16, 64, 256)


def meta_step(work: Work) -> Callable[[], Any]:
    """One meta-step, with its draws of episodes and its outer step."""
    return lambda: jax.block_until_ready(work.learner.run(work.state, work.episodes, 1))


def rates(size: str, counts: Sequence[int], rounds: int) -> dict[str, dict[str, float]]:
    """Times of a meta-step by the number of its tasks, and tasks a second."""
    sides = {str(count): meta_step(Work.make(size, "maml", count)) for count in counts}
    times = interleave(sides, rounds)
    return {
        count: {**took, "tasks_per_second": int(count) / took["median"]}
        for count, took in times.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Times the meta-steps and prints a table for each size of image."""
    options = parser(__doc__)
    options.add_argument("--tasks", nargs="+", type=int, default=list(TASKS), metavar="N")
    options.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), metavar="NAME")
    options.add_argument("--rounds", type=int, default=3, help="timed meta-steps of each")
    chosen = options.parse_args(argv)
    record: dict[str, Any] = begin()
    found = {size: rates(size, chosen.tasks, chosen.rounds) for size in chosen.sizes}
    print(f"on {len(jax.devices())} of {jax.devices()[0].device_kind}\n")
    for size, by_count in found.items():
        rows = [
            [count, f"{took['median']:.3f}", f"{took['tasks_per_second']:.1f}"]
            for count, took in by_count.items()
        ]
        print(f"{size}\n{table(['tasks a meta-step', 'median s', 'tasks a second'], rows)}\n")
    finish({**record, "rounds": chosen.rounds, "meta_batches": found}, chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
