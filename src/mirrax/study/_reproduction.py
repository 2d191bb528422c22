r"""What a reproduction is, and what the command line asks of it."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import report
from .._errors import ConfigError
from ._conclude import conclude, draw
from ._config import at_budget
from ._folder import RunFolder
from ._progress import Progress
from ._train import open_folder


@dataclasses.dataclass(frozen=True)
class Request:
    """What the command line asks of a reproduction."""

    path: Path
    budget: str
    seed: int
    data: Path | None
    resume: bool
    progress: Progress
    command: str

    def folder(
        self, config: Any, recipe: str, path: Path | None = None, seed: int | None = None
    ) -> tuple[RunFolder, dict[str, Any] | None]:
        """The folder of the reproduction, or of a part of it, made or opened.

        **Arguments:**

        - `config`: what is run there.
        - `recipe`: the name of it.
        - `path`, `seed`: those of a part; the request's own by default.

        **Returns:**

        The folder, and the summary of a run that is continued and is finished already.

        **Raises:**

        - `ConfigError`: as `open_folder`, or if the folder of a part lies in that of another run.
        """
        if path and (self.path / "config.json").exists():
            raise ConfigError(f"{self.path} is a run of its own; choose another --out.")
        path, seed = path or self.path, self.seed if seed is None else seed
        resume = self.resume and path.exists()
        shared = {"budget": self.budget, "resume": resume, "command": self.command}
        folder = open_folder(config, path, recipe=recipe, seed=seed, **shared)
        return folder, folder.read_json("summary.json") if resume else None

    def once(
        self, config: Any, recipe: str, prepare: Callable[[], Callable[[], dict[str, Any]]]
    ) -> dict[str, Any]:
        """The summary of the reproduction: that of a finished run, or one made and written now.

        **Arguments:**

        - `config`: what is run.
        - `recipe`: the name of it.
        - `prepare`: loads what is needed and returns what makes the summary. Called before a folder
            is made, so that missing data leave none behind, and only if there is something to make.

        **Returns:**

        What `summary.json` holds.

        **Raises:**

        - `ConfigError`: as `open_folder`.
        """
        if self.resume and self.path.exists():
            folder, finished = self.folder(config, recipe)
            if finished:
                draw(folder)
                return finished
            make = prepare()
        else:
            make = prepare()
            folder, _ = self.folder(config, recipe)
        return conclude(folder, make())


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """A table or figure of a paper, or of this library's own claims.

    **Arguments:**

    - `about`: one line.
    - `configure`: its study at a budget, whose fields are options of the command line.
    - `make`: runs the study and returns its summary.
    - `tables`: the summary as tables, the paper's figures beside ours where it prints any.
    - `varies`: fields of the study that differ from part to part, whatever it says.
    """

    about: str
    configure: Callable[[str], Any]
    make: Callable[[Request, Any], dict[str, Any]]
    tables: Callable[[Mapping[str, Any]], list[report.Table]]
    varies: frozenset[str] = frozenset()


def budgets(
    study: Any, smoke: Mapping[str, Any], paper: Mapping[str, Any] | None = None
) -> Callable[[str], Any]:
    """A study at each budget.

    **Arguments:**

    - `study`: that of the default budget.
    - `smoke`, `paper`: the fields that differ at these; without `paper` the default is the paper's
        own size, or as much as is of interest.
    """
    return lambda budget: at_budget(study, budget, smoke=smoke, paper=paper or {})
