"""Bounds of online learners as a table: how much of each is used (S002)."""

from collections.abc import Mapping
from typing import Any

from ._format import clean, finite, number
from ._table import Cell, Column, Table

_COLUMNS = (
    Column("bound", "Bound"),
    Column("what", "Of what"),
    Column("kind", "Problems"),
    Column("median", "Median gap/bound", numeric=True),
    Column("largest", "Largest", numeric=True),
    Column("count", "Count", numeric=True),
    Column("violated", "Violated", numeric=True),
)


def online_bounds_table(summary: Mapping[str, Any]) -> Table:
    """What was measured over what bounds it, by bound and kind of problem.

    **Arguments:**

    - `summary`: the content of `summary.json` of `mirrax reproduce s002-bounds`.

    **Returns:**

    A `Table` with one row a bound, algorithm and kind of problem.

    >>> row = {"bound": "Theorem 1", "what": "Algorithm 2", "kind": "logistic", "median": 0.01}
    >>> row |= {"largest": 0.25, "count": 80, "violated": 0}
    >>> [cell.text for cell in online_bounds_table({"bounds": [row]}).rows[0]]
    ['Theorem 1', 'Algorithm 2', 'logistic', '0.0100', '0.250', '80', '0']
    """
    rows = summary["bounds"]
    violated = sum(row["violated"] for row in rows)
    notes = (
        "At most 1 where the bound holds, near 1 where it is tight. A ratio above 1 by more than "
        "1e-12, which is rounding, is a violation. Theorem 2 is the least over three comparators "
        "where the rule uses gradients.",
        f"Violated: {violated} of {sum(row['count'] for row in rows):,}.",
    )
    title = "Gap beside bound on random convex problems, S002"
    return Table(title, _COLUMNS, tuple(map(_row, rows)), notes)


def _row(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    ratios = [Cell(_short(row[key]), finite(row[key])) for key in ("median", "largest")]
    counts = [Cell(number(row[key], 0), finite(row[key])) for key in ("count", "violated")]
    names = [Cell(clean(row[key])) for key in ("bound", "what", "kind")]
    return (*names, *ratios, *counts)


def _short(ratio: float) -> str:
    """Three digits."""
    return f"{ratio:#.3g}"
