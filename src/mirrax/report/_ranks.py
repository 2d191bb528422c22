r"""Mean ranks of optimisers over paired runs, and whether the differences could be chance.

A cell is one run of every optimiser on one task from one seed, with the same initial weights and
batches. All optimisers are ranked in each cell. Friedman's test asks whether the mean ranks differ
at all, and Wilcoxon's signed-rank test compares each optimiser with the best, with p-values
corrected by Holm's step-down procedure (Demšar, JMLR 2006, sections 3.1.3 and 3.2.2).
"""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from ._format import clean, finite, plural
from ._marks import mark_best
from ._table import Cell, Column, Table
from ._tables import target_label, targets_of

_LEAST_CELLS = 3
_LEVEL = 0.05
Runs = Sequence[Sequence[float]]
"""A number an optimiser and cell, axes (optimisers, cells)."""

_METRICS = {
    "test_accuracy": "Test accuracy",
    "final_loss": "Final loss",
    "log_loss_area": "Mean log loss",
}


def rank_table(summary: Mapping[str, Any]) -> Table | None:
    """Mean ranks of every optimiser, with p-values against the best of each measure.

    **Arguments:**

    - `summary`: the content of `summary.json`; only `comparison` is needed, whose values are
        paired: run by run they belong to the same task and seed in every row.

    **Returns:**

    A `Table`, or `None` where there are fewer than two optimisers or three cells.

    >>> rows = [{"optimiser": name, "final_loss": {"values": [base + i for i in range(8)]}}
    ...         for name, base in (("SGD", 0.5), ("Adam", 0.25))]
    >>> for row in rank_table({"comparison": rows}).rows:
    ...     print([cell.text for cell in row])
    ['SGD', '2.00 (0.008)']
    ['Adam', '1.00']
    """
    rows = summary["comparison"]
    measures = _measures(rows)
    if len(rows) < 2 or not measures:
        return None
    cells, others = len(next(iter(measures.values()))[0]), len(rows) - 1
    attainable = others * 2.0 ** (1 - cells)
    tell = attainable <= _LEVEL
    names = [clean(row["optimiser"]) for row in rows]
    columns, body = [Column("optimiser", "Optimiser")], [[Cell(name, name) for name in names]]
    for label, worse in measures.items():
        columns.append(Column(label.lower().replace(" ", "_"), label, numeric=True))
        body.append(_cells(worse, tell))
    notes = [_what_cells(summary, cells)]
    if tell:
        notes.append(
            "In brackets: p of Wilcoxon's signed-rank test against the best of the column, "
            f"two-sided, after Holm's correction for {others} comparison"
            f"{'s' if others > 1 else ''}. The best is picked in the same cells, and cells that "
            "share images are not independent: both make p smaller than it should be."
        )
        notes += _friedman_note(measures) if len(rows) > 2 else []
    else:
        notes.append(
            f"With {cells} cells and {others} comparisons no p could be below {attainable:.2g}, so "
            "none is given."
        )
    body = tuple(zip(*body, strict=True))
    return Table("Mean ranks", tuple(columns), body, tuple(notes))


def _what_cells(summary: Mapping[str, Any], cells: int) -> str:
    tasks, seeds = len(summary.get("cells") or ()), summary.get("seeds")
    of = (
        f" ({tasks} tasks held out, {plural(seeds, 'seed')})"
        if tasks and isinstance(seeds, int)
        else ""
    )
    return f"Over {cells} cells{of}, in each of which all start alike and see the same batches."


def _measures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Runs]:
    """Runs of every optimiser by the label of the measure; the lowest are the best.

    What is missing is worse than all that is there. A measure that rows have in different
    numbers, or of which nothing is known, is left out. So are seconds: they are steps times one
    number a method, whose error is the same in every cell, and no test over cells sees it.
    """
    found = {label: [row.get(key) for row in rows] for key, label in _METRICS.items()}
    for target in targets_of(rows, "steps_to"):
        entries = [(row.get("steps_to") or {}).get(target) for row in rows]
        found[target_label("Steps", target)] = entries
    measures = {}
    for label, entries in found.items():
        values = [_values(entry) for entry in entries]
        lengths = set(map(len, values))
        if len(lengths) > 1 or min(lengths, default=0) < _LEAST_CELLS:
            continue
        numbers = [[finite(v) for v in row] for row in values]
        if any(v is not None for row in numbers for v in row):
            share = label == _METRICS["test_accuracy"]
            measures[label] = [[_worse(v, share) for v in row] for row in numbers]
    # One set of cells for all columns.
    most = max((len(worse[0]) for worse in measures.values()), default=0)
    return {label: worse for label, worse in measures.items() if len(worse[0]) == most}


def _worse(value: float | None, share: bool) -> float:
    """What is ranked: a loss, or a share of images with the sign changed; infinite if missing."""
    if value is None:
        return inf
    # Results made until 0.1.0 have sums of shares in float32: equal ones differ in the last digits.
    return -round(value, 5) if share else value


def _values(entry: object) -> list[Any]:
    """What each run showed, where an entry tells."""
    found = entry.get("values") if isinstance(entry, Mapping) else None
    return found if isinstance(found, list) else []


def _cells(worse: Runs, tell: bool) -> list[Cell]:
    """A column: mean ranks, and p-values against the best."""
    from ._rank_tests import holm, mean_ranks, signed_rank

    ranks = mean_ranks(worse)
    best = ranks.index(min(ranks))
    others = [i for i in range(len(ranks)) if i != best]
    chances = holm([signed_rank(worse[i], worse[best]) for i in others])
    found = {i: f" ({chance(p)})" for i, p in zip(others, chances, strict=True)} if tell else {}
    shown = mark_best([Cell(f"{rank:.2f}", rank) for rank in ranks], "lower")
    return [
        Cell(cell.text + ("" if cell.best else found.get(i, "")), cell.value, best=cell.best)
        for i, cell in enumerate(shown)
    ]


def chance(p: float) -> str:
    """A p-value with two digits or three decimals, whichever is shorter.

    >>> chance(0.0004), chance(0.0312), chance(0.26)
    ('<0.001', '0.031', '0.26')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def _friedman_note(measures: Mapping[str, Runs]) -> list[str]:
    from ._rank_tests import friedman

    found = [f"{label.lower()} {chance(friedman(worse))}" for label, worse in measures.items()]
    return [f"p of Friedman's test of whether any differ: {', '.join(found)}."]
