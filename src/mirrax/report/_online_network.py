"""A network whose rates learn themselves, beside SGD (S002, Fig. 1): a table, and accuracies."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._axes import heading
from ._format import clean, estimate, fields, plural
from ._marks import mark_best
from ._series import band, last, span, to_array
from ._style import new_figure, strokes
from ._table import Cell, Column, Table
from ._tables import estimate_cell, percent, side_by_side

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = {"train": "Accuracy on training images", "test": "Accuracy on test images"}


def online_network_table(summary: Mapping[str, Any]) -> Table:
    """Test accuracy, speed and training loss of each method.

    **Arguments:**

    - `summary`: the content of `summary.json` of `s002-fig1`.

    **Returns:**

    A `Table`; ± are half-widths of 95% intervals over seeds, but for the training loss.

    >>> row = {"optimiser": "SGD", "test_accuracy": {"mean": 0.97, "ci95": 0.01}}
    >>> print(online_network_table({"methods": [row], "task": "digits"}).rows[0][1].text)
    97.00 ± 1.00
    """
    rows = summary["methods"]

    def column(key: str, places: int, scale: float = 1.0, spread: str = "ci95") -> list[Cell]:
        pairs = [estimate(row.get(key), spread) for row in rows]
        scaled = [tuple(None if v is None else scale * v for v in pair) for pair in pairs]
        return [estimate_cell((mean, error), places) for mean, error in scaled]

    columns = (
        Column("method", "Method"),
        Column("test_accuracy", "Test accuracy (%)", True, spread="ci95"),
        Column("against_sgd", "Against SGD (points)", True, spread="ci95"),
        Column("final_loss", "Training loss", True),
        Column("steps_to_95", "Steps to 95%", True, spread="ci95"),
        Column("steps_to_95_of_sgd", "To SGD's 95%", True),
        Column("hyperparameters", "Chosen", aside=True),
    )
    body = (
        [Cell(clean(row["optimiser"]), clean(row["optimiser"])) for row in rows],
        mark_best(column("test_accuracy", 2, 100), "higher"),
        column("against_sgd", 2, 100),
        mark_best(column("final_loss", 4, spread="se"), "lower"),
        column("steps_to_95", 0),  # to its own end, which may be a bad one
        mark_best(column("steps_to_95_of_sgd", 0, spread="se"), "lower"),
        [Cell(fields(row.get("hyperparameters") or {})) for row in rows],
    )
    notes = (
        f"{summary.get('model')}, {summary.get('steps')} steps, "
        f"{plural(summary.get('seeds'), 'seed')}; each method tuned over "
        f"{summary.get('configurations')} configurations by {summary.get('tuned_on')}.",
        "Steps to 95% of the final training accuracy, a method's own and that of SGD. ± is the "
        "half-width of a 95% interval over seeds, of losses and the last column a standard error.",
        *(clean(note) for note in summary.get("notes") or ()),
    )
    title = f"Rates that learn themselves on {clean(summary['task'])}, S002 Fig. 1"
    return Table(title, columns, tuple(zip(*body, strict=True)), notes)


def online_network_tables(
    summary: Mapping[str, Any], paper: Mapping[str, Any] | None = None
) -> list[Table]:
    """The table, and the paper's accuracies beside ours where the images are the paper's.

    **Arguments:**

    - `summary`: as for `online_network_table`.
    - `paper`: `S002_FIGURE1`.
    """
    found = [online_network_table(summary)]
    if paper is not None:
        (column,) = paper["columns"]
        ours = {
            row["optimiser"]: {column: tuple(map(percent, estimate(row["test_accuracy"], "ci95")))}
            for row in summary["methods"]
        }
        interval = "the half-width of a 95% interval over seeds"
        found.append(side_by_side(ours, paper, spread=interval))
    return found


def draw_online_network(summary: Mapping[str, Any]) -> "Figure":
    """Training and test accuracy along the run, with 95% bands; call it within `drawing()`.

    **Arguments:**

    - `summary`: as for `online_network_table`.

    **Returns:**

    A matplotlib `Figure`.
    """
    curves = {clean(row["optimiser"]): row["curve"] for row in summary["methods"]}
    styles, figure = strokes(list(curves)), new_figure(5.2)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, (key, title) in zip(panels, _PANELS.items(), strict=True):
        lines, low = {}, 1.0
        means = {name: _points(curve[key], "mean") for name, curve in curves.items()}
        for name in sorted(means, key=lambda name: -last(to_array(means[name]))):
            steps, mean = to_array(curves[name]["steps"]), to_array(means[name])
            error = to_array(_points(curves[name][key], "ci95"))
            (lines[name],) = axes.plot(steps, 100 * mean, **styles[name].line())
            band(axes, steps, 100 * (mean - error), 100 * (mean + error), styles[name], None)
            # The first tenth of a run, near chance, would take all the room.
            low = min(low, float(mean[len(mean) // 10]))
        axes.set_ylim(100 * low, 100 + 2 * (1 - low))
        axes.set_ylabel("Accuracy (%)")
        heading(axes, title, *((list(lines.values()), list(lines)) if key == "train" else ()))
    panels[1].set_xlim(*span(to_array(next(iter(curves.values()))["steps"])))
    panels[1].set_xlabel("Step (bands are 95% intervals over seeds)")
    return figure


def _points(entries: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    return [entry.get(key) for entry in entries]
