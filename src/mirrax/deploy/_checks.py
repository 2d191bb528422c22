r"""What optimisers of JAX refuse: options outside `_ranges`, and parameters they cannot move.

A fixed number is looked at when the optimiser is made, parameters when they are first seen;
schedules and traced numbers cannot be looked at then and pass.
"""

from typing import Any

from jax.core import Tracer
from jaxtyping import PyTree

from ._fit import by_name
from ._ranges import check_kept, check_nesterov, check_rate, check_share, check_weight_decay


def check_learning_rate(rate: Any) -> None:
    """Refuses a learning rate of `to_optax` that is not positive and finite.

    **Arguments:**

    - `rate`: a number, or a schedule; `None` where neither the caller nor an artifact has one.

    **Raises:**

    - `ValueError`: with what was given.

    >>> check_learning_rate(0.1)
    """
    if callable(rate) or isinstance(rate, Tracer):
        return
    if rate is None:
        raise ValueError(
            "to_optax.learning_rate: a geometry has no rate of its own, got None; pass one, or "
            "an artifact."
        )
    check_rate("to_optax.learning_rate", rate)


def check_momentum(momentum: Any, nesterov: bool) -> None:
    """Refuses a momentum of `to_optax` out of range, and Nesterov's without one.

    **Arguments:**

    - `momentum`: `μ`, or `None`.
    - `nesterov`: whether Nesterov's is asked for.

    **Raises:**

    - `ValueError`: with what was given.

    >>> check_momentum(0.9, nesterov=True)
    """
    if isinstance(momentum, Tracer):
        return
    if momentum is not None:
        check_share("to_optax.momentum", momentum)
    if nesterov:
        check_nesterov("to_optax.nesterov", momentum)


def check_decay(decay: Any, rate: Any) -> None:
    """Refuses a weight decay of `to_optax` out of range, or one that turns weights round.

    **Arguments:**

    - `decay`: `λ`, or `None`.
    - `rate`: `η`; a schedule is not looked at.

    **Raises:**

    - `ValueError`: with what was given.

    >>> check_decay(0.01, 0.1)
    """
    if decay is None or isinstance(decay, Tracer):
        return
    check_weight_decay("to_optax.weight_decay", decay)
    if not callable(rate) and not isinstance(rate, Tracer):
        check_kept("to_optax.weight_decay", decay, rate)


def check_given(function: str, params: Any) -> None:
    """Refuses an `update` without parameters.

    **Arguments:**

    - `function`: what made the optimiser.
    - `params`: what `update` was given.

    **Raises:**

    - `ValueError`: if that is `None`.

    >>> check_given("to_optax", {"w": 1.0})
    """
    if params is None:
        raise ValueError(
            f"{function}: update needs the parameters, got None; call "
            "optimiser.update(gradients, state, params)."
        )


def check_gradients(updates: PyTree, params: PyTree) -> None:
    """Refuses an `update` that lacks gradients, by a geometry that is no diagonal.

    **Arguments:**

    - `updates`: the gradients.
    - `params`: the parameters.

    **Raises:**

    - `ValueError`: the gradient of a parameter is `None`.

    >>> check_gradients({"w": 1.0}, {"w": 1.0})
    """
    given = by_name(updates)
    without = [name for name in by_name(params) if name not in given]
    if without:
        raise ValueError(
            "to_optax: the geometry moves its parameters together, and there is no gradient of "
            f"{', '.join(map(repr, without))}; give zeros, or learn a diagonal geometry."
        )
