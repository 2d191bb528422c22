"""One HTML page for one or several runs, complete in itself.

Figures are inlined as SVG whose colours follow the reader's light or dark style; nothing is loaded
from anywhere, and a content security policy forbids it. Every word from a file is escaped.
"""

import base64
import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirrax._files import write_atomically

from ._format import clean, duration, fields, file_size, finite
from ._inspect import inspect_table
from ._made_by import record_table, versions_line
from ._overview import overview_table
from ._records import Run
from ._run_figures import RunFigure, figures_of
from ._style import THEME
from ._summaries import summary_tables
from ._table import Cell, Column, Table
from ._tables import assumption_table, certificate_table

if TYPE_CHECKING:
    from markupsafe import Markup

_PANELS = {
    "comparison": "Comparison",
    "learning": "How learning went",
    "learned": "What was learned",
    "certificate": "Certificate",
    "further": "Further figures",
}
_LARGEST = 2_000_000  # bytes of a figure that is embedded as it lies in the folder
_ROOM = 8_000_000  # bytes of all such figures of a page, of which every run has an equal share


def html(
    runs: Sequence[Run],
    path: str | os.PathLike[str],
    *,
    tables: Iterable[Table] = (),
    figures: Sequence[Sequence[RunFigure]] | None = None,
) -> Path:
    """Writes one self-contained HTML page about the runs.

    **Arguments:**

    - `runs`: run folders that were read with `Run.read`.
    - `path`: the page to write.
    - `tables`: further tables shown first, such as one made by `side_by_side`.
    - `figures`: what `figures_of` returned for each run, where `write_figures` has drawn them.

    **Returns:**

    The path.

    **Raises:**

    - `MirraxError`: if the page cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = html([Run(Path("runs/a"), {"recipe": "quadratics"})], Path(folder) / "a.html")
    ...     "quadratics" in page.read_text(encoding="utf-8")
    True
    """
    path = Path(path)
    write_atomically(path, page(runs, tables=tables, figures=figures).encode("utf-8"))
    return path


