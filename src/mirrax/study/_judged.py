r"""The logits by which a network is judged: each image alone, whatever the network.

With batch statistics an image's logits depend on the batch it comes in. Training takes those of the
step's batch; a test by the test images' own would be transductive, and a padded row or another
number of rows would change it. So all are judged behind one fixed batch of training images, whose
statistics count, a chunk at a time: `z = apply([first; chunk], reference=|first|)`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from ..models import Model
from ..models._model import Parameters

MOST = 256
"""Training images whose statistics count; where there are fewer, all of them."""

_CHUNK = 1024
"""Rows judged at once: a fifth of the work goes to the statistics, and memory has a bound."""


def judged_logits(
    model: Model,
    params: Parameters,
    images: Shaped[Array, "rows height width channels"],
    first: Shaped[Array, "few height width channels"],
    scale: float,
) -> Float[Array, "rows classes"]:
    """The logits of images, none of which depends on another.

    **Arguments:**

    - `model`: the network.
    - `params`: its parameters.
    - `images`: pixels as stored, `(rows, height, width, channels)`.
    - `first`: training images whose statistics count; models without batch statistics ignore them.
    - `scale`: what pixels are multiplied by.

    **Returns:**

    `(rows, classes)`.
    """

    def pixels(stored: Array) -> Array:
        return stored.astype(jnp.float32) * scale

    if not model.normalises:
        return model.apply(params, pixels(images))
    few, rows = len(first), len(images)
    size = min(_CHUNK, rows)
    chunks = -(-rows // size)
    padded = jnp.pad(images, [(0, chunks * size - rows)] + [(0, 0)] * (images.ndim - 1))

    def judge(chunk: Array) -> Array:
        both = jnp.concatenate([first, chunk])
        return model.apply(params, pixels(both), reference=few)[few:]

    logits = jax.lax.map(judge, padded.reshape(chunks, size, *images.shape[1:]))
    return logits.reshape(chunks * size, -1)[:rows]
