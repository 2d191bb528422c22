"""How each optimiser was tuned: how many trials, the best score, and where in its range it lies."""

from collections.abc import Mapping
from typing import Any

from ._format import ABSENT, clean, decimals, finite, number, words
from ._table import Cell, Column, Table

_SCORES = {
    "validation": "Error on validation images (%)",
    "loss": "Final training loss while tuning",
}


def tuning_table(summary: Mapping[str, Any]) -> Table | None:
    """What tuning tried and found.

    **Arguments:**

    - `summary`: the content of `summary.json`; only `comparison` is needed.

    **Returns:**

    A `Table` of optimisers, or `None` where nothing is known of their tuning.

    >>> tuning = {"tuner": "bayes", "criterion": "loss", "score": 0.25, "trials": 25, "failed": 3,
    ...           "within": {"learning_rate": {"low": 0.001, "high": 1.0, "share": 0.667}}}
    >>> row = {"optimiser": "SGD", "tuning": tuning}
    >>> [cell.text for cell in tuning_table({"comparison": [row]}).rows[0]]
    ['SGD', '25', '3', '0.250', 'learning rate 67%']
    """
    rows = [row for row in summary["comparison"] if row.get("tuning")]
    if not rows:
        return None
    records = [row["tuning"] for row in rows]
    criterion, tuner = (str(records[0].get(key)) for key in ("criterion", "tuner"))
    unit = 100 if criterion == "validation" else 1
    found = [finite(record.get("score")) for record in records]
    scores = [None if score is None else unit * score for score in found]
    places = 2 if unit == 100 else decimals(scores)
    columns = [
        Column("optimiser", "Optimiser"),
        Column("trials", "Trials", numeric=True),
        Column("failed", "Diverged", numeric=True),
        Column("score", _SCORES.get(criterion, "Score"), numeric=True),
    ]
    names = [clean(row["optimiser"]) for row in rows]
    body = [
        [Cell(name, name) for name in names],
        *(
            [Cell(number(count, 0), count) for count in (finite(r.get(key)) for r in records)]
            for key in ("trials", "failed")
        ),
        # None is marked: a geometry was learned from the images that its scores are of.
        [Cell(number(score, places), score) for score in scores],
    ]
    if tuner == "bayes":
        columns.append(Column("within", "Where in its ranges"))
        body.append([Cell(text, text) for text in map(_within, records)])
    how = {
        "bayes": "Trials chosen by a Gaussian process's confidence bound; at 0% and 100% a range "
        "ends.",
        "grid": "Trials are all configurations of a grid.",
    }
    notes = (
        how.get(tuner, ""),
        "The score is a mean over the tasks of meta-training and seeds. Scores choose within a "
        "row: a learned geometry has seen the images that they are of.",
    )
    return Table(
        "Tuning", tuple(columns), tuple(zip(*body, strict=True)), tuple(filter(None, notes))
    )


def _within(record: Mapping[str, Any]) -> str:
    """How far from the low end of each range the best lies."""
    within = record.get("within")
    shares = {
        name: share
        for name, found in (within.items() if isinstance(within, Mapping) else ())
        if isinstance(found, Mapping) and (share := finite(found.get("share"))) is not None
    }
    return ", ".join(f"{words(name)} {100 * s:.0f}%" for name, s in shares.items()) or ABSENT
