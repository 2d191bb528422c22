r"""S002's Fig. 2: optimisers with rates that are learned, and those they extend, on quadratics.

`f(x) = (x − s)ᵀQ(x − s)` in two dimensions, steep in one direction and flat in the other, from
`x_0 = (4, 4)`; with the minimiser at the origin as in the paper, and away from it. Every method is
tuned over a grid of equal size, in which baselines have all first rates of those that learn and
higher ones, by its cumulative loss
`Σ_{t=1}^{T} f(x_t)`: on each problem, once more with one configuration for all problems, and once
more with first rates of at most 0.1/L, those of spec C6. All configurations and problems of a
method are one compiled program, in float64.
Source: S002 §7.1; spec C6.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..tasks import QuadraticTask, sample_ill_conditioned
from ._baselines import Hyperparameters, columns
from ._config import between, positive
from ._online_methods import LOW, PER_RATE, Follow, Learner, learners
from ._progress import Progress

START = (4.0, 4.0)
_SHIFTS = {"at 0": 0.0, "shifted": 1.0}
_LOST = 1e6
_CURVE_POINTS = 40
_DIGITS = 5


@dataclasses.dataclass(frozen=True)
class OnlineStudy:
    """The comparison of online optimisers.

    **Arguments:**

    - `problems`: how many quadratics, at most 20, of either minimiser.
    - `steps`: the length of a run.
    - `rates`: how many meta rates Meta-Momentum tries with each decay and first rate; every method
      tries `60 × rates` configurations.
    """

    problems: int = 5
    steps: int = 100
    rates: int = 40

    def __post_init__(self):
        """Checks every number."""
        positive(self, "steps")
        between(self, "problems", 1, 20)
        between(self, "rates", 1, 100)


def compare_online(config: OnlineStudy, seed: int, progress: Progress) -> dict[str, Any]:
    """Runs the comparison.

    **Arguments:**

    - `config`: the study.
    - `seed`: seed of the problems; those of both minimisers have the same `Q`.
    - `progress`: where to show progress.

    **Returns:**

    What `summary.json` holds.
    """
    methods = learners(config.rates)
    with jax.enable_x64(True), progress.phase("sweep", len(methods)) as phase:
        problems = {
            label: sample_ill_conditioned(jax.random.key(seed), config.problems, shift=shift)
            for label, shift in _SHIFTS.items()
        }
        together = jax.tree.map(lambda *parts: jnp.concatenate(parts), *problems.values())
        rows: dict[str, list[dict[str, Any]]] = {label: [] for label in problems}
        for method in methods:
            losses = follow_all(method, together, config.steps)
            for above, part in zip(rows.values(), np.split(losses, len(rows), axis=1), strict=True):
                above.append(_row(method, part, above))
            phase.advance(method.name)
        settings = [
            {"minimiser": label, "problems": _describe(problems[label]), "methods": rows[label]}
            for label in problems
        ]
    return {
        "recipe": "s002-fig2",
        "kind": "online",
        "steps": config.steps,
        "configurations": PER_RATE * config.rates,
        "low_rate": LOW,
        "curve_steps": _kept(config.steps).tolist(),
        "settings": settings,
    }


def follow_all(method: Learner, problems: QuadraticTask, steps: int) -> np.ndarray:
    """The losses of every configuration on every problem.

    **Arguments:**

    - `method`: the method.
    - `problems`: quadratics, stacked.
    - `steps`: the length of a run.

    **Returns:**

    `f(x_0), …, f(x_T)`, shape `(configurations, problems, T + 1)`. A run whose loss is not a number
    or ever exceeds a million times the first has diverged, and has infinite losses throughout.
    """
    losses = np.asarray(_losses(method.follow, columns(method.grid), problems, steps))
    bounded = np.all(losses <= _LOST * losses[..., :1], axis=-1, keepdims=True)
    return np.where(bounded, losses, np.inf)


@functools.partial(jax.jit, static_argnames=("follow", "steps"))
def _losses(
    follow: Follow, grid: dict[str, jax.Array], problems: QuadraticTask, steps: int
) -> jax.Array:
    def run(values: dict[str, jax.Array], task: QuadraticTask) -> jax.Array:
        points = follow(values, task, jnp.asarray(START), steps)
        return jax.vmap(task.excess)(points)

    return jax.vmap(jax.vmap(run, in_axes=(None, 0)), in_axes=(0, None))(grid, problems)


def select(cumulative: np.ndarray) -> np.ndarray:
    """The best configuration of each problem, the first among equals.

    **Arguments:**

    - `cumulative`: shape `(configurations, problems)`; infinite where a run diverged.

    **Returns:**

    One index a problem.

    >>> select(np.array([[np.inf, 2.0], [3.0, 2.0]])).tolist()
    [1, 0]
    """
    return np.argmin(cumulative, axis=0)


def select_one(cumulative: np.ndarray) -> int:
    """The configuration that is best for all problems together, by the mean of the logarithm.

    **Arguments:**

    - `cumulative`: shape `(configurations, problems)`; infinite where a run diverged.

    **Returns:**

    Its index. One that diverges on any problem is never better than one that does not.

    >>> select_one(np.array([[1.0, 9.0], [0.5, np.inf], [2.0, 2.0]]))
    2
    """
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # a sum that is zero, beside an infinite one
        scores = np.mean(np.log(cumulative), axis=1)
    return int(np.argmin(np.where(np.isinf(cumulative).any(axis=1), np.inf, scores)))


def sensitivity(
    cumulative: np.ndarray, grid: Sequence[Hyperparameters], swept: str
) -> tuple[np.ndarray, np.ndarray]:
    """The cumulative loss against one hyper-parameter, the best over the others.

    **Arguments:**

    - `cumulative`: shape `(configurations, problems)`.
    - `grid`: the configurations.
    - `swept`: the hyper-parameter.

    **Returns:**

    Its values, rising, and the losses, shape `(values, problems)`.

    >>> grid = [{"rate": 1.0, "decay": 0.0}, {"rate": 1.0, "decay": 0.9}]
    >>> rates, best = sensitivity(np.array([[3.0], [2.0]]), grid, "rate")
    >>> rates.tolist(), best.tolist()
    ([1.0], [[2.0]])
    """
    values = np.array([row[swept] for row in grid])
    rising = np.unique(values)
    return rising, np.stack([cumulative[values == value].min(axis=0) for value in rising])


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Cumulative losses against those of a baseline, problem by problem; below 1 is better.

    **Arguments:**

    - `ours`, `theirs`: one cumulative loss a problem.

    **Returns:**

    The ratios, their median, and whether none is above 1.

    >>> ratios([1.0, 3.0, 2.0], [2.0, 2.0, 2.0])
    {'by_problem': [0.5, 1.5, 1.0], 'median': 1.0, 'never_worse': False}
    """
    with np.errstate(invalid="ignore"):  # both diverged: not a number, and so not better
        found = np.asarray(ours, float) / np.asarray(theirs, float)
    return {
        "by_problem": _short(found),
        "median": _short(np.median(found)),
        "never_worse": bool(np.all(found <= 1)),
    }


