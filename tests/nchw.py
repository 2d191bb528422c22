"""The four-block network of the stored few-shot values, in their own layout, and its adaptation.

Images are `(batch, channel, height, width)`, kernels `(out, in, height, width)`; normalisation uses
the statistics of the batch. Written for float64 and second derivatives, independently of `models`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def roles(names: Any) -> dict[str, tuple[str, ...]]:
    """What the axes of the stored arrays mean."""
    kinds = {"conv": ("out", "in", "height", "width"), "lin": ("out", "in")}
    return {str(n): kinds[str(n).rstrip("_w0123456789")] if "_w" in n else ("out",) for n in names}


def logits(params: dict[str, Any], images: Any) -> Any:
    """Convolution, normalisation, ReLU and pooling four times, then a dense layer."""
    for i in range(1, 5):
        kernel, bias = params[f"conv{i}_w"], params[f"conv{i}_b"]
        images = jax.lax.conv(images, kernel, (1, 1), "SAME") + bias[:, None, None]
        centred = images - images.mean(axis=(0, 2, 3), keepdims=True)
        variance = (centred**2).mean(axis=(0, 2, 3), keepdims=True)
        normal = centred / jnp.sqrt(variance + 1e-5)
        gain, shift = params[f"bn{i}_g"][:, None, None], params[f"bn{i}_b"][:, None, None]
        images = jax.nn.relu(normal * gain + shift)
        batch, channels, height, width = images.shape
        images = images[:, :, : height // 2 * 2, : width // 2 * 2]
        images = images.reshape(batch, channels, height // 2, 2, width // 2, 2).max(axis=(3, 5))
    return images.reshape(len(images), -1) @ params["lin_w"].T + params["lin_b"]


def loss(params: dict[str, Any], images: Any, labels: Any) -> Any:
    """The mean cross-entropy."""
    log_probabilities = jax.nn.log_softmax(logits(params, images))
    return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[:, None], axis=1))


def adapt(to_primal: Callable[[Any], Any], dual: Any, task: Any, alpha: float, steps: int) -> Any:
    """`z ← z − α ∇L(g(z))`, `steps` times, then `g(z)`."""

    def step(z: Any, _: None) -> tuple[Any, None]:
        gradient = jax.grad(loss)(to_primal(z), *task)
        return jax.tree.map(lambda a, b: a - alpha * b, z, gradient), None

    return to_primal(jax.lax.scan(step, dual, None, length=steps)[0])
