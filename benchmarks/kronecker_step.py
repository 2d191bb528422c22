r"""A step in a Kronecker geometry beside a step of plain SGD, forward and backward included.

    python -m benchmarks.kronecker_step [--sizes N ...] [--rounds N] [--json FILE]

One dense layer of `N × N` with batch 128: `sgd` computes the layer's outputs, from them as slopes
the gradients of weights and inputs, and the update; `kronecker` is the update of `deploy.to_optax`
alone, from a gradient. The second divided by the first was planned to be at most 3 at `N = 1000`;
by arithmetic it is `2N³` multiplications against `3 · 128 N²`. `inverse` multiplies by the inverse
factors, which a Kronecker step never forms, to see what the solves cost. The network is
`784-100-100-10` at batch 128: whole training steps of each optimiser, in one compiled loop.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import begin, finish, parser, table
from mirrax._clock import interleave
from mirrax.deploy import averaged, to_optax
from mirrax.geometry import Diagonal, Kronecker, cholesky_of, log_cholesky
from mirrax.models import build, cross_entropy
from mirrax.study._step_cost import training_steps

BATCH, ALLOWED, STEPS = 128, 3.0, 50


def random_kronecker(like: Any) -> Kronecker:
    """Well-conditioned factors that are neither diagonal nor triangular."""
    rng = np.random.default_rng(0)

    def factor(leaf: jax.Array) -> jax.Array:
        if leaf.ndim < 2:
            return leaf
        size = leaf.shape[-1]
        root = rng.normal(size=(size, size)) / size**0.5
        return log_cholesky(jnp.asarray(root @ root.T + np.eye(size), leaf.dtype))

    return jax.tree.map(factor, Kronecker.like(like))


def layer_sides(size: int) -> dict[str, Callable[[], Any]]:
    """The three sides of one layer, compiled."""
    rng = np.random.default_rng(1)
    weight, slope = (jnp.asarray(rng.normal(size=(size, size)) / size, jnp.float32) for _ in "ab")
    inputs = jnp.asarray(rng.normal(size=(BATCH, size)), jnp.float32)
    geometry = random_kronecker(weight)
    optimiser = to_optax(geometry, 0.1)
    state = optimiser.init(weight)

    @jax.jit
    def sgd(weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, vjp = jax.vjp(lambda w, x: jnp.tanh(x @ w), weight, inputs)
        slope, back = vjp(value)
        return weight - 0.1 * slope, back

    @jax.jit
    def kronecker(weight: jax.Array, slope: jax.Array) -> jax.Array:
        return optax.apply_updates(weight, optimiser.update(slope, state, weight)[0])

    factors = geometry.factors
    rows, columns = (
        jnp.linalg.inv(lower @ lower.T)
        for lower in (cholesky_of(factors.rows), cholesky_of(factors.columns))
    )

    @jax.jit
    def inverse(weight: jax.Array, slope: jax.Array) -> jax.Array:
        return weight - 0.1 * rows @ slope @ columns

    return {
        "sgd": lambda: jax.block_until_ready(sgd(weight)),
        "kronecker": lambda: jax.block_until_ready(kronecker(weight, slope)),
        "inverse": lambda: jax.block_until_ready(inverse(weight, slope)),
    }


def network_sides() -> dict[str, Callable[[], Any]]:
    """Training steps of each optimiser on one network, compiled."""
    model = build("mlp-100-100", (28, 28, 1), 10)
    start = model.init(jax.random.key(0))
    rng = np.random.default_rng(2)
    images = jnp.asarray(rng.uniform(size=(BATCH, 28, 28, 1)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 10, BATCH))
    kronecker = to_optax(random_kronecker(start), 0.01)

    def gradient(params: Any, number: Any, data: Any) -> Any:
        del number
        images, labels = data
        return jax.grad(lambda p: cross_entropy(model.apply(p, images), labels))(params)

    def side(optimiser: Any) -> Callable[[], Any]:
        run = training_steps(optimiser, gradient, start, (images, labels))
        return lambda: run(STEPS)

    return {
        "SGD": side(optax.sgd(0.01)),
        "SGD-M": side(optax.sgd(0.01, momentum=0.9)),
        "Adam": side(optax.adam(0.001)),
        "RMSprop": side(optax.rmsprop(0.001)),
        "Muon": side(optax.contrib.muon(0.01)),
        "AdamW, schedule-free": side(optax.contrib.schedule_free_adamw(0.001)),
        "diagonal": side(to_optax(Diagonal.like(start), 0.01)),
        "Kronecker": side(kronecker),
        "Kronecker, averaged": side(averaged(kronecker, 0.8)),
    }


def report(
    title: str, seconds: dict[str, dict[str, float]], base: str, steps: int
) -> dict[str, Any]:
    """Prints a table; returns the record."""
    rows = [
        [
            name,
            f"{1e3 * s['median'] / steps:.2f}",
            f"{s['median'] / seconds[base]['median']:.2f}",
            f"{s['median_cpu'] / seconds[base]['median_cpu']:.2f}",
        ]
        for name, s in seconds.items()
    ]
    print(title)
    print(table(["side", "ms a step", f"to {base}", "CPU ratio"], rows) + "\n")
    return {"title": title, "steps": steps, "sides": seconds}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs everything; the exit status is 1 where a step of `N = 1000` costs more than planned."""
    options = parser(__doc__)
    options.add_argument("--sizes", type=int, nargs="+", default=[100, 1000], metavar="N")
    options.add_argument("--rounds", type=int, default=15, help="timed runs of each side")
    arguments = options.parse_args(argv)
    record, costly = begin(), False
    record["layers"] = []
    for size in arguments.sizes:
        seconds = interleave(layer_sides(size), arguments.rounds)
        title = f"one layer, {size} x {size}, batch {BATCH}; planned at 1000: at most {ALLOWED:g}"
        record["layers"].append(report(title, seconds, "sgd", 1))
        ratio = seconds["kronecker"]["median"] / seconds["sgd"]["median"]
        costly |= size == 1000 and ratio > ALLOWED
    seconds = interleave(network_sides(), arguments.rounds)
    title = f"training 784-100-100-10, batch {BATCH}"
    record["network"] = report(title, seconds, "SGD", STEPS)
    finish(record, arguments.json)
    return int(costly)


if __name__ == "__main__":
    sys.exit(main())
