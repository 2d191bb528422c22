r"""Recipes: named studies, each a configuration with budgets."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from .._errors import ConfigError, nearest
from ..tasks import DIVERSE_DIGITS
from ._config import at_budget
from ._few_shot import FewShotStudy
from ._images import ImageStudy
from ._quadratics import QuadraticStudy

Study = ImageStudy | QuadraticStudy | FewShotStudy


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A named study.

    **Arguments:**

    - `about`: one line.
    - `config`: the configuration at the default budget.
    - `smoke`: fields that make it a matter of seconds.
    - `paper`: fields of the paper's own size.
    - `needs`: data sets that are not embedded.
    - `some`: whether any of them will do; else all are needed.
    """

    about: str
    config: Study
    smoke: Mapping[str, Any]
    paper: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    needs: tuple[str, ...] = ()
    some: bool = False

    def at(self, budget: str) -> Study:
        """The configuration at a budget.

        **Arguments:**

        - `budget`: `"smoke"`, `"default"` or `"paper"`.

        **Raises:**

        - `ConfigError`: for another word.
        """
        return at_budget(self.config, budget, self.smoke, self.paper)


_SMOKE = {"steps": 40, "rounds": 2, "stride": 10, "baselines": ("SGD", "Adam")}
_SMOKE |= {"seeds": 2, "tune_seeds": 1, "reference_steps": 200}
_MNIST = {
    "family": "rotated-mnist",
    "batch": 128,
    "steps": 500,
    "stride": 10,
    "rows": 5000,
    "rounds": 4,
    "tune_seeds": 1,
}
_MNIST_SMOKE = _SMOKE | {"examples": 500, "rows": 200, "batch": 32, "reference_steps": 100}
_KRONECKER = _MNIST | {
    "geometry": "kronecker",
    "examples": 10_000,
    "decay": 0.0,
    "averaging": True,
    "baselines": ("SGD", "SGD-M", "Adam", "RMSprop", "Muon", "AdamW, schedule-free"),
}
_CIFAR_SMOKE = {
    "model": "resnet18-4",
    "examples": 100,
    "steps": 6,
    "stride": 3,
    "batch": 8,
    "rounds": 1,
    "baselines": ("SGD",),
    "seeds": 1,
    "reference_steps": 12,
}
_MNIST_PAPER = {"steps": 2000, "rounds": 10, "tune_seeds": 3}

_FEW_SHOT_SMOKE = {
    "meta_steps": 20,
    "validate_every": 10,
    "validation_tasks": 8,
    "test_tasks": 20,
    "baselines": ("maml",),
    "model": "conv4-8",
    "rate": (0.1,),
    "seeds": 1,
}
_FEW_SHOT_PAPER = {
    "meta_steps": 60_000,
    "validate_every": 2_000,
    "validation_tasks": 1_000,
    "test_tasks": 1_000,
    "model": "conv4-64",
    "rate": (0.01,),
    "decay": "none",
    "protocol": "official",
}


_TUNED = {"rate": (0.05, 0.1, 0.2), "pilot_steps": 200, "decay": "cosine"}


def _few_shot(about: str, *needs: str, **fields: Any) -> Recipe:
    return Recipe(about, FewShotStudy(**fields), _FEW_SHOT_SMOKE, _FEW_SHOT_PAPER, needs)


