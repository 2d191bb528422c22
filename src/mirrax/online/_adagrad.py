r"""Meta-AdaGrad, `x_{t+1} = x_t − G_t/√w_t`, whose denominators follow their own gradient.

`w_{t+1} = max(w_t − β ½ w_t^{−3/2} ⊙ G_t ⊙ G_{t+1}, floor)`, the gradient step on
`w ↦ f(x_t − G_t/√w)`. The step is not affine in `w`, so the regret bounds of S002 do not hold for
it, and there is no optimistic form.
Source: S002 §7.1; spec C6.
"""

import jax.numpy as jnp
import optax
from jaxtyping import Array

from ._checks import check_floor
from ._rates import Group, MetaRate, Rates
from ._transform import Rule, transformation


def online_adagrad(
    accumulator: Rates,
    meta_rate: MetaRate,
    *,
    per: Group = "element",
    floor: float | Array = 1e-8,
) -> optax.GradientTransformation:
    r"""AdaGrad whose accumulator is learned from step to step instead of summed.

    Call number `t` receives `G_t`, moves `w_t = max(w_{t−1} − β ½ w_{t−1}^{−3/2} ⊙ G_{t−1} ⊙ G_t,
    floor)` and returns `−G_t/√w_t`. In chains, and where something is not finite, it behaves as
    `online_sgd` does.

    **Arguments:**

    - `accumulator`: `w_1`, a positive number, or a pytree of them like the parameters or a prefix
        of them. The first rate is `1/√w_1`.
    - `meta_rate`: `β`, a positive number or an optax schedule of the number of steps made.
    - `per`: what shares a `w`: nothing (`"element"`), a leaf or all parameters.
    - `floor`: the smallest `w` allowed, at least 1e-20.

    **Returns:**

    An optax gradient transformation; `optax.tree.get(state, "rates")` finds `w`.

    **Raises:**

    - `ValueError`: as `online_sgd`, and a floor that is too small.

    >>> from mirrax.online import online_adagrad
    >>> params = {"w": jnp.array([1.0, -2.0])}
    >>> optimiser = online_adagrad(16.0, 8.0)
    >>> state = optimiser.init(params)
    >>> for _ in range(3):
    ...     updates, state = optimiser.update(params, state, params)
    ...     params = optax.apply_updates(params, updates)

    >>> optax.tree.get(state, "rates")["w"].tolist()
    [15.926..., 15.705...]
    """
    check_floor("online_adagrad.floor", floor)
    rule = Rule(
        "online_adagrad",
        "online_adagrad.accumulator",
        accumulator,
        meta_rate,
        floor,
        float("inf"),
        per,
        factor=lambda w: 1 / jnp.sqrt(w),
        slope=lambda w: -1 / (2 * w * jnp.sqrt(w)),
    )
    return transformation(rule)
