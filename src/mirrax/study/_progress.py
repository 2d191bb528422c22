"""What a command says: live progress, a bar a phase with rate and time left; lines; tables."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from ..report import Table


def say(console: "Console", line: str) -> None:
    """Prints a line as it is: not broken, so that paths and commands can be copied.

    **Arguments:**

    - `console`: where to.
    - `line`: the line, in which brackets mean nothing.
    """
    console.print(line, markup=False, soft_wrap=True)


def show(console: "Console", tables: "Sequence[Table]") -> None:
    """Prints tables, a line left free below each.

    **Arguments:**

    - `console`: where to.
    - `tables`: what to print.
    """
    for table in tables:
        console.print(table)
        console.print()


class Phase:
    """One bar: `advance` moves it and shows a note."""

    def __init__(self, progress, task, heed):
        self._progress, self._task, self._heed = progress, task, heed

    def advance(self, note: str = "", by: int = 1) -> None:
        """Moves the bar.

        **Arguments:**

        - `note`: a few words shown behind the bar.
        - `by`: how far.
        """
        self._progress.update(self._task, advance=by, note=note)
        self._heed()

    def share(self, part: float) -> None:
        """Moves a bar of 100 units by a share of the whole; safe to call from several threads."""
        self._progress.update(self._task, advance=100 * part)
        self._heed()

    def say(self, line: str) -> None:
        """Shows a line that stays, above the bar."""
        say(self._progress.console, line)


class Progress:
    """Phases of a command on one console; silent where there is no terminal and no need.

    **Arguments:**

    - `console`: where they are shown.
    - `heed`: called at every sign of progress, from several threads perhaps.
    """

    def __init__(self, console: "Console", heed: Callable[[], None] = lambda: None):
        self.console, self._heed = console, heed

    @contextmanager
    def phase(self, title: str, total: int, done: int = 0) -> Iterator[Phase]:
        """Shows a bar while a phase runs.

        **Arguments:**

        - `title`: what is being done.
        - `total`: how many units it has.
        - `done`: how many of them are done already.
        """
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(title, total=total, completed=done, note="")
            if done < total:  # else there is nothing to do
                self._heed()
            yield Phase(progress, task, self._heed)
            progress.update(task, completed=total)  # shares may sum to a little less
