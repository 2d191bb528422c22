"""Few-shot methods as tables: one beside the other, and ours beside a paper's.

Accuracies are stored as fractions and shown in per cent; ± is always the half-width of a 95%
interval of the mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ._format import ABSENT, clean, count, decimals, estimate, finite, number, plural
from ._labels import method_label
from ._marks import mark_best
from ._paper import S004_TABLE1
from ._table import Cell, Column, Table
from ._tables import estimate_cell, percent, side_by_side

_OPEN = "†"
_CI95 = "the half-width of a 95% interval of the mean"
_DATA = {
    "omniglot": "Omniglot",
    "omniglot-background": "Omniglot (background and evaluation sets)",
    "cifar-fs": "CIFAR-FS",
    "fc100": "FC100",
    "mini-imagenet": "miniImageNet",
}
_ON_FAILURE = {
    "skip": "tasks that fail are skipped",
    "halve": "meta-steps are halved where tasks fail",
}
_STATISTICS = {
    "query": "batch statistics of the query images (transductive)",
    "support": "batch statistics of the support images",
}


_OPTIMISERS = {"adam": "Adam", "nesterov": "SGD with Nesterov momentum"}

_SHOWN = (0, 1, 2, 5, 10)
"""The numbers of steps that the table of adaptation shows, of those that there are."""


def few_shot_table(summary: Mapping[str, Any]) -> Table:
    r"""Few-shot methods compared on test tasks, one row each.

    The highest accuracy is bold. How far the others are behind it is taken task by task, since all
    methods are tested on the same tasks. A dagger stands before every accuracy that is behind by
    no more than the half-width of that difference's 95% interval: their order is left open.

    **Arguments:**

    - `summary`: the content of `summary.json` of a few-shot run.

    **Returns:**

    A `Table`: method, test accuracy in per cent, points behind the best, query loss, training loss
    (the query loss on meta-training tasks), the inner rate where methods chose their own, how many
    numbers the outer loop learns, and seconds a meta-step. The protocol is the first note.

    **Raises:**

    - `ValueError`: if an accuracy is not a fraction between 0 and 1.

    >>> row = {"method": "maml", "test_accuracy": {"mean": 0.91, "ci95": 0.01}, "learned": 28000}
    >>> print(few_shot_table({"recipe": "few-shot-glyphs", "methods": [row]}).text())
    Few-shot learning on glyphs
    <BLANKLINE>
    Method  Test accuracy (%)  Learned numbers
    ------  -----------------  ---------------
    MAML         91.00 ± 1.00           28,000
    <BLANKLINE>
    ± is the half-width of a 95% interval of the mean.
    """
    rows = list(summary.get("methods") or ())
    columns = [Column("method", "Method")]
    body = [[Cell(label, label) for label in (method_label(row.get("method")) for row in rows)]]
    accuracies = _mark_open(mark_best(_accuracies(rows), "higher"), rows)
    behind = [estimate(row.get("behind"), "ci95") for row in rows]
    gaps = [estimate_cell((percent(mean), percent(width)), 2) for mean, width in behind]
    several = isinstance((summary.get("protocol") or {}).get("rate"), Sequence)
    rates = [Cell(number(rate), rate) for rate in (finite(r.get("rate")) for r in rows) if several]
    for column, cells in (
        (Column("test_accuracy", "Test accuracy (%)", True, spread="ci95"), accuracies),
        (Column("behind", "Behind", True, brief=True, spread="ci95"), gaps),
        (_loss_column("query_loss", "Query loss"), _losses(rows, "query_loss")),
        (_loss_column("train_loss", "Training loss"), _losses(rows, "train_loss")),
        (Column("rate", "Rate", True), rates),
        (Column("learned", "Learned numbers", True), _plain(rows, "learned", 0)),
        (Column("seconds_per_step", "Seconds a step", True), _plain(rows, "seconds_per_step")),
    ):
        if any(cell.value is not None for cell in cells):
            columns.append(column)
            body.append(cells)
    notes = [
        protocol_line(summary),
        _reading(accuracies, rows),
        _meanings([c.key for c in columns]),
        _edges(summary, rows),
    ]
    if finite(summary.get("seeds")) == 1:
        notes.append(
            "One seed: intervals are over test tasks, and say nothing of another meta-training."
        )
    notes += [clean(note) for note in summary.get("notes") or ()]
    table_rows = tuple(zip(*body, strict=True))
    return Table(_title(summary), tuple(columns), table_rows, tuple(filter(None, notes)))


def few_shot_side_by_side(
    ours: Sequence[Mapping[str, Any]], paper: Mapping[str, Any] = S004_TABLE1
) -> Table:
    """Test accuracies of our runs with the paper's printed ones directly underneath.

    **Arguments:**

    - `ours`: summaries of few-shot runs, each with another number of shots.
    - `paper`: the paper's table, whose columns are `"1-shot"` and so on.

    **Returns:**

    A `Table` as `side_by_side` makes it; the notes say what was run and why the two differ.

    **Raises:**

    - `ValueError`: if two runs have the same number of shots, or the paper has no such column.

    >>> run = {"recipe": "few-shot-glyphs", "protocol": {"way": 5, "shot": 1},
    ...        "methods": [{"method": "maml", "test_accuracy": {"mean": 0.91, "ci95": 0.01}}]}
    >>> [row[2].text for row in few_shot_side_by_side([run]).rows[:2]]
    ['91.00 ± 1.00', '48.70 ± 1.84']
    """
    found: dict[str, dict[str, Any]] = {}
    notes, used = [], []
    for summary in ours:
        protocol = summary.get("protocol") or {}
        column = f"{protocol.get('shot')}-shot"
        if column not in paper["columns"] or column in used:
            raise ValueError(
                f"few_shot_side_by_side: received a run of {column} tasks; give at most one run "
                f"for each of {', '.join(paper['columns'])}."
            )
        used.append(column)
        for row in summary.get("methods") or ():
            mean, error = estimate(row.get("test_accuracy"), "ci95")
            found.setdefault(method_label(row.get("method")), {})[column] = (
                percent(mean),
                percent(error),
            )
        notes.append(f"Ours, {column}: {_setting(summary)}. {protocol_line(summary)}".rstrip())
    return side_by_side(found, paper, spread=_CI95, notes=notes)


def adaptation_table(summary: Mapping[str, Any]) -> Table:
    """Support loss and gradient norm on new tasks after a few numbers of steps, S004 Fig. 1.

    **Arguments:**

    - `summary`: the content of `summary.json` of a few-shot run.

    **Returns:**

    A `Table` with one row a method.

    >>> curves = {"steps": [0, 1], "support_loss": [1.6, 0.4], "gradient_norm": [3.0, 1.0]}
    >>> row = {"method": "maml", "adaptation": curves}
    >>> [cell.text for cell in adaptation_table({"methods": [row]}).rows[0]]
    ['MAML', '1.600', '0.400', '3.000', '1.000']
    """
    rows = [row for row in summary.get("methods") or () if row.get("adaptation")]
    steps = rows[0]["adaptation"]["steps"] if rows else []
    shown = [k for k in _SHOWN if k in steps]
    columns = [Column("method", "Method")]
    cells = [[Cell(method_label(row["method"])) for row in rows]]
    for key, label in (("support_loss", "Loss"), ("gradient_norm", "Norm")):
        for k in shown:
            values = [finite(row["adaptation"][key][steps.index(k)]) for row in rows]
            columns.append(Column(f"{key}_{k}", f"{label}, k={k}", numeric=True))
            cells.append(mark_best([Cell(number(value, 3), value) for value in values], "lower"))
    title = "Adaptation on new tasks: support loss and gradient norm after k steps"
    lost = any(cell.value is None for column in cells[1:] for cell in column)
    notes = (f"{ABSENT}: no mean, since it is not finite on every task.",) if lost else ()
    return Table(title, tuple(columns), tuple(zip(*cells, strict=True)), notes)


def protocol_line(summary: Mapping[str, Any]) -> str:
    """How the methods of a few-shot run were compared, on one line.

    **Arguments:**

    - `summary`: the content of `summary.json` of a few-shot run; what is missing is left out.

    **Returns:**

    One sentence, empty where the summary says nothing.

    >>> protocol_line({"protocol": {"way": 5, "shot": 1, "test_tasks": 1000}, "seeds": 1})
    'Protocol: 5-way 1-shot; 1,000 test tasks; 1 seed.'
    """
    found: Mapping[str, Any] = summary.get("protocol") or {}
    test, train = found.get("test_queries"), count(found.get("train_queries"))
    queries = plural(test, "query image", " a class")
    if queries and train and train != count(test):
        queries += f" ({train} in meta-training)"
    steps, rate = count(found.get("inner_steps")), _rate(found)
    inner = f"K = {steps} inner steps" if steps else ""
    if rate:
        inner = f"{inner} at {rate}" if inner else f"inner {rate}"
    way, shot = count(found.get("way")), count(found.get("shot"))
    statistics = found.get("statistics")
    parts = [
        f"{way}-way {shot}-shot" if way and shot else "",
        queries,
        _STATISTICS.get(statistics, clean(statistics)) if isinstance(statistics, str) else "",
        "quarter turns of meta-training's classes are classes" if found.get("rotations") else "",
        "MAML and WarpGrad to first order" if found.get("first_order") else "",
        _ON_FAILURE.get(str(found.get("on_failure")), ""),
        plural(found.get("test_tasks"), "test task"),
        inner,
        plural(summary.get("meta_steps"), "meta-step") + _outer(found),
        _validations(found),
        plural(summary.get("seeds"), "seed"),
    ]
    line = "; ".join(filter(None, parts))
    name = clean(found["name"]) + " protocol" if found.get("name") else "protocol"
    return f"{name[:1].upper()}{name[1:]}: {line}." if line else ""


def _outer(protocol: Mapping[str, Any]) -> str:
    """The outer optimiser."""
    name, rate, decay = (protocol.get(key) for key in ("optimiser", "outer_rate", "decay"))
    tasks, clip = plural(protocol.get("tasks"), "task"), finite(protocol.get("clip"))
    each = f" of {tasks} each" if tasks else ""
    if not name or finite(rate) is None:
        return each
    falling = f", {clean(decay)} decay" if decay and decay != "none" else ""
    clipped = f", norm clipped at {clip:g}" if clip else ""
    by = _OPTIMISERS.get(str(name), clean(name))
    return f"{each + ',' if each else ' of'} {by} at rate {number(finite(rate))}{falling}{clipped}"


def _validations(protocol: Mapping[str, Any]) -> str:
    """How the prior that is tested was chosen among those of a run."""
    tasks = plural(protocol.get("validation_tasks"), "validation task")
    every = plural(protocol.get("validate_every"), "step")
    return f"the prior best on {tasks}, judged every {every}" if tasks and every else ""


def _rate(protocol: Mapping[str, Any]) -> str:
    """The inner rate, or how each method came by its own."""
    rate, unit = protocol.get("rate"), protocol.get("rate_unit")
    of = f" in units of the {clean(unit)}" if unit else ""
    if not isinstance(rate, Sequence):
        return "" if finite(rate) is None else f"rate {finite(rate):g}{of}"
    tried = ", ".join(number(finite(one)) for one in rate)
    after = plural(protocol.get("pilot_steps"), "meta-step")
    return f"the rate best on validation after {after}, of {tried}{of}"


def _title(summary: Mapping[str, Any]) -> str:
    setting = _setting(summary)
    return f"Few-shot learning on {setting}" if setting else "Few-shot learning"


def _setting(summary: Mapping[str, Any]) -> str:
    """Data set and model."""
    name = clean(summary.get("family") or summary.get("recipe") or "").removeprefix("few-shot-")
    return ", ".join(filter(None, (_DATA.get(name, name), clean(summary.get("model") or ""))))


def _accuracies(rows: Sequence[Mapping[str, Any]]) -> list[Cell]:
    cells = []
    for row in rows:
        mean, error = estimate(row.get("test_accuracy"), "ci95")
        if mean is not None and not 0 <= mean <= 1:
            raise ValueError(
                f"few_shot_table: test_accuracy of {row.get('method')} is {mean:g}; give "
                "accuracies as fractions between 0 and 1."
            )
        cells.append(estimate_cell((percent(mean), percent(error)), 2))
    return cells


def _loss_column(key: str, label: str) -> Column:
    return Column(key, label, numeric=True, brief=True, spread="ci95")


def _losses(rows: Sequence[Mapping[str, Any]], key: str) -> list[Cell]:
    entries = [estimate(row.get(key), "ci95") for row in rows]
    places = decimals((mean for mean, _ in entries), at_most=4)
    return [estimate_cell(entry, places) for entry in entries]


def _plain(rows: Sequence[Mapping[str, Any]], key: str, places: int | None = None) -> list[Cell]:
    values = [finite(row.get(key)) for row in rows]
    shown = decimals(values) if places is None else places
    return [Cell(number(value, shown), value) for value in values]


def _mark_open(cells: Sequence[Cell], rows: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """Marks the accuracies whose distance to the best one is within its interval."""

    def is_open(row: Mapping[str, Any]) -> bool:
        mean, width = estimate(row.get("behind"), "ci95")
        return mean is not None and width is not None and mean <= width

    pairs = zip(cells, rows, strict=True)
    return [replace(c, mark=_OPEN) if is_open(row) and not c.best else c for c, row in pairs]


def _reading(cells: Sequence[Cell], rows: Sequence[Mapping[str, Any]]) -> str:
    """What bold, the dagger and ± mean in this table."""
    parts = []
    if any(cell.best for cell in cells):
        parts.append(f"Bold: the highest mean accuracy of {len(rows)}.")
        if any(estimate(row.get("behind"), "ci95")[0] is not None for row in rows):
            parts.append("Behind: by how many points of accuracy, on the same tasks.")
        if any(cell.mark for cell in cells):
            parts.append(
                f"{_OPEN}: behind the bold accuracy by no more than the 95% interval of the "
                "difference on the same tasks, so this table leaves open which of the two is "
                "better; it does not show that they are equal."
            )
    if any(cell.spread is not None for cell in cells):
        parts.append(f"± is {_CI95}.")
    if any(cell.spread is None and cell.text != ABSENT for cell in cells):
        parts.append("Where no ± stands no interval is known, and none is compared.")
    return " ".join(parts)


def _meanings(keys: Sequence[str]) -> str:
    """What is behind the headings of the losses."""
    if "query_loss" in keys and "train_loss" in keys:
        return (
            "Query loss: mean cross-entropy on the query images of test tasks after adaptation; "
            "training loss: the same on meta-training tasks, at the last meta-step."
        )
    return ""


def _edges(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Whose inner rate is the lowest or the highest of those tried."""
    tried = (summary.get("protocol") or {}).get("rate")
    rates = [finite(rate) for rate in tried] if isinstance(tried, list) else []
    known = sorted(rate for rate in rates if rate is not None)
    found = []
    for end in (known[0], known[-1]) if len(known) > 1 else ():
        names = [method_label(row.get("method")) for row in rows if finite(row.get("rate")) == end]
        if names:
            found.append(f"{number(end)} of {', '.join(names)}")
    beyond = "Rates at the end of those tried, beyond which there may be better ones"
    return f"{beyond}: {'; '.join(found)}." if found else ""
