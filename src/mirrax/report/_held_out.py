"""Leave-one-out tables: learned geometries beside the best baselines, and steps task by task."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ._compared import comparison_tables
from ._format import ABSENT, clean, plus_minus
from ._table import Cell, Column, Table
from ._tables import percent, side_by_side, step_cells

_LEARNED = "Geometry"


def held_out_tables(
    result: Mapping[str, Any], paper: Mapping[str, Any] | None = None
) -> list[Table]:
    """All tables of a study with each task held out in turn.

    **Arguments:**

    - `result`: the content of `summary.json`.
    - `paper`: a table of a paper by task, such as `S000_TABLE2`, to be shown beside ours.

    **Returns:**

    Accuracies task by task beside the paper's, if it prints any; the comparison; learned geometries
    against the best baselines; steps task by task where there are common targets.

    >>> row = {"optimiser": "SGD", "test_accuracy": {"mean": 0.9, "se": 0.01}, "steps_to": {}}
    >>> result = {"comparison": [row], "cells": {"0": {"SGD": row}}, "against_best_baseline": {}}
    >>> [table.title for table in held_out_tables(result)]
    ['Comparison of optimisers']
    """
    found = [side_by_side(_by_task(result, paper), paper)] if paper else []
    found += comparison_tables(result)
    if result.get("against_best_baseline"):
        found.append(standing_table(result))
    by_task = steps_by_task_table(result, ("SGD", "SGD-M"))
    return found if by_task is None else [*found, by_task]


def one_task_tables(result: Mapping[str, Any], paper: Mapping[str, Any]) -> list[Table]:
    """The comparison on one held-out task, and the one column of a paper's table beside it.

    **Arguments:**

    - `result`: the content of `summary.json`.
    - `paper`: the paper's table, such as `S000_FIGURE4`.

    >>> from mirrax.report import S000_FIGURE4
    >>> row = {"optimiser": "Adam", "test_accuracy": {"mean": 0.9, "se": 0.01}}
    >>> [r[2].text for r in one_task_tables({"comparison": [row]}, S000_FIGURE4)[0].rows[2:4]]
    ['90.00 ± 1.00', '91.29']
    """
    (column,) = paper["columns"]
    rows = result["comparison"]
    ours = {row["optimiser"]: {column: _percents(row["test_accuracy"])} for row in rows}
    return [side_by_side(ours, paper), *comparison_tables(result)]


def _by_task(result: Mapping[str, Any], paper: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Accuracies in per cent by method and column of the paper; spellings of tasks may differ."""
    columns = {_plain(column): column for column in map(str, paper["columns"])}
    ours: dict[str, dict[str, Any]] = {}
    for task, row in result["cells"].items():
        for name, cell in row.items():
            column = columns.get(_plain(task)) or task
            ours.setdefault(name, {})[column] = _percents(cell["test_accuracy"])
    return ours


def _percents(accuracy: Mapping[str, Any]) -> dict[str, float | None]:
    return {key: percent(accuracy[key]) for key in ("mean", "se")}


def _plain(name: str) -> str:
    """A name without what spellings differ in: `fashion-mnist` and `FashionMNIST` are one."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def standing_table(result: Mapping[str, Any]) -> Table:
    """Learned geometries against the best baseline of each measure, means over held-out tasks.

    **Arguments:**

    - `result`: the content of `summary.json`; only `against_best_baseline` is needed.

    **Returns:**

    A `Table`: by geometry the difference of test accuracies in points with its paired standard
    error, and the ratios of final losses and of steps to each target that both always reached,
    none where the best baseline is at zero.

    >>> standing = {"accuracy": {"rival": "Adam", "gain": 0.01, "paired_se": 0.002},
    ...             "final_loss": {"rival": "SGD-M", "ratio": 0.5},
    ...             "steps_to": {"0.1": None}}
    >>> print(standing_table({"against_best_baseline": {"MetaMD": standing}}).text())
    Learned geometries against the best baseline of each measure
    <BLANKLINE>
    Geometry  Test accuracy (points)  Final training loss
    --------  ----------------------  -------------------
    MetaMD     +1.00 ± 0.20 to Adam       0.50 of SGD-M's
    <BLANKLINE>
    ± is one standard error of the paired differences, over tasks.
    """
    standings = result["against_best_baseline"]
    columns = [Column("geometry", _LEARNED), Column("accuracy", "Test accuracy (points)", True)]
    body = [
        [Cell(clean(name), clean(name)) for name in standings],
        [_gain(one["accuracy"]) for one in standings.values()],
    ]
    ratios = {"Final training loss": [one["final_loss"] for one in standings.values()]}
    for target in next(iter(standings.values()))["steps_to"]:
        title = f"Steps to loss {target}"
        ratios[title] = [one["steps_to"][target] for one in standings.values()]
    for title, entries in ratios.items():
        if any(entries):
            columns.append(Column(title.lower(), title, numeric=True))
            body.append([_ratio(entry) for entry in entries])
    return Table(
        "Learned geometries against the best baseline of each measure",
        tuple(columns),
        tuple(zip(*body, strict=True)),
        ("± is one standard error of the paired differences, over tasks.",),
    )


def steps_by_task_table(result: Mapping[str, Any], yardsticks: Sequence[str]) -> Table | None:
    """Steps to a training loss on each held-out task.

    Tasks differ in the losses that a run of one length reaches: on each the target is the lowest
    that all runs of the yardsticks reached.

    **Arguments:**

    - `result`: the content of `summary.json`; only `cells` is needed.
    - `yardsticks`: methods that must have reached a target.

    **Returns:**

    A `Table` of methods by tasks, without the tasks that have no such target; `None` if none has.

    >>> steps = lambda mean: {"steps_to": {"0.1": {"mean": mean, "se": 1.0, "values": [mean]}}}
    >>> cells = {"mnist": {"MetaMD": steps(90.0), "SGD": steps(200.0)}}
    >>> [row[1].text for row in steps_by_task_table({"cells": cells}, ["SGD"]).rows]
    ['90 ± 1', '200 ± 1']
    """
    cells = result["cells"]
    names = list(next(iter(cells.values())))
    columns, body = [Column("optimiser", "Optimiser")], [[Cell(clean(n), clean(n)) for n in names]]
    for task, row in cells.items():
        target = _common_target([row[name] for name in yardsticks if name in row])
        if target is not None:
            columns.append(Column(task, f"{task}, to {target}", numeric=True))
            body.append(step_cells([row[name]["steps_to"][target] for name in names]))
    if len(columns) == 1:
        return None
    known = " and ".join(name for name in yardsticks if name in names)
    note = (
        f"Of each task the lowest target that {known} reached in every run. "
        "± is one standard error of the mean over seeds."
    )
    rows = tuple(zip(*body, strict=True))
    return Table("Steps to a training loss, by the task held out", tuple(columns), rows, (note,))


def _common_target(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The lowest target that every run of some methods reached."""
    known = [
        target
        for target in (rows[0]["steps_to"] if rows else ())
        if all(row["steps_to"][target]["mean"] is not None for row in rows)
    ]
    return min(known, key=float) if known else None


def _gain(found: Mapping[str, Any]) -> Cell:
    gain = 100 * found["gain"]
    text = plus_minus(gain, 100 * found["paired_se"], 2)
    return Cell(f"{'+' if gain >= 0 else ''}{text} to {clean(found['rival'])}", gain)


def _ratio(found: Mapping[str, Any] | None) -> Cell:
    if found is None:
        return Cell(ABSENT)
    return Cell(f"{found['ratio']:.2f} of {clean(found['rival'])}'s", found["ratio"])
