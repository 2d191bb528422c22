"""Which figures a run folder has the data for."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._files import slug
from ._checks import kind_of
from ._few_shot_figures import draw_adaptation, draw_training, smoothing
from ._figures import draw_learning_curves, draw_meta_progress, draw_regret_bounds
from ._format import clean
from ._geometry_figures import (
    draw_activation_by_round,
    draw_activation_by_step,
    draw_geometry_rates,
)
from ._online_figures import draw_online
from ._online_network import draw_online_network
from ._records import Run
from ._series import mean_over_tasks
from ._style import drawing, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RunFigure:
    """One figure of a run: its file name, what it shows, and how to draw it.

    **Arguments:**

    - `stem`: the file name without its ending.
    - `caption`: one or two sentences that say how to read it.
    - `draw`: makes the figure, within `drawing()`.

    >>> RunFigure("curves", "Loss against step.", lambda: None).stem
    'curves'
    """

    stem: str
    caption: str
    draw: Callable[[], "Figure"]


def figures_of(run: Run) -> list[RunFigure]:
    """The figures that the files of a run allow.

    **Arguments:**

    - `run`: a run folder that was read.

    **Returns:**

    Figures in reading order; empty where nothing has been recorded yet.

    >>> figures_of(Run(Path("a"), {"recipe": "r"}))
    []
    """
    found = []
    curves, geometry, rounds = run.curves, run.geometry, run.rounds
    if curves and curves["steps"]:
        found += _curve_figures(curves)
    if geometry and geometry["leaves"]:
        found.append(
            RunFigure(
                "rates",
                "The learned step length for every parameter array. A wide shape means that the "
                "geometry treats the parameters of one array differently.",
                lambda: draw_geometry_rates(geometry),
            )
        )
    if any(record.get("value") is not None for record in rounds):
        found.append(
            RunFigure(
                "progress",
                "The quantity that meta-training minimises, and the loss of its inner runs.",
                lambda: draw_meta_progress(rounds),
            )
        )
    if any(record.get("activation") for record in rounds):
        found.append(
            RunFigure(
                "activation-rounds",
                "How often each component of the geometry decides the step, over meta-rounds.",
                lambda: draw_activation_by_round(rounds),
            )
        )
    shares = run.activation_by_step
    if shares:
        found.append(
            RunFigure(
                "activation-steps",
                "How often each component decides the step, along the inner runs of the last "
                "recorded meta-round.",
                lambda: draw_activation_by_step(shares, _middles(run, len(shares))),
            )
        )
    summary = run.summary or {}
    found += _FIGURES.get(kind_of(summary), lambda _: [])(summary)
    by_step = _bounds_by_step(run)
    if by_step:
        found.append(
            RunFigure(
                "certificate",
                "What Theorem 3.1 promises beside what was measured: a bound that holds lies above "
                "the regret at every step.",
                lambda: draw_regret_bounds(by_step),
            )
        )
    return found


def _curve_figures(curves: Mapping[str, Any]) -> list[RunFigure]:
    """One figure, or one for each task that was held out in turn."""

    def one(stem: str, held_out: str, named: Mapping[str, Any]) -> RunFigure:
        banded = any(curve.get("low") for curve in named.values())
        band = " Bands show the spread over runs." if banded else ""
        return RunFigure(
            stem,
            f"Loss on the held-out task{held_out} against the number of updates; lower and further "
            f"left is faster.{band}",
            lambda: draw_learning_curves({**curves, "curves": named}),
        )

    if "tasks" not in curves:
        return [one("curves", "", curves["curves"])] if curves["curves"] else []
    tasks = curves["tasks"]
    single = [one(f"curves-{slug(task)}", f", {clean(task)},", c) for task, c in tasks.items()]
    if len(tasks) < 2:
        return single
    mean = f", mean over all {len(tasks)} that were held out in turn,"
    return [one("curves", mean, mean_over_tasks(list(tasks.values()))), *single]


def _few_shot_figures(summary: Mapping[str, Any]) -> list[RunFigure]:
    """How adaptation and meta-training went, where a method recorded it."""
    found = []
    traces = {
        key: [row[key] for row in summary["methods"] if (row.get(key) or {}).get("steps")]
        for key in ("adaptation", "training")
    }
    if traces["adaptation"]:
        banded = any(trace.get("support_loss_ci95") for trace in traces["adaptation"])
        band = " Bands are 95% intervals of the mean." if banded else ""
        found.append(
            RunFigure(
                "adaptation",
                "Loss on the labelled images of new tasks and the norm of its gradient, by "
                f"adaptation step; lower and further left is faster.{band}",
                lambda: draw_adaptation(summary),
            )
        )
    if traces["training"]:
        window = smoothing(summary)
        drawn = (
            f"each point is the mean of the last {window} records" if window > 1 else "as recorded"
        )
        found.append(
            RunFigure(
                "training",
                f"The query loss that meta-training minimises, by meta-step; {drawn}.",
                lambda: draw_training(summary, window),
            )
        )
    return found


def _online_figures(summary: Mapping[str, Any]) -> list[RunFigure]:
    """One figure a minimiser."""

    def one(minimiser: str) -> RunFigure:
        return RunFigure(
            f"minimiser-{slug(minimiser)}",
            f"Quadratics with the minimiser {minimiser}, a column each. Top: the loss of the best "
            "configuration; below: the sum of its losses by the rate of the first step, and by the "
            "meta rate, the best over the other hyper-parameters. Lower is better; where a line "
            "ends, runs diverged.",
            lambda: draw_online(summary, minimiser),
        )

    return [one(setting["minimiser"]) for setting in summary["settings"]]


def _online_network_figures(summary: Mapping[str, Any]) -> list[RunFigure]:
    return [
        RunFigure(
            "accuracy",
            "Share of images classified correctly, by step; bands are 95% intervals of the "
            "mean over seeds. Higher and further left is better.",
            lambda: draw_online_network(summary),
        )
    ]


_FIGURES = {
    "few-shot": _few_shot_figures,
    "online": _online_figures,
    "online-network": _online_network_figures,
}


def write_figures(run: Run, folder: str | os.PathLike[str] | None = None) -> list[Path]:
    """Writes every figure that a run allows, as SVG and PNG.

    **Arguments:**

    - `run`: a run folder that was read.
    - `folder`: where to; the run's own `figures` by default.

    **Returns:**

    The paths written.

    **Raises:**

    - `MirraxError`: if they cannot be written.

    >>> write_figures(Run(Path("a"), {"recipe": "r"}))
    []
    """
    target = run.folder / "figures" if folder is None else Path(folder)
    written: list[Path] = []
    for figure in figures_of(run):
        with drawing():
            written += save(figure.draw(), target / figure.stem)
    return written


def _middles(run: Run, rows: int) -> list[float] | None:
    """The steps that rows of means stand for: the middles of equal parts of the inner run."""
    fields = run.config.get("fields")
    steps = fields.get("steps") if isinstance(fields, Mapping) else None
    if not isinstance(steps, int) or steps <= rows:
        return None
    return [0.5 + (i + 0.5) * steps / rows for i in range(rows)]


def _bounds_by_step(run: Run) -> Mapping[str, Any] | None:
    certificate = (run.summary or {}).get("certificate") or {}
    by_step = certificate.get("by_step")
    return by_step if isinstance(by_step, Mapping) and by_step.get("steps") else None