def _row(method: Learner, losses: np.ndarray, above: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the summary says of one method; its baseline is among the rows above."""
    cumulative = losses[..., 1:].sum(axis=-1)
    chosen, one = select(cumulative), select_one(cumulative)
    best = losses[chosen, np.arange(losses.shape[1])]
    low = [values[method.rate] <= LOW for values in method.grid]
    row: dict[str, Any] = {
        "method": method.name,
        "baseline": method.baseline,
        "configurations": len(method.grid),
        "hyperparameters": [method.grid[i] for i in chosen],
        "cumulative": _short(cumulative.min(axis=0)),
        "cumulative_at_low_rates": _short(cumulative[low].min(axis=0)),
        "one": method.grid[one],
        "cumulative_with_one": _short(cumulative[one]),
        "final": _short(best[:, -1]),
        "diverged": np.isinf(cumulative).sum(axis=0).tolist(),
        "loss": _short(best[:, _kept(losses.shape[2] - 1)]),
        "sensitivity": _swept(cumulative, method.grid, method.rate),
    }
    if method.baseline is None:
        return row
    row["meta_sensitivity"] = _swept(cumulative, method.grid, "meta_rate")
    theirs = next(other for other in above if other["method"] == method.baseline)
    for limit in ("", "_at_low_rates", "_with_one"):
        found, other = row[f"cumulative{limit}"], theirs[f"cumulative{limit}"]
        row[f"to_baseline{limit}"] = ratios(found, other)
    return row


def _swept(cumulative: np.ndarray, grid: Sequence[Hyperparameters], name: str) -> dict[str, Any]:
    rates, found = sensitivity(cumulative, grid, name)
    return {"rates": _short(rates), "cumulative": _short(found.T)}


def _describe(problems: QuadraticTask) -> list[dict[str, Any]]:
    minimisers = np.asarray(problems.optimum) + 0.0  # no negative zeros
    first = problems.excess(jnp.broadcast_to(jnp.asarray(START), minimisers.shape))
    parts = (problems.matrix, np.linalg.cond(np.asarray(problems.matrix)), minimisers, first)
    names = ("matrix", "condition", "minimiser", "first_loss")
    return [dict(zip(names, map(_short, one), strict=True)) for one in zip(*parts, strict=True)]


def _kept(steps: int) -> np.ndarray:
    """The steps whose losses are written down: all of the first, where most happens, then fewer."""
    return np.unique(np.geomspace(1, steps + 1, _CURVE_POINTS).round().astype(int)) - 1


def _short(values: Any) -> Any:
    """Numbers with as many digits as a figure or table needs."""
    array = np.asarray(values, float)
    texts = np.char.mod(f"%.{_DIGITS}g", array)
    return texts.astype(float).tolist()
