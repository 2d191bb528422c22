r"""Ranges that hyper-parameters are searched in, each mapped onto [0, 1].

A rate is a matter of orders of magnitude: $v = a (b/a)^u$. So is what a momentum $\beta$ leaves of
the past, $1 - \beta$: $1 - v = (1 - a) ((1 - b)/(1 - a))^u$.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np


@dataclasses.dataclass(frozen=True)
class Range:
    """The values a hyper-parameter may have, and the scale on which they are alike.

    **Arguments:**

    - `low`, `high`: the bounds.
    - `scale`: `"log"` for what is positive, `"complement"` for what is close to 1.

    >>> round(Range(0.01, 1.0).at(0.5), 9), round(Range(0.9, 0.999, "complement").at(0.5), 9)
    (0.1, 0.99)
    """

    low: float
    high: float
    scale: Literal["log", "complement"] = "log"

    def at(self, share: float) -> float:
        """The value a share of the way from `low` to `high`; exactly these at 0 and 1."""
        low, high = (self._inner(end) for end in (self.low, self.high))
        inner = float(low * (high / low) ** share)
        return float(np.clip(self._inner(inner), self.low, self.high))

    def share(self, value: float) -> float:
        """How far a value is from `low` to `high`, the inverse of `at`.

        >>> Range(0.01, 1.0).share(0.1)
        0.5
        """
        low, high = (self._inner(end) for end in (self.low, self.high))
        return float(np.log(self._inner(value) / low) / np.log(high / low))

    def _inner(self, value: float) -> float:
        """What is log-uniform: the value, or what it lacks of 1; its own inverse."""
        return value if self.scale == "log" else 1 - value


Space = Mapping[str, Range]
"""Ranges by the name of the hyper-parameter."""


def around(values: tuple[float, ...], factor: float) -> Range:
    """The range from the least of some values to the greatest, and a factor beyond on both sides.

    >>> around((0.1, 1.0), 10)
    Range(low=0.01, high=10.0, scale='log')
    """
    return Range(min(values) / factor, max(values) * factor)


def point_of(space: Space, values: Mapping[str, Any]) -> np.ndarray:
    """Values as a point of the unit cube, one axis a name of the space."""
    return np.array([found.share(values[name]) for name, found in space.items()])


def values_at(space: Space, point: np.ndarray) -> dict[str, float]:
    """The values at a point of the unit cube."""
    pairs = zip(space.items(), point, strict=True)
    return {name: found.at(float(share)) for (name, found), share in pairs}
