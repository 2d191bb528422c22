"""Records as tables: the comparison of optimisers, ours beside a paper's, and the certificate.

Accuracies are stored as fractions and shown in per cent; ± is always one standard error of the
mean, over seeds or, where several tasks were held out, over tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ._format import (
    ABSENT,
    NOT_REACHED,
    clean,
    decimals,
    estimate,
    fields,
    finite,
    number,
    plural,
    plus_minus,
    words,
)
from ._marks import mark_best
from ._table import Cell, Column, Table
from ._verdicts import verdicts

_METRICS = {
    "test_accuracy": ("Test accuracy (%)", "higher"),
    "final_loss": ("Final training loss", "lower"),
    "log_loss_area": ("Mean log training loss", "lower"),
    "steps": ("Steps to convergence", "lower"),
}
_NOT_METRICS = {"optimiser", "hyperparameters", "steps_to", "notes"}
_NOT_METRICS |= {"seconds_a_step", "seconds_to", "tuning"}  # each has a table of its own


def comparison_table(summary: Mapping[str, Any]) -> Table:
    r"""Optimisers compared on the held-out task, one row each, the best of each column in bold.

    **Arguments:**

    - `summary`: the content of `summary.json`; only `comparison` is needed. A metric that no row
        has makes no column, and a metric this module has no name for is shown under its own.

    **Returns:**

    A `Table`: optimiser, hyper-parameters, test accuracy in per cent, final training loss, mean
    log training loss, and steps to each target. A target reached by some runs only says how many,
    and does not compete with one that more runs reached.

    **Raises:**

    - `ValueError`: if an accuracy is not a fraction between 0 and 1.

    >>> row = {"optimiser": "SGD", "hyperparameters": {"learning_rate": 0.1},
    ...        "test_accuracy": {"mean": 0.9, "se": 0.01, "values": [0.89, 0.91]},
    ...        "steps_to": {"0.1": {"mean": None, "se": None, "values": [None, None]}}}
    >>> print(comparison_table({"comparison": [row]}).text())
    Comparison of optimisers
    <BLANKLINE>
    Optimiser  Hyper-parameters   Test accuracy (%)  Steps to loss 0.1
    ---------  -----------------  -----------------  -----------------
    SGD        learning rate 0.1       90.00 ± 1.00        not reached
    <BLANKLINE>
    ± is one standard error of the mean.
    """
    rows = list(summary.get("comparison") or ())
    columns = [Column("optimiser", "Optimiser")]
    body = [[Cell(name, name) for name in (clean(row.get("optimiser", ABSENT)) for row in rows)]]
    if any(row.get("hyperparameters") for row in rows):
        columns.append(Column("hyperparameters", "Hyper-parameters", aside=True))
        texts = (fields(row.get("hyperparameters") or {}) or ABSENT for row in rows)
        body.append([Cell(text, text) for text in texts])
    for key in _metric_keys(rows):
        label, better = _METRICS.get(key, (words(key).capitalize(), None))
        columns.append(Column(key, label, numeric=True))
        body.append(mark_best(_metric_cells(rows, key), better))
    for target in targets_of(rows):
        columns.append(Column(f"steps_to_{target}", target_label("Steps", target), numeric=True))
        body.append(step_cells([(row.get("steps_to") or {}).get(target) for row in rows]))
    return Table(
        _comparison_title(summary), tuple(columns), tuple(zip(*body, strict=True)), _notes(summary)
    )


def side_by_side(
    ours: Mapping[str, Mapping[str, Any]],
    paper: Mapping[str, Any],
    *,
    spread: str = "one standard error",
    notes: Sequence[str] = (),
) -> Table:
    """Our figures with the paper's printed ones directly underneath.

    **Arguments:**

    - `ours`: optimiser to column to `{"mean", "se"}`, a pair or a number, in the unit of the paper
        (per cent, not fractions); what was not run may be missing.
    - `paper`: one of the tables of this package, such as `S000_TABLE1_MLP`.
    - `spread`: what our ± is.
    - `notes`: what else a reader should know of ours.

    **Returns:**

    A `Table` with two rows an optimiser or method, or one where the paper has none. The best is
    marked among ours and among the paper's apart. Where the paper's columns are tasks of one kind,
    their mean has a column too.

    >>> from mirrax.report import S000_TABLE2
    >>> table = side_by_side({"SGD": {"0": (92.0, 0.1)}}, S000_TABLE2)
    >>> table.rows[0][2].text, table.rows[1][2].text
    ('92.00 ± 0.10', '86.12 ± 0.80')
    """
    names = [*paper["rows"], *(name for name in ours if name not in paper["rows"])]
    keys = [str(key) for key in paper["columns"]]
    unit, averaged = paper["unit"], paper["averaged"]
    of = paper["of"]
    columns = [Column(of, of.capitalize()), Column("from", "From")]
    columns += [Column(key, f"{key}°" if "degrees" in paper["axis"] else key, True) for key in keys]
    if averaged:
        columns.append(Column("mean", "Mean", True))
    places = 2 if unit == "%" else 0
    halves = []
    for found in (_our_rows(ours, names, keys), _paper_rows(paper, names, keys)):
        by_column = [list(column) for column in zip(*found, strict=True)] if found else []
        if averaged:
            by_column.append([_mean_entry(row) for row in found])
        cells = [[estimate_cell(entry, places) for entry in column] for column in by_column]
        halves.append([mark_best(column, paper["better"]) for column in cells])
    body = []
    for i, name in enumerate(names):
        for source, half in zip(("ours", "paper"), halves, strict=True):
            if source == "paper" and name not in paper["rows"]:
                continue
            head = (Cell(clean(name), clean(name)), Cell(source, source))
            body.append((*head, *(column[i] for column in half)))
    below = (
        f"Paper: {paper['source']}. Columns: {paper['axis'].lower()}; figures in {unit}.",
        f"Bold is the best of each column, ours and the paper's apart; our ± is {spread}.",
        *paper.get("notes", ()),
        *notes,
    )
    return Table(paper["title"], tuple(columns), tuple(body), below)


def certificate_table(certificate: Mapping[str, Any]) -> Table:
    r"""Theorem 3.1's bounds beside the regret that was measured.

    $\sum_t \ell(\theta_t) - \ell(\theta_*) \le D_\psi(\theta_*\|\theta_1)/\eta
    + \frac{\eta}{2\lambda}\sum_t \|g_t\|_*^2$ (S000, Theorem 3.1).

    **Arguments:**

    - `certificate`: `{"regret": number, "bounds": {name: number}, "comparator": text,
        "steps": number, …}`; any other scalar becomes a row of its own. With `satisfied`, name to
        `true` or `false`, the verdicts are those of the certificate.

    **Returns:**

    A `Table` with one row a quantity: its value, its ratio to the measured regret, and whether the
    bound holds.

    >>> table = certificate_table({"regret": 2.0, "bounds": {"local dual norm": 3.0}})
    >>> [cell.text for cell in table.rows[1]]
    ['Bound, local dual norm', '3', '1.5', 'holds']
    """
    regret = finite(certificate.get("regret"))
    rows = [_bound_row("Measured regret", regret)]
    bounds = {name: finite(value) for name, value in (certificate.get("bounds") or {}).items()}
    rows += [
        _bound_row(f"Bound, {words(name)}", bounds[name], regret, holds)
        for name, holds in verdicts(certificate).items()
    ]
    for key, value in certificate.items():
        if key in {"regret", "bounds", "steps", "rate", "notes"} or finite(value) is None:
            continue
        rows.append(_bound_row(words(key).capitalize(), finite(value)))
    notes = []
    if finite(certificate.get("steps")) is not None:
        rate = finite(certificate.get("rate"))
        at = "" if rate is None else f" at rate {number(rate)}"
        notes.append(f"Regret summed over {certificate['steps']:,} steps{at}.")
    if certificate.get("comparator"):
        notes.append(f"Compared with θ* = {clean(certificate['comparator'])}.")
    notes += [clean(note) for note in certificate.get("notes") or ()]
    columns = (
        Column("quantity", "Quantity"),
        Column("value", "Value (sum of losses)", numeric=True),
        Column("ratio", "Ratio to regret", numeric=True),
        Column("verdict", "Verdict"),
    )
    return Table("Certificate: bound beside measured regret", columns, tuple(rows), tuple(notes))


def assumption_table(certificate: Mapping[str, Any]) -> Table | None:
    """Which assumptions of the certificate hold.

    **Arguments:**

    - `certificate`: with `assumptions`: name to `true`, `false`, `null` (not checked) or
        `{"holds": …, "how": word, "why": text}`.

    **Returns:**

    A `Table` of name, verdict, how it is known where that is recorded, and reason; `None` where the
    certificate names no assumption.

    >>> table = assumption_table({"assumptions": {"convexity": {"holds": False, "why": "an MLP"}}})
    >>> [cell.text for cell in table.rows[0]]
    ['Convexity', 'does not hold', 'an MLP']
    """
    assumptions = certificate.get("assumptions")
    if not isinstance(assumptions, Mapping) or not assumptions:
        return None
    found = {
        name: entry if isinstance(entry, Mapping) else {"holds": entry}
        for name, entry in assumptions.items()
    }
    columns = [Column("assumption", "Assumption"), Column("verdict", "Verdict")]
    body = [
        [_word(words(name)[:1].upper() + words(name)[1:]) for name in found],
        [_word(_verdict(entry.get("holds"))) for entry in found.values()],
    ]
    if any(entry.get("how") for entry in found.values()):
        columns.append(Column("how", "Known by"))
        body.append([_word(clean(entry.get("how") or ABSENT)) for entry in found.values()])
    columns.append(Column("why", "Why"))
    body.append([_word(clean(entry.get("why") or ABSENT)) for entry in found.values()])
    rows = tuple(zip(*body, strict=True))
    return Table("Assumptions of the theorem", tuple(columns), rows)


def _verdict(holds: object) -> str:
    return ("holds" if holds else "does not hold") if isinstance(holds, bool) else "not checked"


def _word(text: str) -> Cell:
    return Cell(text, None if text == ABSENT else text)


def _comparison_title(summary: Mapping[str, Any]) -> str:
    title = "Comparison of optimisers"
    if summary.get("recipe"):
        title += f", {clean(summary['recipe'])}"
    if summary.get("held_out") not in (None, "", []):
        held = summary["held_out"]
        held = ", ".join(map(str, held)) if isinstance(held, list) else held
        title += f", held out: {clean(held)}"
    return title


def _notes(summary: Mapping[str, Any]) -> tuple[str, ...]:
    return (_reading(summary), *(clean(note) for note in summary.get("notes") or ()))


def _reading(summary: Mapping[str, Any]) -> str:
    """What ± is, and what means are over."""
    seeds, tasks, over = summary.get("seeds"), len(summary.get("cells") or ()), ""
    if isinstance(summary.get("problems"), int):
        over = f" over {plural(summary['problems'], 'held-out problem')}"
    elif isinstance(seeds, int):
        if seeds == 1 and not tasks:
            return "One seed: no standard error is known."
        runs = plural(seeds, "seed")
        over = f" over {tasks} tasks, {runs} each" if tasks else f" over {runs}"
    return f"± is one standard error of the mean{over}."


def _metric_keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Known metrics first, in their order, then unknown ones in the order of the file."""
    present = [key for row in rows for key in row if key not in _NOT_METRICS]
    known = [key for key in _METRICS if key in present]
    return [*known, *dict.fromkeys(key for key in present if key not in known)]


