"""What a command found, in a form to publish: its tables, and below them what made them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mirrax._files import write_atomically, write_json

from ._made_by import record_table
from ._table import Table

_LONG = frozenset(
    ("curve", "curves", "curve_steps", "loss", "training")
    + ("sensitivity", "meta_sensitivity", "by_step")
)
"""What figures show and no table does: curves along runs, and losses over grids."""


def write_result(
    folder: str | os.PathLike[str],
    summary: Mapping[str, Any],
    tables: Sequence[Table],
    record: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Writes `result.json` and `result.md`, small enough to be kept beside a text.

    **Arguments:**

    - `folder`: where to.
    - `summary`: what was found, of which curves and sweeps are left out.
    - `tables`: the same as tables.
    - `record`: what made it, the content of `record.json`.

    **Returns:**

    What `result.json` holds: the summary so cut, and `record`.

    **Raises:**

    - `MirraxError`: if they cannot be written.
    """
    result = {**_short(summary), "record": record}
    write_json(Path(folder) / "result.json", result)
    parts = [table.markdown() for table in (*tables, record_table(record))]
    write_atomically(Path(folder) / "result.md", ("\n\n".join(parts) + "\n").encode("utf-8"))
    return result


def _short(value: Any) -> Any:
    """A summary without curves and sweeps."""
    if isinstance(value, Mapping):
        return {key: _short(entry) for key, entry in value.items() if key not in _LONG}
    return [_short(entry) for entry in value] if isinstance(value, list | tuple) else value
