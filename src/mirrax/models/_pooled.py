r"""Convolution 3×3 with its pooling and its moments, of a few images at a time.

Between images and pooled images there are many times as many numbers, and of 75 query images more
than a processor's cache holds: each pass over them waits for memory. What belongs to a few images
stays in the cache. The moments of groups of one size join as `μ = mean_g μ_g` and
`v = mean_g v_g + mean_g (μ_g − μ)²`. A reverse pass needs again what is between: products of
patches are computed anew sooner than they are read, Winograd's are not, and a derivative of these
is taken of the whole batch at once.
Source: Chan, Golub & LeVeque, 1983, "Algorithms for Computing the Sample Variance".
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._convolution import default_method
from ._normalise import Moments, moments
from ._planes import (
    Images,
    convolution_by,
    convolve_planes,
    entries_between,
    pool_planes,
    takes_patches,
)

_CACHE = 2 << 20
"""Bytes of the cache that a core is assumed to have for itself."""

_LITTLE = 4
"""Groups are for more than so many caches, and of no less than such a part of one."""

spread_batches = jax.make_user_context(False)
"""Within `spread_batches(True)`, a model takes the rows of a batch to lie on several devices.

It makes no loop over a part of them at a time then, which would bring every row to each device.
"""

Pooled = tuple[Float[Array, "batch new_height new_width out"], Moments]
Primals = tuple[Images, Float[Array, "3 3 in out"]]


def convolve_and_pool(
    images: Images, kernel: Float[Array, "3 3 in out"], reference: int | None = None
) -> Pooled:
    """Pools a convolution with padding 1 over 2×2 windows, and takes its moments before that.

    **Arguments:**

    - `images`: `(batch, height, width, in)`.
    - `kernel`: `(3, 3, in, out)`.
    - `reference`: how many images count for the moments, the first; all by default.

    **Returns:**

    `(batch, height // 2, width // 2, out)`, and the moments of each channel.

    >>> pooled, by = convolve_and_pool(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)))
    >>> pooled.ravel().tolist(), by.mean.item()
    ([9.0, 9.0, 9.0, 9.0], 6.25)
    """
    if reference is not None or spread_batches.value:
        return _at_once(images, kernel, reference)
    together = _together(images, kernel.shape[3])
    if together == len(images):
        return _at_once(images, kernel)
    in_turn = _by_groups if takes_patches(kernel.shape[2]) else _derived_at_once
    return in_turn(images, kernel, together)


def _together(images: Images, outputs: int) -> int:
    """How many images a group has: a divisor of all that fits into the cache.

    All, where that leaves out little: where they take up but a few caches, or every divisor is far
    from filling one.
    """
    batch = len(images)
    one = entries_between(images.shape[1:], outputs) * images.dtype.itemsize
    if default_method() == "lax" or batch * one <= _LITTLE * _CACHE:
        return batch
    fit = max(1, _CACHE // one)
    divisor = max(count for count in range(1, fit + 1) if batch % count == 0)
    return divisor if _LITTLE * divisor >= fit else batch


def _at_once(images: Images, kernel: Array, reference: int | None = None) -> Pooled:
    size, planes = (images.shape[1], images.shape[2]), convolve_planes(images, kernel)
    return pool_planes(planes, size), moments(planes, size, reference)


def _by_groups(images: Images, kernel: Array, together: int) -> Pooled:
    size, convolution = (images.shape[1], images.shape[2]), convolution_by(kernel)

    def some(group: Images) -> Pooled:
        planes = convolution(group)
        return pool_planes(planes, size), moments(planes, size)

    groups = images.reshape(-1, together, *images.shape[1:])
    pooled, by = jax.lax.map(jax.checkpoint(some), groups)
    mean = jnp.mean(by.mean, axis=0)
    variance = jnp.mean(by.variance + (by.mean - mean) ** 2, axis=0)
    return pooled.reshape(-1, *pooled.shape[2:]), Moments(mean, variance)


_derived_at_once = jax.custom_jvp(_by_groups, nondiff_argnums=(2,))


@_derived_at_once.defjvp
def _derivative(together: int, primals: Primals, tangents: Primals) -> tuple[Pooled, Pooled]:
    return jax.jvp(_at_once, primals, tangents)
