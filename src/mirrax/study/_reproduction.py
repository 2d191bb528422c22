r"""What a reproduction is, and what the command line asks of it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import report
from ._progress import Progress


@dataclasses.dataclass(frozen=True)
class Request:
    """What the command line asks of a reproduction."""

    path: Path
    budget: str
    seed: int
    data: Path | None
    resume: bool
    progress: Progress
    fields: Sequence[str]
    command: str


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """A table or figure of a paper, or of this library's own claims.

    **Arguments:**

    - `about`: one line.
    - `make`: runs it.
    - `tables`: its result as tables.
    """

    about: str
    make: Callable[[Request], dict[str, Any]]
    tables: Callable[[Mapping[str, Any]], list[report.Table]]
