"""Steps to converge on quadratics as tables: all settings, and the paper's two beside ours."""

from collections.abc import Mapping
from typing import Any

from ._format import clean, plural
from ._paper import S000_FIGURE1
from ._table import Cell, Column, Table
from ._tables import side_by_side

_PRINTED = {"flatness (5, 0.5)": "top row", "flatness (20, 0.02)": "bottom row"}
"""The paper's column of a setting."""


def quadratic_tables(result: Mapping[str, Any]) -> list[Table]:
    """Steps of every optimiser on every law of tasks, and the figures of S000, Fig. 1.

    **Arguments:**

    - `result`: what `mirrax reproduce s000-fig1` found.

    **Returns:**

    Mean steps with the median over tasks in brackets, and ratios of means; then the means of the
    laws of the paper with its own figures, which are of one problem each, underneath.

    >>> found = {"mean_steps": {"SGD": 40.0, "MetaMD": 20.0}, "to_sgd": 0.5, "to_best_other": 0.8}
    >>> found |= {"median_steps": {"SGD": 30.0, "MetaMD": 21.0}}
    >>> result = {"settings": {"flatness (5, 0.5)": found}, "seeds": 3}
    >>> [cell.text for cell in quadratic_tables(result)[0].rows[0]]
    ['flatness (5, 0.5)', '40 (30)', '20 (21)', '0.500', '0.800']
    """
    settings = result["settings"]
    names = list(next(iter(settings.values()))["mean_steps"])
    columns = (
        Column("setting", "Tasks"),
        *(Column(name, name, numeric=True) for name in names),
        Column("sgd", "MetaMD / SGD", numeric=True),
        Column("other", "MetaMD / best other", numeric=True),
    )
    rows = tuple(_row(label, found, names) for label, found in settings.items())
    table = Table("Quadratics, S000 Fig. 1", columns, rows, _notes(result))
    ours: dict[str, dict[str, float]] = {}
    for label, column in _PRINTED.items():
        for name, mean in settings.get(label, {}).get("mean_steps", {}).items():
            ours.setdefault(name, {})[column] = mean
    return [table, side_by_side(ours, S000_FIGURE1)]


def _row(label: str, found: Mapping[str, Any], names: list[str]) -> tuple[Cell, ...]:
    steps = [
        Cell(f"{found['mean_steps'][name]:,.0f} ({found['median_steps'][name]:,.0f})")
        for name in names
    ]
    ratios = [found["to_sgd"], found["to_best_other"]]
    return (Cell(clean(label)), *steps, *(Cell(f"{value:.3f}", value) for value in ratios))


def _notes(result: Mapping[str, Any]) -> tuple[str, ...]:
    """What was counted; results of earlier versions do not say all of it."""
    below = f" below {result['tolerance']:g}" if "tolerance" in result else " small"
    tasks = f"{result['held_out']} held-out tasks" if "held_out" in result else "held-out tasks"
    tuned = (
        f"; every method tuned on {n} configurations" if (n := result.get("configurations")) else ""
    )
    capped = f", at most {result['limit']:,}" if "limit" in result else ""
    return (
        f"Steps until the gradient norm is{below}{capped}: mean (median) over {tasks} and "
        f"{plural(result['seeds'], 'seed')}{tuned}.",
        "Means of C: the spec's law of tasks, whose correlated directions no diagonal can undo.",
    )
