r"""ImageNet with a ResNet-50 whose rates learn themselves, beside tuned SGD (S002 §7.2, Fig. 1).

S002 says: a ResNet-50, a standard protocol in an appendix that was not published, rates or
meta-rates swept, three seeds. What stands here for the rest is the usual: 90 epochs of batches of
256, random parts of 8 to 100% of an image, brought to 224 × 224 pixels, half of them flipped, and
the middle of each test image. Rates follow no schedule, since those of two methods learn
themselves, and there is no weight decay and no momentum.

Runs of full length are too dear for tuning: every configuration is judged after a short run on
four fifths of the training images, by its accuracy on the others. All that is tuned and run is as
in `_online_network`, but for the images, which come from disk.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import report
from .._files import slug, write_json
from ..meta import classification_loss
from ..models import Model
from ..tasks import StreamedTask, imagenet
from ._baselines import Hyperparameters, Method
from ._compare import best
from ._config import between, divides, positive
from ._folder import RunFolder
from ._network import network
from ._online_protocol import (
    Measured,
    figure1,
    largest_square,
    online_methods,
    summarise_online,
)
from ._progress import Phase
from ._reproduction import Reproduction, Request
from ._streamed_runs import Pace, Sight, run_streamed, sight
from ._streams import EVALUATE, META, TUNE, stream

_UNIT = "unit.json"
_RATES, _SCALES = (0.15, 0.5, 1.5), (0.1, 1.0, 10.0, 100.0)
"""Half as many configurations as for small networks."""


@dataclasses.dataclass(frozen=True)
class StreamedNetworkStudy:
    """A network trained on ImageNet by SGD and by rates that learn themselves.

    **Arguments:**

    - `model`: the network, by name; `-bf16` behind a ResNet's has it compute in bfloat16.
    - `classes`: how many classes the data folder has; fewer than 1,000 are another task.
    - `side`: height and width of the images that the network sees.
    - `batch`, `steps`: images a step, and steps a run; 5,005 steps of 256 images are an epoch.
    - `stride`: curves are measured every so many steps, and runs can be resumed from there.
    - `chunk`: steps a compiled call, whose images are on the device at once.
    - `tune_steps`: the length of a run while tuning, measured every `tune_stride` steps.
    - `seeds`, `tune_seeds`: runs a method, and a configuration while tuning.
    - `rows`: accuracies are measured on at most this many images of each part.
    - `split`: seed of the choice of the images kept apart for tuning.
    """

    model: str = "resnet50"
    classes: int = 1000
    side: int = 224
    batch: int = 256
    steps: int = 50_000
    stride: int = 2500
    chunk: int = 10
    tune_steps: int = 5000
    seeds: int = 3
    tune_seeds: int = 1
    rows: int = 10_000
    split: int = 0

    def __post_init__(self):
        """Checks every number."""
        positive(self, "batch", "steps", "stride", "chunk", "tune_steps", "seeds", "tune_seeds")
        positive(self, "side", "rows")
        between(self, "classes", 2, 10**6)
        between(self, "split", 0, 2**32 - 1)
        divides(self, "stride", "steps")
        divides(self, "chunk", "stride")
        divides(self, "chunk", "tune_steps")

    @property
    def tune_stride(self) -> int:
        """The least divisor of `tune_steps` that is at least `stride` and whole chunks; or all."""
        parts = range(self.stride, self.tune_steps, self.chunk)
        return next((part for part in parts if self.tune_steps % part == 0), self.tune_steps)


_SMOKE = {
    "model": "resnet50-4",
    "side": 32,
    "batch": 4,
    "steps": 4,
    "stride": 2,
    "chunk": 2,
    "tune_steps": 2,
    "seeds": 1,
    "rows": 8,
}
_PAPER = {"steps": 450_000, "stride": 5000, "tune_steps": 25_000, "rows": 50_000}


def train_streamed(
    config: StreamedNetworkStudy, task: StreamedTask, model: Model, request: Request, recipe: str
) -> dict[str, Any]:
    """Tunes and runs the three methods, or what is left of that.

    **Arguments:**

    - `config`: the study.
    - `task`, `model`: what is learned, by what.
    - `request`: seed, progress, and the folder in which every run has one.
    - `recipe`: the name of the reproduction.

    **Returns:**

    What `summary.json` holds.

    **Raises:**

    - `DataError`: an image that is unreadable or damaged.
    """
    folder = RunFolder(request.path)
    unit = _unit(config, task, model, folder, request.seed)
    methods = online_methods(jnp.asarray(unit, float), _RATES, _SCALES)
    with request.progress.phase("tuning", 100) as phase:
        part = task.validation(seed=config.split)
        chosen = _tune(config, methods, part, model, folder, request.seed, phase)
    place = sight(task, model, config.rows)
    pace = Pace(config.batch, config.steps, config.stride, config.chunk)
    with request.progress.phase("training", 100) as phase:
        total = len(methods) * config.seeds
        curves = [
            _runs(
                *(method, values, task, place, pace, config.seeds),
                folder=folder,
                name=f"training/{slug(method.name)}",
                key=stream(request.seed, EVALUATE),
                advance=lambda share: phase.share(share / total),
                warn=phase.say,
            )
            for method, values in zip(methods, chosen, strict=True)
        ]
    measured = np.stack(curves)
    summary = summarise_online(
        methods,
        Measured(chosen, measured[..., 1:], measured[..., 0], config.steps, config.stride),
        task=task.name,
        model=config.model,
        unit=unit,
        tuned_on=(
            "accuracy on a fifth of the training images, kept apart, after "
            f"{config.tune_steps:,} steps"
        ),
        notes=_notes(config, task, place),
    )
    return {"recipe": recipe, **summary}


def _unit(
    config: StreamedNetworkStudy, task: StreamedTask, model: Model, folder: RunFolder, seed: int
) -> float:
    """`max G_1²`; where the study is continued, that of its first call, whatever the device."""
    found = folder.read_json(_UNIT)
    if found is None:
        (images, labels), *_ = task.batches(config.batch, 1, seed=(seed % 2**32,))
        start = jax.jit(model.init)(stream(seed, META))
        batch = jax.device_put((images[0], labels[0]))
        unit = float(largest_square(classification_loss(model, task.scale), start, batch))
        write_json(folder / _UNIT, {"unit": unit})
        return unit
    return math.nan if found["unit"] is None else found["unit"]


def _tune(
    config: StreamedNetworkStudy,
    methods: Sequence[Method],
    part: StreamedTask,
    model: Model,
    folder: RunFolder,
    seed: int,
    phase: Phase,
) -> list[Hyperparameters]:
    """The best configuration of every method, by error at the end of a short run."""
    place = sight(part, model, config.rows)
    pace = Pace(config.batch, config.tune_steps, config.tune_stride, config.chunk)
    total = sum(len(method.grid) for method in methods) * config.tune_seeds
    chosen = []
    for method in methods:
        scores = []
        for index, values in enumerate(method.grid):
            curves = _runs(
                *(method, values, part, place, pace, config.tune_seeds),
                folder=folder,
                name=f"tuning/{slug(method.name)}-{index}",
                key=stream(seed, TUNE),
                advance=lambda share: phase.share(share / total),
                warn=phase.say,
            )
            lost = ~np.isfinite(curves[:, -1, 0])
            scores.append([np.where(lost, np.inf, 1 - curves[:, -1, 2]).mean()])
        chosen.append(best(method, np.array(scores)))
    return chosen


def _runs(
    method: Method,
    values: Hyperparameters,
    task: StreamedTask,
    place: Sight,
    pace: Pace,
    seeds: int,
    *,
    folder: RunFolder,
    name: str,
    key: jax.Array,
    advance: Callable[[float], None],
    warn: Callable[[str], None],
) -> np.ndarray:
    """One configuration from several seeds, `(seeds, points, 3)`."""
    record = {"method": method.name, "hyperparameters": dict(values)}
    found = [
        run_streamed(
            *(method, values, task, place, pace, folder.part(f"{name}-{seed}", record)),
            key=jax.random.fold_in(key, seed),
            advance=advance,
            warn=warn,
        )
        for seed in range(seeds)
    ]
    return np.stack(found)


def _notes(config: StreamedNetworkStudy, task: StreamedTask, place: Sight) -> list[str]:
    train, test = (len(part[1]) for part in (place.train, place.test))
    return [
        f"Tuned by runs of {config.tune_steps:,} steps, since runs of {config.steps:,} are too "
        "dear for every configuration; the best after few steps need not be the best after many.",
        f"Constant first rates, no momentum, no weight decay; random parts of {config.side} × "
        f"{config.side} pixels, half of them flipped. The protocol of S002 is not published.",
        f"Accuracies are those on {train:,} training and {test:,} test images.",
        *([task.note] if task.note else []),
    ]


def _prepare(
    config: StreamedNetworkStudy, request: Request, recipe: str
) -> Callable[[], dict[str, Any]]:
    task = imagenet(request.data, side=config.side, classes=config.classes)
    model = network(config.model, task.image_shape, task.classes)
    return lambda: train_streamed(config, task, model, request, recipe)


ONLINE_STREAMS: dict[str, Reproduction] = {
    "s002-fig1-imagenet": figure1(
        "s002-fig1-imagenet",
        "the same with ResNet-50 on ImageNet, which you must have; for an accelerator",
        StreamedNetworkStudy(),
        _SMOKE,
        _PAPER,
        _prepare,
        report.S002_FIGURE1,
    )
}
"""Fig. 1 as the paper has it."""
