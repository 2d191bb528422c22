"""Makes pages of the results in `docs/results`: `python docs/make/results.py`.

`docs/results.md` is the template `results/page.md.jinja` with a section a file, `docs/choosing.md`
the template `results/choosing.md.jinja`. No measured number is typed in them: each is an expression
over a result file, tables are those of `mirrax.report`, and what is said of numbers is said by
`claim(text, holds)`, which fails where it stopped being true. `--check` only says whether the
committed page is what would be made now.
"""

import argparse
import functools
import json
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from mirrax import report
from mirrax._files import write_atomically
from mirrax.report._format import ABSENT, duration, number, plus_minus
from mirrax.report._labels import method_label
from mirrax.report._made_by import wall_seconds
from mirrax.study._compare import spread

HERE = Path(__file__).parent
TEMPLATES = HERE / "results"
RESULTS = HERE.parent / "results"
PAGES = {
    HERE.parent / "results.md": "page.md.jinja",
    HERE.parent / "choosing.md": "choosing.md.jinja",
}
_WIDTH = 110
_PLUS_MINUS = "\0±\0"  # in whose place no line ends
_AS_IT_IS = ("|", "#", "!", "```")


class Untrue(Exception):
    """A claim of the page that its numbers do not bear out, or a number that is not there."""


@functools.cache
def load(name: str) -> dict[str, Any]:
    """The content of `docs/results/NAME.json`."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def exists(name: str) -> bool:
    """Whether there is such a result."""
    return (RESULTS / f"{name}.json").exists()


# numbers


def num(value: float | None, places: int = 0) -> str:
    """A number; that it exists is part of what the page says."""
    if value is None:
        raise Untrue("a number that the page shows does not exist: a method did not get there")
    return number(value, places)


def pm(entry: Mapping[str, Any], places: int = 2, scale: float = 1.0) -> str:
    """`mean ± spread` of an entry, which is a standard error or the half-width of an interval."""
    spread = entry["se"] if "se" in entry else entry["ci95"]
    return plus_minus(scale * entry["mean"], scale * spread, places)


def points(entry: Mapping[str, Any]) -> str:
    """Shares as per cent, and their differences as points."""
    return pm(entry, 2, 100)


def row(result: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The row of a method in a comparison, or in a few-shot run by its label."""
    rows = result.get("comparison") or result["methods"]
    for found in rows:
        if name in (found.get("optimiser"), method_label(found.get("method"))):
            return found
    raise Untrue(f"there is no row of {name!r}")


