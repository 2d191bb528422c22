r"""Batch normalisation, `y = g (x − μ) / √(v + ε) + b`, by the statistics of a batch and no others.

`μ_c` and `v_c = E (x − μ_c)²` (biased) are the moments of channel `c` over images, rows and
columns. Over the whole batch they make a network transductive: what it says of one query image
depends on the others. Over the first `reference` images (the support) each query is judged alone.
No running averages are kept: a task has no past.
Source: Ioffe & Szegedy, 2015, "Batch Normalization", algorithm 1.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._planes import Planes, inside

EPSILON = 1e-5


class Moments(NamedTuple):
    """Mean and biased variance of each channel."""

    mean: Float[Array, " channels"]
    variance: Float[Array, " channels"]


def moments(planes: Planes, size: tuple[int, int], reference: int | None = None) -> Moments:
    """Moments over all axes but the last, of the first `reference` images or of all.

    **Arguments:**

    - `planes`: as `convolve_planes` gives them.
    - `size`: height and width of the images; entries outside them do not count.
    - `reference`: how many images count; all by default.

    **Returns:**

    Mean and biased variance. In two passes: `E x² − μ²` loses digits to cancellation.

    **Raises:**

    - `ValueError`: a single value a channel, which has no variance.

    >>> mean, variance = moments(jnp.arange(8.0).reshape(4, 2, 1, 1, 1), (2, 2), reference=1)
    >>> mean.item(), variance.item()
    (3.0, 5.0)
    """
    planes, mask = planes[:, :reference], inside(planes, size)
    count = _several(planes.shape[1] * math.prod(size))

    def average(entries: Array) -> Array:
        entries = entries if mask is None else entries * mask
        return jnp.sum(entries, axis=(0, 1, 2, 3)) / count

    mean = average(planes)
    return Moments(mean, average((planes - mean) ** 2))


def image_moments(
    images: Float[Array, "batch height width channels"], reference: int | None = None
) -> Moments:
    """As `moments`, of images as they are.

    >>> mean, variance = image_moments(jnp.arange(8.0).reshape(2, 2, 2, 1), reference=1)
    >>> mean.item(), variance.item()
    (1.5, 1.25)
    """
    few = images[:reference]
    _several(math.prod(few.shape[:3]))
    mean = jnp.mean(few, axis=(0, 1, 2))
    return Moments(mean, jnp.mean((few - mean) ** 2, axis=(0, 1, 2)))


def normalise(
    images: Float[Array, "batch height width channels"],
    by: Moments,
    gain: Float[Array, " channels"],
    bias: Float[Array, " channels"],
) -> Float[Array, "batch height width channels"]:
    """`g (x − μ) / √(v + ε) + b`, channel by channel."""
    scale = gain * jax.lax.rsqrt(by.variance + EPSILON)
    return images * scale + (bias - by.mean * scale)


def _several(count: int) -> int:
    """Returns how many values a channel has, or raises if one, which less its mean is nothing."""
    if count == 1:
        raise ValueError(
            "batch statistics of one pixel of one image have no variance; pass more images (as "
            "`reference`, where given), or larger ones."
        )
    return count


def check_reference(owner: str, reference: int | None, images: Array) -> None:
    """Raises if there are no such first images, or none at all."""
    if not len(images):
        raise ValueError(f"{owner}: batch statistics need images, and there are none.")
    if reference is not None and not 1 <= reference <= len(images):
        raise ValueError(
            f"{owner}.reference: expected None or 1 to {len(images)}, the number of images, got "
            f"{reference!r}."
        )
