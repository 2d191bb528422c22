r"""Maximum pooling, `y[i,j] = max_{a,b<w} x[wi+a, wj+b]`, as elementwise maxima.

ReLU and maximum commute, `relu(max x) = max relu(x)`, so models pool first and apply the ReLU to
what is left: the same values, and the same gradients wherever the maximum is unique. XLA's
`reduce_window` gives the same values, but its gradient scatters, which is slower on a CPU.
"""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float


def max_pool(
    images: Float[Array, "batch height width channels"], window: int = 2
) -> Float[Array, "batch new_height new_width channels"]:
    r"""The maximum over disjoint square windows; rows and columns left over are dropped.

    `y[n,i,j,c] = max_{a,b<w} x[n, wi+a, wj+b, c]`. At ties the gradient is shared between the
    entries that tie, the later ones getting more.

    **Arguments:**

    - `images`: `(batch, height, width, channels)`.
    - `window`: side of the window and step between windows, `w`.

    **Returns:**

    `(batch, height // w, width // w, channels)`. The first and the last axis are not mixed: they
    may as well be channels and batch.

    **Raises:**

    - `ValueError`: if the window is not a positive whole number or exceeds the images.

    >>> max_pool(jnp.arange(25.0).reshape(1, 5, 5, 1))[0, :, :, 0].tolist()
    [[6.0, 8.0], [16.0, 18.0]]
    """
    _, height, width, _ = images.shape
    if not 1 <= window <= min(height, width):
        raise ValueError(
            f"max_pool.window: expected 1 to {min(height, width)} for images of {height} by "
            f"{width}, got {window!r}."
        )
    planes = [
        images[:, row : height - height % window : window, column : width - width % window : window]
        for row in range(window)
        for column in range(window)
    ]
    return functools.reduce(jnp.maximum, planes)