RECIPES: dict[str, Recipe] = {
    "rotated-digits": Recipe(
        "scikit-learn's handwritten digits in six rotations; embedded, minutes on a laptop",
        ImageStudy(),
        _SMOKE,
        {"seeds": 10, "rounds": 30},
    ),
    "rotated-mnist": Recipe(
        "RotatedMNIST with a 3-layer network (S000 Table 1, top)",
        ImageStudy(model="mlp-100-100", **_MNIST),
        _MNIST_SMOKE,
        {**_MNIST_PAPER, "model": "mlp-256-128"},
        needs=("mnist",),
    ),
    "rotated-mnist-linear": Recipe(
        "RotatedMNIST with a linear model (S000 Table 2), where the theory holds",
        ImageStudy(model="linear", **_MNIST),
        _MNIST_SMOKE,
        {**_MNIST_PAPER, "steps": 1000},
        needs=("mnist",),
    ),
    "rotated-mnist-kronecker": Recipe(
        "RotatedMNIST, 10,000 images, in a geometry of Kronecker factors (S001)",
        ImageStudy(model="mlp-100-100", **_KRONECKER),
        _MNIST_SMOKE,
        {"model": "mlp-256-128", "examples": 0, "steps": 2000, "tune_seeds": 3},
        needs=("mnist",),
    ),
    "diverse-digits": Recipe(
        "DiverseDigits with LeNet-5, leaving one data set out (S000 Table 1, bottom)",
        ImageStudy(
            family="diverse-digits",
            held_out="mnist",
            model="lenet5",
            batch=128,
            steps=500,
            stride=10,
            targets=(0.5, 0.3, 0.1),
            rows=1000,
            rounds=6,
            tune_seeds=1,
        ),
        {**_SMOKE, "steps": 20, "batch": 16, "rows": 200, "examples": 500},
        needs=DIVERSE_DIGITS,
        some=True,
    ),
    "cifar-10": Recipe(
        "CIFAR-10 with ResNet-18, learned on four small parts, tried on the rest (S000 Fig. 2, 4)",
        ImageStudy(
            family="cifar-10",
            held_out="rest",
            model="resnet18",
            batch=128,
            steps=1000,
            stride=100,
            rows=2000,
            rounds=4,
            reference_steps=2000,
            reference_rate=0.1,
            tune_seeds=1,
            in_turn=True,
        ),
        {**_SMOKE, **_CIFAR_SMOKE},
        {"steps": 10_000, "rounds": 10, "reference_steps": 20_000, "stride": 500, "rows": 10_000},
        needs=("cifar-10",),
    ),
    "quadratics": Recipe(
        "2-D quadratics with flatness means (5, 0.5) (S000 Fig. 1, top)",
        QuadraticStudy(flatness=(5.0, 0.5)),
        {"tasks": 8, "held_out": 8, "limit": 2000, "rates": 5},
    ),
    "quadratics-flat": Recipe(
        "2-D quadratics with flatness means (20, 0.02) (S000 Fig. 1, bottom)",
        QuadraticStudy(flatness=(20.0, 0.02)),
        {"tasks": 8, "held_out": 8, "limit": 2000, "rates": 5},
    ),
    "few-shot-glyphs": _few_shot(
        "few-shot classification of characters from matplotlib's fonts; embedded, minutes"
    ),
    "omniglot": _few_shot(
        "few-shot classification of handwritten characters (S004)",
        "omniglot",
        family="omniglot",
        rotations=True,
        meta_steps=5000,
        validate_every=250,
        test_tasks=1000,
        **_TUNED,
    ),
    "cifar-fs": _few_shot(
        "few-shot classification of CIFAR-100's classes, CIFAR-FS split",
        "cifar-100",
        family="cifar-fs",
        meta_steps=1000,
        **_TUNED,
    ),
    "fc100": _few_shot(
        "few-shot classification of CIFAR-100's classes, FC100 split by superclass",
        "cifar-100",
        family="fc100",
        meta_steps=1000,
        **_TUNED,
    ),
    "mini-imagenet": _few_shot(
        "few-shot classification of miniImageNet (S004 Table 1)",
        "mini-imagenet",
        family="mini-imagenet",
        meta_steps=1000,
        **_TUNED,
    ),
}


def find_recipe(name: str) -> Recipe:
    """The recipe of a name.

    **Arguments:**

    - `name`: such as `"rotated-digits"`.

    **Raises:**

    - `ConfigError`: if there is none, with the nearest names.

    >>> find_recipe("rotated-digits").needs
    ()
    """
    if name not in RECIPES:
        hint = nearest(name, RECIPES) or " Known: " + ", ".join(RECIPES) + "."
        raise ConfigError(f"no recipe {name!r}.{hint} See mirrax list.")
    return RECIPES[name]
