r"""What the studies of S002's Fig. 1 share: the three methods, and what is told of their runs.

The meta-rate is `β = c w_1/max G_1²` with `w_1` the first rate and `G_1` the first gradient: `c` is
how many first rates a rate gains while the largest entry of the gradient stays as it was.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from scipy import stats

from .. import report
from ..online import online_sgd
from ._baselines import Hyperparameters, Method, product
from ._compare import edge_note, spread
from ._kept import Kept
from ._reproduction import Reproduction, Request, budgets
from ._trials import curve_steps

SGD, STANDARD, OPTIMISTIC = "SGD", "Online", "Online, optimistic"
_SHARE = 0.95  # of the final training accuracy


def _sgd(values: Hyperparameters, context: Any) -> optax.GradientTransformation:
    del context
    return optax.sgd(values["learning_rate"])


def _standard(values: Hyperparameters, context: Any) -> optax.GradientTransformation:
    rate = values["learning_rate"]
    return online_sgd(rate, values["meta_scale"] * rate / context)


def _optimistic(values: Hyperparameters, context: Any) -> optax.GradientTransformation:
    rate = values["learning_rate"]
    return online_sgd(rate, values["meta_scale"] * rate / context, optimistic=True)


def online_methods(
    largest: Any, rates: tuple[float, ...], scales: tuple[float, ...]
) -> list[Method]:
    """The three methods, each with a grid of as many configurations.

    **Arguments:**

    - `largest`: `max G_1²`, the unit of `β`.
    - `rates`, `scales`: first rates and meta-rates, in their unit, of the two that learn; SGD has
        as many rates from 0.01 to 3 as these have pairs.
    """
    learned = product(learning_rate=rates, meta_scale=scales)
    plain = product(learning_rate=tuple(np.geomspace(0.01, 3, len(learned)).tolist()))
    return [
        Method(SGD, _sgd, plain),
        Method(STANDARD, _standard, learned, (), largest),
        Method(OPTIMISTIC, _optimistic, learned, (), largest),
    ]


def largest_square(loss: Callable[..., Any], params: Any, batch: Any) -> jax.Array:
    """`max G_1²` of one first batch, the unit of `β` for all seeds.

    **Arguments:**

    - `loss`: `loss(params, shared, batch)`.
    - `params`, `batch`: where and on what.
    """
    gradient = jax.jit(jax.grad(loss))(params, None, batch)
    return optax.tree.norm(gradient, ord="inf") ** 2


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the runs of every method showed.

    **Arguments:**

    - `chosen`: the configuration of each method.
    - `accuracies`: shares of training and of test images classified correctly, `(methods, seeds,
        points, 2)`.
    - `losses`: the training loss, `(methods, seeds, points)`.
    - `steps`, `stride`: the length of a run, and how often it was measured.
    """

    chosen: Sequence[Hyperparameters]
    accuracies: np.ndarray
    losses: np.ndarray
    steps: int
    stride: int

    @property
    def points(self) -> list[int]:
        """The steps at which was measured."""
        return curve_steps(self.steps, self.stride)


def summarise_online(
    methods: Sequence[Method],
    found: Measured,
    *,
    task: str,
    model: str,
    unit: float,
    tuned_on: str,
    notes: Sequence[str],
) -> dict[str, Any]:
    """What `summary.json` holds of a comparison.

    **Arguments:**

    - `methods`: SGD first.
    - `found`: what their runs showed.
    - `task`, `model`: what was learned, by what.
    - `unit`: that of the meta-rates, `max G_1²`.
    - `tuned_on`: a few words.
    - `notes`: what else a reader must know.
    """
    shares, losses, points = found.accuracies, found.losses, found.points
    pairs = list(zip(methods, found.chosen, strict=True))
    rows = [
        _row(method.name, values, shares[i], losses[i, :, -1], shares[0], points)
        for i, (method, values) in enumerate(pairs)
    ]
    edges = [note for method, values in pairs if (note := edge_note(method, values))]
    lost = [
        note
        for method, runs in zip(methods, losses, strict=True)
        if (note := _lost_note(method.name, runs, points))
    ]
    return {
        "kind": "online-network",
        "task": task,
        "model": model,
        "unit": unit,
        "seeds": losses.shape[1],
        "steps": found.steps,
        "configurations": len(methods[0].grid),
        "tuned_on": tuned_on,
        "methods": rows,
        "notes": [*lost, *edges, *notes],
    }


