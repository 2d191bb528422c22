r"""The quadratic studies, S000 §5.1 and Fig. 1: steps until the gradient is small.

Tasks are 2-D quadratics of one flatness; their minimisers are known, so the tight bound has its
true comparator. Every optimiser is tuned over grids of equal size on the meta-training tasks, and
counted on held-out ones: the first step at which the gradient norm is below a tolerance.
Everything runs in float64, because float32 cannot resolve such gradients.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.tree as vector
from jax import lax
from jaxtyping import Array, Float

from .. import deploy
from .._errors import ConfigError
from .._files import write_json
from ..geometry import AbstractGeometry, Diagonal
from ..meta import quadratic
from ..methods import meta_md
from ..tasks import QuadraticTask, sample_quadratics
from ._baselines import Hyperparameters, Make, Method, columns, product
from ._compare import LEARNED, learned_method, spread
from ._conclude import conclude
from ._config import between, positive
from ._describe import describe_geometry
from ._folder import RunFolder
from ._learn import learn
from ._progress import Progress

_TRAJECTORY_POINTS = 400


@dataclasses.dataclass(frozen=True)
class QuadraticStudy:
    """A study of 2-D quadratics.

    **Arguments:**

    - `flatness`: the means of the diagonal entries of `Q`.
    - `law`: how `Q` is drawn, see `mirrax.tasks.sample_quadratics`.
    - `tasks`, `held_out`: how many tasks to learn from, and to count on.
    - `steps`, `rounds`, `decay`, `rate`: length of a run, rounds, average over rounds and initial
      rate of meta-training.
    - `tolerance`: the gradient norm at which a run has converged.
    - `limit`: the number of steps after which a run counts as not converged.
    - `rates`: configurations every method may try, at most 15.
    """

    changeable: ClassVar[frozenset[str]] = frozenset(
        ("rate", "rounds", "decay", "tolerance", "limit", "rates")
    )
    """Fields that may change while a run is under way; others would make it another run."""

    flatness: tuple[float, ...] = (5.0, 0.5)
    law: Literal["curvature", "factor"] = "curvature"
    tasks: int = 128
    held_out: int = 128
    steps: int = 300
    rounds: int = 40
    decay: float = 0.5
    rate: float = 0.001
    tolerance: float = 1e-6
    limit: int = 100_000
    rates: int = 15

    def __post_init__(self):
        """Checks every number."""
        positive(self, "tasks", "held_out", "steps", "rounds", "rate", "tolerance", "limit")
        between(self, "rates", 1, 15)
        between(self, "decay", 0, 0.999)
        if not self.flatness or not all(0 < mean < float("inf") for mean in self.flatness):
            raise ConfigError(f"--flatness: expected positive numbers, got {self.flatness!r}.")


def _methods(count: int, learned: Method, isotropic: Method) -> list[Method]:
    """Every method with a grid of `count` configurations; rates are spaced evenly in the log."""

    def rates(low: float, high: float) -> tuple[Hyperparameters, ...]:
        return product(learning_rate=tuple(np.geomspace(low, high, count).tolist()))

    def simple(make: Any) -> Make:
        return lambda values, context: make(values["learning_rate"])

    def thinned(method: Method) -> Method:
        kept = np.linspace(0, len(method.grid) - 1, count).round().astype(int)
        return dataclasses.replace(method, grid=tuple(method.grid[i] for i in kept))

    return [
        thinned(learned),
        thinned(isotropic),
        Method("SGD", simple(optax.sgd), rates(1e-4, 1)),
        Method("SGD-M", simple(lambda rate: optax.sgd(rate, momentum=0.9)), rates(1e-4, 1)),
        Method("Adam", simple(optax.adam), rates(1e-3, 10)),
        Method("RMSprop", simple(lambda rate: optax.rmsprop(rate, decay=0.99)), rates(1e-4, 1)),
    ]


class _Race(eqx.Module):
    point: Float[Array, " dim"]
    state: Any
    count: Array
    done: Array


@eqx.filter_jit
def count_steps(
    make: Make,
    context: Any,
    grid: dict[str, Array],
    tasks: QuadraticTask,
    tolerance: float,
    limit: int,
) -> Float[Array, "configurations tasks"]:
    """Steps until the gradient norm is below a tolerance, from the origin.

    **Arguments:**

    - `make`, `context`: the optimiser, as in `Method`.
    - `grid`: arrays of hyper-parameters, one entry a configuration.
    - `tasks`: quadratics, stacked.
    - `tolerance`: the gradient norm at which a run has converged.
    - `limit`: runs that take longer, or diverge, count as this many steps.

    **Returns:**

    The counts.
    """

    def run(values: dict[str, Array], task: QuadraticTask) -> Array:
        optimiser = make(values, context)
        start = jnp.zeros_like(task.vector)

        def unfinished(race: _Race) -> Array:
            return ~race.done & (race.count < limit)

        def advance(race: _Race) -> _Race:
            gradient = task.gradient(race.point)
            size = jnp.linalg.norm(gradient)
            converged, lost = size < tolerance, ~(size < 1e100)
            updates, state = optimiser.update(gradient, race.state, race.point)
            count = jnp.where(converged, race.count, jnp.where(lost, limit, race.count + 1))
            return _Race(vector.add(race.point, updates), state, count, converged | lost)

        begin = _Race(start, optimiser.init(start), jnp.zeros((), int), jnp.zeros((), bool))
        return lax.while_loop(unfinished, advance, begin).count.astype(float)

    over_tasks = jax.vmap(run, in_axes=(None, 0))
    return jax.vmap(over_tasks, in_axes=(0, None))(grid, tasks)


def isotropic_geometry(tasks: QuadraticTask, rate: float, steps: int) -> Diagonal:
    r"""The minimiser of eq. 10 when the solutions are known: `m² = √(2k/mean‖θ*‖²)`, spec B3.

    It is isotropic, gradient descent with one rate, whatever the tasks look like
    (papers.md#s000-eq10).

    **Arguments:**

    - `tasks`: quadratics, stacked.
    - `rate`, `steps`: set `k = η² T L²/2`, with the largest initial gradient as `L`.
    """
    start = jnp.zeros_like(tasks.vector)
    lipschitz = jnp.max(jnp.linalg.norm(tasks.gradient(start), axis=-1))
    k = rate**2 * steps * lipschitz**2 / 2
    distance = jnp.mean(jnp.sum(tasks.optimum**2, axis=-1))
    return Diagonal(jnp.full_like(tasks.vector[0], jnp.log(2 * k / distance) / 4))


def train_quadratics(
    config: QuadraticStudy, folder: RunFolder, seed: int, progress: Progress
) -> dict[str, Any]:
    """Runs a whole quadratic study in its folder.

    **Arguments:**

    - `config`: the study.
    - `folder`: an opened run folder, new or to be continued.
    - `seed`: seed of the run.
    - `progress`: where to show progress.

    **Returns:**

    What `summary.json` holds.
    """
    with jax.enable_x64(True):
        return _train(config, folder, seed, progress)


def _train(
    config: QuadraticStudy, folder: RunFolder, seed: int, progress: Progress
) -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(seed), 3)

    def draw(key: jax.Array, count: int) -> QuadraticTask:
        return sample_quadratics(key, count, flatness=config.flatness, law=config.law)

    training, held_out = draw(keys[0], config.tasks), draw(keys[1], config.held_out)
    learner, initial = meta_md(
        _origin(len(config.flatness)),
        steps=config.steps,
        rate=config.rate,
        comparator="solution",
        decay=config.decay,
        damping=0.0,
        key=keys[2],
    )
    learned = learn(
        learner,
        initial,
        quadratic(training),
        [f"quadratic {i}" for i in range(config.tasks)],
        rounds=config.rounds,
        rate=config.rate,
        folder=folder,
        progress=progress,
        key=keys[2],
    )
    deploy.save(
        folder / "geometry.safetensors",
        learned.geometry,
        rate=config.rate,
        record={"flatness": list(config.flatness), "law": config.law, "seed": seed},
    )
    write_json(folder / "geometry.json", describe_geometry(learned.geometry, config.rate))
    isotropic = isotropic_geometry(training, config.rate, config.steps)
    rows = _compare(config, learned.geometry, isotropic, training, held_out, progress)
    _write_trajectories(config, rows, learned.geometry, held_out, folder)
    summary = {
        "recipe": "quadratics",
        "held_out": f"{config.held_out} quadratics",
        "seeds": 1,
        "problems": config.held_out,
        "comparison": rows,
        "ratios": _ratios(rows),
        "notes": [
            *learned.notes,
            f"steps until the gradient norm is below {config.tolerance:g}; runs that take more "
            f"than {config.limit:,} steps count as that many.",
        ],
    }
    return conclude(folder, summary)


def _origin(dim: int) -> Any:
    return lambda key: jnp.zeros(dim)


def _learned(geometry: AbstractGeometry, rate: float, name: str = LEARNED) -> Method:
    """Few effective steps are made, so momenta are smaller than for networks."""
    scales, momenta = (0.5, 0.7, 1.0, 1.4, 2.0), (0.0, 0.5, 0.8)
    return learned_method(geometry, rate, name=name, scales=scales, momenta=momenta)


def _compare(
    config: QuadraticStudy,
    geometry: AbstractGeometry,
    isotropic: AbstractGeometry,
    training: QuadraticTask,
    held_out: QuadraticTask,
    progress: Progress,
) -> list[dict[str, Any]]:
    ours = _learned(geometry, config.rate)
    eq10 = _learned(isotropic, config.rate, name="eq. 10")
    methods = _methods(config.rates, ours, eq10)
    rows = []
    with progress.phase("comparison", len(methods)) as phase:
        for method in methods:

            def counted(grid: Sequence[Hyperparameters], tasks: QuadraticTask, m: Method = method):
                return np.asarray(
                    count_steps(
                        m.make, m.context, columns(grid), tasks, config.tolerance, config.limit
                    )
                )

            scores = counted(method.grid, training).mean(axis=1)
            chosen = method.grid[int(scores.argmin())]
            steps = counted([chosen], held_out)[0]
            rows.append(
                {
                    "optimiser": method.name,
                    "hyperparameters": {k: float(v) for k, v in chosen.items()},
                    "steps": {**spread(steps), "median": float(np.median(steps))},
                }
            )
            phase.advance(method.name)
    return rows


def _ratios(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    steps = {row["optimiser"]: row["steps"]["mean"] for row in rows}
    others = min(steps[name] for name in ("SGD-M", "Adam", "RMSprop"))
    return {
        "to SGD": steps[LEARNED] / steps["SGD"],
        "to the best of SGD-M, Adam, RMSprop": steps[LEARNED] / others,
        "eq. 10 to SGD": steps["eq. 10"] / steps["SGD"],
    }


def _write_trajectories(
    config: QuadraticStudy,
    rows: Sequence[dict[str, Any]],
    geometry: AbstractGeometry,
    held_out: QuadraticTask,
    folder: RunFolder,
) -> None:
    """The paths of every method on the first held-out task, S000 Fig. 1, and the learned metric."""
    if len(config.flatness) != 2:
        return
    task = jax.tree.map(lambda leaf: leaf[0], held_out)
    ours = _learned(geometry, config.rate)
    methods = {m.name: m for m in _methods(config.rates, ours, ours)}
    paths, steps = {}, {}
    for row in rows:
        method = methods.get(row["optimiser"])
        if method is None or (row["optimiser"] == LEARNED and method is not methods[LEARNED]):
            continue
        path = _path(method, row["hyperparameters"], task, config)
        paths[row["optimiser"]], steps[row["optimiser"]] = path.tolist(), len(path) - 1
    metric = jax.hessian(geometry.potential)(jnp.zeros_like(task.vector))
    data = {
        "matrix": np.asarray(task.matrix).tolist(),
        "vector": np.asarray(task.vector).tolist(),
        "trajectories": paths,
        "steps": steps,
        "metric": np.asarray(metric).tolist(),
    }
    write_json(folder / "trajectories.json", data)


def _path(
    method: Method, values: Hyperparameters, task: QuadraticTask, config: QuadraticStudy
) -> np.ndarray:
    optimiser = method.make(values, method.context)

    def advance(carry: Any, _: None):
        point, state = carry
        updates, state = optimiser.update(task.gradient(point), state, point)
        return (point + updates, state), point

    start = jnp.zeros_like(task.vector)
    begin = (start, optimiser.init(start))
    points = np.asarray(lax.scan(advance, begin, None, length=_TRAJECTORY_POINTS)[1])
    with np.errstate(over="ignore"):  # of a run that diverges; infinity is not small
        sizes = np.linalg.norm(np.asarray(jax.vmap(task.gradient)(jnp.asarray(points))), axis=-1)
    small = np.flatnonzero(sizes < config.tolerance)
    return points[: small[0] + 1] if len(small) else points
