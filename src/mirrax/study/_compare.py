r"""A fair comparison: every method tuned on the meta-training tasks, tried on the held-out one.

Each method gets the same number of configurations. The held-out task is used once, with the
configuration chosen elsewhere. Figures are means over seeds with standard errors.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
import optax

from ..deploy import to_optax
from ..geometry import AbstractMirrorMap
from ._baselines import Hyperparameters, Method, find_baseline, product
from ._trials import Arena, Trials, curve_steps, run_trials

LEARNED = "MetaMD"
TARGETS = (0.3, 0.1)

_SCALES = (0.5, 0.7, 1.0, 1.4, 2.0)
_MOMENTA = (0.0, 0.5, 0.9)


def _make_learned(values: Hyperparameters, context: Any) -> optax.GradientTransformation:
    geometry, rate = context
    # A momentum of β multiplies the length of a step by 1/(1 − β) in the long run; dividing the
    # rate by it makes the scales of the grid mean the same for every momentum.
    learning_rate = rate * values["rate_scale"] * (1 - values["momentum"])
    return to_optax(geometry, learning_rate, momentum=values["momentum"], nesterov=True)


def learned_method(geometry: AbstractMirrorMap, rate: float) -> Method:
    """A learned geometry as a method, tuned over the scale of its rate and Nesterov momentum.

    Its grid has 15 configurations, as many as every baseline's.

    **Arguments:**

    - `geometry`: the geometry.
    - `rate`: the rate it was learned with.
    """
    grid = product(rate_scale=_SCALES, momentum=_MOMENTA)
    return Method(LEARNED, _make_learned, grid, (), (geometry, jax.numpy.float32(rate)))


def methods_of(learned: Sequence[Method], baselines: Sequence[str], wide: bool) -> list[Method]:
    """Learned methods and baselines, each with the grid it is to be tuned on.

    **Arguments:**

    - `learned`: what was learned, if anything.
    - `baselines`: names.
    - `wide`: extend the baselines' grids beyond S000's.
    """
    found = [find_baseline(name) for name in baselines]
    if wide:
        found = [dataclasses.replace(m, grid=(*m.grid, *m.wide), wide=()) for m in found]
    return [*learned, *found]


def score(trials: Trials, criterion: Literal["loss", "accuracy"]) -> np.ndarray:
    """What tuning minimises, one number a configuration and task; infinite where a run failed.

    **Arguments:**

    - `trials`: leading axes (configurations, tasks, seeds).
    - `criterion`: final training loss, or test error of the meta-training tasks.
    """
    raw = trials.final_loss if criterion == "loss" else 1 - trials.test_accuracy
    values = np.where(np.isfinite(trials.final_loss), np.asarray(raw), np.inf)
    return values.mean(axis=2)


def spread(values: Sequence[float | None] | np.ndarray) -> dict[str, Any]:
    """Mean, standard error and values; the mean is `None` where a value is missing.

    >>> spread([1.0, 3.0])
    {'mean': 2.0, 'se': 1.0, 'values': [1.0, 3.0]}
    """
    known = [float(v) for v in values if v is not None and np.isfinite(v)]
    if len(known) < len(values):
        shown = [None if v is None or not np.isfinite(v) else float(v) for v in values]
        return {"mean": None, "se": None, "values": shown}
    error = float(np.std(known, ddof=1) / np.sqrt(len(known))) if len(known) > 1 else 0.0
    return {"mean": float(np.mean(known)), "se": error, "values": known}


def steps_to(curve: np.ndarray, steps: Sequence[int], target: float) -> int | None:
    """The first measured step at which a training loss is at most `target`.

    >>> steps_to(np.array([2.0, 0.5, 0.05]), [0, 5, 10], 0.1)
    10
    """
    reached = np.flatnonzero(np.asarray(curve) <= target)
    return int(steps[reached[0]]) if len(reached) else None


def summarise(
    name: str, values: Hyperparameters, trials: Trials, steps: Sequence[int]
) -> dict[str, Any]:
    """One row of the comparison, in the form of `summary.json`.

    **Arguments:**

    - `name`: the method.
    - `values`: the configuration chosen for it.
    - `trials`: its runs on the held-out task, one leading axis of seeds.
    - `steps`: where the curve was measured.
    """
    curves = np.asarray(trials.train_loss)
    return {
        "optimiser": name,
        "hyperparameters": {key: float(value) for key, value in values.items()},
        "test_accuracy": spread(np.asarray(trials.test_accuracy)),
        "final_loss": spread(curves[:, -1]),
        "log_loss_area": spread(np.asarray(trials.batch_log_loss)),
        "steps_to": {
            f"{target:g}": spread([steps_to(curve, steps, target) for curve in curves])
            for target in TARGETS
        },
    }


def band(trials: Trials) -> dict[str, list[float | None]]:
    """Mean and range over seeds of the training-loss curve, in the form of `curves.json`."""
    curves = np.asarray(trials.train_loss, dtype=float)
    rows = {"mean": curves.mean(0), "low": curves.min(0), "high": curves.max(0)}
    return {name: [float(v) if np.isfinite(v) else None for v in row] for name, row in rows.items()}


def tune(
    method: Method,
    place: Arena,
    *,
    steps: int,
    criterion: Literal["loss", "accuracy"],
    seeds: int,
    key: jax.Array,
) -> np.ndarray:
    """Scores of every configuration on every task, shape (configurations, tasks).

    **Arguments:**

    - `method`: the method and its grid.
    - `place`: the tasks to tune on.
    - `steps`: the length of a run.
    - `criterion`: see `score`.
    - `seeds`: runs a configuration and task.
    - `key`: randomness, kept apart from evaluation's.
    """
    trials = run_trials(method, method.grid, place, steps=steps, stride=steps, seeds=seeds, key=key)
    return score(trials, criterion)


def best(method: Method, scores: np.ndarray) -> Mapping[str, Any]:
    """The configuration with the best mean score over tasks.

    **Arguments:**

    - `method`: the method whose grid was scored.
    - `scores`: shape (configurations, tasks).
    """
    return method.grid[int(np.argmin(scores.mean(axis=1)))]


def edge_note(method: Method, chosen: Hyperparameters) -> str | None:
    """Says so if the chosen rate lies at the edge of the grid it was chosen from."""
    if "learning_rate" not in chosen:
        return None
    rates = sorted({row["learning_rate"] for row in method.grid})
    if chosen["learning_rate"] in (rates[0], rates[-1]):
        return (
            f"{method.name}'s best rate {chosen['learning_rate']:g} lies at the edge of its grid; "
            "--grid wide tries rates beyond it."
        )
    return None


def evaluate(
    method: Method,
    chosen: Hyperparameters,
    place: Arena,
    *,
    steps: int,
    stride: int,
    seeds: int,
    key: jax.Array,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs the chosen configuration on one held-out task.

    **Arguments:**

    - `method`, `chosen`: the method and its configuration.
    - `place`: an arena of one task.
    - `steps`, `stride`, `seeds`, `key`: as in `run_trials`.

    **Returns:**

    The row of the comparison, and the curve's band.
    """
    trials = run_trials(
        method, [chosen], place, steps=steps, stride=stride, seeds=seeds, key=key, chunk=1
    )
    alone = jax.tree.map(lambda leaf: leaf[0, 0], trials)
    return summarise(method.name, chosen, alone, curve_steps(steps, stride)), band(alone)
