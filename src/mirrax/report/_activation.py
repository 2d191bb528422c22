"""Which component of a maximum of diagonals decides the steps, as tables (S000, Fig. 5)."""

from collections.abc import Mapping
from typing import Any

from ._compared import comparison_tables
from ._table import Cell, Column, Table


def activation_tables(result: Mapping[str, Any]) -> list[Table]:
    """How often each component is the largest, round by round, and the comparison.

    **Arguments:**

    - `result`: what `mirrax reproduce s000-fig5` found.

    **Returns:**

    Shares of the steps in per cent, one row a component; then the optimisers.

    >>> result = {"activation_by_round": [[1.0, 0.0], [0.25, 0.75]], "comparison": []}
    >>> [cell.text for cell in activation_tables(result)[0].rows[1]]
    ['2', '0.0', '75.0']
    """
    rounds = result["activation_by_round"]
    columns = [Column("component", "Component")]
    columns += [
        Column(f"round_{number}", f"Round {number}", numeric=True)
        for number in range(1, len(rounds) + 1)
    ]
    rows = tuple(
        (
            Cell(str(index + 1)),
            *(Cell(f"{100 * shares[index]:.1f}", 100 * shares[index]) for shares in rounds),
        )
        for index in range(len(rounds[0]))
    )
    title = "Share of the steps at which a component is the largest (%), S000 Fig. 5"
    notes = ("Mean over the inner runs of a round. The paper has a figure, and no numbers.",)
    return [Table(title, tuple(columns), rows, notes), *comparison_tables(result)]
