r"""One step with learned rates against Adam, in PyTorch and in optax, on 10 million parameters.

    python -m benchmarks.deployed_step [--rounds N] [--json FILE]

Each side makes several steps in place from gradients that are given, in float32. `memory` counts
what a side keeps beside parameters and gradients, over what SGD with momentum keeps; for ours these
are the rates, which do not change, and the momentum where there is one. Such a step waits for
memory: what counts is how often it reads or writes an array of the parameters' size. Ratios are to
Adam of the same framework (`torch.optim.Adam(foreach=True)`, `optax.adam` in one compiled program).
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import begin, finish, parser, table
from benchmarks._floor import Machine
from benchmarks._sides import OURS, standing, told
from benchmarks.online import PEERS, SHAPES, draw
from benchmarks.online import side as compiled_side
from mirrax._clock import interleave
from mirrax.deploy import save, to_optax
from mirrax.deploy.torch import MirrorDescent
from mirrax.geometry import Diagonal

STEPS = 5
RATE = 1e-3
REQUIRED = {"mirrax.torch": 1.0, "mirrax.optax": 1.0}
MEMORY = 1.0
_ARRAYS = 4  # parameters, gradients and rates are read, parameters are written
COUNT = sum(int(np.prod(shape)) for shape in SHAPES.values())

Side = tuple[Callable[[], Any], int | None]


def torch_side(make: Callable[[list[Any]], torch.optim.Optimizer]) -> Side:
    """A function that makes some steps, and the bytes that the optimiser keeps."""
    params = [
        (name, torch.nn.Parameter(torch.tensor(np.asarray(array))))
        for name, array in draw(0).items()
    ]
    for (_, param), gradient in zip(params, draw(1).values(), strict=True):
        param.grad = torch.tensor(np.asarray(gradient))
    optimiser = make(params)
    optimiser.step()
    kept = [x for state in optimiser.state.values() for x in state.values()]
    kept += [rate for rates in getattr(optimiser, "_rates", []) for rate in rates]

    def run() -> None:
        for _ in range(STEPS):
            optimiser.step()

    return run, sum(x.nbytes for x in kept if isinstance(x, torch.Tensor))


def sides() -> dict[str, Side]:
    """All sides by name."""
    geometry = Diagonal(jax.tree.map(lambda x: 0.1 * x, draw(2)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "geometry.safetensors"
        # Names and axes are those of the benchmark's own parameters.
        axes = {name: tuple(range(len(shape))) for name, shape in SHAPES.items()}
        save(path, geometry, rate=RATE)
        found = {
            "torch.Adam": torch_side(lambda p: torch.optim.Adam(p, RATE, foreach=True)),
            "torch.SGD, momentum": torch_side(
                lambda p: torch.optim.SGD(p, RATE, momentum=0.9, foreach=True)
            ),
            "mirrax.torch": torch_side(lambda p: MirrorDescent(p, path, axes=axes)),
            "mirrax.torch, momentum": torch_side(
                lambda p: MirrorDescent(p, path, axes=axes, momentum=0.9)
            ),
            "mirrax.torch, Nesterov, decay": torch_side(
                lambda p: MirrorDescent(
                    p, path, axes=axes, momentum=0.9, nesterov=True, weight_decay=1e-2
                )
            ),
        }
    found["optax.adam"] = compiled_side(PEERS["optax.adam"])[0], None
    found["mirrax.optax"] = compiled_side(to_optax(geometry, RATE))[0], None
    momentum = to_optax(geometry, RATE, momentum=jnp.float32(0.9))
    found["mirrax.optax, momentum"] = compiled_side(momentum)[0], None
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all sides; the exit status is 1 where time or memory is above what is required."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=25, help="timed runs of each side")
    options.add_argument("--threads", type=int, default=0, help="of PyTorch; 0 for its own choice")
    arguments = options.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    record, machine = begin(), Machine.measure()
    all_sides = sides()
    times = interleave({name: run for name, (run, _) in all_sides.items()}, arguments.rounds)
    times = {name: {k: t / STEPS for k, t in side.items()} for name, side in times.items()}
    adams = {name: "torch.Adam" if "torch" in name else "optax.adam" for name in times}
    ratios = {n: t["median"] / times[adams[n]]["median"] for n, t in times.items()}
    fastest = {n: t["fastest"] / times[adams[n]]["fastest"] for n, t in times.items()}
    memory = {n: kept / (4 * COUNT) for n, (_, kept) in all_sides.items() if kept is not None}
    rows = [
        [
            name,
            f"{1e3 * t['median']:.1f}",
            f"{1e3 * t['fastest']:.1f}",
            f"{ratios[name]:.2f}",
            f"{fastest[name]:.2f}",
            f"{1e3 * t['median_cpu']:.1f}",
            f"{memory[name]:.2f}" if name in memory else "-",
        ]
        for name, t in times.items()
    ]
    print(f"{COUNT:,} parameters, {arguments.rounds} rounds of {STEPS} steps, times for one step")
    print(f"PyTorch uses {torch.get_num_threads()} threads")
    header = ["side", "median ms", "fastest ms", "ratio", "of fastest", "CPU ms", "memory"]
    print(table(header, rows))
    print(f"\nallowed: a ratio of {REQUIRED['mirrax.torch']}, a memory of {MEMORY}\n")
    lines = [
        standing(
            f"deployed step, {name.removeprefix('mirrax.')}",
            {OURS: times[name], adams[name]: times[adams[name]]},
            machine,
            operations=2.0 * COUNT,
            moved=4.0 * _ARRAYS * COUNT,
            allowed=allowed,
        )
        for name, allowed in REQUIRED.items()
    ]
    print(told(lines))
    record["deployed_step"] = {
        "parameters": COUNT,
        "rounds": arguments.rounds,
        "steps": STEPS,
        "threads": torch.get_num_threads(),
        "seconds": times,
        "ratio_to_adam": ratios,
        "memory_over_momentum": memory,
        "allowed": REQUIRED | {"memory": MEMORY},
    }
    record["standings"] = lines
    finish(record, arguments.json)
    slow = any(ratios[name] > allowed for name, allowed in REQUIRED.items())
    return int(slow or memory["mirrax.torch"] > MEMORY)


if __name__ == "__main__":
    sys.exit(main())