def _metric_cells(rows: Sequence[Mapping[str, Any]], key: str) -> list[Cell]:
    entries = [estimate(row.get(key)) for row in rows]
    places = decimals(mean for mean, _ in entries)
    if key == "test_accuracy":
        for row, (mean, _) in zip(rows, entries, strict=True):
            if mean is not None and not 0 <= mean <= 1:
                raise ValueError(
                    f"comparison_table: test_accuracy of {row.get('optimiser')} is {mean:g}; "
                    "give accuracies as fractions between 0 and 1."
                )
        entries = [(percent(mean), percent(error)) for mean, error in entries]
        places = 2
    return [estimate_cell(entry, places) for entry in entries]


def percent(fraction: float | None) -> float | None:
    """A fraction in per cent, `None` where it is unknown."""
    return None if fraction is None else 100 * fraction


def targets_of(rows: Sequence[Mapping[str, Any]], key: str = "steps_to") -> list[str]:
    """The targets of all rows, numbers from the easiest to the hardest, then words."""
    found = dict.fromkeys(target for row in rows for target in (row.get(key) or {}))

    def order(key: str) -> tuple[int, float]:
        try:
            return 0, -float(key)
        except ValueError:
            return 1, 0.0

    return sorted(found, key=order)


def target_label(unit: str, target: str) -> str:
    """The heading of a column of steps or seconds to a target."""
    try:
        return f"{unit} to loss {float(target):g}"
    except ValueError:
        return f"{unit} to {words(target)}"


