r"""Convolutions as four planes, one for each place in a 2×2 pooling window.

`y[2a+b, n, i, j] = conv(x)[n, 2i+a, 2j+b]`. In this layout the moments are sums and the pooling is
an elementwise maximum of four arrays, without strides. On a CPU the planes are computed as such: by
Winograd's products, or, where there are few inputs, by patches; on an accelerator the vendor's
convolution is cut into planes. `benchmarks/meta_step.py` measures what it is worth.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ._convolution import convolve, default_method
from ._linear_pair import linear_pair
from ._winograd import winograd, winograd_factors

_FEW = 8
"""With fewer inputs than this, patches of 9 are cheaper than 16 tiles."""

Images = Float[Array, "batch height width in"]
Planes = Float[Array, "4 batch rows columns channels"]


def convolve_planes(images: Images, kernel: Float[Array, "3 3 in out"]) -> Planes:
    """Convolution 3×3 with padding 1; rows and columns over the border of odd sizes are undefined.

    >>> convolve_planes(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)))[:, 0, 0, 0, 0].tolist()
    [4.0, 6.0, 6.0, 9.0]
    """
    return convolution_by(kernel)(images)


def convolution_by(kernel: Float[Array, "3 3 in out"]) -> Callable[[Images], Planes]:
    """`convolve_planes` of any images; what the kernel alone decides is computed once.

    >>> convolution_by(jnp.ones((3, 3, 1, 1)))(jnp.ones((1, 4, 4, 1)))[:, 0, 0, 0, 0].tolist()
    [4.0, 6.0, 6.0, 9.0]
    """
    if default_method() == "lax":
        return lambda images: _cut(convolve(images, kernel, padding=1))
    if takes_patches(kernel.shape[2]):
        return lambda images: _by_patches(images, kernel)
    factors = winograd_factors(kernel)
    return lambda images: winograd(images, factors)


def takes_patches(inputs: int) -> bool:
    """Whether inputs are so few that patches are cheaper than tiles, on a CPU."""
    return inputs < _FEW


def entries_between(image_shape: tuple[int, ...], outputs: int) -> int:
    """How many numbers patches or tiles of one image have on a CPU, and their products.

    **Arguments:**

    - `image_shape`: `(height, width, in)`.
    - `outputs`: channels behind the convolution.

    >>> entries_between((4, 4, 1), 2), entries_between((4, 4, 64), 64)
    (176, 8192)
    """
    height, width, inputs = image_shape
    windows = -(-height // 2) * -(-width // 2)
    if takes_patches(inputs):
        return windows * (36 * inputs + 4 * outputs)
    return windows * 16 * (inputs + outputs)


def _cut(images: Float[Array, "batch height width channels"]) -> Planes:
    batch, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    windows = padded.reshape(batch, -(-height // 2), 2, -(-width // 2), 2, channels)
    return windows.transpose(2, 4, 0, 1, 3, 5).reshape(4, *windows.shape[:2], -1, channels)


def _by_patches(images: Array, kernel: Array) -> Planes:
    batch, height, width, inputs = images.shape
    rows, columns = -(-height // 2), -(-width // 2)
    borders = (1, 2 * rows - height + 1), (1, 2 * columns - width + 1)
    padded = jnp.pad(images, ((0, 0), *borders, (0, 0)))
    slices = {
        (i, j): padded[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2]
        for i in range(4)
        for j in range(4)
    }
    patches = [
        jnp.concatenate([slices[a + i, b + j] for i in range(3) for j in range(3)], axis=-1)
        for a in range(2)
        for b in range(2)
    ]
    # Products of two axes: with more, their gradient is laid out anew, which took half the time.
    # The batch leads: where its rows lie on several devices, axes are joined behind them.
    product = jnp.stack(patches, 1).reshape(-1, 9 * inputs) @ kernel.reshape(9 * inputs, -1)
    return jnp.moveaxis(product.reshape(batch, 4, rows, columns, -1), 1, 0)


def inside(planes: Planes, size: tuple[int, int]) -> Float[Array, "4 1 rows columns 1"] | None:
    """One where a plane's entry lies inside the images, else zero; None where all do."""
    rows, columns = planes.shape[2:4]
    if size == (2 * rows, 2 * columns):
        return None
    within = [
        (2 * np.arange(count) + np.arange(2)[:, None]) < length
        for count, length in zip((rows, columns), size, strict=True)
    ]
    mask = within[0][:, None, :, None] & within[1][None, :, None, :]
    return jnp.asarray(mask.reshape(4, 1, rows, columns, 1), planes.dtype)


def pool_planes(
    planes: Planes, size: tuple[int, int]
) -> Float[Array, "batch new_height new_width channels"]:
    """The maximum of the four, over the windows that lie inside images of this size.

    Of entries that tie, the first has all of the gradient. A NaN may be passed over; the moments
    of the same planes are NaN then, and what they normalise.

    >>> pool_planes(jnp.arange(4.0).reshape(4, 1, 1, 1, 1), (2, 2)).item()
    3.0
    """
    planes = planes[:, :, : size[0] // 2, : size[1] // 2]
    fixed = jax.lax.stop_gradient(planes)
    upper, lower = jnp.maximum(fixed[0], fixed[1]), jnp.maximum(fixed[2], fixed[3])
    which = jnp.where(
        upper >= lower,
        jnp.where(fixed[0] >= fixed[1], 0, 1),
        jnp.where(fixed[2] >= fixed[3], 2, 3),
    )
    return _pick(which.astype(jnp.int8), planes)[0]


def _picked(which: Int[Array, "..."], planes: Array) -> list[Array]:
    """The entry of each window that `which` names, `(…, 4, n, i, j, c) → (…, n, i, j, c)`."""
    axis = planes.ndim - 5
    first, second, third, fourth = (jax.lax.index_in_dim(planes, k, axis, False) for k in range(4))
    upper = jnp.where(which == 0, first, second)
    return [jnp.where(which < 2, upper, jnp.where(which == 2, third, fourth))]


def _placed(which: Int[Array, "..."], pooled: Array) -> list[Array]:
    """The transpose of `_picked`: each entry in its plane, zeros in the others."""
    axis = pooled.ndim - 4
    shape = (*pooled.shape[:axis], 4, *pooled.shape[axis:])
    plane = jax.lax.broadcasted_iota(which.dtype, shape, axis)
    here = jnp.expand_dims(which, axis) == plane
    return [jnp.where(here, jnp.expand_dims(pooled, axis), jnp.zeros((), pooled.dtype))]


_pick, _place = linear_pair("pick_plane", _picked, _placed, constants=1)
