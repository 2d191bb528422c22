"""Goldens of networks: NCHW images, OIHW kernels, (out, in) matrices, blocks counted from one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mirrax.inner import Problem, Repeat
from mirrax.meta import episode_loss
from mirrax.models import Model
from mirrax.models._conv4 import blocks_then_head

# One float64 rounding is 1e-16; two independent codes differed by 5e-14 of the largest entry over
# five steps (the goldens' README). 1e-10 leaves room for another order of sums.
RTOL = 1e-10

_LEAVES = {"weight": "w", "bias": "b", "gain": "g"}
_LAYERS = {"conv": "conv", "norm": "bn"}


def network(reference: dict[str, np.ndarray], **warps: Any) -> Model:
    """The network of a golden."""
    widths, block = [], 1
    while f"init__conv{block}_w" in reference:
        widths.append(len(reference[f"init__conv{block}_w"]))
        block += 1
    _, channels, height, width = reference["xs"].shape
    classes = len(reference["init__lin_b"])
    return blocks_then_head("golden", (height, width, channels), tuple(widths), classes, **warps)


def golden_name(name: str) -> str:
    """What a golden calls a parameter: `conv_0/weight` is `conv1_w`, `dense_0/bias` `lin_b`."""
    layer, leaf = name.split("/")
    if layer.startswith("dense"):
        return f"lin_{_LEAVES[leaf]}"
    kind, number = layer.split("_")
    return f"{_LAYERS[kind]}{int(number) + 1}_{_LEAVES[leaf]}"


def read(reference: dict[str, np.ndarray], prefix: str, model: Model) -> dict[str, Any]:
    """The arrays `prefix__*` of a golden as the parameters of a model's blocks."""
    params: dict[str, Any] = {}
    for name in (name for block in model.blocks for name in block):
        layer, leaf = name.split("/")
        array = jnp.asarray(reference[f"{prefix}__{golden_name(name)}"])
        params.setdefault(layer, {})[leaf] = _ours(array, name, model)
    return params


def _ours(array: jax.Array, name: str, model: Model) -> jax.Array:
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 2:
        return flattened(array, model).T
    return array


def flattened(matrix: jax.Array, model: Model) -> jax.Array:
    """A matrix `(out, in)` whose inputs were flattened (C, H, W), with inputs (H, W, C)."""
    *_, last = (layer for layer in model.roles if layer.startswith("conv_"))
    channels = model.leaf_shapes[f"{last}/bias"][0]
    side = round((matrix.shape[1] // channels) ** 0.5)
    return matrix.reshape(-1, channels, side, side).transpose(0, 2, 3, 1).reshape(matrix.shape)


def problem(reference: dict[str, np.ndarray], model: Model) -> Problem:
    """The task of a golden."""

    def part(name: str) -> tuple[jax.Array, jax.Array]:
        images = jnp.asarray(reference[f"x{name}"]).transpose(0, 2, 3, 1)
        return images, jnp.asarray(reference[f"y{name}"])

    return Problem(episode_loss(model), Repeat(part("s")), query=part("q"))


def assert_close(result: Any, expected: Any, rtol: float = RTOL) -> None:
    """Leaf by leaf on one common scale: the gradient of a bias that cancels is rounding alone."""
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=rtol * scale), result, expected
    )


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled quickly: most of the time of these tests is compilation."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})
