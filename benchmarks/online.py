r"""One step of online rates against one of optax's own optimisers, on 10 million parameters.

    python -m benchmarks.online [--rounds N] [--json FILE]

Each side is `update` and `apply_updates` in one compiled program that overwrites parameters and
state, in float32. Gradients are given and stay, so a side that remembers them pays for a copy that
a training step, whose gradients are its own, need not make. Times are for one step; each run makes
several. `planned` is what XLA allots beside the buffers given. Such a step waits for memory: what
counts is how often it reads or writes an array of the parameters' size. `XLA_FLAGS` decides how
fusions are compiled (`mirrax._xla`), and adam gains most from JAX's own default:
`XLA_FLAGS=--xla_cpu_use_fusion_emitters=true` shows that.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import begin, finish, parser, table
from mirrax._clock import interleave
from mirrax.online import online_sgd

SHAPES = {"a": (2000, 2000), "b": (2000, 2000), "c": (1000, 1999), "d": (1000,)}
STEPS = 5
REQUIRED = 1.3
PEERS = {
    "optax.sgd": optax.sgd(1e-3),
    "optax.sgd, momentum": optax.sgd(1e-3, momentum=0.9),
    "optax.adam": optax.adam(1e-3),
}
OURS = {
    "online_sgd": online_sgd(1e-3, 1e-8),
    "online_sgd, optimistic": online_sgd(1e-3, 1e-8, optimistic=True),
    "online_sgd, optimistic, lazy": online_sgd(1e-3, 1e-8, optimistic=True, clipping="lazy"),
    "online_sgd, per leaf": online_sgd(1e-3, 1e-14, per="leaf"),
    "online_sgd, one rate": online_sgd(1e-3, 1e-14, per="all"),
}


def draw(seed: int) -> dict[str, jax.Array]:
    """Standard normal parameters or gradients."""
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.standard_normal(s), jnp.float32) for k, s in SHAPES.items()}


def side(optimiser: optax.GradientTransformation) -> tuple[Callable[[], Any], int]:
    """A function that makes some steps, and the bytes that XLA plans beside the buffers given."""
    params, grads = draw(0), draw(1)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = optimiser.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    carry = [params, optimiser.init(params)]
    compiled = step.lower(*carry, grads).compile()

    def run() -> None:
        for _ in range(STEPS):
            carry[:] = compiled(*carry, grads)
        jax.block_until_ready(carry)

    return run, compiled.memory_analysis().temp_size_in_bytes


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all sides; the exit status is 1 where a ratio is above what is required."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=25, help="timed runs of each side")
    arguments = options.parse_args(argv)
    record = begin()
    sides, planned = {}, {}
    for name, optimiser in {**PEERS, **OURS}.items():
        sides[name], planned[name] = side(optimiser)
    times = interleave(sides, arguments.rounds)
    times = {name: {k: t / STEPS for k, t in side.items()} for name, side in times.items()}
    adam = times["optax.adam"]
    ratios = {name: t["median"] / adam["median"] for name, t in times.items()}
    rows = [
        [
            name,
            f"{1e3 * t['median']:.1f}",
            f"{1e3 * t['fastest']:.1f}",
            f"{ratios[name]:.2f}",
            f"{t['fastest'] / adam['fastest']:.2f}",
            f"{1e3 * t['median_cpu']:.1f}",
            f"{planned[name] / 1e6:.1f}",
        ]
        for name, t in times.items()
    ]
    size = sum(int(np.prod(shape)) for shape in SHAPES.values())
    print(f"{size:,} parameters, {arguments.rounds} rounds of {STEPS} steps, times for one step")
    header = ["side", "median ms", "fastest ms", "ratio", "of fastest", "CPU ms", "planned MB"]
    print(table(header, rows))
    worst = max(OURS, key=lambda name: ratios[name])
    print(f"\nslowest form: {worst}, {ratios[worst]:.2f} of adam; allowed {REQUIRED}")
    record["online"] = {
        "parameters": size,
        "rounds": arguments.rounds,
        "steps": STEPS,
        "seconds": times,
        "ratio_to_adam": ratios,
        "planned_bytes": planned,
        "allowed": REQUIRED,
    }
    finish(record, arguments.json)
    return int(ratios[worst] > REQUIRED)


if __name__ == "__main__":
    sys.exit(main())
