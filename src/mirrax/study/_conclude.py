"""The end of a run: `summary.json`, by which it is known to be finished, and its figures."""

from typing import Any

from .. import report
from .._files import write_json
from ._folder import RunFolder


def conclude(folder: RunFolder, summary: dict[str, Any]) -> dict[str, Any]:
    """Writes the summary of a run, then the figures that are drawn from it.

    **Arguments:**

    - `folder`: the run's; what else figures show is there already.
    - `summary`: what `summary.json` holds.

    **Returns:**

    The summary.

    **Raises:**

    - `MirraxError`: if they cannot be written.
    """
    write_json(folder / "summary.json", summary)
    draw(folder)
    return summary


def draw(folder: RunFolder) -> None:
    """Writes the figures of a run that is found finished.

    A kill may have come between its summary and its figures, or among these.

    **Arguments:**

    - `folder`: the run's.

    **Raises:**

    - `MirraxError`: if they cannot be written.
    """
    report.write_figures(report.Run.read(folder.path))
