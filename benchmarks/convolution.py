r"""The two convolutions of `mirrax.models.convolve` against each other, one kernel a task.

    python -m benchmarks.convolution [--rounds N] [--tasks N] [--json FILE]

For LeNet-5's layers and for 64 channels at 28×28 (the second layer of a few-shot network), it
times `method="patches"` and `method="lax"` under `vmap` over kernels and images: a value, its
gradient with respect to the kernel and (behind the first layer) the images, and the derivative of
that gradient, which hypergradients need. Then the gradient of LeNet-5's convolutional part, with
both methods and both poolings. A ratio above one says how many times slower lax is. On an
accelerator the default of `convolve` should agree with what this shows.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import begin, finish, interleave, parser, table
from mirrax.models import convolve, max_pool

METHODS = ("patches", "lax")
# name: batch, side, channels in, channels out, kernel side, padding, gradient of images too
LAYERS = {
    "LeNet-5 conv_0, 28x28, 1 to 6, 5x5": (64, 28, 1, 6, 5, 2, False),
    "LeNet-5 conv_1, 14x14, 6 to 16, 5x5": (64, 14, 6, 16, 5, 0, True),
    "28x28, 1 to 64, 3x3": (20, 28, 1, 64, 3, 1, False),
    "28x28, 64 to 64, 3x3": (20, 28, 64, 64, 3, 1, True),
    "14x14, 64 to 64, 3x3": (20, 14, 64, 64, 3, 1, True),
}


def draw(*shape: int) -> jax.Array:
    """Standard normal numbers in float32."""
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def compiled(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """The function compiled for these arguments; each call waits for its result."""
    run = jax.jit(function).lower(*arguments).compile()
    return lambda: jax.block_until_ready(run(*arguments))


def layer(name: str, tasks: int) -> dict[str, dict[str, Callable[[], Any]]]:
    """Value, gradient and second derivative of one layer under vmap, for both methods."""
    batch, side, inputs, outputs, size, padding, deep = LAYERS[name]
    kernels = draw(tasks, size, size, inputs, outputs)
    images = draw(tasks, batch, side, side, inputs)

    def energy(method: str, kernel: Any, images: Any) -> Any:
        return jnp.sum(jnp.tanh(convolve(images, kernel, padding=padding, method=method)) ** 2)

    def gradient(method: str) -> Callable[..., Any]:
        return jax.grad(functools.partial(energy, method), argnums=(0, 1) if deep else 0)

    def second(method: str) -> Callable[..., Any]:
        def pull(kernel: Any, images: Any) -> Any:
            slope, back = jax.vjp(gradient(method), kernel, images)
            return back(slope)

        return pull

    def both(make: Callable[[str], Callable[..., Any]]) -> dict[str, Callable[[], Any]]:
        return {m: compiled(jax.vmap(make(m)), kernels, images) for m in METHODS}

    value = functools.partial(functools.partial, energy)
    return {"value": both(value), "gradient": both(gradient), "second": both(second)}


def by_window(images: jax.Array) -> jax.Array:
    """Pooling by XLA's reduce_window."""
    sizes = (1, 2, 2, 1)
    return jax.lax.reduce_window(images, -jnp.inf, jax.lax.max, sizes, sizes, "VALID")


def lenet(tasks: int) -> dict[str, Callable[[], Any]]:
    """The gradient of LeNet-5's convolutional part, as the library has it and as plain lax."""
    images = draw(tasks, 64, 28, 28, 1)
    kernels = (draw(tasks, 5, 5, 1, 6), draw(tasks, 5, 5, 6, 16))

    def features(method: str, pool_first: bool, kernels: Any, images: Any) -> Any:
        for kernel, padding in zip(kernels, (2, 0), strict=True):
            images = convolve(images, kernel, padding=padding, method=method)
            if pool_first:
                images = jax.nn.relu(max_pool(images))
            else:
                images = by_window(jax.nn.relu(images))
        return jnp.sum(images**2)

    def sides(method: str, pool_first: bool) -> Callable[[], Any]:
        single = jax.grad(functools.partial(features, method, pool_first))
        return compiled(jax.vmap(single), kernels, images)

    return {
        "patches, pooled before the ReLU": sides("patches", True),
        "lax, pooled before the ReLU": sides("lax", True),
        "patches, ReLU then reduce_window": sides("patches", False),
        "lax, ReLU then reduce_window": sides("lax", False),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all sizes."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=7, help="timed runs of each side")
    options.add_argument("--tasks", type=int, default=4, help="kernels vectorised over")
    arguments = options.parse_args(argv)
    record = begin()
    print(f"backend {jax.default_backend()}, {arguments.tasks} tasks, milliseconds (median)")
    rows, results = [], {}
    for name in LAYERS:
        results[name] = {}
        for what, sides in layer(name, arguments.tasks).items():
            times = interleave(sides, arguments.rounds)
            ratios = [times["lax"][k] / times["patches"][k] for k in ("median", "median_cpu")]
            milliseconds = [f"{1e3 * times[method]['median']:.1f}" for method in METHODS]
            rows.append([f"{name}: {what}", *milliseconds, *(f"{ratio:.2f}" for ratio in ratios)])
            results[name][what] = {"seconds": times, "ratio": ratios[0], "cpu_ratio": ratios[1]}
    print(table(["layer", *METHODS, "ratio", "CPU ratio"], rows))
    network = interleave(lenet(arguments.tasks), arguments.rounds)
    base = next(iter(network.values()))
    print("\nLeNet-5's convolutional part: gradient with respect to kernels")
    rows = [
        [
            name,
            f"{1e3 * t['median']:.1f}",
            f"{t['median'] / base['median']:.2f}",
            f"{t['median_cpu'] / base['median_cpu']:.2f}",
        ]
        for name, t in network.items()
    ]
    print(table(["side", "ms", "ratio", "CPU ratio"], rows))
    record["convolution"] = {
        "backend": jax.default_backend(),
        "tasks": arguments.tasks,
        "layers": results,
        "lenet": network,
    }
    finish(record, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
