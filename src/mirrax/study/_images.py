r"""The image studies: learn a geometry on all tasks of a family but one, and try it on that one.

The configuration is one dataclass, and its fields are the command line's options.
"""

import dataclasses
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from .._errors import ConfigError, nearest
from .._secrets import is_masked
from ..geometry import AbstractGeometry
from ..meta import ManyShot, OnFailure, Reference, classification
from ..methods import EstimatorName, meta_md
from ..models import Model
from ..tasks import ImageTask, cifar10_subsets, diverse_digits, rotated_digits, rotated_mnist
from ._baselines import DEFAULT_BASELINES, named
from ._compare import Criterion
from ._config import between, divides, positive
from ._exchangeable import exchangeable_axes
from ._network import network
from ._shortened import shortened
from ._trials import Arena, arena

Family = Literal["rotated-digits", "rotated-mnist", "diverse-digits", "cifar-10"]
Tuner = Literal["grid", "bayes"]


@dataclasses.dataclass(frozen=True)
class ImageStudy:
    """A many-shot study on a family of image classification tasks.

    **Arguments:**

    - `family`: which tasks.
    - `held_out`: the task that meta-training never sees, by the end of its name.
    - `model`: the network, by name; `-bf16` behind a ResNet's has it compute in bfloat16.
    - `batch`, `steps`: examples a step, and steps a run.
    - `geometry`, `components`, `objective`, `comparator`, `k`, `estimator`, `window`, `pairs`,
      `spread`, `step`, `rate`, `outer_rate`, `decay`, `damping`, `visits`: see
      `mirrax.methods.meta_md`.
    - `pool`: share one rate among exchangeable hidden units, see `exchangeable_axes`.
    - `reference_rate`, `reference_steps`: the Euclidean run whose end is the comparator.
    - `split`: seed of the split into training and test images, where it is ours to make.
    - `examples`: of each task only the first so many training images; 0 for all.
    - `rounds`: rounds of meta-training.
    - `devices`, `batch_devices`, `in_turn`: over how many devices the tasks of meta-training are
      spread, and over how many each the rows of their batches; whether a device takes its runs one
      after another, see `mirrax.meta.ManyShot`.
    - `on_failure`: what becomes of a round some of whose runs fail, see `mirrax.meta.Descent`.
    - `baselines`: what the geometry is compared with; `all` for every one there is.
    - `control`: compare with the identity geometry too, tuned exactly as the learned one.
    - `averaging`: compare the geometry, and the control, with averaged points too, see
      `mirrax.deploy.averaged`.
    - `tuner`: `grid` tries all configurations of a grid, `bayes` as many trials of every method,
      chosen by a Gaussian process within ranges.
    - `grid`: S000's grids, or these and rates beyond them.
    - `trials`: of each method, for `bayes`.
    - `kappa`: how much `bayes` prefers what it knows little of, see `mirrax.study._surrogate`.
    - `storage`: where `bayes` keeps its trials, a file or the address of a database that several
      workers share; a file of the run folder by default.
    - `criterion`: tuning maximises the accuracy on a fifth of the training images of the
      meta-training tasks, kept apart for it, or minimises the final training loss there.
    - `seeds`, `tune_seeds`: runs a method on the held-out task, and a configuration and task while
      tuning.
    - `stride`: curves are measured every so many steps.
    - `targets`: training losses, falling; the steps to reach each are reported.
    - `rows`: the training loss is measured on at most this many training examples.
    - `timed`: measure how long a step of every method takes.
    """

    changeable: ClassVar[frozenset[str]] = frozenset(
        (
            "rate",
            "outer_rate",
            "rounds",
            "decay",
            "damping",
            "baselines",
            "control",
            "averaging",
            "grid",
        )
        + ("criterion", "seeds", "tune_seeds", "stride", "targets", "rows")
        + ("tuner", "trials", "kappa", "storage", "timed")
        + ("devices", "batch_devices", "in_turn")
    )
    """Fields that may change while a run is under way; others would make it another run."""

    placement: ClassVar[frozenset[str]] = frozenset(
        ("devices", "batch_devices", "in_turn", "storage")
    )
    """Fields that say where it is computed, which may even change within one table."""

    family: Family = "rotated-digits"
    held_out: str = "45"
    split: int = 0
    examples: int = 0
    model: str = "mlp-128-64"
    batch: int = 64
    steps: int = 400
    geometry: Literal["diagonal", "max-of-diagonals", "kronecker"] = "diagonal"
    components: int = 3
    objective: Literal["tight", "eq10"] = "tight"
    comparator: Literal["reference", "last"] = "reference"
    reference_rate: float = 0.3
    reference_steps: int = 1600
    k: float = 1.0
    estimator: EstimatorName = "closed-form"
    window: int = 0
    pairs: int = 16
    spread: float = 0.05
    step: Literal["exact", "printed"] = "exact"
    rate: float = 0.1
    outer_rate: float = 0.05
    rounds: int = 6
    visits: int = 1
    decay: float = 0.3
    damping: float = 0.1
    pool: bool = True
    devices: int = 1
    batch_devices: int = 1
    in_turn: bool = False
    on_failure: OnFailure = "stop"
    baselines: tuple[str, ...] = DEFAULT_BASELINES
    control: bool = True
    averaging: bool = False
    tuner: Tuner = "grid"
    grid: Literal["s000", "wide"] = "s000"
    trials: int = 25
    kappa: float = 1.0
    storage: str = ""
    criterion: Criterion = "validation"
    seeds: int = 3
    tune_seeds: int = 3
    stride: int = 4
    targets: tuple[float, ...] = (0.3, 0.1)
    rows: int = 10_000
    timed: bool = True

    @property
    def idle(self) -> dict[str, str]:
        """Fields that have no effect as the others are, and what they are of."""
        other = "--tuner bayes" if self.tuner == "grid" else "--tuner grid"
        names = ("trials", "kappa", "storage") if self.tuner == "grid" else ("grid",)
        return {name: other for name in names}

    def __post_init__(self):
        """Checks every number, and writes out `all` baselines."""
        positive(self, "batch", "steps", "rate", "outer_rate", "k", "rounds", "visits", "rows")
        positive(self, "reference_rate", "reference_steps")
        positive(self, "seeds", "tune_seeds", "stride", "components", "pairs", "spread")
        positive(self, "devices", "batch_devices", "targets", "trials", "kappa")
        between(self, "damping", 0, 100)
        between(self, "examples", 0, 10**9)
        between(self, "decay", 0, 0.999)
        # Written out, so that a record of the study means the same when there are more baselines.
        object.__setattr__(self, "baselines", named(self.baselines))
        if self.window and (self.window < 0 or self.steps % self.window):
            raise ConfigError(
                f"--window: expected a divisor of --steps ({self.steps}), or 0 for the whole run, "
                f"got {self.window!r}."
            )
        divides(self, "stride", "steps")
        divides(self, "batch_devices", "batch")
        if self.in_turn and self.devices > 1 and self.batch_devices > 1:
            raise ConfigError(
                "--in-turn: a device that takes its tasks one after another cannot share their "
                "batches with others; choose --devices 1, --batch-devices 1 or --in-turn false."
            )
        if self.estimator == "closed-form" and (
            self.objective != "tight" or self.geometry == "max-of-diagonals"
        ):
            raise ConfigError(
                "--estimator closed-form needs --objective tight and --geometry diagonal or "
                "kronecker; choose --estimator direct or reverse."
            )
        if self.estimator == "closed-form" and self.on_failure != "stop":
            raise ConfigError(
                f"--on-failure {self.on_failure} needs an estimator of hypergradients, such as "
                "--estimator direct; the closed form lowers rates by itself where runs diverge."
            )


