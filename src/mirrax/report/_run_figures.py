"""Which figures a run folder has the data for, and what keeps one from being drawn."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .._files import slug
from ._certificate_figure import draw_bounds
from ._checks import kind_of
from ._few_shot_figures import draw_adaptation, draw_training, smoothing
from ._figures import draw_learning_curves, draw_meta_progress, draw_regret_bounds
from ._format import clean
from ._geometry_figures import (
    draw_activation_by_round,
    draw_activation_by_step,
    draw_geometry_rates,
)
from ._inspect import condition
from ._level_sets import draw_level_sets
from ._online_figures import draw_online
from ._online_network import draw_online_network
from ._records import Run
from ._series import mean_over_tasks
from ._spectrum_figure import draw_spectrum, spectrum_caption
from ._style import drawing, to_png, to_svg, write_pair
from ._trajectories import draw_trajectories

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Panel = Literal["learning", "learned", "certificate"]
"""Where a figure stands: how learning went, what was learned, what is guaranteed."""


@dataclass(frozen=True)
class RunFigure:
    """One figure of a run: its file name, what it shows, and how to draw it.

    It is drawn and laid out once, however often it is written.

    **Arguments:**

    - `stem`: the file name without its ending.
    - `caption`: one or two sentences that say how to read it.
    - `draw`: makes the figure, within `drawing()`.
    - `panel`: where it stands.
    - `source`: the file of the run folder whose data it shows.

    >>> RunFigure("curves", "Loss against step.", lambda: None).stem
    'curves'
    """

    stem: str
    caption: str
    draw: Callable[[], "Figure"]
    panel: Panel = "learning"
    source: str = "summary.json"

    @functools.cached_property
    def fault(self) -> str | None:
        """Why it cannot be drawn, as a note; `None` where it can.

        Numbers may pass every check and still be more than an axis can show; what else a run has
        to say does not suffer for it.
        """
        try:
            assert self.svg
        except Exception as error:
            reason = clean(error, 160) or type(error).__name__
            return f"The figure {self.stem} is left out, {self.source} cannot be drawn: {reason}"
        return None

    @functools.cached_property
    def svg(self) -> bytes:
        """The figure as SVG."""
        with drawing():
            content = to_svg(self._figure)
            self._figure.set_layout_engine("none")  # the other form is laid out like this one
        return content

    @functools.cached_property
    def png(self) -> bytes:
        """The figure as PNG."""
        assert self.svg  # which lays it out
        with drawing():
            return to_png(self._figure)

    @functools.cached_property
    def _figure(self) -> "Figure":
        return self.draw()


def figures_of(run: Run) -> list[RunFigure]:
    """The figures that the files of a run allow.

    **Arguments:**

    - `run`: a run folder that was read.

    **Returns:**

    Figures in reading order; empty where nothing has been recorded yet.

    >>> figures_of(Run(Path("a"), {"recipe": "r"}))
    []
    """
    return [
        *_learning_figures(run),
        *_FIGURES.get(kind_of(run.summary), lambda _: [])(run.summary or {}),
        *_trajectory_figures(run.trajectories or {}),
        *_learned_figures(run),
        *_certificate_figures((run.summary or {}).get("certificate") or {}),
    ]


def _learning_figures(run: Run) -> list[RunFigure]:
    """How learning went: curves of the runs that were compared, and the outer loop."""
    found = _curve_figures(run.curves) if run.curves and run.curves["steps"] else []
    if any(record.get("value") is not None for record in run.rounds):
        found.append(
            RunFigure(
                "progress",
                "The quantity that meta-training minimises, and the loss of its inner runs.",
                lambda: draw_meta_progress(run.rounds),
                source="metrics.jsonl",
            )
        )
    return found


def _learned_figures(run: Run) -> list[RunFigure]:
    """What was learned: rates, their spectrum, and which components are active."""
    found = []
    geometry, rounds, shares = run.geometry, run.rounds, run.activation_by_step
    if geometry and geometry["leaves"]:
        found.append(
            RunFigure(
                "rates",
                "The learned step length for every parameter array. A wide shape means that the "
                "geometry treats the parameters of one array differently.",
                lambda: draw_geometry_rates(geometry),
                "learned",
                "geometry.json",
            )
        )
    if geometry and any(condition(leaf) for leaf in geometry["leaves"]):
        caption = spectrum_caption(geometry)
        draw = functools.partial(draw_spectrum, geometry)
        found.append(RunFigure("spectrum", caption, draw, "learned", "geometry.json"))
    if any(record.get("activation") for record in rounds):
        found.append(
            RunFigure(
                "activation-rounds",
                "How often each component of the geometry decides the step, over meta-rounds.",
                lambda: draw_activation_by_round(rounds),
                "learned",
                "metrics.jsonl",
            )
        )
    if shares:
        found.append(
            RunFigure(
                "activation-steps",
                "How often each component decides the step, along the inner runs of the last "
                "recorded meta-round.",
                lambda: draw_activation_by_step(shares, _middles(run, len(shares))),
                "learned",
                "metrics.jsonl",
            )
        )
    return found


def _trajectory_figures(found: Mapping[str, Any]) -> list[RunFigure]:
    """Paths on a problem of two parameters, and how far from the start the geometry reckons."""
    figures = []
    if found:
        figures.append(
            RunFigure(
                "trajectories",
                "The paths of the optimisers from one start on one held-out problem; the fewer "
                "steps to the minimum, the better.",
                lambda: draw_trajectories(found),
                source="trajectories.json",
            )
        )
    if found.get("metric"):
        figures.append(
            RunFigure(
                "divergence",
                "Points that are equally far from the start, in the learned divergence and in the "
                "Euclidean distance, each set around the same area. The learned sets are stretched "
                "along the valleys of the loss, and so are its steps.",
                lambda: draw_level_sets(found),
                "learned",
                "trajectories.json",
            )
        )
    return figures


def _certificate_figures(certificate: Mapping[str, Any]) -> list[RunFigure]:
    """Bounds beside the regret, at the end of the run and, where recorded, along it."""
    figures, by_step = [], certificate.get("by_step")
    if certificate.get("bounds"):
        figures.append(
            RunFigure(
                "bounds",
                "What the theory promises beside what was measured: a bound that holds lies right "
                "of the linearised regret, and the nearer the tighter.",
                lambda: draw_bounds(certificate),
                "certificate",
            )
        )
    if isinstance(by_step, Mapping) and by_step.get("steps"):
        figures.append(
            RunFigure(
                "certificate",
                "What Theorem 3.1 promises beside what was measured: a bound that holds lies above "
                "the regret at every step.",
                lambda: draw_regret_bounds(by_step),
                "certificate",
            )
        )
    return figures


def _curve_figures(curves: Mapping[str, Any]) -> list[RunFigure]:
    """One figure, or one for each task that was held out in turn."""

    def one(stem: str, held_out: str | None, named: Mapping[str, Any]) -> RunFigure:
        banded = any(curve.get("low") for curve in named.values())
        band = " Bands show the range over runs." if banded else ""
        task = "" if held_out is None else f", {held_out},"
        return RunFigure(
            stem,
            f"Loss on the held-out task{task} against the number of updates; lower and further "
            f"left is faster.{band}",
            lambda: draw_learning_curves({**curves, "curves": named, "task": held_out}),
            source="curves.json",
        )

    if "tasks" not in curves:
        return [one("curves", None, curves["curves"])] if curves["curves"] else []
    tasks = curves["tasks"]
    single = [one(f"curves-{slug(task)}", clean(task), named) for task, named in tasks.items()]
    if len(tasks) < 2:
        return single
    mean = mean_over_tasks(list(tasks.values()))
    return [one("curves", f"all {len(tasks)} tasks in turn (mean)", mean), *single]


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


def write_figures(
    run: Run,
    folder: str | os.PathLike[str] | None = None,
    figures: Sequence[RunFigure] | None = None,
) -> list[Path]:
    """Writes every figure that a run allows, as SVG and PNG; one that has a `fault` is left out.

    **Arguments:**

    - `run`: a run folder that was read.
    - `folder`: where to; the run's own `figures` by default.
    - `figures`: what `figures_of` returned, so that a page of the same figures need not draw them
        again.

    **Returns:**

    The paths written.

    **Raises:**

    - `MirraxError`: if they cannot be written.

    >>> write_figures(Run(Path("a"), {"recipe": "r"}))
    []
    """
    target = run.folder / "figures" if folder is None else Path(folder)
    written: list[Path] = []
    for figure in figures_of(run) if figures is None else figures:
        if figure.fault is None:
            written += write_pair(target / figure.stem, figure.svg, figure.png)
    return written


def _middles(run: Run, rows: int) -> list[float] | None:
    """The steps that rows of means stand for: the middles of equal parts of the inner run."""
    fields = run.config.get("fields")
    steps = fields.get("steps") if isinstance(fields, Mapping) else None
    if not isinstance(steps, int) or steps <= rows:
        return None
    return [0.5 + (i + 0.5) * steps / rows for i in range(rows)]
