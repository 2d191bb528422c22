r"""Peak memory of reverse hypergradients against run length, with and without checkpoints.

    python -m benchmarks.memory [--steps 100 1000 10000] [--json FILE]

Each case runs in a process of its own: an MLP 64-64-64-10 on 8×8 digits, minibatches of 32, a
diagonal geometry. Two figures are shown. `measured` is by how much the peak of resident memory
rose while the compiled hypergradient ran, above what was resident just before. `planned` is the
size of the temporary buffers in XLA's plan, which has no noise. With checkpoints both should grow
as `√T`: at most 12 times from T = 100 to T = 10,000.
"""

import ctypes
import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import begin, finish, parser, table

WIDTH, BATCH = 64, 32
ALLOWED_GROWTH = 12.0
MEGABYTE = 1e6


# the child: one case


def case(steps: int, checkpoint: bool) -> dict[str, Any]:
    """Compiles and runs one hypergradient; called in a fresh process."""
    compiled, arguments = _compile(steps, checkpoint)
    import jax

    clock = time.perf_counter()
    before = settle()
    value, _ = jax.block_until_ready(compiled(*arguments))
    rise = peak() - before
    return {
        "steps": steps,
        "checkpoint": checkpoint,
        "value": float(value),
        "seconds": time.perf_counter() - clock,
        "measured_bytes": rise,
        "planned_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


def _compile(steps: int, checkpoint: bool) -> tuple[Any, tuple[Any, ...]]:
    # Imported here: the parent only starts processes.
    import jax
    import jax.numpy as jnp
    from sklearn.datasets import load_digits

    from mirrax.geometry import Diagonal
    from mirrax.hypergradient import Reverse
    from mirrax.inner import Minibatch, MirrorDescent, Prior, Problem
    from mirrax.models import cross_entropy, mlp
    from mirrax.objective import LipschitzRegretBound

    model = mlp((8, 8, 1), (WIDTH, WIDTH), 10)

    def loss(params: Any, shared: Any, batch: Any) -> jax.Array:
        images, labels = batch
        return cross_entropy(model.apply(params, images), labels)

    inner, objective = MirrorDescent(0.1), LipschitzRegretBound(1.0, comparator="last")
    estimator = Reverse(steps=steps, checkpoint=checkpoint)
    start = model.init(jax.random.key(0))
    prior = Prior(Diagonal.like(start), start=start)
    digits = load_digits()
    data = (jnp.asarray(digits.images[..., None] / 16, jnp.float32), jnp.asarray(digits.target))

    def estimate(prior: Any, data: Any) -> Any:
        state = estimator.init(inner, prior)
        problem = Problem(loss, Minibatch(data, BATCH))
        value, grad, _ = estimator.estimate(
            objective, inner, prior, problem, state, key=jax.random.key(0)
        )
        return value, grad.geometry

    return jax.jit(estimate).lower(prior, data).compile(), (prior, data)


def settle() -> int:
    """Hands freed memory back, forgets the peak of compilation; returns what is resident."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew from here
    except (OSError, AttributeError):
        return peak()
    return _status("VmRSS")


def peak() -> int:
    """The peak of resident memory, in bytes."""
    try:
        return _status("VmHWM")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


# the parent


def fresh(steps: int, checkpoint: bool) -> dict[str, Any]:
    """Runs one case in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.memory",
        "--case",
        str(steps),
        str(int(checkpoint)),
    ]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def growth(cases: Sequence[dict[str, Any]], field: str) -> float:
    """How many times a figure grew from the shortest to the longest run."""
    ordered = sorted(cases, key=lambda case: case["steps"])
    return ordered[-1][field] / ordered[0][field]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all cases; the exit status is 1 where checkpoints let memory grow too much."""
    options = parser(__doc__)
    options.add_argument("--steps", nargs="+", type=int, default=[100, 1000, 10_000])
    options.add_argument(
        "--case",
        nargs=2,
        type=int,
        metavar=("STEPS", "CHECKPOINT"),
        help="run one case in this process and print its record",
    )
    arguments = options.parse_args(argv)
    if arguments.case:
        print(json.dumps(case(arguments.case[0], bool(arguments.case[1]))))
        return 0
    record = begin()
    cases = [fresh(steps, flag) for flag in (True, False) for steps in arguments.steps]
    rows = [
        [
            "checkpoints" if c["checkpoint"] else "plain",
            c["steps"],
            f"{c['measured_bytes'] / MEGABYTE:.1f}",
            f"{c['planned_bytes'] / MEGABYTE:.1f}",
            f"{c['seconds']:.2f}",
        ]
        for c in cases
    ]
    print(table(["mode", "steps", "measured MB", "planned MB", "seconds"], rows))
    grown = {
        mode: {
            field: growth([c for c in cases if c["checkpoint"] == flag], f"{field}_bytes")
            for field in ("measured", "planned")
        }
        for mode, flag in (("checkpoints", True), ("plain", False))
    }
    span = f"from T = {min(arguments.steps):,} to T = {max(arguments.steps):,}"
    for mode, ratios in grown.items():
        print(
            f"{mode}: {span} {ratios['measured']:.1f} times measured, {ratios['planned']:.1f} "
            "planned"
        )
    print(f"allowed with checkpoints from 100 to 10,000: {ALLOWED_GROWTH:.0f}")
    record["memory"] = {"cases": cases, "growth": grown, "allowed_growth": ALLOWED_GROWTH}
    finish(record, arguments.json)
    return int(max(grown["checkpoints"].values()) > ALLOWED_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
