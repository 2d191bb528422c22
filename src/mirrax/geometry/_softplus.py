r"""The Bregman divergence of softplus, to full relative precision however close the points are.

`softplus(s + t) − softplus(s) − σ(s) t` is of order `t²`, its terms of order `t`: their difference
is lost in rounding, and may come out negative. It is also `t² ∫₀¹ (1 − r) σ'(s + r t) dr`, all of
whose parts are positive.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_NODES, _WEIGHTS = (np.polynomial.legendre.leggauss(8)[i] / 2 + (1 - i) / 2 for i in (0, 1))


def softplus_gap(start: Float[Array, " n"], step: Float[Array, " n"]) -> Float[Array, " n"]:
    """`softplus(s + t) − softplus(s) − σ(s) t`, entry by entry.

    Steps shorter than one take the integral by Gauss' rule, which is exact to rounding there: the
    nearest pole of `σ'` is `π` away. With `s ≤ 0`, which a change of both signs gives, the others
    are `log(1 + σ(s)(eᵗ − 1)) − σ(s) t`, whose terms cancel by a factor of some units at most.

    **Arguments:**

    - `start`: `s`.
    - `step`: `t`.

    **Returns:**

    Numbers that are not negative.

    >>> f"{8 * float(softplus_gap(jnp.array(0.0), jnp.array(1e-3))):.3g}"  # σ'(0)/2 = 1/8
    '1e-06'
    """
    flipped = start > 0
    s, t = jnp.where(flipped, -start, start), jnp.where(flipped, -step, step)
    near = jnp.where(jnp.abs(t) < 1, t, 0)
    far = jnp.where(jnp.abs(t) < 1, 1, t)
    long = jnp.log(jnp.finfo(t.dtype).max) / 2
    return jnp.where(jnp.abs(t) < 1, _by_quadrature(s, near), _direct(s, far, long))


def _by_quadrature(s: Array, t: Array) -> Array:
    nodes, weights = (jnp.asarray(part, s.dtype) for part in (_NODES, _WEIGHTS * (1 - _NODES)))
    share = jax.nn.sigmoid(s[..., None] + nodes * t[..., None])
    return t**2 * ((share * (1 - share)) @ weights)


def _direct(s: Array, t: Array, long: Array) -> Array:
    share, short = jax.nn.sigmoid(s), jnp.minimum(t, long)
    # Far on the other side the exponential would overflow, and nothing cancels.
    beyond = jax.nn.softplus(s + t) - jax.nn.softplus(s) - share * t
    return jnp.where(t > long, beyond, jnp.log1p(share * jnp.expm1(short)) - share * short)
