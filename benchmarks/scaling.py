r"""Weak scaling of meta-steps over processes, and what they say to each other.

    python -m benchmarks.scaling [--rounds N] [--json FILE]
    python -m benchmarks.scaling --model

Each process is bound to a core of its own and has as many tasks as any other, so that two would
take the time of one if they cost each other nothing. What they send is the same however long the
runs are, so meta-steps of short and of long ones are measured. Processes are joined over loopback
as by `mirrax train --distributed`; sides run by turns. What the compiled meta-step sends is read
from its HLO and compared with the model; `--model` prints the model's table of up to 4,096 devices
as Markdown.

The model: a meta-step sums over `N` devices one number for each meta-parameter, and the value, `B`
bytes in all. A ring makes each device send `2 B (N − 1)/N` bytes in `2 (N − 1)` hops, a tree about
`2 B` in `2 log₂ N`; the faster counts. Nothing else grows with the number of meta-parameters.
"""

import json
import math
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import begin, finish, parser, table

TASKS, LENGTHS, STEPS_TIMED, WIDTH = 4, (20, 400), 20, 64
LEARNED = {
    "conv4-64": ((28, 28, 1), 5),
    "resnet18": ((32, 32, 3), 10),
    "resnet50": ((224, 224, 3), 1000),
}
"""Networks with a meta-parameter for each parameter: their images, and classes."""
LINKS = {"100 Gb/s Ethernet": (10e9, 30e-6), "400 Gb/s InfiniBand": (40e9, 5e-6)}
"""Bytes a second that a device can send, and seconds a hop: assumptions, not measurements."""
DEVICES = (2, 8, 64, 512, 4096)

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_BYTES |= {"s64": 8, "u64": 8, "f64": 8}
_KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"


def collectives(hlo: str) -> list[dict[str, Any]]:
    """The collectives of a compiled program: the kind of each, and the bytes of its results."""
    found = []
    for line in hlo.splitlines():
        match = re.search(rf"= (.*?) ({_KINDS})(?:-start)?\(", line)
        if match:
            arrays = re.findall(r"([a-z]+\d*)\[([\d,]*)\]", match[1])
            size = sum(
                _BYTES[kind] * math.prod(int(n) for n in shape.split(",") if n)
                for kind, shape in arrays
            )
            found.append({"kind": match[2], "bytes": size})
    return found


def payload(parameters: int, size: int = 4) -> int:
    """The bytes that a meta-step sums over devices: a number each meta-parameter, and the value."""
    return (parameters + 1) * size


def sent(total: int, devices: int) -> float:
    """The bytes that each device of a ring sends to sum `total` bytes."""
    return 2 * total * (devices - 1) / devices


def seconds(total: int, devices: int, bandwidth: float, hop: float) -> float:
    """The time of that sum: a ring's or a tree's, whichever is less."""
    ring = 2 * (devices - 1) * hop + sent(total, devices) / bandwidth
    tree = 2 * math.ceil(math.log2(devices)) * hop + 2 * total / bandwidth
    return min(ring, tree)