def _lost_note(name: str, losses: np.ndarray, points: Sequence[int]) -> str | None:
    """Says so if runs ended with a loss that is not finite; axes of losses are (seeds, points)."""
    lost = ~np.isfinite(losses)
    gone = lost[:, -1]
    if not gone.any():
        return None
    first = points[int(lost[gone].argmax(axis=1).min())]
    return (
        f"{name} diverged in {gone.sum()} of {len(gone)} runs: their training loss is not finite "
        f"at the end, and at step {first:,} in the first of them."
    )


def _row(
    name: str,
    values: Hyperparameters,
    shares: np.ndarray,
    losses: np.ndarray,
    plain: np.ndarray,
    steps: Sequence[int],
) -> dict[str, Any]:
    """One method; `shares` and `plain`, its own and SGD's, have axes (seeds, points, 2)."""
    final = shares[:, -1, 1]
    return {
        "optimiser": name,
        "hyperparameters": {key: float(value) for key, value in values.items()},
        "test_accuracy": student(final),
        "against_sgd": student(final - plain[:, -1, 1]),
        "final_loss": spread(losses),
        "steps_to_95": student([reached(run[:, 0], run[-1, 0], steps) for run in shares]),
        "steps_to_95_of_sgd": spread(
            [
                reached(run[:, 0], other[-1, 0], steps)
                for run, other in zip(shares, plain, strict=True)
            ]
        ),
        "curve": {
            "steps": list(steps),
            "train": [student(column) for column in shares[:, :, 0].T],
            "test": [student(column) for column in shares[:, :, 1].T],
        },
    }


def reached(accuracy: np.ndarray, final: float, steps: Sequence[int]) -> int | None:
    """The first measured step with at least 0.95 of a final accuracy; `None` if that is nothing.

    >>> reached(np.array([0.1, 0.8, 0.96, 1.0]), 1.0, [0, 10, 20, 30])
    20
    """
    there = np.flatnonzero(accuracy >= _SHARE * final)
    return int(steps[there[0]]) if len(there) and final > 0 else None


def student(values: Any) -> dict[str, Any]:
    """Mean over seeds and half-width of its 95% interval, by Student's quantile, none of one seed.

    >>> student([1.0, 3.0])["mean"], round(student([1.0, 3.0])["ci95"], 3)
    (2.0, 12.706)
    """
    found = spread(values)
    half = found.pop("se")
    if half is not None:
        half *= float(stats.t.ppf(0.975, len(found["values"]) - 1))
    return {**found, "ci95": half}


Prepare = Callable[[Any, Request, str], Callable[[], dict[str, Any]]]
"""From a study, a request and a name: loads what is needed, returns what makes the summary."""


def figure1(
    recipe: str,
    about: str,
    study: Any,
    smoke: Mapping[str, Any],
    paper: Mapping[str, Any],
    prepare: Prepare,
    beside: Mapping[str, Any] | None = None,
) -> Reproduction:
    """Fig. 1 on some task: test accuracy along the run.

    **Arguments:**

    - `recipe`, `about`: its name, and one line.
    - `study`: its configuration at the default budget.
    - `smoke`, `paper`: the fields that differ at these budgets.
    - `prepare`: what is done.
    - `beside`: the paper's accuracies, if it is its task.
    """

    def make(request: Request, config: Any) -> dict[str, Any]:
        summary = request.once(config, recipe, lambda: prepare(config, request, recipe))
        Kept.within(request.path).clear()
        return summary

    return Reproduction(
        about,
        budgets(study, smoke, paper),
        make,
        lambda result: report.online_network_tables(result, beside),
    )