@dataclasses.dataclass(frozen=True)
class ImageSetting:
    """A study made concrete: tasks loaded, problems on the device, learner composed."""

    config: ImageStudy
    tasks: tuple[ImageTask, ...]
    model: Model
    place: Arena
    training: tuple[int, ...]
    held_out: int

    @property
    def template(self) -> Any:
        """Zeros shaped like the parameters."""
        shapes = jax.eval_shape(self.model.init, jax.random.key(0))
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    @functools.cached_property
    def tuning(self) -> Arena:
        """Where methods are tuned by the study's criterion: all tasks, of which one is held out."""
        if self.config.criterion == "loss":
            return self.place
        parts = [task.validation(seed=self.config.split) for task in self.tasks]
        problems = classification(parts, self.model, self.config.batch)
        return arena(parts, problems, self.model, self.config.rows)

    @property
    def cost(self) -> str:
        """One sentence: what learning the geometry costs, in steps of ordinary training runs."""
        c = self.config
        visits = c.rounds * c.visits * len(self.training)
        runs = visits * (2 * c.pairs if c.estimator == "evolution" else 1)
        steps, also = runs * c.steps, ""
        if self.reference is not None:
            steps += visits * c.reference_steps
            also = f", and {visits} reference runs of {c.reference_steps:,}"
        if c.geometry == "max-of-diagonals":
            steps += visits * c.steps
            also += f", and {visits} runs again to see which component is active"
        forward = "" if c.estimator in ("closed-form", "direct", "evolution") else " forward"
        return (
            f"Learning a geometry took {runs} runs of {c.steps:,} steps{also}: as many{forward} "
            f"steps as {steps / c.steps:,.0f} ordinary runs."
        )

    @property
    def reference(self) -> Reference | None:
        """The reference run that stands for the unknown solution, if the study uses one."""
        if self.config.comparator == "last":
            return None
        return Reference(self.config.reference_rate, self.config.reference_steps)

    def learner(self, seed: int) -> tuple[ManyShot, AbstractGeometry]:
        """The learner and the geometry it starts from."""
        c = self.config
        return meta_md(
            self.model.init,
            steps=c.steps,
            rate=c.rate,
            geometry=c.geometry,
            components=c.components,
            objective=c.objective,
            comparator="last" if c.comparator == "last" else "solution",
            reference=self.reference,
            k=c.k,
            estimator=c.estimator,
            window=c.window,
            pairs=c.pairs,
            spread=c.spread,
            step=c.step,
            outer_rate=c.outer_rate,
            decay=c.decay,
            damping=c.damping,
            pool=exchangeable_axes(self.model) if c.pool else None,
            visits=c.visits,
            devices=c.devices,
            batch_devices=c.batch_devices,
            in_turn=c.in_turn,
            on_failure=c.on_failure,
            key=jax.random.key(seed),
        )


