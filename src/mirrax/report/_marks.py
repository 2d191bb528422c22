"""Marks on the cells of a column: the best."""

from dataclasses import replace

from ._table import Cell


def mark_best(cells: list[Cell], better: str | None) -> list[Cell]:
    """Marks the best cells of one column.

    Cells whose text equals that of the best one are marked too: what looks the same is not ranked.

    **Arguments:**

    - `cells`: the column; cells without a number take no part.
    - `better`: `"higher"`, `"lower"`, or `None` for a column without a best.

    **Returns:**

    The column with `best` set.

    >>> [c.best for c in mark_best([Cell("1", 1.0), Cell("2", 2.0)], "lower")]
    [True, False]
    """
    values = [c.value for c in cells if isinstance(c.value, float)]
    if better is None or len(values) < 2:
        return cells
    top = max(values) if better == "higher" else min(values)
    shown = {c.text.split(" ±")[0] for c in cells if c.value == top}
    return [
        replace(c, best=c.text.split(" ±")[0] in shown) if isinstance(c.value, float) else c
        for c in cells
    ]
