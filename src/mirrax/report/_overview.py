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
_PROBLEM = (
    *("family", "split", "examples", "model", "batch", "steps", "rows"),
    *("flatness", "law", "tolerance", "limit"),  # of quadratics
    *("way", "shot", "protocol", "statistics", "rotations"),  # of few-shot tasks
    "problems",  # of online learning
)
"""The settings that say what was to be solved, and how it was measured; others say how."""


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
    differing = _differing(runs)
    comparable = not differing
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
    apart = f"Runs of different problems are not ranked; these differ in {', '.join(differing)}."
    note = _common(runs[0]) if comparable else apart
    return Table("The runs side by side", tuple(columns[i] for i in kept), rows, (note,))


def _differing(runs: Sequence[Run]) -> list[str]:
    """What the problems of the runs differ in."""
    problems = [_problem(run) for run in runs]
    names = dict.fromkeys(name for problem in problems for name in problem)
    return [name for name in names if any(p.get(name) != problems[0].get(name) for p in problems)]


def _problem(run: Run) -> dict[str, Any]:
    """What a run was to solve: recipe, what was held out, budget, and settings of the problem."""
    fields = run.config.get("fields")
    settings = fields if isinstance(fields, dict) else {}
    return {
        "recipe": run.recipe,
        "held out": _held_out(run),
        "budget": run.config.get("budget"),
        **{name: settings[name] for name in _PROBLEM if name in settings},
    }


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
    there = [(cell, name) for cell, name in found if cell.value is not None]
    # One alone is not marked in its table: it is the best of nothing.
    best = [(cell, name) for cell, name in found if cell.best] or there * (len(there) == 1)
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