def page(
    runs: Sequence[Run],
    *,
    tables: Iterable[Table] = (),
    figures: Sequence[Sequence[RunFigure]] | None = None,
) -> str:
    """The page that `html` writes, as text.

    **Arguments:**

    - `runs`, `tables`, `figures`: as for `html`.

    **Returns:**

    The content of an HTML file.

    >>> page([]).startswith("<!DOCTYPE html>")
    True
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mirrax.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = [run.recipe for run in runs]
    title = ", ".join(dict.fromkeys(names)) if len(set(names)) <= 3 else f"{len(runs)} runs"
    drawn = [figures_of(run) for run in runs] if figures is None else figures
    room = _ROOM // max(len(runs), 1)
    sections = [
        _section(i, run, own, room) for i, (run, own) in enumerate(zip(runs, drawn, strict=True))
    ]
    return environment.get_template("report.html.jinja").render(
        title=title,
        tables=list(tables),
        overview=overview_table(runs) if len(runs) > 1 else None,
        runs=sections,
    )


def inline_svg(svg: bytes, caption: str, prefix: str) -> "Markup":
    """An SVG file as markup that can stand inside a page.

    Its ids get a prefix, because those of two figures may agree; its colours become the variables
    of the page; its prologue, metadata and comments, which name addresses, are dropped.

    **Arguments:**

    - `svg`: what `to_svg` returned.
    - `caption`: what a screen reader says instead.
    - `prefix`: letters and digits, different for each figure of a page.

    **Returns:**

    Markup.

    >>> svg = b'<?xml version="1.0"?><svg width="1pt"><path id="p" fill="#1c2733"/></svg>'
    >>> print(inline_svg(svg, "A line", "f0"))
    <svg role="img" aria-label="A line"><path id="f0-p" fill="var(--ink)"/></svg>
    """
    from markupsafe import Markup, escape

    text = svg.decode("utf-8")
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'(<svg[^>]*?)\swidth="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?)\sheight="[^"]*"', r"\1", text, count=1)
    text = text.replace("xlink:href=", "href=")
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'\bhref="#', f'href="#{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-")
    for colour, variable in THEME.items():
        text = text.replace(colour, f"var({variable})")
    opening = Markup('<svg role="img" aria-label="{}"').format(escape(caption))
    return opening + Markup(text.removeprefix("<svg"))


def _section(index: int, run: Run, figures: Sequence[RunFigure], room: int) -> dict[str, Any]:
    """All that the template shows of one run."""
    further, left_out = _further_figures(run, {figure.stem for figure in figures}, room)
    faults = [figure.fault for figure in figures if figure.fault]
    certificate = (run.summary or {}).get("certificate") or {}
    tables: dict[str, list[Table | None]] = {
        "comparison": [*summary_tables(run.summary or {})],
        "learned": [inspect_table(_with_activation(run)) if run.geometry else None],
        "certificate": [certificate_table(certificate), assumption_table(certificate)]
        if certificate
        else [],
    }
    panels = []
    for key, title in _PANELS.items():
        shown = [
            {"caption": f.caption, "svg": inline_svg(f.svg, f.caption, f"r{index}-{f.stem}")}
            for f in figures
            if f.panel == key and f.fault is None
        ]
        if key == "further":
            shown = further
        found = [table for table in tables.get(key, ()) if table is not None]
        if shown or found:
            name = f"run-{index + 1}-{key}"
            panels.append({"id": name, "title": title, "figures": shown, "tables": found})
    return {
        "id": f"run-{index + 1}",
        "recipe": run.recipe,
        "folder": clean(run.folder),
        "facts": _facts(run),
        "command": run.command,
        "panels": panels,
        "notes": [*run.notes, *faults, *left_out],
        "fields": _fields(run),
        "made_by": record_table(run.record) if run.record else None,
        "files": _files(run.folder),
    }


def _facts(run: Run) -> list[tuple[str, str]]:
    """Short facts about a run: label and value."""
    summary = run.summary or {}
    config = run.config
    held = summary.get("held_out")
    held = ", ".join(map(str, held)) if isinstance(held, list) else held
    spent = finite(summary.get("wall_seconds"))
    if spent is None:
        times = [finite(record.get("seconds")) for record in run.rounds]
        spent = sum(t for t in times if t is not None) if any(times) else None
    meta = finite(summary.get("meta_training_seconds"))
    hardware = summary.get("hardware")
    hardware = fields(hardware) if isinstance(hardware, dict) else hardware
    facts = [
        ("Held out", held),
        ("Model", summary.get("model")),
        ("Budget", config.get("budget")),
        ("Seed", config.get("seed")),
        ("Seeds compared", summary.get("seeds")),
        ("Meta-rounds", len(run.rounds) or None),
        ("Meta-steps", summary.get("meta_steps")),
        ("Meta-training", duration(meta) if meta is not None else None),
        ("Time in all", duration(spent) if spent is not None else None),
        ("Version", versions_line(run.record) or config.get("version")),
        ("Hardware", hardware),
    ]
    return [(name, clean(value, 160)) for name, value in facts if value not in (None, "")]


def _fields(run: Run) -> list[tuple[str, str]]:
    found = run.config.get("fields")
    if not isinstance(found, dict):
        return []
    return [(clean(name), fields({"": value}).strip()) for name, value in found.items()]


def _with_activation(run: Run) -> dict[str, Any]:
    """The geometry with the shares of its components in the last round that has them."""
    geometry = dict(run.geometry or {})
    shares = [record["activation"] for record in run.rounds if record.get("activation")]
    if shares:
        geometry.setdefault("activation", shares[-1])
    return geometry


def _files(folder: Path) -> Table | None:
    """The files of a run folder with their sizes; what lies in a folder inside it is summed up."""
    sizes: dict[str, list[int]] = {}
    for path, size in _sized(folder):
        first, *deeper = path.relative_to(folder).parts
        sizes.setdefault(f"{first}/" if deeper else first, []).append(size)
    rows = tuple(
        (
            Cell(clean(name), clean(name)),
            Cell(f"{len(found):,}", float(len(found))),
            Cell(file_size(sum(found)), float(sum(found))),
        )
        for name, found in sizes.items()
    )
    columns = Column("file", "File"), Column("count", "Files", True), Column("size", "Size", True)
    return Table(f"Files in {clean(folder)}", columns, rows) if rows else None


def _sized(folder: Path) -> list[tuple[Path, int]]:
    """The files below a folder by name, with their sizes."""
    found = []
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            with contextlib.suppress(OSError):  # a run in progress renames its files
                found.append((path, path.stat().st_size))
    return sorted(found)


def _further_figures(
    run: Run, drawn: set[str], room: int
) -> tuple[list[dict[str, str]], list[str]]:
    """Further SVG files of the run's folder, embedded as images, where no script can run.

    They take at most `room` bytes; those that do not fit are named in a note.
    """
    found, left_out = [], []
    folder = run.folder / "figures"
    for path, size in _sized(folder):
        if path.parent != folder or path.suffix != ".svg" or path.stem in drawn:
            continue
        if size > min(_LARGEST, room):
            left_out.append(path.name)
            continue
        with contextlib.suppress(FileNotFoundError):
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            caption = clean(path.stem.replace("-", " ").replace("_", " "), 80)
            found.append(
                {
                    "source": f"data:image/svg+xml;base64,{data}",
                    "caption": caption[:1].upper() + caption[1:],
                }
            )
            room -= size
    names = clean(", ".join(left_out), 200)
    return found, [f"Too large for this page, see {clean(folder)}: {names}."] if left_out else []
