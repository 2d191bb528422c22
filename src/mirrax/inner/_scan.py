r"""Scans whose reverse pass keeps carries only, `T` of them or about `2√T`.

A step's own intermediate values (activations, gradients) are recomputed in the reverse pass:
writing all of them down and reading them back costs more than computing them again. With
checkpoints the `T` steps are moreover cut into about `√T` segments; the forward pass keeps the
carry at the start of each, and the reverse pass recomputes one segment at a time, for up to one
more evaluation of each step. Source: Griewank 1992; Chen et al. 2016.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax import lax

Carry = Any
Body = Callable[[Carry], Carry]


def repeat(body: Body, carry: Carry, length: int, *, checkpoint: bool = False) -> Carry:
    """Applies `body` to `carry` `length` times in one compiled loop.

    **Arguments:**

    - `body`: one step, `carry -> carry`.
    - `carry`: where to start.
    - `length`: how many steps.
    - `checkpoint`: keep `2√T` carries in the reverse pass instead of `T`, for more time.

    **Returns:**

    The carry after the last step.

    >>> float(repeat(lambda x: 2 * x, 1.0, 10, checkpoint=True))
    1024.0
    """
    step = jax.checkpoint(body, prevent_cse=False)
    if not checkpoint or length < 4:
        return _loop(step, carry, length)
    inside = math.isqrt(length)
    segments, rest = divmod(length, inside)
    segment = jax.checkpoint(lambda c: _loop(step, c, inside), prevent_cse=False)
    return _loop(step, _loop(segment, carry, segments), rest)


def _loop(body: Body, carry: Carry, length: int) -> Carry:
    return lax.scan(lambda c, _: (body(c), None), carry, None, length=length)[0]
