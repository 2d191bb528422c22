r"""The few-shot studies: learn a prior on many small tasks, and try it on classes never seen.

Every method of a study has the same network, inner steps, outer optimiser, episodes and number of
meta-steps; what it learns, and how fast some part of it, is its own. The configuration is one
dataclass, and its fields are the command line's options.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Literal

import equinox as eqx
import jax
import optax

from .._errors import ConfigError
from ..inner import Prior
from ..meta import FewShot, Grid, OnFailure, Statistics
from ..methods import Protocol, find_method, options_of
from ..models import Model, Warp
from ..tasks import (
    Episodes,
    FewShotFamily,
    cifar_fs,
    fc100,
    glyphs,
    mini_imagenet,
    omniglot,
)
from ._config import between, option, positive
from ._network import network

FewShotFamilyName = Literal["glyphs", "omniglot", "cifar-fs", "fc100", "mini-imagenet"]

_STANDARD_QUERIES = 15
_OPTIONS = ("first_order", "warp", "penalty")
"""Fields that are options of methods; other keywords of a method are its own business."""


@dataclasses.dataclass(frozen=True)
class FewShotStudy:
    """A comparison of few-shot methods on one family of classes.

    **Arguments:**

    - `family`: where classes come from.
    - `split`: of Omniglot's characters, see `mirrax.tasks.omniglot`.
    - `method`: the method whose prior is kept, `convex_potential` by default; see
      `mirrax.methods`, or `module:function` for one of your own.
    - `baselines`: methods it is compared with.
    - `way`, `shot`: classes of a task, and support images a class.
    - `protocol`: query images a class of validation and test tasks: 15 (`standard`), or as many as
      support images (`official`, as in the code of S004). Meta-training always has 15.
    - `statistics`: whose batch statistics normalise query images: those of the query set
      (transductive, as in the published codes) or of the support set.
    - `model`: the network, by name.
    - `steps`, `rate`: inner steps, and their size in units of the mean cross-entropy. Of several
      sizes each method keeps the one that is best on validation tasks after `pilot_steps`, the
      first of equals.
    - `pilot_steps`: meta-steps of each rate, if there are several; those of the kept one count.
    - `meta_steps`, `tasks`: outer steps, and tasks a step.
    - `optimiser`, `outer_rate`, `decay`, `clip`: the outer loop: Adam, or SGD with Nesterov
      momentum 0.9 and weight decay 1e-4 of the network; its rate, constant, falling along a
      cosine, or by ten every third of the steps; the largest norm of a hypergradient, 0 for none.
    - `on_failure`: what becomes of a meta-step some of whose tasks fail, see `mirrax.meta.FewShot`.
    - `first_order`, `warp`, `penalty`: options of the methods that have them.
    - `rotations`: whether quarter turns of a class are classes of their own in meta-training.
    - `stride`, `validate_every`, `validation_tasks`: steps a compiled call, steps between
      validations, and tasks of each; the prior that is best there is kept.
    - `test_tasks`: tasks of the test.
    - `curve_steps`: the curves of adaptation go so many steps far.
    - `seeds`: runs a method. All are tested on the same tasks.
    """

    family: FewShotFamilyName = "glyphs"
    split: Literal["vinyals", "background"] = "vinyals"
    method: str = "convex_potential"
    baselines: tuple[str, ...] = ("maml", "meta_sgd", "meta_curvature")
    way: int = 5
    shot: int = 1
    protocol: Literal["standard", "official"] = "standard"
    statistics: Statistics = "query"
    model: str = "conv4-32"
    steps: int = 5
    rate: tuple[float, ...] = (0.1,)
    pilot_steps: int = 100
    meta_steps: int = 300
    tasks: int = 4
    optimiser: Literal["adam", "nesterov"] = "adam"
    outer_rate: float = 1e-3
    decay: Literal["none", "cosine", "step"] = "none"
    clip: float = 10.0
    on_failure: OnFailure = "stop"
    first_order: bool = False
    warp: Warp = "spatial"
    penalty: float = 0.01
    rotations: bool = False
    stride: int = 10
    validate_every: int = 100
    validation_tasks: int = 100
    test_tasks: int = 600
    curve_steps: int = 10
    seeds: int = 1

    def __post_init__(self):
        """Checks every number and name."""
        positive(self, "shot", "steps", "rate", "meta_steps", "tasks", "outer_rate", "stride")
        positive(self, "validate_every", "seeds", "pilot_steps")
        between(self, "validation_tasks", 2, 1e6)  # one alone has no interval
        between(self, "test_tasks", 2, 1e6)
        between(self, "way", 2, 1000)
        between(self, "clip", 0, 1e6)
        between(self, "penalty", 0, 1e6)
        if not isinstance(self.rate, tuple) or not 0 < len(self.rate) == len(set(self.rate)):
            raise ConfigError(f"--rate: expected different numbers, got {self.rate!r}.")
        several = len(self.rate) > 1
        if several and self.pilot_steps > self.meta_steps:
            raise ConfigError(
                f"--pilot-steps: expected at most --meta-steps ({self.meta_steps}), got "
                f"{self.pilot_steps!r}."
            )
        for name in ("meta_steps", "validate_every") + ("pilot_steps",) * several:
            if getattr(self, name) % self.stride:
                raise ConfigError(
                    f"{option(name)}: expected a multiple of --stride ({self.stride}), got "
                    f"{getattr(self, name)!r}."
                )
        if self.curve_steps < self.steps:
            raise ConfigError(
                f"--curve-steps: expected at least --steps ({self.steps}), got "
                f"{self.curve_steps!r}."
            )
        for name in self.methods:
            find_method(name)

    @property
    def changeable(self) -> frozenset[str]:
        """Fields that may change while a run is under way; others would make it another run."""
        fields = {"method", "baselines", "seeds", "stride", "test_tasks", "curve_steps"}
        # A rate that falls with the steps depends on how many there shall be.
        return frozenset(fields | {"meta_steps"} if self.decay == "none" else fields)

    @property
    def methods(self) -> tuple[str, ...]:
        """The method and its baselines, each once."""
        return tuple(dict.fromkeys((self.method, *self.baselines)))

    @property
    def test_queries(self) -> int:
        """Query images a class of validation and test tasks."""
        return self.shot if self.protocol == "official" else _STANDARD_QUERIES


@dataclasses.dataclass(frozen=True)
class FewShotSetting:
    """A study made concrete: classes on the device, episodes, and the network."""

    config: FewShotStudy
    family: FewShotFamily

    @property
    def grid(self) -> Grid:
        """The devices over which the tasks of a meta-step are spread."""
        return Grid.dividing(self.config.tasks)

    @functools.cached_property
    def episodes(self) -> tuple[Episodes, Episodes, Episodes]:
        """Episodes of meta-training, validation and test."""
        c = self.config
        return self.grid.place(
            self.family.episodes(c.way, c.shot, _STANDARD_QUERIES, c.test_queries, c.rotations)
        )

    @property
    def seen(self) -> Episodes:
        """Episodes like those of the test, of the classes of meta-training."""
        train, _, test = self.episodes
        return dataclasses.replace(test, allowed=train.allowed)

    def network(self, *, warp: Warp | None = None, head_warp: bool = False) -> Model:
        """The network of the study, with warp layers where a method has them."""
        shape = self.family.train.image_shape
        return _network(self.config.model, shape, self.config.way, warp, head_warp)

    @functools.cached_property
    def protocol(self) -> Protocol:
        """What all methods share; the inner rate is the first of the study's."""
        c = self.config
        return Protocol(
            self.network,
            outer_optimiser(c),
            c.steps,
            c.rate[0],
            c.tasks,
            c.statistics,
            self.grid.tasks,
            c.on_failure,
        )

    def compose(self, method: str, seed: int, rate: float) -> tuple[FewShot, Prior]:
        """A method's learner, and the prior it starts from.

        **Arguments:**

        - `method`: its name.
        - `seed`: seed of the initial parameters; equal seeds give all methods the same network.
        - `rate`: the inner rate.

        **Raises:**

        - `ConfigError`: if a method of one's own returns anything else.
        """
        function = find_method(method)
        options = {n: getattr(self.config, n) for n in options_of(function) if n in _OPTIONS}
        protocol = dataclasses.replace(self.protocol, rate=rate)
        made = function(protocol, key=jax.random.key(seed), **options)
        learner, prior = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
        if not (isinstance(learner, FewShot) and isinstance(prior, Prior)):
            raise ConfigError(
                f"{method!r} returned {type(made).__name__}; return (learner, prior), as "
                "protocol.learner(…) and Prior(…) make them."
            )
        return learner, prior


