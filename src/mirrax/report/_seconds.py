"""What a step of each optimiser costs, and the seconds to each target that follow from it."""

from collections.abc import Mapping
from typing import Any

from ._format import clean, decimals, estimate, finite, number
from ._marks import mark_best
from ._table import Cell, Column, Table
from ._tables import step_cells, target_label, targets_of


def seconds_table(summary: Mapping[str, Any]) -> Table | None:
    """Milliseconds a step, and seconds to each training loss.

    **Arguments:**

    - `summary`: the content of `summary.json`; only `comparison` is needed.

    **Returns:**

    A `Table` of optimisers, or `None` where no step was timed.

    >>> reached = {"0.1": {"mean": 0.5, "se": 0.01, "values": [0.49, 0.51]}}
    >>> row = {"optimiser": "SGD", "seconds_a_step": 0.002, "seconds_to": reached}
    >>> [cell.text for cell in seconds_table({"comparison": [row]}).rows[0]]
    ['SGD', '2.00', '0.500 ± 0.010']
    """
    rows = [row for row in summary["comparison"] if finite(row.get("seconds_a_step"))]
    if not rows:
        return None
    costs = [1000 * row["seconds_a_step"] for row in rows]
    places = decimals(costs)
    columns = [
        Column("optimiser", "Optimiser"),
        Column("milliseconds", "Milliseconds a step", numeric=True),
    ]
    names = [clean(row["optimiser"]) for row in rows]
    body = [
        [Cell(name, name) for name in names],
        mark_best([Cell(number(cost, places), cost) for cost in costs], "lower"),
    ]
    for target in targets_of(rows, "seconds_to"):
        entries = [(row.get("seconds_to") or {}).get(target) for row in rows]
        columns.append(Column(f"seconds_to_{target}", target_label("Seconds", target), True))
        body.append(step_cells(entries, decimals(estimate(entry)[0] for entry in entries)))
    notes = (
        "A step was timed apart from the runs, the optimisers in turn, and the median is shown; "
        "seconds are steps times it, on that machine.",
    )
    rows_of_cells = tuple(zip(*body, strict=True))
    return Table("Seconds to a training loss", tuple(columns), rows_of_cells, notes)
