"""The matrix of hypergradients as tables: geometries down, estimators across (spec B4, B5)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ._format import ABSENT, clean
from ._table import Cell, Column, Table

_WHERE = {
    "run": "a run of mirror descent or of the geometry's own rule",
    "solution": "the solution of the Bregman-proximal problem",
}
_REFERENCES = {
    "differences": "central differences, step 1e-5",
    "closed_form": "the closed form on the linear model, where steps are linear",
    "others": "the exact estimator that differs most",
}


def hypergradient_tables(summary: Mapping[str, Any]) -> list[Table]:
    """What every hypergradient is worth, or why it is refused.

    **Arguments:**

    - `summary`: the content of `summary.json` of `mirrax reproduce hypergradients`.

    **Returns:**

    For runs and for solutions: exact estimators beside each reference, then all others.

    >>> entry = {"estimator": "Reverse", "kind": "exact", "differences": 2e-9}
    >>> row = {"inner": "run", "geometry": "Diagonal", "learned": 8, "entries": [entry]}
    >>> table, *_ = hypergradient_tables({"rows": [row], "about": {}})
    >>> [cell.text for cell in table.rows[0]]
    ['Diagonal', '8', '2e-09']
    """
    tables = []
    for inner, where in _WHERE.items():
        rows = [row for row in summary["rows"] if row["inner"] == inner]
        for key, reference in _REFERENCES.items():
            title = f"Exact estimators beside {reference}: {where}"
            tables.append(_matrix(title, rows, lambda e, key=key: key in e, key))
        title = f"Approximations, random estimators, and what is refused: {where}"
        tables.append(_rest(title, rows, summary["about"]))
    return [table for table in tables if table.rows]


def _matrix(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    wanted: Callable[[Mapping[str, Any]], bool],
    key: str,
) -> Table:
    """Errors of the estimators that have that reference."""
    names = _names(rows, wanted)
    body, notes = [], ["The largest absolute error over the largest entry, in float64."]
    for row in rows:
        found = {entry["estimator"]: entry for entry in row["entries"] if wanted(entry)}
        if found:
            body.append((*_head(row), *(_error(found.get(name), key) for name in names)))
    if key == "differences":
        notes += [f"{row['geometry']}: {row['stepwise']}." for row in rows if row.get("stepwise")]
    return Table(title, _columns(names), tuple(body), tuple(notes))


def _error(entry: Mapping[str, Any] | None, key: str) -> Cell:
    return Cell(ABSENT) if entry is None else Cell(_short(entry[key], ".0e"), entry[key])


def _short(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(value, form)


def _rest(title: str, rows: Sequence[Mapping[str, Any]], about: Mapping[str, str]) -> Table:
    """What is not exact, and what is refused or flagged with its reason under the table."""
    names = _names(rows, lambda entry: entry["kind"] != "exact")
    reasons: dict[str, str] = {}
    body = []
    for row in rows:
        found = {e["estimator"]: e for e in row["entries"] if e["kind"] != "exact"}
        body.append((*_head(row), *(_other(found.get(name), reasons) for name in names)))
    notes = [
        "Approximations: the error as above and, in brackets, the cosine of the angle to the exact "
        "derivative. Random: root mean square and, in brackets, the largest error of all entries, "
        "in standard errors.",
        *(f"{name} leaves out {text}." for name, text in about.items() if name in names),
        *(f"{letter}: {reason}" for reason, letter in reasons.items()),
    ]
    return Table(title, _columns(names), tuple(body), tuple(notes))


def _other(entry: Mapping[str, Any] | None, reasons: dict[str, str]) -> Cell:
    if entry is None:
        return Cell("exact")
    if "reason" in entry:
        letter = reasons.setdefault(clean(entry["reason"]), chr(ord("a") + len(reasons)))
        return Cell(f"{entry['kind']} ({letter})")
    if entry["kind"] == "random":
        text = f"{_short(entry['mean_square'], '.2f')} ({_short(entry['largest'], '.1f')})"
        return Cell(text, entry["mean_square"])
    angle = ABSENT if entry["cosine"] is None else f"{entry['cosine']:.2f}"
    return Cell(f"{_short(entry['error'], '.2g')} ({angle})", entry["error"])


def _names(
    rows: Sequence[Mapping[str, Any]], wanted: Callable[[Mapping[str, Any]], bool]
) -> list[str]:
    """Estimators that are wanted in some row, in the order of entries."""
    entries = [entry for row in rows for entry in row["entries"]]
    names = {entry["estimator"] for entry in entries if wanted(entry)}
    return [name for name in dict.fromkeys(e["estimator"] for e in entries) if name in names]


def _columns(names: Sequence[str]) -> tuple[Column, ...]:
    first = (Column("geometry", "Geometry"), Column("learned", "Numbers", numeric=True))
    return (*first, *(Column(name, name, numeric=True) for name in names))


def _head(row: Mapping[str, Any]) -> tuple[Cell, Cell]:
    return Cell(clean(row["geometry"])), Cell(f"{row['learned']:,}", row["learned"])
