r"""A network whose rates learn themselves, beside SGD with its own tuned rate (S002 §7.2, Fig. 1).

One network is trained on one image task by SGD, by `online_sgd` and by its optimistic form. Each is
tuned on as many configurations, by the accuracy on a fifth of the training images kept apart, and
then run from several seeds on all of them. S002's task is ImageNet with a ResNet-50, see
`_online_stream`; here it is CIFAR-10 with a ResNet-18, without augmentation, or MNIST, or the
digits that ship with scikit-learn, with a small network.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ..meta import classification
from ..models import Model
from ..tasks import ImageTask, load_images, rotated_digits, rotated_mnist
from ._compare import best, tune
from ._config import between, divides, positive
from ._kept import Kept
from ._network import network
from ._online_protocol import (
    Measured,
    figure1,
    largest_square,
    online_methods,
    summarise_online,
)
from ._reproduction import Reproduction, Request
from ._shortened import shortened
from ._trials import arena, run_trials


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
    - `first_rates`, `meta_scales`: the grid of the two whose rates learn; SGD has as many rates,
      from 0.01 to 3. First rates are near to each other, as learning does not mend a bad one.
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
    seeds: int = 10
    tune_seeds: int = 3
    first_rates: tuple[float, ...] = (0.05, 0.08, 0.13, 0.21, 0.35, 0.57, 0.92, 1.5)
    meta_scales: tuple[float, ...] = (0.01, 0.1, 1.0)
    rows: int = 10_000
    split: int = 0

    def __post_init__(self):
        """Checks every number."""
        positive(self, "batch", "steps", "stride", "seeds", "tune_seeds", "rows")
        positive(self, "first_rates", "meta_scales")
        between(self, "examples", 0, 10**9)
        divides(self, "stride", "steps")


_SMOKE = {
    "family": "digits",
    "model": "mlp-16",
    "steps": 40,
    "stride": 10,
    "seeds": 2,
    "tune_seeds": 1,
    "first_rates": (0.05, 0.15, 0.5, 1.5),
}
_PAPER = {"steps": 20_000, "stride": 200}

_RESNET = OnlineNetworkStudy(
    family="cifar-10",
    model="resnet18",
    batch=128,
    steps=4000,
    stride=400,
    rows=2000,
    seeds=3,
    tune_seeds=1,
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


def _load(config: OnlineNetworkStudy, data: Path | None) -> ImageTask:
    if config.family == "digits":
        return rotated_digits(angles=(0,), seed=config.split)[0]
    if config.family == "cifar-10":
        return load_images("cifar-10", data)
    return rotated_mnist(data, angles=(0,))[0]


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
    start_key, batch_key = jax.random.split(unit_key)
    first = jax.tree.map(lambda leaf: leaf[0], problems)
    batch = first.batches.draw(jnp.zeros((), int), key=batch_key)
    unit = largest_square(first.loss, model.init(start_key), batch)
    methods = online_methods(unit, config.first_rates, config.meta_scales)
    part = task.validation(seed=config.split)
    parts = Kept.within(request.path)
    kept = arena([part], classification([part], model, config.batch), model, config.rows)
    with request.progress.phase("tuning", 100) as phase:
        scores = tune(
            methods,
            kept,
            steps=config.steps,
            criterion="validation",
            seeds=config.tune_seeds,
            key=tune_key,
            kept=parts,
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
            kept=parts,
            advance=phase.share,
        )
    assert trials.accuracies is not None
    found = Measured(
        chosen,
        np.asarray(trials.accuracies)[:, 0],
        np.asarray(trials.train_loss)[:, 0],
        config.steps,
        config.stride,
    )
    summary = summarise_online(
        methods,
        found,
        task=task.name,
        model=config.model,
        unit=float(unit),
        tuned_on="accuracy on a fifth of the training images, kept apart",
        notes=[task.note] if task.note else [],
    )
    return {"recipe": recipe, **summary}


def _prepare(
    config: OnlineNetworkStudy, request: Request, recipe: str
) -> Callable[[], dict[str, Any]]:
    task = shortened(_load(config, request.data), config.examples, divided=True)
    model = network(config.model, task.image_shape, task.classes)
    return lambda: train_online(config, task, model, request, recipe)


ONLINE_NETWORKS: dict[str, Reproduction] = {
    "s002-fig1": figure1(
        "s002-fig1",
        "a network whose rates learn themselves, beside tuned SGD",
        OnlineNetworkStudy(),
        _SMOKE,
        _PAPER,
        _prepare,
    ),
    "s002-fig1-resnet": figure1(
        "s002-fig1-resnet",
        "the same with ResNet-18 on CIFAR-10; for an accelerator",
        _RESNET,
        _RESNET_SMOKE,
        _RESNET_PAPER,
        _prepare,
    ),
}
"""Fig. 1 with a small network, and with one of the paper's kind."""
