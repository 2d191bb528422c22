"""Lists that the command line prints: recipes, data sets and their files, fields of a study."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._config import option
from ._progress import say

if TYPE_CHECKING:
    from rich.console import Console


Rows = Sequence[dict[str, Any]]


def print_list(console: "Console", recipes: Rows, reproductions: Rows, data: Rows) -> None:
    """Prints what `run_list` returns.

    **Arguments:**

    - `console`: where to.
    - `recipes`, `reproductions`, `data`: its three lists.
    """
    from rich.table import Table

    table = Table("recipe", "what it is", "data", title="mirrax train RECIPE", title_justify="left")
    for row in recipes:
        state = "embedded" if not row["needs"] else "present" if row["ready"] else "not found"
        table.add_row(row["name"], row["about"], state)
    console.print(table)
    table = Table("name", "what it re-makes", title="mirrax reproduce NAME", title_justify="left")
    for row in reproductions:
        table.add_row(row["name"], row["about"])
    console.print(table)
    present = ", ".join(row["name"] for row in data if row["present"]) or "none"
    console.print(
        f"Data sets found: {present}. Others are looked for in --data DIR or MIRRAX_DATA; "
        "see mirrax data."
    )


def print_fields(console: "Console", command: str, fields: Rows) -> None:
    """Prints what `described` returns.

    **Arguments:**

    - `console`: where to.
    - `command`: the verb, and the recipe or reproduction.
    - `fields`: its rows.
    """
    from rich.table import Table

    table = Table("field", "default", "what it is", title=f"mirrax {command}", title_justify="left")
    for row in fields:
        shown = [" ".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in row["defaults"]]
        names = "\n".join(map(option, row["names"]))
        table.add_row(names, "\n".join(shown), row["about"])
    console.print(table)
    verb, _ = command.split()
    say(console, f"Defaults are those of --budget default; further options: mirrax {verb} --help.")


def _file(file: Mapping[str, str | None]) -> str:
    checksum = file["sha256"] or file["md5"]
    return f"{file['name']}\n  {checksum[:16] if checksum else 'no published checksum'}"


def print_data(console: "Console", found: Rows, *, sought: bool) -> None:
    """Prints what `run_data` returns.

    **Arguments:**

    - `console`: where to.
    - `found`: its data sets; any edition of one will do.
    - `sought`: whether a folder was named in which they were looked for.
    """
    from rich.table import Column, Table

    names, files = (Column(title, no_wrap=True) for title in ("data set", "files, and checksums"))
    table = Table(names, "licence", files)
    for row in found:
        listed = "\nor\n".join("\n".join(map(_file, files)) for files in row["editions"])
        state = "present" if row["present"] else "not found"
        table.add_row(f"{row['name']}\n{state}", row["licence"], listed)
    console.print(table)
    for row in found:
        if row["problem"]:
            say(console, f"{row['name']}: {row['problem']}")
    if not sought:
        console.print("No data folder given: pass --data DIR or set MIRRAX_DATA.")
