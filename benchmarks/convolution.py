r"""The two convolutions of `mirrax.models.convolve` against each other, one kernel a task.

    python -m benchmarks.convolution [--rounds N] [--tasks N] [--json FILE]

For LeNet-5's layers and for 64 channels at 28×28 (the second layer of a few-shot network), it
times `method="patches"` and `method="lax"` under `vmap` over kernels and images: a value, its
gradient with respect to the kernel and (behind the first layer) the images, and the derivative of
that gradient, which hypergradients need. Then the gradient of LeNet-5's convolutional part, with
both methods and both poolings, and 20 steps of training a whole LeNet-5 at batch 128 in one loop,
as the library has it, with the batch last, and with channels last. A ratio above one says how many
times slower the other side is. On an accelerator the default of `convolve` should agree with what
this shows.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import begin, finish, parser, table
from mirrax._clock import interleave
from mirrax.models import build, convolve, max_pool

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


def training() -> dict[str, Callable[[], Any]]:
    """Gradient descent on LeNet-5, as the library has it and with channels last."""
    model = build("lenet5", (28, 28, 1), 10)
    params, images = model.init(jax.random.key(0)), draw(128, 28, 28, 1)

    def channels_last(method: str, params: Any, images: Any) -> Any:
        for name, padding in (("conv_0", 2), ("conv_1", 0)):
            images = convolve(images, params[name]["weight"], padding=padding, method=method)
            images = jax.nn.relu(max_pool(images + params[name]["bias"]))
        hidden = images.reshape(len(images), -1)
        for name in ("dense_0", "dense_1"):
            hidden = jax.nn.relu(hidden @ params[name]["weight"] + params[name]["bias"])
        return hidden @ params["dense_2"]["weight"] + params["dense_2"]["bias"]

    def side(logits: Callable[..., Any]) -> Callable[[], Any]:
        slope = jax.grad(lambda p, x: jnp.mean(logits(p, x) ** 2))

        def run(params: Any, images: Any) -> Any:
            def step(params: Any, _: None) -> tuple[Any, None]:
                move = lambda x, g: x - 1e-3 * g  # noqa: E731
                return jax.tree.map(move, params, slope(params, images)), None

            return jax.lax.scan(step, params, None, length=20)[0]

        return compiled(run, params, images)

    return {
        "batch last": side(model.apply),
        "channels last, patches": side(functools.partial(channels_last, "patches")),
        "channels last, lax": side(functools.partial(channels_last, "lax")),
    }


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


def against_the_first(times: dict[str, dict[str, Any]]) -> str:
    """A table of sides, each with its ratio to the first."""
    base = next(iter(times.values()))
    rows = [
        [
            name,
            f"{1e3 * t['median']:.1f}",
            f"{t['median'] / base['median']:.2f}",
            f"{t['median_cpu'] / base['median_cpu']:.2f}",
        ]
        for name, t in times.items()
    ]
    return table(["side", "ms", "ratio", "CPU ratio"], rows)


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
    networks = {
        "LeNet-5's convolutional part: gradient with respect to kernels": lenet(arguments.tasks),
        "LeNet-5: 20 steps at batch 128": training(),
    }
    found = {title: interleave(sides, arguments.rounds) for title, sides in networks.items()}
    for title, times in found.items():
        print(f"\n{title}")
        print(against_the_first(times))
    record["convolution"] = {
        "backend": jax.default_backend(),
        "tasks": arguments.tasks,
        "layers": results,
        "networks": found,
    }
    finish(record, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
