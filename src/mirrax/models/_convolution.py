r"""The one convolution, `y[n,i,j,o] = Σ_{a,b,c} x[n,si+a,sj+b,c] k[a,b,c,o]`, chosen per backend.

On a CPU the convolution is a matrix product: shifted slices of the padded image are joined into
patches, and the kernel is a matrix with as many rows as a patch has entries. This matters most
where the library works most: with several tasks vectorised each has its own kernel, which turns
`lax.conv` into a grouped convolution that XLA's CPU backend runs without its fast matrix product,
while patches stay a batched matrix product (`benchmarks/convolution.py` measures both). Patches
take a kernel's width times the memory of the images. On an accelerator the vendor's convolution is
used.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Padding = Literal["same", "valid"] | int | tuple[tuple[int, int], tuple[int, int]]
"""`same`, `valid`, one width for all four sides, or `((top, bottom), (left, right))`."""

Method = Literal["patches", "lax"]

_METHODS = ("patches", "lax")

_SHORT = 16
"""Patches of fewer entries than this leave a matrix product mostly idle."""


def convolve(
    images: Float[Array, "batch height width in"],
    kernel: Float[Array, "kernel_height kernel_width in out"],
    *,
    padding: Padding = "valid",
    stride: int = 1,
    method: Method | None = None,
) -> Float[Array, "batch new_height new_width out"]:
    r"""Slides a kernel over images (cross-correlation, as networks use it).

    `y[n,i,j,o] = Σ_{a,b,c} x[n,si+a,sj+b,c] k[a,b,c,o]` over the zero-padded images `x`, with
    stride `s`. Both methods compute this sum, to rounding; both can be differentiated any number of
    times, in either mode, and vectorised over images, kernels or both.

    **Arguments:**

    - `images`: `(batch, height, width, in)`.
    - `kernel`: `(kernel_height, kernel_width, in, out)`, of the images' type.
    - `padding`: `"same"` keeps height and width (where the kernel's size is even, the extra row
      goes below and the extra column to the right); `"valid"` pads nothing; a number pads every
      side; a pair of pairs gives each side.
    - `stride`: how many rows and columns the kernel moves at a time.
    - `method`: `"patches"` (matrix product) or `"lax"` (`jax.lax.conv_general_dilated`); by default
      patches where the computation is traced for a CPU, else lax.

    **Returns:**

    `(batch, (height + padded − kernel_height) // stride + 1, (width + padded − kernel_width) //
    stride + 1, out)`.

    **Raises:**

    - `ValueError`: if shapes or types do not fit, the padded image is smaller than the kernel, the
      stride is not a positive whole number, or padding or method is unknown.

    >>> images, kernel = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 2))
    >>> convolve(images, kernel, padding="same")[0, :2, :, 0].tolist()
    [[4.0, 6.0, 6.0, 4.0], [6.0, 9.0, 9.0, 6.0]]
    """
    if method is None:
        method = default_method()
    if method not in _METHODS:
        raise ValueError(f"convolve.method: expected one of {_METHODS} or None, got {method!r}.")
    if not isinstance(stride, int) or isinstance(stride, bool) or stride < 1:
        raise ValueError(f"convolve.stride: expected a positive whole number, got {stride!r}.")
    _check(images, kernel)
    pads = _resolve(padding, kernel.shape[0], kernel.shape[1])
    _check_fit(images, kernel, pads)
    if method == "lax":
        return jax.lax.conv_general_dilated(
            images, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    return _by_patches(images, kernel, pads, stride)


def default_method() -> Method:
    """Patches where a computation traced now is placed on a CPU, else lax."""
    return "patches" if _platform() == "cpu" else "lax"


def _by_patches(
    images: Array, kernel: Array, pads: tuple[tuple[int, int], ...], stride: int
) -> Array:
    """Patches times matrices: one product for each row of the kernel, or one for all of them.

    A patch of one kernel row joins `kernel_width` slices. Where it is long enough to keep a matrix
    product busy, the products of the rows are added; else the rows are joined too. Measured under
    `vmap` of gradients: 3 times faster by rows for 5×5×6 kernels, 2 times slower for 5×5×1.
    """
    kernel_height, kernel_width, _, out = kernel.shape
    padded = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    reach = padded.shape[1] - kernel_height + 1
    height = -(-reach // stride)
    patches = _shifted(padded, kernel_width, stride, axis=2)
    if patches.shape[3] < _SHORT:
        patches, reach, stride = _shifted(patches, kernel_height, stride, axis=1), height, 1
    # The entries of a patch are ordered (row, column, channel), as the kernel's own rows are.
    length = patches.shape[3]
    matrices = kernel.reshape(-1, length, out)
    # Products of two axes: with four, a gradient under vmap is laid out anew before its product.
    pixels = len(images) * height * patches.shape[2]
    parts = [
        patches[:, row : row + reach : stride].reshape(pixels, length) @ matrices[row]
        for row in range(len(matrices))
    ]
    total = functools.reduce(jnp.add, parts)
    return total.reshape(len(images), height, patches.shape[2], out)


def _shifted(array: Array, size: int, stride: int, axis: int) -> Array:
    """Joins `size` slices, each shifted by one more along `axis`, on the last axis."""
    length = array.shape[axis] - size + 1
    slices = [jax.lax.slice_in_dim(array, i, i + length, stride, axis=axis) for i in range(size)]
    return jnp.concatenate(slices, axis=-1)


def _platform() -> str:
    """Where JAX will place a computation traced now."""
    device = getattr(jax.config, "jax_default_device", None)
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


def _resolve(padding: Padding, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding as `((top, bottom), (left, right))`."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        return ((height - 1) // 2, height // 2), ((width - 1) // 2, width // 2)
    try:
        if isinstance(padding, int):
            padding = ((padding, padding), (padding, padding))
        (top, bottom), (left, right) = padding  # pyright: ignore[reportGeneralTypeIssues, reportAssignmentType]
        if min(top, bottom, left, right) >= 0:
            return (top, bottom), (left, right)
    except (TypeError, ValueError):
        pass
    raise ValueError(
        "convolve.padding: expected 'same', 'valid', a number or ((top, bottom), (left, right)), "
        f"none negative, got {padding!r}."
    )


def _check(images: Array, kernel: Array) -> None:
    if images.ndim != 4 or kernel.ndim != 4 or images.shape[3] != kernel.shape[2]:
        raise ValueError(
            "convolve: expected images (batch, height, width, in) and kernel (height, width, in, "
            f"out) with the same number of inputs, got {images.shape} and {kernel.shape}."
        )
    if images.dtype != kernel.dtype:
        raise ValueError(
            f"convolve: images have type {images.dtype} and the kernel {kernel.dtype}; "
            "cast one of them first."
        )


def _check_fit(images: Array, kernel: Array, pads: tuple[tuple[int, int], ...]) -> None:
    for axis, name in ((0, "height"), (1, "width")):
        size = images.shape[axis + 1] + sum(pads[axis])
        if not 0 < kernel.shape[axis] <= size:
            raise ValueError(
                f"convolve.kernel: its {name} must be from 1 to the padded images' {size}, got "
                f"{kernel.shape[axis]}; use padding='same' or a smaller kernel."
            )
