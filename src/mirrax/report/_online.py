"""Online optimisers as a table: those that learn their rates against what they extend (S002)."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ._format import ABSENT, clean, finite, number
from ._table import Cell, Column, Table

_GOAL = 1 / 1.5
_WORSE = 1e-4
_COLUMNS = (
    Column("method", "Method, minimiser"),
    Column("baseline", "Baseline"),
    Column("ratio", "To baseline", numeric=True),
    Column("by_problem", "By problem", aside=True),
    Column("never_worse", "Never worse"),
    Column("one", "One configuration", numeric=True),
    Column("low", "At low rates", numeric=True),
    Column("final", "Final loss", numeric=True),
)


def online_table(summary: Mapping[str, Any]) -> Table:
    """Cumulative losses of online optimisers as ratios to their baselines, below 1 is better.

    **Arguments:**

    - `summary`: the content of `summary.json` of `mirrax reproduce s002-fig2`.

    **Returns:**

    A `Table` with one row a minimiser and method.

    >>> row = {"method": "Momentum", "baseline": None, "final": [0.2, 0.1]}
    >>> settings = [{"minimiser": "shifted", "methods": [row]}]
    >>> [cell.text for cell in online_table({"settings": settings}).rows[0]]
    ['Momentum, shifted', '–', '–', '', '–', '–', '–', '0.15']
    """
    rows = tuple(
        _row(setting["minimiser"], row)
        for setting in summary["settings"]
        for row in setting["methods"]
    )
    return Table("Rates learned online, S002 Fig. 2", _COLUMNS, rows, _notes(summary))


def online_medians_table(summaries: Mapping[str, Mapping[str, Any]]) -> Table:
    """Several comparisons of many problems each, by the medians of the ratios to baselines.

    **Arguments:**

    - `summaries`: as for `online_table`, by what they are called.

    **Returns:**

    A `Table` with one row a method that has a baseline, and one column a comparison and minimiser.

    >>> found = {"by_problem": [0.5, 2.0, 0.7], "median": 0.7}
    >>> row = {"method": "Online SGD", "baseline": "GD", "to_baseline": found}
    >>> row |= {"to_baseline_with_one": found, "to_baseline_at_low_rates": found}
    >>> summary = {"settings": [{"minimiser": "at 0", "methods": [row]}]}
    >>> [cell.text for cell in online_medians_table({"seed 0": summary}).rows[0]]
    ['Online SGD', '0.70 (1)', '0.70 to 0.70', '0.70 to 0.70']
    """
    settings = {
        f"{label}, {clean(setting['minimiser'])}": {
            row["method"]: row for row in setting["methods"]
        }
        for label, summary in summaries.items()
        for setting in summary["settings"]
    }
    named = next(iter(settings.values()))
    columns = [Column("method", "Method")]
    columns += [Column(label, label[:1].upper() + label[1:], numeric=True) for label in settings]
    columns += [Column("one", "One configuration", True), Column("low", "At low rates", True)]
    body = []
    for method in (name for name, row in named.items() if row.get("baseline")):
        rows = [by_name[method] for by_name in settings.values()]
        cells = [_median_cell(row["to_baseline"]) for row in rows]
        cells += [
            _range_cell(rows, f"to_baseline_{limit}") for limit in ("with_one", "at_low_rates")
        ]
        body.append((Cell(clean(method)), *cells))
    notes = (
        "Median over problems of the ratio to the baseline, below 1 is better; in brackets on how "
        f"many problems a method is worse by more than {100 * _WORSE:g}%. One configuration, and "
        "at low rates: the least and the greatest of the medians.",
    )
    return Table("Rates learned online, on many problems", tuple(columns), tuple(body), notes)


def _median_cell(against: Mapping[str, Any]) -> Cell:
    lost = sum(value is None or value > 1 + _WORSE for value in against["by_problem"])
    return Cell(f"{_ratio(against['median']).text} ({lost})", finite(against["median"]))


def _range_cell(rows: Sequence[Mapping[str, Any]], key: str) -> Cell:
    values = [row[key]["median"] for row in rows]
    return Cell(f"{_ratio(min(values)).text} to {_ratio(max(values)).text}")


def _row(minimiser: str, row: Mapping[str, Any]) -> tuple[Cell, ...]:
    against = row.get("to_baseline") or {}
    by_problem = [_ratio(value).text for value in against.get("by_problem") or ()]
    never = against.get("never_worse")
    final = _median(row["final"])
    return (
        Cell(f"{clean(row['method'])}, {clean(minimiser)}"),
        Cell(clean(row.get("baseline") or ABSENT)),
        _ratio(against.get("median")),
        Cell(" ".join(by_problem)),
        Cell(ABSENT if never is None else "yes" if never else "no"),
        *(
            _ratio((row.get(f"to_baseline_{limit}") or {}).get("median"))
            for limit in ("with_one", "at_low_rates")
        ),
        Cell("diverged" if final is None else f"{final:.2g}", final),
    )


def _ratio(value: object) -> Cell:
    found = finite(value)
    return Cell(number(found, 2) if found is None or found < 1e4 else f"{found:.1e}", found)


def _median(values: Any) -> float | None:
    """The median, where `null` is a loss that is infinite."""
    found = [finite(value) for value in values]
    return finite(statistics.median(float("inf") if v is None else v for v in found))


def _notes(summary: Mapping[str, Any]) -> tuple[str, ...]:
    met = [
        f"{clean(row['method'])}, {clean(setting['minimiser'])}"
        for setting in summary["settings"]
        for row in setting["methods"]
        if _meets(row.get("to_baseline") or {})
    ]
    low = finite(summary.get("low_rate"))
    count = finite(summary.get("configurations"))
    notes = [
        "Ratios of the sum of the losses after each step, median over problems; below 1 is better. "
        "Final loss: median over problems of the configuration with the least sum.",
        f"Never worse, and at least 1.5 times better on the median: {'; '.join(met) or 'none'}.",
    ]
    if count is not None:
        notes.append(
            f"Every method is tuned on each problem over {count:,.0f} configurations. One "
            "configuration: both have one for all problems, the best on the geometric mean."
        )
    if low is not None:
        notes.append(
            f"At low rates: both tuned over their first rates of at most {low:g}/L, or of as many "
            "units of AdaGrad's."
        )
    return tuple(notes)


def _meets(against: Mapping[str, Any]) -> bool:
    """Whether a method is never worse than its baseline and 1.5 times better on the median."""
    median = finite(against.get("median"))
    return bool(against.get("never_worse")) and median is not None and median <= _GOAL
