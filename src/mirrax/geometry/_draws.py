r"""Starting values of many arrays, cut from one draw of `U(−1, 1)`.

Random generators are what takes longest to compile, so maps with hundreds of small arrays first
say what they want (`Draw`, one a leaf) and then cut all of it from one draw.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PRNGKeyArray, PyTree


@dataclasses.dataclass(frozen=True)
class Draw:
    r"""A wanted array, entries `centre + bound·U(−1, 1)`.

    **Arguments:**

    - `shape`: its shape.
    - `bound`: half the width of the uniform law; zero for a constant.
    - `centre`: its mean.
    """

    shape: tuple[int, ...]
    bound: float = 0.0
    centre: float = 0.0


def drawn(wanted: PyTree, dtype: Any, *, key: PRNGKeyArray) -> PyTree:
    """Replaces every `Draw` of a tree by an array.

    **Arguments:**

    - `wanted`: a tree with `Draw`s for leaves.
    - `dtype`: the type of the arrays.
    - `key`: randomness.

    **Returns:**

    The tree with arrays for leaves.

    >>> arrays = drawn({"gain": Draw((2,), centre=1.0)}, jnp.float32, key=jax.random.key(0))
    >>> arrays["gain"].tolist()
    [1.0, 1.0]
    """
    draws, structure = jax.tree.flatten(wanted)
    sizes = [math.prod(draw.shape) if draw.bound else 0 for draw in draws]
    numbers = jax.random.uniform(key, (sum(sizes),), dtype, minval=-1, maxval=1)
    # Cut by numpy where possible: as a program, hundreds of slices take seconds to compile.
    library = jnp if isinstance(numbers, Tracer) else np
    numbers, leaves, start = library.asarray(numbers), [], 0
    for draw, size in zip(draws, sizes, strict=True):
        noise = numbers[start : start + size] if size else library.zeros(math.prod(draw.shape))
        leaf = draw.centre + draw.bound * noise.reshape(draw.shape)
        leaves.append(jnp.asarray(leaf, dtype))
        start += size
    return jax.tree.unflatten(structure, leaves)
