r"""Convolution 3×3 by 16 products for 4 outputs instead of 36: Winograd's `F(2×2, 3×3)`.

`Y = Aᵀ [(G k Gᵀ) ⊙ (Bᵀ d B)] A` for every 4×4 tile `d` of the padded images and its 2×2 outputs
`Y`; summed over channels, each of the 16 entries of the brackets is a matrix product over all
tiles. Tiles overlap by half, so entries of `Bᵀ d B` take 4 times the memory of the images (patches:
9 times). The four outputs of a tile are one pooling window, and come out as four planes.
Float32 results differ from the direct sum by a few roundings: all constants are 0, ±½, ±1.
Source: Lavin & Gray, 2016, "Fast Algorithms for Convolutional Neural Networks", eq. 8 and §4.1.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._linear_pair import linear_pair

_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_KERNEL_TRANSFORM = np.kron(_G, _G)
"""From the 9 entries of a kernel, by rows, to the 16 factors of a tile."""


def winograd_factors(kernel: Float[Array, "3 3 in out"]) -> Float[Array, "4 4 in out"]:
    """`G k Gᵀ`, all that is to be computed of a kernel.

    >>> winograd_factors(jnp.ones((3, 3, 1, 1)))[..., 0, 0].tolist()[1]
    [1.5, 2.25, 0.75, 1.5]
    """
    transform = jnp.asarray(_KERNEL_TRANSFORM, kernel.dtype)
    return (transform @ kernel.reshape(9, -1)).reshape(4, 4, *kernel.shape[2:])


def winograd(
    images: Float[Array, "batch height width in"], factors: Float[Array, "4 4 in out"]
) -> Float[Array, "4 batch tile_rows tile_columns out"]:
    """Convolution with padding 1, as planes: `y[2a+b, n, i, j]` is the output at `(2i+a, 2j+b)`.

    Where height or width is odd, the last tiles reach over the border; what they hold there means
    nothing.

    >>> factors = winograd_factors(jnp.ones((3, 3, 1, 1)))
    >>> winograd(jnp.ones((1, 4, 4, 1)), factors)[:, 0, 0, 0, 0].tolist()
    [4.0, 6.0, 6.0, 9.0]
    """
    batch, height, width, _ = images.shape
    # A row of tiles at a time: chains of work that do not wait for each other, and less memory.
    tiles = _to_tiles(images, size=(height, width))
    (planes,) = _to_outputs(*(row @ factors[i] for i, row in enumerate(tiles)))
    return planes.reshape(4, batch, -(-height // 2), -(-width // 2), -1)


# In each direction: Bᵀ and Aᵀ, and their transposes.


def _input_rows(d: Sequence[Array]) -> list[Array]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _input_columns(v: Sequence[Array]) -> list[Array]:
    return [v[0], v[1] - v[2] + v[3], v[1] + v[2] - v[0], -v[3]]


def _output_rows(m: Sequence[Array]) -> list[Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _output_columns(y: Sequence[Array]) -> list[Array]:
    return [y[0], y[0] + y[1], y[0] - y[1], -y[1]]


# All take leading axes. Barriers keep XLA from computing pieces anew inside a concatenation.


def _tiles(images: Array, *, size: tuple[int, int]) -> list[Array]:
    """`Bᵀ d B` of all tiles, `(…, n, h, w, c)` to four rows `(…, 4, n · tiles, c)`."""
    (height, width), lead, inputs = size, images.shape[:-4], images.shape[-1]
    rows, columns = -(-height // 2), -(-width // 2)
    borders = (1, 2 * rows - height + 1), (1, 2 * columns - width + 1)
    padded = jnp.pad(images.reshape(-1, *images.shape[-4:]), ((0, 0), (0, 0), *borders, (0, 0)))
    return [
        jnp.stack(
            jax.lax.optimization_barrier(_input_rows(_windows(row, columns, axis=3))), 1
        ).reshape(*lead, 4, -1, inputs)
        for row in jax.lax.optimization_barrier(_input_rows(_windows(padded, rows, axis=2)))
    ]


def _windows(array: Array, count: int, axis: int) -> list[Array]:
    """The first, second, third and fourth entry of windows of 4 at steps of 2."""
    last = 2 * count - 1
    return [jax.lax.slice_in_dim(array, i, i + last, stride=2, axis=axis) for i in range(4)]


def _untile(*tiles: Array, size: tuple[int, int]) -> list[Array]:
    """The transpose of `_tiles`: overlapping tiles are added up."""
    (height, width), (*lead, _, count, inputs) = size, tiles[0].shape
    rows, columns = -(-height // 2), -(-width // 2)
    shape = (-1, 4, count // (rows * columns), rows, columns, inputs)
    joined = [_overlap(_input_columns(_split(row.reshape(shape), 1)), axis=3) for row in tiles]
    images = _overlap(_input_columns(jax.lax.optimization_barrier(joined)), axis=2)
    images = images[:, :, 1 : height + 1, 1 : width + 1]
    return [images.reshape(*lead, *images.shape[1:])]


def _overlap(parts: Sequence[Array], axis: int) -> Array:
    """The transpose of `_windows`: adds up windows along `axis`."""

    def shifted(array: Array, by: int) -> Array:
        return jnp.pad(array, [(by, 1 - by) if k == axis else (0, 0) for k in range(array.ndim)])

    even, odd = (shifted(parts[i], 0) + shifted(parts[i + 2], 1) for i in range(2))
    shape = (*even.shape[:axis], -1, *even.shape[axis + 1 :])
    return jnp.stack([even, odd], axis + 1).reshape(shape)


def _outputs(*products: Array) -> list[Array]:
    """`Aᵀ m A`, four rows `(…, 4, p, f)` to `(…, 4, p, f)`."""
    axis = products[0].ndim - 3
    rows = _output_rows(products)
    return [jnp.stack([y for row in rows for y in _output_rows(_split(row, axis))], axis)]


def _spread(outputs: Array) -> list[Array]:
    """The transpose of `_outputs`."""
    axis = outputs.ndim - 3
    y = _split(outputs, axis)
    halves = [_output_columns(y[b::2]) for b in range(2)]
    return [jnp.stack(_output_columns([half[i] for half in halves]), axis) for i in range(4)]


def _split(array: Array, axis: int) -> list[Array]:
    """The entries along one axis."""
    return [jax.lax.index_in_dim(array, i, axis, False) for i in range(array.shape[axis])]


_to_tiles, _from_tiles = linear_pair("winograd_tiles", _tiles, _untile)
_to_outputs, _from_outputs = linear_pair("winograd_outputs", _outputs, _spread)
