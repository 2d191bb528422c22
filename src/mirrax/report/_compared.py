"""Everything a comparison of optimisers has to say: measures, seconds, ranks, configurations."""

from collections.abc import Mapping
from typing import Any

from ._ranks import rank_table
from ._seconds import seconds_table
from ._table import Table
from ._tables import comparison_table
from ._tuning import tuning_table


def comparison_tables(summary: Mapping[str, Any]) -> list[Table]:
    """All tables of a comparison of optimisers.

    **Arguments:**

    - `summary`: the content of `summary.json`.

    **Returns:**

    The comparison; and where they were recorded, seconds, ranks over paired runs, and what tuning
    chose.

    >>> row = {"optimiser": "SGD", "test_accuracy": {"mean": 0.9, "se": 0.01}, "steps_to": {}}
    >>> [table.title for table in comparison_tables({"comparison": [row]})]
    ['Comparison of optimisers']
    """
    others = (seconds_table(summary), rank_table(summary), tuning_table(summary))
    return [comparison_table(summary), *(table for table in others if table is not None)]
