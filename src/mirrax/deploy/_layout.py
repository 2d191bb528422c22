r"""The table of parameters that a geometry was learned for: names, shapes, types, axis roles.

Two tables are compared row by row; where they differ, both are shown. Nothing but the standard
library is imported here, so that an adapter to another framework says the same thing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]
Expected = Mapping[str, Shape | None]
"""Shapes by name; `None` stands for any parameters at or below that name (`""` is the root)."""


@dataclass(frozen=True)
class Leaf:
    """One array of parameters.

    **Arguments:**

    - `name`: its path joined with `/`, such as `dense_0/weight`.
    - `shape`: its shape.
    - `dtype`: its type by name, such as `float32`.
    - `roles`: what each axis means, such as `("in", "out")`; `None` where unknown.

    >>> Leaf("dense_0/bias", (10,), "float32", ("out",)).roles
    ('out',)
    """

    name: str
    shape: Shape
    dtype: str
    roles: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """What JSON keeps of it."""
        roles = None if self.roles is None else list(self.roles)
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype, "roles": roles}

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> "Leaf":
        """The inverse of `to_json`; a `ValueError` for a row of other types."""
        name, shape, dtype, roles = (row[key] for key in ("name", "shape", "dtype", "roles"))
        texts = [name, dtype, *(roles or ())]
        lists = isinstance(shape, list) and isinstance(roles, list | None)
        sizes = lists and all(type(size) is int and size >= 0 for size in shape)
        if not sizes or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"a parameter is {str(row)[:80]}")
        return Leaf(name, tuple(shape), dtype, None if roles is None else tuple(roles))


def join(prefix: str, name: str) -> str:
    """Joins two parts of a name, either of which may be empty.

    >>> join("dense_0", "weight"), join("", "weight"), join("dense_0", "")
    ('dense_0/weight', 'weight', 'dense_0')
    """
    return f"{prefix}/{name}" if prefix and name else prefix or name


def is_below(name: str, prefix: str) -> bool:
    """Whether a name is the prefix or lies below it; everything lies below `""`.

    >>> is_below("dense_0/weight", "dense_0"), is_below("dense_01", "dense_0")
    (True, False)
    """
    return prefix == "" or name == prefix or name.startswith(prefix + "/")


def mismatch(expected: Expected, received: Mapping[str, Shape]) -> str | None:
    """Compares two tables of parameters.

    **Arguments:**

    - `expected`: what the geometry was learned for.
    - `received`: what it is to be used with.

    **Returns:**

    `None` if they agree, else both tables side by side, with the differing rows marked by `!`.

    >>> print(mismatch({"a/w": (2, 3), "a/b": (3,)}, {"a/w": (2, 4), "a/b": (3,)}))
        parameter  geometry  here
      ! a/w        (2, 3)    (2, 4)
        a/b        (3,)      (3,)
    """
    rows = [*_expected_rows(expected, received), *_extra_rows(expected, received)]
    if all(left == right for _, left, right in rows):
        return None
    marks = ["!" if left != right else " " for _, left, right in rows]
    lines = columns([("parameter", "geometry", "here"), *rows])
    return "\n".join(f"  {mark} {line}" for mark, line in zip([" ", *marks], lines, strict=True))


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a table as lines, their columns aligned.

    >>> columns([("parameter", "shape"), ("w", "(2,)")])
    ['parameter  shape', 'w          (2,)']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return ["  ".join(row).rstrip() for row in padded]


def _shown(name: str) -> str:
    return name or "(one array)"


def _expected_rows(expected: Expected, received: Mapping[str, Shape]) -> list[tuple[str, str, str]]:
    rows = []
    for name, shape in expected.items():
        if shape is not None:
            found = str(received[name]) if name in received else "absent"
            rows.append((_shown(name), str(shape), found))
        elif not any(is_below(other, name) for other in received):
            rows.append((_shown(name), "any", "absent"))
    return rows


def _extra_rows(expected: Expected, received: Mapping[str, Shape]) -> list[tuple[str, str, str]]:
    free = [name for name, shape in expected.items() if shape is None]
    return [
        (_shown(name), "absent", str(shape))
        for name, shape in received.items()
        if name not in expected and not any(is_below(name, prefix) for prefix in free)
    ]
