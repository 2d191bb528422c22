"""What a run found as tables, whichever its kind."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirrax._errors import MirraxError
from mirrax._files import write_atomically

from ._checks import kind_of
from ._compared import comparison_tables
from ._few_shot import few_shot_table
from ._held_out import held_out_tables
from ._hypergradients import hypergradient_tables
from ._online import online_table
from ._online_bounds import online_bounds_table
from ._online_network import online_network_table
from ._table import Table

if TYPE_CHECKING:
    from ._records import Run

_TABLES: Mapping[str, Callable[[Mapping[str, Any]], list[Table]]] = {
    "few-shot": lambda summary: [few_shot_table(summary)],
    "online": lambda summary: [online_table(summary)],
    "online-network": lambda summary: [online_network_table(summary)],
    "online-bounds": lambda summary: [online_bounds_table(summary)],
    "hypergradients": hypergradient_tables,
}


def summary_tables(summary: Mapping[str, Any]) -> list[Table]:
    """What a run compared, whichever its kind.

    **Arguments:**

    - `summary`: the content of `summary.json`.

    **Returns:**

    The tables of its kind; none where nothing was compared.

    >>> summary_tables({"recipe": "quadratics"})
    []
    """
    known = _TABLES.get(kind_of(summary))
    if known is not None:
        return known(summary)
    if not summary.get("comparison"):
        return []
    return held_out_tables(summary) if summary.get("cells") else comparison_tables(summary)


def write_markdown(runs: Sequence["Run"], path: str | os.PathLike[str]) -> Path:
    """Writes the tables of runs as one Markdown file, a heading and the command above each run's.

    **Arguments:**

    - `runs`: run folders that were read with `Run.read`.
    - `path`: the file to write.

    **Returns:**

    The path.

    **Raises:**

    - `MirraxError`: if it cannot be written, or no run has a table.
    """
    path = Path(path)
    parts = []
    for run in runs:
        tables = [table.markdown() for table in summary_tables(run.summary or {})]
        parts += [f"## {run.recipe}", f"    {run.command}", *tables] if tables else []
    if not parts:
        raise MirraxError(f"nothing to write to {path}: no run has a comparison yet.")
    write_atomically(path, ("\n\n".join(parts) + "\n").encode("utf-8"))
    return path