def load_family(family: Family, data: Path | None, split: int = 0) -> tuple[ImageTask, ...]:
    """The tasks of a family.

    **Arguments:**

    - `family`: its name.
    - `data`: the folder of data sets, for those that are not embedded.
    - `split`: seed of the split into training and test images, where it is ours to make.

    **Raises:**

    - `DataError`: if data are missing or damaged.
    """
    if family == "rotated-digits":
        return rotated_digits(seed=split)
    if family == "cifar-10":
        return cifar10_subsets(data, seed=split)
    return (rotated_mnist if family == "rotated-mnist" else diverse_digits)(data)


def find_task(tasks: Sequence[ImageTask], name: str) -> int:
    """The position of the task whose name, or last part of it, is `name`.

    **Raises:**

    - `ConfigError`: if there is none, with the names there are.
    """
    short = [task.name.rsplit("/", 1)[-1] for task in tasks]
    for position, task in enumerate(tasks):
        if name in (task.name, short[position]):
            return position
    raise ConfigError(
        f"--held-out: no task {name!r}; known are {', '.join(short)}.{nearest(name, short)}"
    )


def _check_devices(config: ImageStudy, tasks: int) -> None:
    devices, batch, count = config.devices, config.batch_devices, jax.device_count()
    there = count // batch
    if not there:
        raise ConfigError(
            f"--batch-devices: expected at most the {count} devices there are, got {batch!r}."
        )
    if tasks % devices or devices > there:
        among = f" for --batch-devices {batch}" if batch > 1 else ""
        raise ConfigError(
            f"--devices: expected a divisor of the {tasks} tasks of meta-training, at most the "
            f"{there} there {'is' if there == 1 else 'are'}{among}, got {devices!r}."
        )
    if jax.process_count() > 1 and devices * batch != count:
        raise ConfigError(
            f"--devices: the {jax.process_count()} processes have {count} devices, all of which "
            f"must take part, got {devices} times --batch-devices {batch}."
        )


def check_tuner(config: ImageStudy) -> None:
    """Refuses a tuner that cannot work here, before anything is computed.

    **Arguments:**

    - `config`: the study.

    **Raises:**

    - `ConfigError`: if Optuna is not installed, or the storage is of another kind or damaged.
    - `MirraxError`: if the storage cannot be written.
    """
    if config.tuner != "bayes":
        return
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            "tuning by bayes keeps its trials with Optuna: pip install 'mirrax[tune]', or tune by "
            "grid."
        )
    if config.storage:
        from ._search import open_storage

        if is_masked(config.storage):
            raise ConfigError(
                f"--storage: the password of {config.storage} was not written down; give the "
                "whole address again."
            )
        open_storage(config.storage)


def prepare(
    config: ImageStudy, data: Path | None, *, each: bool = False, learns: bool = True
) -> ImageSetting:
    """Loads a study's tasks and puts them on the device.

    **Arguments:**

    - `config`: the study.
    - `data`: the folder of data sets, or `None` for the environment's.
    - `each`: each task will be held out in turn, so that `held_out` need not be among them.
    - `learns`: a geometry will be learned and compared, for which `devices` and the tuner must be
      there.

    **Returns:**

    The setting.

    **Raises:**

    - `ConfigError`, `DataError`: if a name is unknown, the model does not take such images, the
      examples are too few to tune on, or data are missing or damaged.
    """
    if learns:
        check_tuner(config)
    tasks = load_family(config.family, data, config.split)
    divided = config.criterion == "validation"
    tasks = tuple(shortened(task, config.examples, divided=divided) for task in tasks)
    model = network(config.model, tasks[0].image_shape, tasks[0].classes)
    held_out = 0 if each else find_task(tasks, config.held_out)
    if learns:
        _check_devices(config, len(tasks) - 1)
    problems = classification(tasks, model, config.batch)
    place = arena(tasks, problems, model, config.rows)
    training = tuple(i for i in range(len(tasks)) if i != held_out)
    return ImageSetting(config, tasks, model, place, training, held_out)
