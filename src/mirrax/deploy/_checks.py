r"""What optimisers refuse: rates `η ≤ 0`, shares outside `0 ≤ μ < 1`, decay `λ < 0` or `η λ ≥ 1`.

A fixed number is looked at when the optimiser is made, parameters when they are first seen;
schedules and traced numbers cannot be looked at and pass.
"""

import math
from typing import Any

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import PyTree

from ._fit import by_name


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
    try:
        value = float(rate)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(
            "to_optax.learning_rate: expected a positive finite number or a schedule, got "
            f"{rate!r}."
        )


def check_momentum(momentum: Any, nesterov: bool) -> None:
    """Refuses a momentum of `to_optax` out of range, and Nesterov's without one.

    **Arguments:**

    - `momentum`: `μ`, or `None`.
    - `nesterov`: whether Nesterov's is asked for.

    **Raises:**

    - `ValueError`: with what was given.

    >>> check_momentum(0.9, nesterov=True)
    """
    if momentum is None and nesterov:
        raise ValueError("to_optax.nesterov: it needs a momentum, got momentum=None; try 0.9.")
    if momentum is not None:
        check_share("to_optax.momentum", momentum)


def check_share(name: str, value: Any) -> None:
    """Refuses what is not a number from 0 to below 1; traced numbers pass.

    **Arguments:**

    - `name`: the argument, after its function.
    - `value`: what was given.

    **Raises:**

    - `ValueError`: with the name and the value.

    >>> check_share("averaged.interpolation", 0.9)
    """
    if isinstance(value, Tracer):
        return
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < 1:
        word = name.rsplit(".", 1)[-1]
        raise ValueError(f"{name}: expected 0 <= {word} < 1, got {value!r}.")


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
    try:
        value = float(decay)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"to_optax.weight_decay: expected a number of at least 0, got {decay!r}.")
    if not callable(rate) and not isinstance(rate, Tracer) and float(rate) * value >= 1:
        raise ValueError(
            f"to_optax.weight_decay: a step would take away more than all of the weights, got "
            f"{decay!r} with the learning rate {rate!r}; their product must be below 1."
        )


def check_floating(params: PyTree) -> None:
    """Refuses parameters that `to_optax` has no step for.

    **Arguments:**

    - `params`: those given to `init`.

    **Raises:**

    - `ValueError`: a leaf is not of a floating-point type.

    >>> check_floating({"w": jnp.ones(2)})
    """
    for name, leaf in by_name(params).items():
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"to_optax: expected floating-point parameters, got {name!r} of type "
                f"{jnp.result_type(leaf).name}; leave it out with optax.masked."
            )


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