def modelled() -> str:
    """The model's table in Markdown."""
    head = ["meta-parameters", "devices", "each sends a meta-step", *LINKS]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for name, (shape, classes) in LEARNED.items():
        parameters = _size(name, shape, classes)
        for devices in DEVICES:
            total = payload(parameters)
            times = [1e3 * seconds(total, devices, *network) for network in LINKS.values()]
            cells = [f"{name}: {parameters:,}", str(devices)]
            cells += [f"{sent(total, devices) / 1e6:.2f} MB", *(f"{t:.2f} ms" for t in times)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _size(name: str, shape: tuple[int, int, int], classes: int) -> int:
    import jax

    from mirrax.models import build

    shapes = jax.eval_shape(build(name, shape, classes).init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def _setting(devices: int, length: int) -> tuple[Any, Any, Any]:
    """A learner over all devices, its state, and tasks of random images; runs of some steps."""
    import jax
    import numpy as np
    import optax

    from mirrax.geometry import Diagonal
    from mirrax.hypergradient import Reverse
    from mirrax.inner import MirrorDescent
    from mirrax.meta import Descent, ManyShot, classification_loss, stacked
    from mirrax.models import build
    from mirrax.objective import RegretBound

    model = build(f"mlp-{WIDTH}", (8, 8, 1), 10)
    rng = np.random.default_rng(0)
    count = TASKS * devices
    images = rng.integers(0, 255, (count, 500, 8, 8, 1), np.uint8)
    labels = rng.integers(0, 10, (count, 500), np.int32)
    data = list(zip(images, labels, strict=True))
    problems = stacked(data, classification_loss(model, 1 / 255), 64)
    outer = Descent(RegretBound(0.1, "last"), Reverse(length), optax.sgd(1e-3))
    learner = ManyShot(MirrorDescent(0.1), outer, model.init, 1, devices, in_turn=True)
    state = learner.init(Diagonal.like(model.init(jax.random.key(1))), key=jax.random.key(2))
    return learner, learner.grid.place(state), learner.grid.place(problems, "tasks")


def measure(process: int, processes: int, port: int) -> dict[str, Any]:
    """Times meta-steps in one of several processes; for a process of its own."""
    import jax

    if processes > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", processes, process)
    return {str(length): _timed(processes, length) for length in LENGTHS}


def _timed(processes: int, length: int) -> dict[str, Any]:
    """Times meta-steps whose runs have some length."""
    import equinox as eqx
    import jax

    learner, state, problems = _setting(processes, length)
    step = eqx.filter_jit(learner.round).lower(state, problems).compile()
    times = []
    for _ in range(STEPS_TIMED + 2):
        clock = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, problems))
        times.append(time.perf_counter() - clock)
    learned = eqx.filter(state.geometry, eqx.is_inexact_array)
    return {
        "seconds": statistics.median(times[2:]),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(learned)),
        "collectives": collectives(step.compiled.as_text()),
    }


def side(processes: int) -> dict[str, Any]:
    """Starts that many processes, each bound to a core, and returns what the first one found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cores = sorted(os.sched_getaffinity(0))
    # One device each; what this process has set for itself counts all cores.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["JAX_NUM_CPU_DEVICES"] = "1"
    started = []
    for process in range(processes):
        words = [sys.executable, "-m", "benchmarks.scaling", "--case"]
        words += map(str, (process, processes, port, cores[process]))
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment))
    outputs = [one.communicate()[0] for one in started]
    if any(one.returncode for one in started):
        raise RuntimeError(f"a process of {processes} failed; see above")
    return json.loads(outputs[0].splitlines()[-1])  # gloo writes there too


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=5, metavar="N", help="of both sides")
    options.add_argument("--model", action="store_true", help="print the model's table only")
    options.add_argument("--case", type=int, nargs=4, help="run one process; used internally")
    chosen = options.parse_args(argv)
    if chosen.case:
        process, processes, port, core = chosen.case
        os.sched_setaffinity(0, {core})
        print(json.dumps(measure(process, processes, port)))
        return 0
    if chosen.model:
        print(modelled())
        return 0
    record, counts = begin(), (1, 2)
    if len(os.sched_getaffinity(0)) < max(counts):
        print(f"needs {max(counts)} cores")
        return 1
    runs: dict[int, list[dict[str, Any]]] = {count: [] for count in counts}
    for _ in range(chosen.rounds):
        for count in counts:
            runs[count].append(side(count))
    times = {
        length: {n: statistics.median(run[length]["seconds"] for run in runs[n]) for n in counts}
        for length in map(str, LENGTHS)
    }
    rows = [
        [length, f"{n}", f"{n * TASKS}", f"{1e3 * took[n]:.1f}", f"{took[1] / took[n]:.3f}"]
        for length, took in times.items()
        for n in counts
    ]
    print(table(["inner steps", "processes", "tasks", "ms a meta-step", "efficiency"], rows))
    last = runs[2][-1][str(LENGTHS[-1])]
    summed = sum(entry["bytes"] for entry in last["collectives"] if entry["kind"] == "all-reduce")
    other = sum(entry["bytes"] for entry in last["collectives"]) - summed
    told = payload(last["parameters"])
    print(
        f"\n{last['parameters']:,} meta-parameters: {summed:,} bytes summed over processes, "
        f"{told:,} by the model; {other:,} bytes of records gathered"
    )
    record |= {"runs": {str(n): found for n, found in runs.items()}, "summed": summed}
    record |= {"modelled": told, "seconds": times}
    finish(record, chosen.json)
    return int(abs(summed - told) > told / 100)  # a flag or two are summed besides


if __name__ == "__main__":
    sys.exit(main())
