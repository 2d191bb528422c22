"""Several runs side by side: one line each, ranked only where they did the same."""

from collections.abc import Sequence
from typing import Any

from ._format import ABSENT, clean, duration, finite
from ._marks import mark_best
from ._records import Run
from ._summaries import summary_tables
from ._table import Cell, Column, Table

_MEASURES = {
    "test_accuracy": ("Best test accuracy (%)", "higher"),
    "final_loss": ("Lowest training loss", "lower"),
    "steps": ("Fewest steps", "lower"),
}


def overview_table(runs: Sequence[Run]) -> Table:
    """What each run was, its best optimiser by each measure, and the time it took.

    **Arguments:**

    - `runs`: run folders that were read.

    **Returns:**

    A `Table` with one row a run; columns in which no run has anything are left out, and what all
    have in common is said in a note.

    >>> from pathlib import Path
    >>> runs = [Run(Path("runs/a"), {"recipe": "quadratics"}), Run(Path("b"), {"recipe": "mine"})]
    >>> [[cell.text for cell in row] for row in overview_table(runs).rows]
    [['runs/a', 'quadratics'], ['b', 'mine']]
    """
    summaries = [run.summary or {} for run in runs]
    firsts = [next(iter(summary_tables(summary)), None) for summary in summaries]
    comparable = len({(run.recipe, _held_out(run)) for run in runs}) == 1
    columns, body = [Column("run", "Run")], [[_word(clean(run.folder)) for run in runs]]
    if not comparable:
        columns += [Column("recipe", "Recipe"), Column("held_out", "Held out")]
        body += [[_word(run.recipe) for run in runs], [_word(_held_out(run)) for run in runs]]
    for key, (label, better) in _MEASURES.items():
        cells = [_best(table, key) for table in firsts]
        columns.append(Column(key, label, numeric=True))
        body.append(mark_best(cells, better) if comparable else cells)
    certified = [(summary.get("certificate") or {}).get("status") for summary in summaries]
    columns += [Column("certificate", "Certificate"), Column("time", "Time", numeric=True)]
    body += [[_word(clean(said or "")) for said in certified], [_time(one) for one in summaries]]
    kept = [i for i, cells in enumerate(body) if any(cell.text != ABSENT for cell in cells)]
    rows = tuple(zip(*(body[i] for i in kept), strict=True))
    note = _common(runs[0]) if comparable else "Runs of different problems are not ranked."
    return Table("The runs side by side", tuple(columns[i] for i in kept), rows, (note,))


def _common(run: Run) -> str:
    held = _held_out(run)
    return f"All of {run.recipe}{', held out: ' if held else ''}{held}."


def _held_out(run: Run) -> str:
    held = (run.summary or {}).get("held_out")
    return clean(", ".join(map(str, held)) if isinstance(held, list) else held or "", 40)


def _best(table: Table | None, key: str) -> Cell:
    """The best of a column and whose it is; not marked, which is for the best of the runs."""
    keys = [column.key for column in table.columns] if table else []
    if table is None or key not in keys:
        return Cell(ABSENT)
    found = [(row[keys.index(key)], row[0].text) for row in table.rows]
    best = [(cell, name) for cell, name in found if cell.best]
    if not best:
        return Cell(ABSENT)
    first, _ = best[0]
    names = ", ".join(name for _, name in best)
    return Cell(f"{first.text} ({names})", first.value)


def _time(summary: dict[str, Any]) -> Cell:
    seconds = finite(summary.get("wall_seconds"))
    return Cell(duration(seconds), seconds)


def _word(text: str) -> Cell:
    return Cell(text or ABSENT, text or None)