def step_cells(entries: Sequence[Any], places: int | None = None) -> list[Cell]:
    """Steps to one target: only the rows that most runs reached compete for the best.

    **Arguments:**

    - `entries`: what each row reached, and when.
    - `places`: decimals; by default as many as steps need.
    """
    counts = [_reached(entry) for entry in entries]
    most = max((reached for reached, _ in counts), default=0)
    errors = [error for _, error in map(estimate, entries) if error]
    if places is None:
        places = 1 if errors and min(errors) < 0.5 else 0
    cells = []
    for entry, (reached, runs) in zip(entries, counts, strict=True):
        mean, error = estimate(entry)
        if entry is None:
            cells.append(Cell(ABSENT))
        elif reached == 0:
            cells.append(Cell(NOT_REACHED))
        elif reached < runs:
            some = f"in {reached} of {runs} runs"
            text = some if mean is None else f"{plus_minus(mean, error, places)} ({some})"
            cells.append(Cell(text, mean, error))
        else:
            cells.append(Cell(plus_minus(mean, error, places), mean, error))
    running = [c if n == most else Cell(c.text) for c, (n, _) in zip(cells, counts, strict=True)]
    marked = mark_best(running, "lower")
    return [replace(c, best=m.best) for c, m in zip(cells, marked, strict=True)]


