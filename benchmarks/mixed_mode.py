r"""Time and memory of reverse hypergradients: textbook unroll, `Reverse`, mixed mode, checkpoints.

    python -m benchmarks.mixed_mode [--cases NAME:STEPS ...] [--rounds N] [--json FILE]

`textbook` is `jax.grad` of a plain `lax.scan` over the same steps, which keeps every intermediate
value of every step. `reverse` keeps one dual point a step and recomputes the step; `mixed` computes
its curvature product forward over reverse; `checkpoints` keep `2√T` dual points. The networks are
multilayer perceptrons on random images, and `deep`, 16 equal layers in a `lax.scan` that recomputes
each, where a step's own memory outweighs its parameters.

Each side is measured in a process of its own (see `benchmarks.memory`): `measured` is by how much
the peak of resident memory rose, `planned` the temporary buffers in XLA's plan. Times are taken
interleaved in one process. All sides must give the same hypergradient. Ratios are to `textbook`.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from benchmarks import begin, finish, parser, table
from benchmarks.memory import MEGABYTE, peak, settle
from mirrax._clock import interleave
from mirrax.geometry import Diagonal
from mirrax.hypergradient import Reverse
from mirrax.inner import Minibatch, MirrorDescent, Prior, Problem
from mirrax.models import cross_entropy, mlp
from mirrax.objective import LipschitzRegretBound

SIZES = {  # input side, hidden widths, batch
    "width-32": (8, (32, 32), 32),
    "width-100": (8, (100, 100), 128),
    "wide-784": (28, (256,), 128),
    "deep": (8, (64,) * 16, 1024),
}
CASES = ["width-32:1000", "width-100:1000", "wide-784:200", "deep:16"]
SIDES: dict[str, dict[str, bool] | None] = {
    "textbook": None,
    "reverse": {},
    "mixed": {"mixed": True},
    "reverse, checkpoints": {"checkpoint": True},
    "mixed, checkpoints": {"mixed": True, "checkpoint": True},
}
ALLOWED = {"mixed": 0.5, "mixed, checkpoints": 0.1}  # at T = 1,000, as planned
TOLERANCE = 1e-3


def network(size: str) -> tuple[Callable[..., jax.Array], Any]:
    """A loss and where training starts."""
    pixels, widths, _ = SIZES[size]
    key = jax.random.key(0)
    if size != "deep":
        model = mlp((pixels, pixels, 1), widths, 10)

        def loss(params: Any, shared: Any, batch: Any) -> jax.Array:
            images, labels = batch
            return cross_entropy(model.apply(params, images), labels)

        return loss, model.init(key)

    def deep(params: Any, shared: Any, batch: Any) -> jax.Array:
        images, labels = batch

        @jax.checkpoint
        def layer(hidden: jax.Array, weight: jax.Array) -> tuple[jax.Array, None]:
            return jnp.tanh(hidden @ weight), None

        hidden = images.reshape(len(images), -1)
        hidden, _ = jax.lax.scan(layer, hidden, params["layers"])
        return cross_entropy(hidden @ params["last"], labels)

    width = widths[0]
    first, last = jax.random.split(key)
    start = {
        "layers": jax.random.normal(first, (len(widths), width, width)) / width**0.5,
        "last": jax.random.normal(last, (width, 10)) / width**0.5,
    }
    return deep, start


def compiled(size: str, steps: int, side: str) -> tuple[Any, tuple[Any, ...]]:
    """The compiled hypergradient of a side, and its arguments."""
    pixels, _, batch = SIZES[size]
    loss, start = network(size)
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(1000, pixels, pixels, 1)).astype(np.float32)
    data = (jnp.asarray(images), jnp.asarray(rng.integers(0, 10, 1000)))
    inner, objective = MirrorDescent(0.1), LipschitzRegretBound(1.0, comparator="last")
    key, options = jax.random.key(0), SIDES[side]

    def textbook(geometry: Any, data: Any) -> jax.Array:
        prior, problem = Prior(geometry, start), Problem(loss, Minibatch(data, batch))

        def body(state: Any, _: None) -> tuple[Any, None]:
            own = jax.random.fold_in(key, state.count)
            return inner.step(prior, problem, state, key=own)[0], None

        first = inner.init(prior)
        last, _ = jax.lax.scan(body, first, None, length=steps)
        return objective.terminal(prior, problem, first.primal, last.primal)

    def estimate(geometry: Any, data: Any) -> Any:
        if options is None:
            return jax.value_and_grad(textbook)(geometry, data)
        estimator = Reverse(steps, **options)
        prior, problem = Prior(geometry, start), Problem(loss, Minibatch(data, batch))
        state = estimator.init(inner, prior)
        value, slope, _ = estimator.estimate(objective, inner, prior, problem, state, key=key)
        return value, slope.geometry

    arguments = (Diagonal.like(start), data)
    return jax.jit(estimate).lower(*arguments).compile(), arguments


def memory(size: str, steps: int, side: str) -> dict[str, float]:
    """Memory of one side; called in a fresh process."""
    program, arguments = compiled(size, steps, side)
    before = settle()
    jax.block_until_ready(program(*arguments))
    rise = peak() - before
    return {"measured": rise, "planned": program.memory_analysis().temp_size_in_bytes}


def fresh(size: str, steps: int, side: str) -> dict[str, float]:
    """`memory` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.mixed_mode", "--one", size, str(steps), side]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def times(size: str, steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """Times of all sides, once they are seen to agree."""
    runs: dict[str, Callable[[], Any]] = {}
    for side in SIDES:
        program, arguments = compiled(size, steps, side)
        runs[side] = lambda p=program, a=arguments: jax.block_until_ready(p(*a))
    slopes = {side: np.asarray(ravel_pytree(run())[0]) for side, run in runs.items()}
    scale = np.linalg.norm(slopes["textbook"])
    wrong = {
        side: float(np.linalg.norm(slope - slopes["textbook"]) / scale)
        for side, slope in slopes.items()
    }
    if max(wrong.values()) > TOLERANCE:
        raise SystemExit(f"{size}: these sides compute something else: {wrong}")
    return interleave(runs, rounds)


def compare(size: str, steps: int, rounds: int) -> dict[str, Any]:
    """Measures all sides of a case, prints a table and returns the record."""
    seconds = times(size, steps, rounds)
    sides = {side: {**fresh(size, steps, side), **seconds[side]} for side in SIDES}
    base = sides["textbook"]
    rows = [
        [
            side,
            *(f"{s[field] / MEGABYTE:.1f}" for field in ("measured", "planned")),
            *(f"{s[field] / base[field]:.3f}" for field in ("measured", "planned")),
            f"{s['median']:.3f}",
            f"{s['median_cpu'] / base['median_cpu']:.2f}",
        ]
        for side, s in sides.items()
    ]
    pixels, widths, batch = SIZES[size]
    layers = "-".join(str(width) for width in (pixels**2, *widths, 10))
    print(f"{size}: {layers}, batch {batch}, {steps} steps, {rounds} rounds")
    header = ["side", "measured MB", "planned MB", "ratio", "ratio", "median s", "CPU ratio"]
    print(table(header, rows))
    required = ", ".join(f"{side} {ratio}" for side, ratio in ALLOWED.items())
    print(f"allowed at T = 1,000 of the memory that a textbook unroll plans: {required}\n")
    return {"size": size, "steps": steps, "rounds": rounds, "sides": sides}


def missed(record: dict[str, Any]) -> bool:
    """Whether a case of 1,000 steps needs more memory than allowed."""
    planned = {side: figures["planned"] for side, figures in record["sides"].items()}
    return record["steps"] == 1000 and any(
        planned[side] > ratio * planned["textbook"] for side, ratio in ALLOWED.items()
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all cases; the exit status is 1 where memory is not saved as required."""
    options = parser(__doc__)
    options.add_argument("--cases", nargs="+", default=CASES, metavar="NAME:STEPS")
    options.add_argument("--rounds", type=int, default=7, help="timed runs of each side")
    options.add_argument(
        "--one",
        nargs=3,
        metavar=("NAME", "STEPS", "SIDE"),
        help="measure one side in this process and print its record",
    )
    arguments = options.parse_args(argv)
    if arguments.one:
        size, steps, side = arguments.one
        print(json.dumps(memory(size, int(steps), side)))
        return 0
    record = begin()
    cases = [case.split(":") for case in arguments.cases]
    results = [compare(size, int(steps), arguments.rounds) for size, steps in cases]
    record["mixed_mode"] = results
    finish(record, arguments.json)
    return int(any(missed(result) for result in results))


if __name__ == "__main__":
    sys.exit(main())
