"""A table that knows nothing of where it is printed.

`Table` holds text, the numbers behind the text, and which cells are best; `text`, `rich`,
`markdown` and `json` are four ways of showing the same content.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ._format import printable

if TYPE_CHECKING:
    import rich.table

_GAP = 2  # characters between two columns in a terminal


@dataclass(frozen=True)
class Column:
    """One column: a key for machines, a label for people.

    **Arguments:**

    - `key`: its name in JSON.
    - `label`: its heading, with the unit in brackets.
    - `numeric`: whether its cells are numbers (set to the right, sortable as numbers).
    - `aside`: whether a narrow terminal may show it under the table instead.
    - `brief`: whether a narrow terminal may leave out the ± of its cells.
    - `spread`: what the ± of its cells is called in JSON: a standard error, `"se"`, or the
        half-width of a 95% interval, `"ci95"`.

    >>> Column("loss", "Final training loss", numeric=True).label
    'Final training loss'
    """

    key: str
    label: str
    numeric: bool = False
    aside: bool = False
    brief: bool = False
    spread: str = "se"


@dataclass(frozen=True)
class Cell:
    """One cell: its text, the number behind it, and whether it is the best of its column.

    **Arguments:**

    - `text`: what is shown.
    - `value`: the number or word that is sorted by; `None` sorts last.
    - `spread`: the uncertainty of `value`, if known; the column says of which kind.
    - `best`: whether the cell is set in bold.
    - `mark`: a sign in front of the text, which a note under the table explains.

    >>> Cell("97.4", 97.4, best=True).best
    True
    """

    text: str
    value: float | str | None = None
    spread: float | None = None
    best: bool = False
    mark: str = ""

    @property
    def shown(self) -> str:
        """The text after its mark."""
        return f"{self.mark} {self.text}" if self.mark else self.text


@dataclass(frozen=True)
class Table:
    """A title, columns, rows of cells, and notes that belong underneath.

    **Arguments:**

    - `title`: one line.
    - `columns`: the columns, from left to right.
    - `rows`: one tuple of cells a row, as long as `columns`.
    - `notes`: sentences printed under the table.

    **Raises:**

    - `ValueError`: if a row has another length than `columns`.

    >>> table = Table("Sizes", (Column("n", "Name"),), ((Cell("a"),),), ())
    >>> print(table.markdown())
    **Sizes**
    <BLANKLINE>
    | Name |
    | :--- |
    | a |
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"Table.rows: a row has {len(row)} cells for {len(self.columns)} columns; "
                    "give every row one cell for each column."
                )

    def text(self) -> str:
        """The table as aligned plain text; the best cells are marked with an asterisk.

        **Returns:**

        Several lines.

        >>> print(Table("T", (Column("a", "A"),), ((Cell("1", 1.0, best=True),),)).text())
        T
        <BLANKLINE>
        A
        --
        1*
        <BLANKLINE>
        * best of its column
        """
        marked = any(cell.best for row in self.rows for cell in row)
        lines = [[printable(c.label) for c in self.columns]]
        for row in self.rows:
            lines.append([printable(c.shown) + ("*" if c.best else "") for c in row])
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        lines.insert(1, ["-" * width for width in widths])
        body = [self._align(line, widths) for line in lines]
        notes = list(self.notes)
        if marked:
            notes.append("* best of its column")
        lines_below = [printable_lines(notes)] if notes else []
        return "\n".join([printable(self.title), "", *body, *([""] if notes else []), *lines_below])

    def rich(self, width: int | None = None) -> "rich.table.Table":
        """The table for a terminal; the best cells are bold.

        `rich.print(table)` calls this with the width of the terminal.

        **Arguments:**

        - `width`: characters there are. Where the table is wider, `aside` columns move into the
            notes, one line a row; where that is not enough, `brief` columns lose their ±.

        **Returns:**

        A `rich.table.Table`.

        >>> Table("T", (Column("a", "A"),), ()).rich().row_count
        0
        """
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        kept, notes = list(range(len(self.columns))), list(self.notes)
        if width is not None and sum(self._widths(kept)) > width + _GAP:
            kept = [i for i in kept if not self.columns[i].aside]
            notes += self._asides()
            if any(c.brief for c in self.columns) and sum(self._widths(kept)) > width + _GAP:
                return self._shortened().rich(width)
        table = RichTable(
            title=Text(self.title, style="bold"),
            caption=Text(printable_lines(notes)) if notes else None,
            box=box.SIMPLE_HEAD,
            title_justify="left",
            caption_justify="left",
            pad_edge=False,
            show_edge=False,
            padding=(0, 1, 0, 0),  # nine columns of estimates fit into 80 characters
        )
        for i, given in zip(kept, self._share_out(kept, width), strict=True):
            column = self.columns[i]
            table.add_column(
                Text(printable(column.label)),
                justify="right" if column.numeric else "left",
                overflow="fold",
                width=given,
            )
        for row in self.rows:
            cells = [row[i] for i in kept]
            styles = ("bold" if cell.best else "" for cell in cells)
            table.add_row(*map(Text, (printable(cell.shown) for cell in cells), styles))
        return table

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        yield self.rich(options.max_width)

    def markdown(self) -> str:
        r"""The table in Markdown; the best cells are bold.

        **Returns:**

        Several lines.

        >>> table = Table("T", (Column("a", "A|B", numeric=True),), ((Cell("1", 1.0, best=True),),))
        >>> table.markdown().splitlines()[2:]
        ['| A\\|B |', '| ---: |', '| **1** |']
        """
        head = "| " + " | ".join(_escape(c.label) for c in self.columns) + " |"
        rule = "| " + " | ".join("---:" if c.numeric else ":---" for c in self.columns) + " |"
        lines = [f"**{_escape(self.title)}**", "", head, rule]
        for row in self.rows:
            cells = (f"**{_escape(c.shown)}**" if c.best else _escape(c.shown) for c in row)
            lines.append("| " + " | ".join(cells) + " |")
        for note in self.notes:
            lines += ["", _escape(note)]
        return "\n".join(lines)

    def json(self) -> dict[str, Any]:
        """The table as plain data, without NaN or infinity, for `json.dumps`.

        **Returns:**

        `{"title", "columns", "rows", "notes"}`; a numeric cell is
        `{"mean", "se" or "ci95", "best", "text"}`, with `"mark"` where there is one; any other
        cell is its text.

        >>> Table("T", (Column("a", "A"),), ((Cell("x"),),)).json()["rows"]
        [{'a': 'x'}]
        """
        return {
            "title": self.title,
            "columns": [{"key": c.key, "label": c.label} for c in self.columns],
            "rows": [
                {c.key: _cell_json(c, cell) for c, cell in zip(self.columns, row, strict=True)}
                for row in self.rows
            ],
            "notes": list(self.notes),
        }

    def _widths(self, kept: list[int], whole: str = "cells") -> list[int]:
        """Characters that each column takes with its gap if words, cells or headings are whole."""
        widths = []
        for i in kept:
            label, texts = self.columns[i].label, [row[i].shown for row in self.rows]
            parts = [word for text in [*texts, label] for word in _unbroken(text).split()]
            left = {"words": [], "cells": texts, "headings": [*texts, label]}[whole]
            widths.append(max(map(len, [*parts, *left]), default=1) + _GAP)
        return widths

    def _share_out(self, kept: list[int], width: int | None) -> list[int | None]:
        """Widths of the columns where headings, or cells too, must be broken between words."""
        words, cells, headings = (self._widths(kept, w) for w in ("words", "cells", "headings"))
        if width is None or sum(headings) <= width + _GAP or sum(words) > width + _GAP:
            return [None] * len(kept)
        # A heading may be broken between words; a cell is better left whole.
        given, wanted = (cells, headings) if sum(cells) <= width + _GAP else (words, cells)
        room = width + _GAP - sum(given)
        needs = [more - less for more, less in zip(wanted, given, strict=True)]
        for need in sorted(set(needs)):  # columns of one kind stay alike
            alike = [i for i, other in enumerate(needs) if other == need]
            if need * len(alike) <= room:
                room -= need * len(alike)
                for i in alike:
                    given[i] = wanted[i]
        return [size - _GAP for size in given]

    def _shortened(self) -> "Table":
        """The table without the ± of its `brief` columns, and a note that says so."""
        *labels, last = (c.label.lower() for c in self.columns if c.brief)
        named = " and ".join(filter(None, (", ".join(labels), last)))
        rows = (
            tuple(
                replace(cell, text=cell.text.split(" ±")[0]) if column.brief else cell
                for cell, column in zip(row, self.columns, strict=True)
            )
            for row in self.rows
        )
        note = f"The ± of {named} is left out for want of width."
        columns = tuple(replace(c, brief=False) for c in self.columns)
        return Table(self.title, columns, tuple(rows), (*self.notes, note))

    def _asides(self) -> list[str]:
        """What the `aside` columns hold, one line a row."""
        return [
            f"{column.label}, {row[0].text}: {cell.shown}"
            for row in self.rows
            for cell, column in zip(row, self.columns, strict=True)
            if column.aside and cell.text
        ]

    def _align(self, line: list[str], widths: list[int]) -> str:
        cells = (
            text.rjust(width) if column.numeric else text.ljust(width)
            for text, width, column in zip(line, widths, self.columns, strict=True)
        )
        return "  ".join(cells).rstrip()


def printable_lines(lines: Iterable[str]) -> str:
    r"""Several lines without control characters.

    **Arguments:**

    - `lines`: any texts.

    **Returns:**

    The lines, joined.

    >>> printable_lines(["a\tb", "c"])
    'a b\nc'
    """
    return "\n".join(printable(line) for line in lines)


def _unbroken(text: str) -> str:
    """`text` with a sign in front of ± and behind it where a line must not end."""
    return text.replace(" ±", "_±")


def _escape(text: str) -> str:
    """`text` without what Markdown would take for markup."""
    line = printable(text)
    for character in "\\|*_`[]":
        line = line.replace(character, "\\" + character)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cell_json(column: Column, cell: Cell) -> Any:
    if not column.numeric:
        return cell.text
    found = {"mean": cell.value, column.spread: cell.spread, "best": cell.best}
    return {**found, **({"mark": cell.mark} if cell.mark else {}), "text": cell.text}