def _reached(entry: Any) -> tuple[int, int]:
    """How many runs reached the target, and of how many."""
    mean, _ = estimate(entry)
    values = entry.get("values") if isinstance(entry, Mapping) else None
    if not values:
        return (0, 0) if mean is None else (1, 1)
    return sum(finite(value) is not None for value in values), len(values)


def estimate_cell(entry: tuple[float | None, float | None], places: int | None) -> Cell:
    """A cell of `mean ± spread`.

    **Arguments:**

    - `entry`: what `estimate` returned.
    - `places`: decimals of both.

    **Returns:**

    A `Cell`.

    >>> estimate_cell((97.412, 0.12), 2).text
    '97.41 ± 0.12'
    """
    mean, error = entry
    return Cell(plus_minus(mean, error, places), mean, error)


def _our_rows(ours, names, keys):
    return [[estimate((ours.get(n) or {}).get(k)) for k in keys] for n in names]


def _paper_rows(paper, names, keys):
    blank = [(None, None)] * len(keys)
    return [[estimate(pair) for pair in paper["rows"].get(n, blank)] for n in names]


def _mean_entry(row: Sequence[tuple[float | None, float | None]]) -> tuple[float | None, None]:
    means = [mean for mean, _ in row]
    if any(mean is None for mean in means):
        return None, None
    return sum(mean for mean in means if mean is not None) / len(means), None


def _bound_row(
    label: str, value: float | None, regret: float | None = None, holds: bool | None = None
) -> tuple[Cell, ...]:
    ratio = None
    if value is not None and regret is not None and regret > 0:
        ratio = finite(value / regret)
    verdict = ABSENT if holds is None else "holds" if holds else "BROKEN"
    return _word(label), Cell(number(value), value), Cell(number(ratio), ratio), _word(verdict)
