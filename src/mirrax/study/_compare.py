r"""A fair comparison: every method tuned on the meta-training tasks, tried on the held-out one.

Each method gets the same number of configurations, and more for baselines if their grids are
widened. The held-out task is used once, with the configuration chosen elsewhere. Figures are means
over seeds with standard errors.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from ..deploy import averaged, averaged_params, to_optax
from ..geometry import AbstractMirrorMap, Diagonal
from ._baselines import BEYOND, Hyperparameters, Method, find_baseline, product
from ._kept import Kept
from ._ranges import Range, around
from ._trials import Arena, Trials, curve_steps, run_trials

LEARNED = "MetaMD"
CONTROL = "Euclidean"
AVERAGED = ", averaged"
"""What is added to the name of a geometry whose points are averaged."""

Criterion = Literal["validation", "loss"]
"""What tuning goes by: accuracy on images kept apart, or the final training loss."""

_LEAST = 1e-8
"""A training loss below it counts as this one where logarithms are taken."""

_SCALES = (1.0, 1.4, 2.0, 2.8, 4.0)
_MOMENTA = (0.8, 0.9, 0.95)
_AVERAGED_SCALES = (1.4, 2.0, 2.8, 4.0, 5.6)
_INTERPOLATIONS = (0.7, 0.8, 0.9)
_KEPT = Range(0.5, 0.99, "complement")  # momentum, and interpolation
_CONTROL_SCALES = Range(0.01, 12.0)  # the control's rate was not learned


def rate_at(values: Hyperparameters, rate: Any) -> Any:
    """The rate of a geometry's optimiser at a configuration of `learned_method`.

    A momentum of β multiplies the length of a step by 1/(1 − β) in the long run; dividing the rate
    by it makes the scales of the grid mean the same for every momentum.

    **Arguments:**

    - `values`: the configuration.
    - `rate`: the rate that the geometry was learned with.
    """
    return rate * values["rate_scale"] * (1 - values["momentum"])


def _make_learned(values: Hyperparameters, context: Any) -> optax.GradientTransformation:
    geometry, rate = context
    momentum, rate = values["momentum"], rate_at(values, rate)
    if not isinstance(momentum, Tracer) and momentum == 0:  # there is none to look ahead by
        return to_optax(geometry, rate)
    return to_optax(geometry, rate, momentum=momentum, nesterov=True)


def learned_method(
    geometry: AbstractMirrorMap,
    rate: float,
    *,
    name: str = LEARNED,
    scales: tuple[float, ...] = _SCALES,
    momenta: tuple[float, ...] = _MOMENTA,
    searched: Range | None = None,
) -> Method:
    """A geometry as a method, tuned over the scale of its rate and Nesterov momentum.

    Its grid has 15 configurations, as many as every baseline's, and its ranges two axes, too.

    **Arguments:**

    - `geometry`: the geometry.
    - `rate`: the rate it was learned with.
    - `name`: as shown in tables.
    - `scales`, `momenta`: the grid.
    - `searched`: the range of the scale; a little beyond the grid by default.
    """
    grid = product(rate_scale=scales, momentum=momenta)
    space = {"rate_scale": searched or around(scales, BEYOND), "momentum": _KEPT}
    context = (geometry, jnp.asarray(rate, float))
    return Method(name, _make_learned, grid, (), context, space=space)


def _make_averaged(values: Hyperparameters, context: Any) -> optax.GradientTransformation:
    geometry, rate = context
    return averaged(to_optax(geometry, rate * values["rate_scale"]), values["interpolation"])


def averaged_method(
    geometry: AbstractMirrorMap,
    rate: float,
    *,
    name: str = LEARNED,
    searched: Range | None = None,
) -> Method:
    """A geometry whose points are averaged, see `deploy.averaged`; its grid has 15 configurations.

    **Arguments:**

    - `geometry`, `rate`: as for `learned_method`.
    - `name`: of the geometry.
    - `searched`: as for `learned_method`.
    """
    grid = product(rate_scale=_AVERAGED_SCALES, interpolation=_INTERPOLATIONS)
    scale = searched or around(_AVERAGED_SCALES, BEYOND)
    space = {"rate_scale": scale, "interpolation": _KEPT}
    context = (geometry, jnp.asarray(rate, float))
    return Method(name + AVERAGED, _make_averaged, grid, (), context, averaged_params, space)


def learned_methods(
    geometry: AbstractMirrorMap,
    rate: float,
    averaging: bool,
    *,
    name: str = LEARNED,
    searched: Range | None = None,
) -> list[Method]:
    """Every way in which a geometry is compared.

    **Arguments:**

    - `geometry`, `rate`, `name`, `searched`: as for `learned_method`.
    - `averaging`: with averaged points too.
    """
    ways = (learned_method, averaged_method) if averaging else (learned_method,)
    return [way(geometry, rate, name=name, searched=searched) for way in ways]


def control_methods(params: Any, averaging: bool) -> list[Method]:
    """The identity geometry, tuned exactly as the learned one: what the geometry itself is worth.

    **Arguments:**

    - `params`: parameters, for their structure.
    - `averaging`: with averaged points too.
    """
    # Scales are relative to a rate; 0.5 centres this grid where plain descent is fast.
    identity = Diagonal.like(params)
    return learned_methods(identity, 0.5, averaging, name=CONTROL, searched=_CONTROL_SCALES)


def methods_of(learned: Sequence[Method], baselines: Sequence[str], wide: bool) -> list[Method]:
    """Learned methods and baselines, each with the grid it is to be tuned on.

    **Arguments:**

    - `learned`: what was learned, if anything.
    - `baselines`: names; one that is there twice counts once.
    - `wide`: extend the baselines' grids beyond S000's.
    """
    found = list({(m := find_baseline(name)).name: m for name in baselines}.values())
    if wide:
        found = [dataclasses.replace(m, grid=(*m.grid, *m.wide), wide=()) for m in found]
    return [*learned, *found]


def score(trials: Trials, criterion: Criterion) -> np.ndarray:
    """What tuning minimises, one number a configuration and task; infinite where a run failed.

    **Arguments:**

    - `trials`: leading axes (configurations, tasks, seeds).
    - `criterion`: `"loss"` for the final training loss, `"validation"` for the error on the images
      that the runs were tested on.
    """
    raw = trials.final_loss if criterion == "loss" else 1 - trials.test_accuracy
    values = np.where(np.isfinite(trials.final_loss), np.asarray(raw), np.inf)
    return values.mean(axis=2)


def spread(values: Sequence[float | None] | np.ndarray, tasks: int = 1) -> dict[str, Any]:
    """Mean, standard error and values; the mean is `None` where a value is missing.

    Runs of one task resemble each other. Of several tasks the error is therefore that of the mean
    of their means, `s/√tasks` with their standard deviation `s`: how far the mean of as many other
    tasks may be. One value has no error (`None`).

    **Arguments:**

    - `values`: one a run, those of a task beside each other.
    - `tasks`: how many tasks they are of, as many values of each.

    >>> spread([1.0, 3.0])
    {'mean': 2.0, 'se': 1.0, 'values': [1.0, 3.0]}
    >>> spread([1.0, 1.0, 3.0, 3.0], tasks=2)["se"]
    1.0
    """
    of = {"tasks": tasks} if tasks > 1 else {}
    known = np.array([np.nan if v is None else float(v) for v in values])
    if not np.isfinite(known).all():
        shown = [float(v) if np.isfinite(v) else None for v in known]
        return {"mean": None, "se": None, "values": shown, **of}
    means = known.reshape(tasks, -1).mean(axis=1) if tasks > 1 else known
    error = float(np.std(means, ddof=1) / np.sqrt(len(means))) if len(means) > 1 else None
    return {"mean": float(known.mean()), "se": error, "values": known.tolist(), **of}


def steps_to(curve: np.ndarray, steps: Sequence[int], target: float) -> int | None:
    """The first measured step at which a training loss is at most `target`.

    >>> steps_to(np.array([2.0, 0.5, 0.05]), [0, 5, 10], 0.1)
    10
    """
    reached = np.flatnonzero(np.asarray(curve) <= target)
    return int(steps[reached[0]]) if len(reached) else None


def summarise(
    name: str,
    values: Hyperparameters,
    trials: Trials,
    steps: Sequence[int],
    targets: Sequence[float],
) -> dict[str, Any]:
    """One row of the comparison, in the form of `summary.json`.

    **Arguments:**

    - `name`: the method.
    - `values`: the configuration chosen for it.
    - `trials`: its runs on the held-out task, one leading axis of seeds.
    - `steps`: where the curve was measured.
    - `targets`: training losses whose first steps are looked up.
    """
    curves = np.asarray(trials.train_loss)
    return {
        "optimiser": name,
        "hyperparameters": {key: float(value) for key, value in values.items()},
        "test_accuracy": spread(np.asarray(trials.test_accuracy)),
        "final_loss": spread(curves[:, -1]),
        "log_loss_area": spread(np.log(np.maximum(curves[:, 1:], _LEAST)).mean(axis=1)),
        "steps_to": {
            f"{target:g}": spread([steps_to(curve, steps, target) for curve in curves])
            for target in targets
        },
    }


def timed(row: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """A row of the comparison with the seconds to each target.

    **Arguments:**

    - `row`: what `summarise` returned.
    - `seconds`: what a step takes.

    >>> row = {"steps_to": {"0.1": {"mean": 40.0, "se": 8.0, "values": [32, 48]}}}
    >>> timed(row, 0.25)["seconds_to"]["0.1"]
    {'mean': 10.0, 'se': 2.0, 'values': [8.0, 12.0]}
    """
    scaled = {
        target: spread([None if steps is None else steps * seconds for steps in entry["values"]])
        for target, entry in row["steps_to"].items()
    }
    return {**row, "seconds_a_step": seconds, "seconds_to": scaled}


def band(trials: Trials) -> dict[str, list[float | None]]:
    """Mean and range over seeds of the training-loss curve, in the form of `curves.json`."""
    curves = np.asarray(trials.train_loss, dtype=float)
    rows = {"mean": curves.mean(0), "low": curves.min(0), "high": curves.max(0)}
    return {name: [float(v) if np.isfinite(v) else None for v in row] for name, row in rows.items()}


def tune(
    methods: Sequence[Method],
    place: Arena,
    *,
    steps: int,
    criterion: Criterion,
    seeds: int,
    key: jax.Array,
    kept: Kept | None = None,
    advance: Callable[[float], None] = lambda share: None,
) -> dict[str, np.ndarray]:
    """Scores of every configuration of every method on every task.

    **Arguments:**

    - `methods`: methods and their grids.
    - `place`: the tasks to tune on, selected from `ImageSetting.tuning`.
    - `steps`: the length of a run.
    - `criterion`: see `score`.
    - `seeds`: runs a configuration and task.
    - `key`: randomness, kept apart from evaluation's.
    - `kept`: as in `compile_trials`.
    - `advance`: told the share of work done.

    **Returns:**

    By method name, an array of shape (configurations, tasks).
    """
    jobs = [(i, values) for i, method in enumerate(methods) for values in method.grid]
    trials = run_trials(
        methods,
        jobs,
        place,
        steps=steps,
        stride=steps,
        seeds=seeds,
        key=key,
        kept=kept,
        advance=advance,
    )
    scores = score(trials, criterion)
    ends = np.cumsum([len(method.grid) for method in methods])
    parts = np.split(scores, ends[:-1])
    return {method.name: part for method, part in zip(methods, parts, strict=True)}


def best(method: Method, scores: np.ndarray) -> Mapping[str, Any]:
    """The configuration with the best mean score over tasks.

    **Arguments:**

    - `method`: the method whose grid was scored.
    - `scores`: shape (configurations, tasks).
    """
    return method.grid[int(np.argmin(scores.mean(axis=1)))]


def edge_note(method: Method, chosen: Hyperparameters) -> str | None:
    """Says so if a chosen rate, meta-rate or momentum lies at the edge of its grid."""
    found = []
    for name in ("learning_rate", "rate_scale", "meta_scale", "momentum", "interpolation"):
        known = sorted({row[name] for row in method.grid if name in row})
        if len(known) > 1 and chosen.get(name) in (known[0], known[-1]):
            found.append(f"{name.replace('_', ' ')} {chosen[name]:g}")
    if not found:
        return None
    wide = "; --grid wide tries rates beyond it" if method.wide else ""
    lies = "lies" if len(found) == 1 else "lie"
    return f"{method.name}'s best {' and '.join(found)} {lies} at the edge of its grid{wide}."


def evaluate(
    methods: Sequence[Method],
    chosen: Sequence[Hyperparameters],
    place: Arena,
    *,
    steps: int,
    stride: int,
    targets: Sequence[float],
    seeds: int,
    key: jax.Array,
    kept: Kept | None = None,
    advance: Callable[[float], None] = lambda share: None,
) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Runs each method's chosen configuration on one held-out task.

    **Arguments:**

    - `methods`, `chosen`: the methods and one configuration each.
    - `place`: an arena of one task.
    - `targets`: see `summarise`.
    - `steps`, `stride`, `seeds`, `key`, `kept`, `advance`: as in `run_trials`.

    **Returns:**

    By method name, the row of the comparison and the curve's band.
    """
    jobs = list(enumerate(chosen))
    trials = run_trials(
        methods,
        jobs,
        place,
        steps=steps,
        stride=stride,
        seeds=seeds,
        key=key,
        kept=kept,
        advance=advance,
    )
    found = {}
    for index, (method, values) in enumerate(zip(methods, chosen, strict=True)):
        alone = jax.tree.map(lambda leaf, i=index: leaf[i, 0], trials)
        points = curve_steps(steps, stride)
        found[method.name] = (
            summarise(method.name, values, alone, points, targets),
            band(alone),
        )
    return found
