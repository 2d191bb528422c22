"""Marks on the cells of a column: the best, and those whose intervals leave the order open."""

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


def mark_overlap(cells: list[Cell], mark: str) -> list[Cell]:
    r"""Marks the cells whose interval `value ± spread` meets that of a best cell.

    $|m - m_*| \le c + c_*$ for means $m$ and half-widths $c$. Overlap is weaker than a test: it
    says that the two intervals leave the order open, not that there is no difference.

    **Arguments:**

    - `cells`: the column after `mark_best`; cells without an interval are never marked.
    - `mark`: the sign.

    **Returns:**

    The column with `mark` set on cells that are not best themselves.

    >>> cells = [Cell("5", 5.0, 1.0, best=True), Cell("4", 4.0, 0.5), Cell("1", 1.0, 0.5)]
    >>> [c.mark for c in mark_overlap(cells, "†")]
    ['', '†', '']
    """
    tops = [c for c in cells if c.best]

    def open_to(cell: Cell) -> bool:
        return not cell.best and any(_overlap(cell, top) for top in tops)

    return [replace(c, mark=mark) if open_to(c) else c for c in cells]


def _overlap(one: Cell, two: Cell) -> bool:
    sizes = (one.value, one.spread, two.value, two.spread)
    a, da, b, db = (v if isinstance(v, float | int) else None for v in sizes)
    return None not in (a, da, b, db) and abs(a - b) <= da + db  # type: ignore[operator]
