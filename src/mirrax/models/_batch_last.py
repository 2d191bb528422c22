r"""Convolution of images with the batch last, `y[o,i,j,n] = Σ_{a,b,c} x[c,i+a,j+b,n] k[a,b,c,o]`.

A processor's vectors run over the last axis. Where channels are few, as in LeNet-5 with 1, 6 and
16, they would be mostly empty there, while examples are many: shifting, pooling and joining images
are copies of long rows then, and a training step of LeNet-5 takes about two thirds of the time
(`benchmarks.convolution`).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._convolution import default_method

_LAYOUT = ("CHWN", "HWIO", "CHWN")


def convolve_batch_last(
    images: Float[Array, "in height width batch"],
    kernel: Float[Array, "kernel_height kernel_width in out"],
    padding: int = 0,
) -> Float[Array, "out new_height new_width batch"]:
    """As `convolve`, of images with channels first and the batch last, with stride one.

    >>> convolve_batch_last(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 2)), 1)[0, :2, :, 0].tolist()
    [[4.0, 6.0, 6.0, 4.0], [6.0, 9.0, 9.0, 6.0]]
    """
    if default_method() == "lax":
        pads = [(padding, padding)] * 2
        return jax.lax.conv_general_dilated(images, kernel, (1, 1), pads, dimension_numbers=_LAYOUT)
    rows, columns, _, out = kernel.shape
    padded = jnp.pad(images, ((0, 0), *[(padding, padding)] * 2, (0, 0)))
    batch = padded.shape[3]
    height, width = padded.shape[1] - rows + 1, padded.shape[2] - columns + 1
    # The entries of a patch are ordered (row, column, channel), as the kernel's own rows are.
    patches = jnp.concatenate(
        [padded[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
    )
    product = kernel.reshape(-1, out).T @ patches.reshape(len(patches), height * width * batch)
    return product.reshape(out, height, width, batch)