@functools.cache
def _network(
    name: str, shape: tuple[int, int, int], way: int, warp: Warp | None, head_warp: bool
) -> Model:
    """One object for equal arguments: seeds and rates share what is compiled for it."""
    return network(name, shape, way, warp=warp, head_warp=head_warp)


def outer_optimiser(config: FewShotStudy) -> optax.GradientTransformation:
    """The outer optimiser of a study.

    **Arguments:**

    - `config`: the study.
    """
    rate, steps = config.outer_rate, config.meta_steps
    schedules = {
        "none": rate,
        "cosine": optax.cosine_decay_schedule(rate, steps),
        "step": optax.exponential_decay(rate, max(1, steps // 3), 0.1, staircase=True),
    }
    schedule = schedules[config.decay]
    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    if config.optimiser == "adam":
        return optax.chain(clip, optax.adam(schedule))
    momentum = optax.sgd(schedule, momentum=0.9, nesterov=True)
    decay = optax.add_decayed_weights(1e-4, mask=_of_the_network)
    return optax.chain(clip, decay, momentum)


def _of_the_network(prior: Prior) -> Prior:
    """Whose weights decay: a geometry's would be drawn to zero, which need not be the identity."""
    every = jax.tree.map(lambda _: True, prior)
    return dataclasses.replace(every, geometry=jax.tree.map(lambda _: False, prior.geometry))


def load_classes(config: FewShotStudy, data: Path | None) -> FewShotFamily:
    """The classes of a study.

    **Arguments:**

    - `config`: the study.
    - `data`: the folder of data sets, for those that are not embedded.

    **Raises:**

    - `DataError`: if data are missing or damaged.
    """
    if config.family == "glyphs":
        return glyphs()
    if config.family == "omniglot":
        return omniglot(data, split=config.split)
    readers = {"cifar-fs": cifar_fs, "fc100": fc100, "mini-imagenet": mini_imagenet}
    return readers[config.family](data)


def prepare_few_shot(config: FewShotStudy, data: Path | None) -> FewShotSetting:
    """Loads a study's classes, and checks that every method can be composed of them.

    **Arguments:**

    - `config`: the study.
    - `data`: the folder of data sets, or `None` for the environment's.

    **Raises:**

    - `ConfigError`, `DataError`: if a name is unknown, data are missing or damaged, or tasks need
      more classes or images than there are.
    """
    if jax.process_count() > 1 and config.tasks % jax.device_count():
        raise ConfigError(
            f"--tasks: expected a multiple of the {jax.device_count()} devices of the "
            f"{jax.process_count()} processes, got {config.tasks!r}."
        )
    setting = FewShotSetting(config, load_classes(config, data))
    _ = setting.episodes
    for method in config.methods:
        eqx.filter_eval_shape(setting.compose, method, 0, config.rate[0])
    return setting
