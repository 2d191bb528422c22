r"""Reproductions: tables and figures of the papers by name, theirs printed beside ours."""

import dataclasses
from collections.abc import Callable
from typing import Any

from .. import report
from .._errors import ConfigError, nearest
from ._compare import LEARNED
from ._conclude import draw
from ._gradient_matrix import HYPERGRADIENTS
from ._images import ImageStudy, prepare
from ._leave_one_out import ONE, Variants, leave_one_out
from ._online_bounds import ONLINE_BOUNDS
from ._online_network import ONLINE_NETWORKS
from ._online_stream import ONLINE_STREAMS
from ._recipes import find_recipe
from ._reproduce_few_shot import FEW_SHOT_REPRODUCTIONS
from ._reproduce_online import ONLINE_REPRODUCTIONS
from ._reproduce_quadratics import QUADRATICS
from ._reproduction import Reproduction, Request
from ._train import train_images


def _images(recipe: str, **fields: Any) -> Callable[[str], ImageStudy]:
    """A recipe at a budget, with other fields."""

    def configure(budget: str) -> ImageStudy:
        config = find_recipe(recipe).at(budget)
        assert isinstance(config, ImageStudy)
        return dataclasses.replace(config, **fields)

    return configure


def _held_out(
    about: str,
    recipe: str,
    variants: Variants = ONE,
    *,
    beside: str | None = None,
    **fields: Any,
) -> Reproduction:
    """A recipe with each task held out in turn; `beside` names the paper's table, if it is one."""

    def make(request: Request, config: ImageStudy) -> dict[str, Any]:
        return leave_one_out(
            config,
            request.path,
            recipe=recipe,
            seed=request.seed,
            budget=request.budget,
            data=request.data,
            resume=request.resume,
            progress=request.progress,
            command=request.command,
            variants=variants,
        )

    printed = report.PAPERS[beside] if beside else None
    return Reproduction(
        about,
        _images(recipe, **fields),
        make,
        lambda result: report.held_out_tables(result, printed),
        frozenset(("held_out",)).union(*variants.values()),
    )


def _trained(request: Request, config: ImageStudy, recipe: str) -> dict[str, Any]:
    """One geometry learned and compared on one held-out task, as `mirrax train` does."""
    setting = prepare(config, request.data)
    folder, finished = request.folder(config, recipe)
    if finished and (folder / "curves.json").exists():
        draw(folder)
        return finished
    return train_images(setting, folder, request.seed, request.progress)


def _activation(request: Request, config: ImageStudy) -> dict[str, Any]:
    if config.geometry != "max-of-diagonals":
        raise ConfigError(
            f"--geometry: s000-fig5 shows which diagonal of several is active, got "
            f"{config.geometry!r}; leave it out."
        )
    summary = _trained(request, config, "rotated-digits")
    rounds = report.Run.read(request.path).rounds
    return {**summary, "activation_by_round": [line["activation"] for line in rounds]}


def _resnet(about: str) -> Reproduction:
    """CIFAR-10 with ResNet-18 and the rivals of S000 Fig. 4; at the smoke budget with fewer."""

    def configure(budget: str) -> ImageStudy:
        config = _images("cifar-10")(budget)
        rivals = config.baselines if budget == "smoke" else ("SGD", "SGD-M", "Adam", "AdamW")
        return dataclasses.replace(config, baselines=rivals)

    return Reproduction(
        about,
        configure,
        lambda request, config: _trained(request, config, "cifar-10"),
        lambda result: report.one_task_tables(result, report.S000_FIGURE4),
    )


_THREE: Variants = {
    LEARNED: {},
    f"{LEARNED}, max of 3": {"geometry": "max-of-diagonals", "estimator": "direct"},
    f"{LEARNED}, Kronecker": {"geometry": "kronecker", "decay": 0.0},
}
"""Every kind of geometry that S000 and S001 learn."""

_RESNET = "ResNet-18 on CIFAR-10, learned on small parts of it"
_LINEAR = "RotatedMNIST with a linear model, each rotation held out"
_LENET = "DiverseDigits with LeNet-5, each data set that is present held out"
_MLP = "RotatedMNIST with a 3-layer network, each rotation held out"

REPRODUCTIONS: dict[str, Reproduction] = {
    "s000-fig1": QUADRATICS,
    "s000-table1-mlp": _held_out(_MLP, "rotated-mnist", beside="s000-table1-mlp"),
    "s000-table1-lenet": _held_out(
        _LENET, "diverse-digits", _THREE, beside="s000-table1-lenet", averaging=True
    ),
    "s000-fig2": _held_out(f"learning curves, {_MLP}", "rotated-mnist"),
    "s000-fig2-resnet": _resnet(f"learning curves, {_RESNET}; for an accelerator"),
    "s000-fig3": _held_out(f"learning curves, {_LENET}", "diverse-digits"),
    "s000-table2": _held_out(_LINEAR, "rotated-mnist-linear", beside="s000-table2"),
    "s000-fig4": _resnet(f"test accuracy, {_RESNET}; for an accelerator"),
    "s000-fig5": Reproduction(
        "how often each of three diagonals is active, on rotated digits",
        _images("rotated-digits", geometry="max-of-diagonals", estimator="direct", components=3),
        _activation,
        report.activation_tables,
    ),
    "s000-fig6": _held_out(f"learning curves, {_LINEAR}", "rotated-mnist-linear"),
    "s000-fig7": _held_out(f"learning curves on every data set, {_LENET}", "diverse-digits"),
    "rotated-mnist-kronecker": _held_out(
        "a Kronecker geometry beside old and new optimisers, each rotation held out",
        "rotated-mnist-kronecker",
    ),
    "rotated-digits": _held_out(
        "the main job with each rotation held out in turn", "rotated-digits"
    ),
    **ONLINE_NETWORKS,
    **ONLINE_STREAMS,
    **ONLINE_REPRODUCTIONS,
    "s002-bounds": ONLINE_BOUNDS,
    "hypergradients": HYPERGRADIENTS,
    **FEW_SHOT_REPRODUCTIONS,
}
"""Every reproduction by name."""


def find_reproduction(name: str) -> Reproduction:
    """The reproduction of a name.

    **Arguments:**

    - `name`: such as `"s000-table2"`.

    **Raises:**

    - `ConfigError`: if there is none, with the nearest names.

    >>> find_reproduction("s000-fig1").about
    'steps to converge on quadratics, both flatness settings'
    """
    if name not in REPRODUCTIONS:
        hint = nearest(name, REPRODUCTIONS) or " Known: " + ", ".join(REPRODUCTIONS) + "."
        raise ConfigError(f"no reproduction {name!r}.{hint}")
    return REPRODUCTIONS[name]
