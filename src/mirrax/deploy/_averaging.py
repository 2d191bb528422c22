r"""Averaging that leaves no schedule to choose: steps from `z`, gradients at `y`, the mean `x`.

    y_t = (1 − β) z_t + β x_t,    z_{t+1} = step(z_t, ∇ℓ_t(y_t)),    x_t = (z_1 + … + z_t)/t.

For convex losses and any rule whose regret against `x*` is `R_T = Σ_t ⟨g_t, z_t − x*⟩` the mean has
`f(x_T) − f(x*) ≤ R_T/T` in expectation, whatever `0 ≤ β ≤ 1`. With mirror steps in a geometry `R_T`
is what MetaMD's tight objective bounds, so a geometry learned for the regret of training is learned
for the parameters `x_T` themselves.

`optax.contrib.schedule_free` is the same idea for other steps. It hands `y` to the optimiser as its
parameters, where a mirror step has to start at `z`; it is told the rate a second time and weighs a
point by a power of the largest rate so far, where all weigh the same here; its mean leaves out
`z_1`; and it computes `x = (y − (1 − β) z)/β` from the parameters, which needs `β > 0` and no copy
of the mean, where a copy here keeps in 32 bits what parameters of 16 bits would round away.
Source: Defazio et al. 2024, theorem 2; S000 theorem 3.1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PyTree

from ._checks import check_given
from ._ranges import check_share
from ._state import as_state, following, map_given


class AveragedState(NamedTuple):
    """The state of an optimiser whose points are averaged.

    **Arguments:**

    - `count`: how many steps have been made.
    - `point`: `z`, of at least 32 bits.
    - `mean`: `x`, of at least 32 bits.
    - `inner`: the state of the optimiser that moves `z`.
    """

    count: Int[Array, ""]
    point: PyTree[Float[Array, "..."]]
    mean: PyTree[Float[Array, "..."]]
    inner: Any


def averaged(
    optimiser: optax.GradientTransformation, interpolation: float | Array = 0.9
) -> optax.GradientTransformationExtraArgs:
    r"""Averages the points of an optimiser: gradients at `y`, between the last point and the mean.

    The parameters of the training loop are `y`; those to keep and to judge are the mean, see
    `averaged_params`. On `½Lx²` gradient steps converge at all rates below `2/((1 − β)L)`, which is
    `1/(1 − β)` times the threshold without averaging. The mean of the first steps is near the last
    point and helps little: errors first grow as `t^{β/(1 − β)}` beyond the old threshold, unless
    the rate is warmed up over a few steps. Points and mean are the state's: parameters that are set
    from outside, such as reloaded weights, need a new `init`.

    **Arguments:**

    - `optimiser`: any optimiser, such as one of `to_optax`; weight decay and clipping belong
        inside.
    - `interpolation`: `β`, from 0 (gradients at the last point) to below 1.

    **Returns:**

    An optax gradient transformation; its state holds arrays only. What has no gradient, `None`,
    stays where it is, if the optimiser allows it.

    **Raises:**

    - `ValueError`: an interpolation out of range; no parameters (at `update`).

    >>> from mirrax.deploy import averaged, averaged_params
    >>> optimiser = averaged(optax.sgd(0.5), 0.8)
    >>> params = jnp.array(1.0); state = optimiser.init(params)
    >>> for _ in range(200):
    ...     updates, state = optimiser.update(params, state, params)  # of x²/2
    ...     params = optax.apply_updates(params, updates)
    >>> bool(abs(averaged_params(state, params)) < 0.01)
    True
    """
    if not isinstance(interpolation, Tracer):
        check_share("averaged.interpolation", interpolation)
    optimiser = optax.with_extra_args_support(optimiser)

    def init(params: PyTree) -> AveragedState:
        point = as_state(params)
        return AveragedState(
            jnp.zeros((), jnp.int32), point, as_state(params), optimiser.init(point)
        )

    def update(updates: PyTree, state: Any, params: Any = None, **extra: Any):
        check_given("averaged", params)
        gradients = map_given(lambda g, z: g.astype(z.dtype), updates, state.point)
        moves, inner = optimiser.update(gradients, state.inner, state.point, **extra)
        point = jax.tree.map(
            lambda z, move: z if move is None else z + move.astype(z.dtype), state.point, moves
        )
        count = following(state.count)
        mean = jax.tree.map(
            lambda x, z: x + (z - x) / (count.astype(x.dtype) + 1), state.mean, point
        )
        ahead = jax.tree.map(
            lambda z, x: z + jnp.asarray(interpolation).astype(z.dtype) * (x - z), point, mean
        )
        # Subtracted in the wider type, so that the loop's parameters follow `y` to their rounding.
        moved = map_given(
            lambda _, y, now: (y - now.astype(y.dtype)).astype(now.dtype), updates, ahead, params
        )
        return moved, AveragedState(count, point, mean, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def averaged_params(state: AveragedState, params: PyTree) -> PyTree:
    """The mean of the points: the parameters to judge and to keep.

    **Arguments:**

    - `state`: of `averaged`.
    - `params`: those of the training loop, for their types.

    **Returns:**

    Parameters, shaped as `params`.

    **Raises:**

    - `ValueError`: if the state is not that of `averaged`.

    >>> from mirrax.deploy import averaged, averaged_params
    >>> params = {"w": jnp.ones(2)}
    >>> averaged_params(averaged(optax.sgd(0.1)).init(params), params)["w"].tolist()
    [1.0, 1.0]
    """
    if not isinstance(state, AveragedState):
        raise ValueError(
            "averaged_params.state: expected the state of mirrax.deploy.averaged, got "
            f"{type(state).__name__}; in a chain, pass the part that belongs to it."
        )
    return jax.tree.map(lambda mean, leaf: mean.astype(leaf.dtype), state.mean, params)
