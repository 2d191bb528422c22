r"""A scan whose reverse pass keeps about `2√T` carries instead of `T`.

The `T` steps are cut into about `√T` segments. The forward pass keeps the carry at the start of
each segment; the reverse pass recomputes one segment at a time, and inside it one step at a time.
The price is up to two more evaluations of each step. Source: Griewank 1992; Chen et al. 2016.
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
    - `checkpoint`: trade time for memory in the reverse pass.

    **Returns:**

    The carry after the last step.

    >>> float(repeat(lambda x: 2 * x, 1.0, 10, checkpoint=True))
    1024.0
    """
    if not checkpoint or length < 4:
        return _loop(body, carry, length)
    inside = math.isqrt(length)
    segments, rest = divmod(length, inside)
    step = jax.checkpoint(body, prevent_cse=False)
    segment = jax.checkpoint(lambda c: _loop(step, c, inside), prevent_cse=False)
    return _loop(step, _loop(segment, carry, segments), rest)


def _loop(body: Body, carry: Carry, length: int) -> Carry:
    return lax.scan(lambda c, _: (body(c), None), carry, None, length=length)[0]
