r"""A network whose rates learn themselves, beside SGD with its own tuned rate (S002 §7.2, Fig. 1).

One network is trained on one image task by SGD, by `online_sgd` and by its optimistic form. Each is
tuned on as many configurations, by the accuracy on a fifth of the training images kept apart, and
then run from several seeds on all of them. S002's task is ImageNet with a ResNet-50 and an
unpublished protocol; here it is CIFAR-10 with a ResNet-18, without augmentation, or MNIST, or the
digits that ship with scikit-learn, with a small network.

The meta-rate is `β = c w_1/max G_1²` with `w_1` the first rate and `G_1` the first gradient: `c` is
how many first rates a rate gains while the largest entry of the gradient stays as it was.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import stats

from .. import report
from ..inner import Problem
from ..meta import classification
from ..models import Model, build
from ..online import online_sgd
from ..tasks import ImageTask, load_images, rotated_digits, rotated_mnist
from ._baselines import Hyperparameters, Method, product
from ._compare import best, edge_note, spread, tune
from ._config import at_budget, between, divides, override, positive
from ._images import shortened
from ._reproduction import Reproduction, Request
from ._trials import Trials, arena, curve_steps, run_trials

SGD, STANDARD, OPTIMISTIC = "SGD", "Online", "Online, optimistic"
_SHARE = 0.95  # of the final training accuracy


@dataclasses.dataclass(frozen=True)
class OnlineNetworkStudy:
    """A network trained by SGD and by rates that learn themselves.

    **Arguments:**

    - `family`: `mnist`, `cifar-10`, or the embedded `digits`.
    - `model`: the network, by name; `-bf16` behind a ResNet's has it compute in bfloat16.
    - `examples`: only the first so many training images; 0 for all.
    - `batch`, `steps`: examples a step, and steps a run.
    - `stride`: curves are measured every so many steps.
    - `seeds`, `tune_seeds`: runs a method, and a configuration while tuning.
    - `rows`: training accuracy is measured on at most this many training examples.
    - `split`: seed of the split into training and test images, where it is ours to make, and of
      the images kept apart for tuning.
    """

    family: Literal["mnist", "cifar-10", "digits"] = "mnist"
    model: str = "mlp-128-64"
    examples: int = 0
    batch: int = 64
    steps: int = 3000
    stride: int = 50
    seeds: int = 3
    tune_seeds: int = 1
    rows: int = 10_000
    split: int = 0

    def __post_init__(self):
        """Checks every number."""
        positive(self, "batch", "steps", "stride", "seeds", "tune_seeds", "rows")
        between(self, "examples", 0, 10**9)
        divides(self, "stride", "steps")


_SMOKE = {"family": "digits", "model": "mlp-16", "steps": 40, "stride": 10, "seeds": 2}
_PAPER = {"steps": 20_000, "stride": 200, "seeds": 10, "tune_seeds": 3}

_RESNET = OnlineNetworkStudy(
    family="cifar-10", model="resnet18", batch=128, steps=4000, stride=400, rows=2000
)
_RESNET_SMOKE = {
    "model": "resnet18-4",
    "examples": 200,
    "batch": 8,
    "steps": 4,
    "stride": 4,
    "seeds": 1,
    "rows": 100,
}
_RESNET_PAPER = {"steps": 40_000, "stride": 2000, "rows": 10_000}


def _sgd(values: Hyperparameters, context: Any) -> optax.GradientTransformation:
    del context
    return optax.sgd(values["learning_rate"])


def _standard(values: Hyperparameters, context: Any) -> optax.GradientTransformation:
    rate = values["learning_rate"]
    return online_sgd(rate, values["meta_scale"] * rate / context)


def _optimistic(values: Hyperparameters, context: Any) -> optax.GradientTransformation:
    rate = values["learning_rate"]
    return online_sgd(rate, values["meta_scale"] * rate / context, optimistic=True)


def online_methods(largest: Any) -> list[Method]:
    """The three methods, each with a grid of 24 configurations.

    **Arguments:**

    - `largest`: `max G_1²`, the unit of `β`.
    """
    learned = product(
        learning_rate=(0.05, 0.15, 0.5, 1.5), meta_scale=(0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
    )
    rates = product(learning_rate=tuple(np.geomspace(0.01, 3, len(learned)).tolist()))
    return [
        Method(SGD, _sgd, rates),
        Method(STANDARD, _standard, learned, (), largest),
        Method(OPTIMISTIC, _optimistic, learned, (), largest),
    ]


def _load(config: OnlineNetworkStudy, data: Path | None) -> ImageTask:
    if config.family == "digits":
        return rotated_digits(angles=(0,), seed=config.split)[0]
    if config.family == "cifar-10":
        return load_images("cifar-10", data)
    return rotated_mnist(data, angles=(0,))[0]


def _largest_square(problem: Problem, model: Model, key: jax.Array) -> jax.Array:
    """`max G_1²` of one first batch, the unit of `β` for all seeds."""
    start_key, batch_key = jax.random.split(key)
    first = jax.tree.map(lambda leaf: leaf[0], problem)
    batch = first.batches.draw(jnp.zeros((), int), key=batch_key)
    gradient = jax.jit(jax.grad(first.loss))(model.init(start_key), None, batch)
    return optax.tree.norm(gradient, ord="inf") ** 2


def train_online(
    config: OnlineNetworkStudy, task: ImageTask, model: Model, request: Request, recipe: str
) -> dict[str, Any]:
    """Tunes and runs the three methods.

    **Arguments:**

    - `config`: the study.
    - `task`, `model`: what is learned, by what.
    - `request`: seed and progress.
    - `recipe`: the name of the reproduction.

    **Returns:**

    What `summary.json` holds.
    """
    tune_key, run_key, unit_key = jax.random.split(jax.random.key(request.seed), 3)
    problems = classification([task], model, config.batch)
    methods = online_methods(_largest_square(problems, model, unit_key))
    part = task.validation(seed=config.split)
    kept = arena([part], classification([part], model, config.batch), model, config.rows)
    with request.progress.phase("tuning", 100) as phase:
        scores = tune(
            methods,
            kept,
            steps=config.steps,
            criterion="validation",
            seeds=config.tune_seeds,
            key=tune_key,
            advance=phase.share,
        )
    chosen = [best(method, scores[method.name]) for method in methods]
    with request.progress.phase("training", 100) as phase:
        trials = run_trials(
            methods,
            list(enumerate(chosen)),
            arena([task], problems, model, config.rows),
            steps=config.steps,
            stride=config.stride,
            seeds=config.seeds,
            key=run_key,
            watch=True,
            advance=phase.share,
        )
    return {"recipe": recipe, **_summary(config, task, methods, chosen, trials)}


def _summary(
    config: OnlineNetworkStudy,
    task: ImageTask,
    methods: Sequence[Method],
    chosen: Sequence[Hyperparameters],
    trials: Trials,
) -> dict[str, Any]:
    assert trials.accuracies is not None
    shares, losses = np.asarray(trials.accuracies)[:, 0], np.asarray(trials.final_loss)[:, 0]
    steps = curve_steps(config.steps, config.stride)
    rows = [
        _row(method.name, values, shares[i], losses[i], shares[0], steps)
        for i, (method, values) in enumerate(zip(methods, chosen, strict=True))
    ]
    pairs = zip(methods, chosen, strict=True)
    notes = [note for method, values in pairs if (note := edge_note(method, values))]
    notes += [task.note] if task.note else []
    return {
        "kind": "online-network",
        "task": task.name,
        "model": config.model,
        "seeds": config.seeds,
        "steps": config.steps,
        "configurations": len(methods[0].grid),
        "tuned_on": "accuracy on a fifth of the training images, kept apart",
        "methods": rows,
        "notes": notes,
    }


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
    """The first measured step with at least 0.95 of a final accuracy, or `None`.

    >>> reached(np.array([0.1, 0.8, 0.96, 1.0]), 1.0, [0, 10, 20, 30])
    20
    """
    there = np.flatnonzero(accuracy >= _SHARE * final)
    return int(steps[there[0]]) if len(there) else None


def student(values: Any) -> dict[str, Any]:
    """Mean over seeds and half-width of its 95% interval, by Student's quantile.

    >>> student([1.0, 3.0])["mean"], round(student([1.0, 3.0])["ci95"], 3)
    (2.0, 12.706)
    """
    found = spread(values)
    runs = len(found["values"])
    quantile = float(stats.t.ppf(0.975, runs - 1)) if runs > 1 else 0.0
    half = None if found["se"] is None else quantile * found["se"]
    return {"mean": found["mean"], "ci95": half, "values": found["values"]}


def _figure1(
    recipe: str, study: OnlineNetworkStudy, smoke: Mapping[str, Any], paper: Mapping[str, Any]
) -> Callable[[Request], dict[str, Any]]:
    """Test accuracy along the run."""

    def make(request: Request) -> dict[str, Any]:
        config = at_budget(study, request.budget, smoke=smoke, paper=paper)
        config = override(config, request.fields)

        def prepare() -> Callable[[], dict[str, Any]]:
            task = _load(config, request.data)
            if config.examples:
                task = shortened(task, config.examples)
            model = build(config.model, task.image_shape, task.classes)
            return lambda: train_online(config, task, model, request, recipe)

        summary = request.once(config, recipe, prepare)
        report.write_figures(report.Run.read(request.path))
        return summary

    return make


def _figure1_tables(result: Mapping[str, Any]) -> list[report.Table]:
    return [report.online_network_table(result)]


ONLINE_NETWORKS: dict[str, Reproduction] = {
    "s002-fig1": Reproduction(
        "a network whose rates learn themselves, beside tuned SGD",
        _figure1("s002-fig1", OnlineNetworkStudy(), _SMOKE, _PAPER),
        _figure1_tables,
    ),
    "s002-fig1-resnet": Reproduction(
        "the same with ResNet-18 on CIFAR-10; for an accelerator",
        _figure1("s002-fig1-resnet", _RESNET, _RESNET_SMOKE, _RESNET_PAPER),
        _figure1_tables,
    ),
}
"""Fig. 1 with a small network, and with one of the paper's kind."""
