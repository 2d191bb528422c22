r"""The ranges of options in every framework: `η > 0`, `0 ≤ μ < 1`, `λ ≥ 0`, `η λ < 1`.

Where `η λ ≥ 1` a step would take away more than all of the weights; an entropy then has no point.
"""

import math
from typing import Any


def check_rate(name: str, rate: Any, rests: bool = False) -> None:
    """Refuses a learning rate that is not positive and finite.

    **Arguments:**

    - `name`: the argument, after its function.
    - `rate`: a number.
    - `rests`: whether 0 will do, where the rate can be set anew.

    **Raises:**

    - `ValueError`: with the name and the value.

    >>> check_rate("to_optax.learning_rate", 0.1)
    """
    value = _number(rate)
    if not 0 <= value < math.inf or (value == 0 and not rests):
        expected = "a finite number of at least 0" if rests else "a positive finite number"
        raise ValueError(f"{name}: expected {expected}, got {rate!r}.")


def check_share(name: str, value: Any) -> None:
    """Refuses what is not a number from 0 to below 1.

    **Arguments:**

    - `name`: the argument, after its function.
    - `value`: what was given.

    **Raises:**

    - `ValueError`: with the name and the value.

    >>> check_share("averaged.interpolation", 0.9)
    """
    if not 0 <= _number(value) < 1:
        word = name.rsplit(".", 1)[-1]
        raise ValueError(f"{name}: expected 0 <= {word} < 1, got {value!r}.")


def check_nesterov(name: str, momentum: Any) -> None:
    """Refuses Nesterov's momentum without one.

    **Arguments:**

    - `name`: the argument, after its function.
    - `momentum`: `μ`, or `None`.

    **Raises:**

    - `ValueError`: with the name.

    >>> check_nesterov("to_optax.nesterov", 0.9)
    """
    if momentum is None or _number(momentum) == 0:
        raise ValueError(
            f"{name}: expected a momentum with it, such as 0.9, got momentum={momentum!r}."
        )


def check_weight_decay(name: str, decay: Any) -> None:
    """Refuses a weight decay that is negative or not finite.

    **Arguments:**

    - `name`: the argument, after its function.
    - `decay`: `λ`.

    **Raises:**

    - `ValueError`: with the name and the value.

    >>> check_weight_decay("to_optax.weight_decay", 0.01)
    """
    if not 0 <= _number(decay) < math.inf:
        raise ValueError(f"{name}: expected a number of at least 0, got {decay!r}.")


def check_kept(name: str, decay: Any, rate: Any) -> None:
    """Refuses a weight decay that leaves nothing of the weights.

    **Arguments:**

    - `name`: the argument, after its function.
    - `decay`: `λ`.
    - `rate`: `η`.

    **Raises:**

    - `ValueError`: with the name and the values.

    >>> check_kept("to_optax.weight_decay", 0.01, 0.1)
    """
    if _number(decay) * _number(rate) >= 1:
        raise ValueError(
            f"{name}: expected less than 1 in product with the learning rate; a step would take "
            f"away more than all of the weights, got {decay!r} with the learning rate {rate!r}."
        )


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
