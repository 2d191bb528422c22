r"""Batch normalisation, `y = g (x − μ) / √(v + ε) + b`, by the statistics of a batch and no others.

`μ_c` and `v_c = E (x − μ_c)²` (biased) are the moments of channel `c` over images, rows and
columns. Over the whole batch they make a network transductive: what it says of one query image
depends on the others. Over the first `reference` images (the support) each query is judged alone.
No running averages are kept: a task has no past.
Source: Ioffe & Szegedy, 2015, "Batch Normalization", algorithm 1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

EPSILON = 1e-5


class Moments(NamedTuple):
    """Mean and biased variance of each channel."""

    mean: Float[Array, " channels"]
    variance: Float[Array, " channels"]


def moments(
    images: Float[Array, "batch height width channels"], reference: int | None = None
) -> Moments:
    """Moments over all axes but the last, of the first `reference` images or of all.

    >>> import jax.numpy as jnp
    >>> moments(jnp.array([1.0, 3.0, 9.0]).reshape(3, 1, 1, 1), reference=2)
    Moments(mean=Array([2.], dtype=float32), variance=Array([1.], dtype=float32))
    """
    images = images[:reference]
    mean = jnp.mean(images, axis=(0, 1, 2))
    return Moments(mean, jnp.mean((images - mean) ** 2, axis=(0, 1, 2)))


def normalise(
    images: Float[Array, "batch height width channels"],
    by: Moments,
    gain: Float[Array, " channels"],
    bias: Float[Array, " channels"],
) -> Float[Array, "batch height width channels"]:
    """`g (x − μ) / √(v + ε) + b`, channel by channel."""
    scale = gain * jax.lax.rsqrt(by.variance + EPSILON)
    return images * scale + (bias - by.mean * scale)


def check_reference(owner: str, reference: int | None, images: Array) -> None:
    """Raises if there are no such first images."""
    if reference is not None and not 1 <= reference <= len(images):
        raise ValueError(
            f"{owner}.reference: expected None or 1 to {len(images)}, the number of images, got "
            f"{reference!r}."
        )
