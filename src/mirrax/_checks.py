"""Checks of static arguments."""

import operator
from typing import Any


def check_count(owner: str, field: str, value: Any) -> None:
    """Refuses what is no number of things: a fraction would be rounded or fail far from here.

    **Arguments:**

    - `owner`, `field`: whose argument it is, and its name.
    - `value`: the argument.

    **Raises:**

    - `ValueError`: if it is not a whole number of at least one.

    >>> check_count("Reverse", "steps", 2.5)
    Traceback (most recent call last):
    ValueError: Reverse.steps: expected a whole number, got 2.5.
    """
    try:
        whole = not isinstance(value, bool) and operator.index(value) == value
    except TypeError:
        whole = False
    if not whole:
        raise ValueError(f"{owner}.{field}: expected a whole number, got {value!r}.")
    if value < 1:
        raise ValueError(f"{owner}.{field}: expected at least 1, got {value!r}.")