def gain(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """How far a row's test accuracy is above another's, run by run, with its standard error."""
    ours, theirs = one["test_accuracy"], other["test_accuracy"]
    pairs = zip(ours["values"], theirs["values"], strict=True)
    return spread([a - b for a, b in pairs], ours.get("tasks", 1))


def alike(difference: Mapping[str, float]) -> bool:
    """Whether a difference is within two standard errors of nothing."""
    return abs(difference["mean"]) <= 2 * difference["se"]


def ranked(result: Mapping[str, Any]) -> list[str]:
    """The methods from the most accurate to the least."""
    rows = result.get("comparison") or result["methods"]
    order = sorted(rows, key=lambda found: -found["test_accuracy"]["mean"])
    return [found.get("optimiser") or method_label(found["method"]) for found in order]


def sort_rows(result: Mapping[str, Any]) -> dict[str, Any]:
    """A few-shot result with its methods in that order."""
    rows = sorted(result["methods"], key=lambda found: -found["test_accuracy"]["mean"])
    return {**result, "methods": rows}


def ahead(result: Mapping[str, Any], name: str, others: Sequence[str]) -> list[str]:
    """The held-out tasks on which a method is more accurate than all others."""

    def accuracy(cells: Mapping[str, Any], method: str) -> float:
        return cells[method]["test_accuracy"]["mean"]

    return [
        task
        for task, cells in result["cells"].items()
        if all(accuracy(cells, name) > accuracy(cells, other) for other in others)
    ]


def first_or_alike(result: Mapping[str, Any], name: str) -> list[str]:
    """The held-out tasks on which no method is further ahead in accuracy than a standard error.

    That of the paired difference, run by run.
    """

    def behind(cells: Mapping[str, Any]) -> bool:
        leads = (gain(other, cells[name]) for key, other in cells.items() if key != name)
        return any(lead["mean"] > lead["se"] for lead in leads)

    return [task for task, cells in result["cells"].items() if not behind(cells)]


def sooner(result: Mapping[str, Any], name: str, others: Sequence[str]) -> list[str]:
    """The held-out tasks on which a method is before all others at every loss they reach."""

    def steps(cells: Mapping[str, Any], method: str, loss: str) -> float:
        mean = cells[method]["steps_to"][loss]["mean"]
        return float("inf") if mean is None else mean

    return [
        task
        for task, cells in result["cells"].items()
        if all(
            steps(cells, name, loss) < steps(cells, other, loss)
            for other in others
            for loss in cells[other]["steps_to"]
            if steps(cells, other, loss) < float("inf")
        )
    ]


def noted(result: Mapping[str, Any], pattern: str) -> str:
    """What a regular expression's group finds in the notes of a result."""
    for note in result["notes"]:
        if found := re.search(pattern, note):
            return found[1]
    raise Untrue(f"no note has {pattern!r}")


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


# what made a result


def record(result: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a result; of an older one, what it has of it."""
    found = result.get("record") or {}
    known = {**(result.get("hardware") or {}), **(result.get("machine") or {})}
    if "wall_seconds" in result:
        known["seconds"] = result["wall_seconds"]
    parts = found.get("made_by") or ([{}] if known else [])
    return {**found, "made_by": [{**known, **part} for part in parts]}


def made(result: Mapping[str, Any]) -> str:
    """Date, commit, machine and wall time, in a few words, and which of them are not known."""
    found = record(result)
    parts = found["made_by"]
    begun = [part["started"][:10] for part in parts if part.get("started")]
    commits = dict.fromkeys(_short(part["commit"]) for part in parts if part.get("commit"))
    spent = wall_seconds(found)
    facts = {
        "date": begun[0] if begun else None,
        "commit": ", ".join(f"`{commit}`" for commit in commits),
        "machine": ", ".join(dict.fromkeys(filter(None, map(_machine, parts)))),
        "time": duration(spent) if spent else None,
    }
    known = "; ".join(filter(None, facts.values()))
    unknown = [name for name, value in facts.items() if not value]
    said = f"{listed(unknown)} not recorded" if unknown else ""
    return "; ".join(filter(None, (known, said)))


def _machine(part: Mapping[str, Any]) -> str | None:
    if "processor" not in part:
        return part.get("device")
    return f"{part['processor']}, {part['cores']} core{'s' * (part['cores'] > 1)}"


def command(result: Mapping[str, Any], typed: str = "") -> str:
    """The command of a result, as its record has it, or as typed where there is none.

    Raises:
        Untrue: if the record says another than was typed.
    """
    said = (result.get("record") or {}).get("command")
    if said is None:
        return typed
    said = _published(said)
    if typed and typed != said:
        raise Untrue(f"the page has the command {typed!r}, the record {said!r}")
    return said


def _short(commit: str) -> str:
    """Ten digits of a commit, and its sign where files were changed since."""
    return commit[:10] + "+" * commit.endswith("+")


def _published(command: str) -> str:
    """A command without what matters on one machine only: folders and ways of printing."""
    words, kept = iter(shlex.split(command)), []
    for word in words:
        name, given, _ = word.partition("=")
        if name in ("--json", "--debug", "--resume"):
            continue
        if name in ("--out", "--data") and not given:
            next(words, None)
        if name == "--data":
            kept += ["--data", "DIR"]
        elif name != "--out":
            kept.append(word)
    return shlex.join(kept)


def setting(result: Mapping[str, Any], name: str, value: Any) -> Any:
    """A field of a study: what the record has, or the value given where there is none."""
    fields = (result.get("record") or {}).get("fields")
    if fields is None:
        return value
    if fields[name] != value:
        raise Untrue(f"the page has {name} = {value!r}, the record {fields[name]!r}")
    return value


def claim(text: str, holds: Any) -> str:
    """The text, where its numbers bear it out."""
    if not holds:
        raise Untrue(f"no longer true: {text!r}")
    return text


# the page


def show(tables: report.Table | Sequence[report.Table]) -> str:
    """Tables in Markdown."""
    found = [tables] if isinstance(tables, report.Table) else tables
    return "\n\n".join(table.markdown() for table in found)


def environment() -> jinja2.Environment:
    """Templates, with everything above and `mirrax.report` in them."""
    from costs import COSTS, power, short
    from facts import FACTS

    made_of = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: tuple[Callable[..., Any], ...] = (num, pm, points, listed, show, short, power)
    made_of.filters |= {function.__name__: function for function in filters}
    functions = (load, exists, row, gain, alike, ranked, sort_rows, ahead, noted, made, command)
    functions = (*functions, first_or_alike, sooner)
    made_of.globals |= {function.__name__: function for function in (*functions, setting, claim)}
    made_of.globals |= {"report": report, "absent": ABSENT, "min": min, "max": max, "abs": abs}
    made_of.globals |= FACTS | COSTS
    return made_of


def make(template: str) -> str:
    """A page."""
    text = environment().get_template(template).render()
    fenced = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    blocks = [part for text in fenced for part in _blocks(text)]
    return "\n\n".join(blocks) + "\n"


def _blocks(text: str) -> list[str]:
    """The blocks between empty lines, paragraphs broken anew where numbers moved them."""
    if text.startswith("```"):
        return [text]
    found = filter(None, (block.strip() for block in re.split(r"\n\s*\n", text)))
    return [_filled(block) for block in found]


def _filled(block: str) -> str:
    if block.startswith(_AS_IT_IS):
        return block
    items = re.split(r"^(?=- )", block, flags=re.MULTILINE) if block.startswith("- ") else [block]
    filled = "\n".join(
        textwrap.fill(
            " ".join(item.split()).replace(" ± ", _PLUS_MINUS),
            width=_WIDTH,
            subsequent_indent="  " if item.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for item in filter(None, items)
    )
    return filled.replace(_PLUS_MINUS, " ± ")


def main() -> int:
    """Writes the pages, or says whether they are up to date."""
    options = argparse.ArgumentParser(description="Makes pages of docs of the results.")
    options.add_argument("--check", action="store_true", help="write nothing, fail if one differs")
    check, status = options.parse_args().check, 0
    for page, template in PAGES.items():
        try:
            text = make(template)
        except Untrue as error:
            print(f"{page}: {error}", file=sys.stderr)
            return 1
        if not check:
            write_atomically(page, text.encode("utf-8"))
        elif not page.exists() or page.read_text(encoding="utf-8") != text:
            print(f"{page} differs; run python docs/make/results.py")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
