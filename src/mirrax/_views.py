r"""Which axes an array has for papers: `(out, in, height·width)`, whatever order it is kept in.

The view is that of convolutional weights `(O, I, F)` with `F = height·width` in C order, dense
weights `(O, I)` and vectors `(n,)`. The roles of an array's axes lead to it. Only the standard
library is imported here: both frameworks take their views from this file.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

Roles: TypeAlias = tuple[str, ...]
"""What each axis of one array means."""

Axes: TypeAlias = tuple[tuple[str, Roles], ...]
"""Names of arrays with their roles; the order is that in which arrays are taken together."""

MODES = (("out",), ("in",), ("height", "width"))
"""The modes of a view, in order; the axes of one mode are merged."""

ORDER = tuple(role for mode in MODES for role in mode)
"""The roles there are, in the order of a view."""


def as_axes(pairs: Iterable[Any]) -> Axes:
    """Makes pairs of name and roles hashable, from whatever sequences a file held.

    >>> as_axes([["dense_0/weight", ["in", "out"]]])
    (('dense_0/weight', ('in', 'out')),)
    """
    return tuple((str(name), tuple(map(str, roles))) for name, roles in pairs)


def view_shape(shape: Sequence[int], roles: Roles) -> tuple[int, ...]:
    """The shape of an array's view.

    >>> view_shape((3, 3, 16, 64), ("height", "width", "in", "out"))
    (64, 16, 9)
    """
    present = [[shape[roles.index(r)] for r in mode if r in roles] for mode in MODES]
    return tuple(math.prod(sizes) for sizes in present if sizes)


def view_order(roles: Roles) -> list[int]:
    """The axes of an array in the order of its view.

    >>> view_order(("height", "width", "in", "out"))
    [3, 2, 0, 1]
    """
    return sorted(range(len(roles)), key=lambda axis: ORDER.index(roles[axis]))
