r"""Maximum pooling, `y[i,j] = max_{a,b<w} x[si+a, sj+b]`, as elementwise maxima.

ReLU and maximum commute, `relu(max x) = max relu(x)`, so models pool first and apply the ReLU to
what is left: the same values, and the same gradients wherever the maximum is unique. XLA's
`reduce_window` gives the same values, but its gradient scatters, which is slower on a CPU.
"""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float


def max_pool(
    images: Float[Array, "batch height width channels"],
    window: int = 2,
    *,
    stride: int | None = None,
    padding: int = 0,
) -> Float[Array, "batch new_height new_width channels"]:
    r"""The maximum over square windows; rows and columns left over are dropped.

    `y[n,i,j,c] = max_{a,b<w} x[n, si+a−p, sj+b−p, c]`, over what of the window lies in the image.
    At ties the gradient is shared between the entries that tie, the later ones getting more.

    **Arguments:**

    - `images`: `(batch, height, width, channels)`.
    - `window`: side of the window, `w`.
    - `stride`: step between windows, `s`; `w` by default, so that they are disjoint.
    - `padding`: how far a window may reach over each side, `p`, at most `w / 2`.

    **Returns:**

    `(batch, (height + 2 p − w) // s + 1, (width + 2 p − w) // s + 1, channels)`. The first and the
    last axis are not mixed: they may as well be channels and batch.

    **Raises:**

    - `ValueError`: if the window is not a positive whole number or exceeds the images, the stride
      is not positive, or the padding is negative or more than half the window.

    >>> images = jnp.arange(25.0).reshape(1, 5, 5, 1)
    >>> max_pool(images)[0, :, :, 0].tolist()
    [[6.0, 8.0], [16.0, 18.0]]
    >>> max_pool(images, 3, stride=2, padding=1)[0, :, :, 0].tolist()
    [[6.0, 8.0, 9.0], [16.0, 18.0, 19.0], [21.0, 23.0, 24.0]]
    """
    _, height, width, _ = images.shape
    if not 1 <= window <= min(height, width):
        raise ValueError(
            f"max_pool.window: expected 1 to {min(height, width)} for images of {height} by "
            f"{width}, got {window!r}."
        )
    stride = window if stride is None else stride
    if stride < 1:
        raise ValueError(f"max_pool.stride: expected a positive whole number, got {stride!r}.")
    if not 0 <= 2 * padding <= window:
        raise ValueError(
            f"max_pool.padding: expected 0 to {window // 2} for a window of {window}, got "
            f"{padding!r}."
        )
    if padding:
        border = (padding, padding)
        images = jnp.pad(images, ((0, 0), border, border, (0, 0)), constant_values=-jnp.inf)
    rows, columns = (size + 2 * padding - window + 1 for size in (height, width))
    planes = [
        images[:, row : row + rows : stride, column : column + columns : stride]
        for row in range(window)
        for column in range(window)
    ]
    return functools.reduce(jnp.maximum, planes)
