r"""Reproductions: tables and figures of the papers by name, theirs printed beside ours."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import report
from .._errors import ConfigError, nearest
from .._files import write_json
from ._compare import LEARNED
from ._config import override
from ._gradient_matrix import HYPERGRADIENTS
from ._images import ImageStudy, prepare
from ._leave_one_out import ONE, Variants, leave_one_out
from ._online_bounds import ONLINE_BOUNDS
from ._online_network import ONLINE_NETWORKS
from ._online_stream import ONLINE_STREAMS
from ._quadratics import QuadraticStudy, train_quadratics
from ._recipes import find_recipe
from ._reproduce_few_shot import FEW_SHOT_REPRODUCTIONS
from ._reproduce_online import ONLINE_REPRODUCTIONS
from ._reproduction import Reproduction, Request
from ._train import train_images


def _leave_one_out(
    recipe: str, variants: Variants = ONE, **fields: Any
) -> Callable[[Request], dict[str, Any]]:
    def make(request: Request) -> dict[str, Any]:
        config = find_recipe(recipe).at(request.budget)  # type: ignore[arg-type]
        assert isinstance(config, ImageStudy)
        config = override(dataclasses.replace(config, **fields), request.fields)
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

    return make


def _plain(name: str) -> str:
    """A name without what spellings differ in: `fashion-mnist` and `FashionMNIST` are one."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _own_tables(result: Mapping[str, Any]) -> list[report.Table]:
    found = report.summary_tables(result)
    if result["against_best_baseline"]:
        found.append(report.standing_table(result))
    by_task = report.steps_by_task_table(result, ("SGD", "SGD-M"))
    return found if by_task is None else [*found, by_task]


def _beside(paper: str) -> Callable[[Mapping[str, Any]], list[report.Table]]:
    def tables(result: Mapping[str, Any]) -> list[report.Table]:
        ours: dict[str, dict[str, Any]] = {}
        columns = {_plain(column): column for column in map(str, report.PAPERS[paper]["columns"])}
        for task, row in result["cells"].items():
            for name, cell in row.items():
                accuracy = cell["test_accuracy"]
                ours.setdefault(name, {})[columns.get(_plain(task)) or task] = {
                    "mean": 100 * accuracy["mean"],
                    "se": 100 * accuracy["se"],
                }
        return [report.side_by_side(ours, report.PAPERS[paper]), *_own_tables(result)]

    return tables


def _quadratics(request: Request) -> dict[str, Any]:
    """Both flatness settings, three seeds each, S000's law of tasks and the spec's."""
    seeds = 1 if request.budget == "smoke" else 3
    settings: dict[str, Any] = {}

    def configured(recipe: str, law: str) -> QuadraticStudy:
        config = find_recipe(recipe).at(request.budget)  # type: ignore[arg-type]
        assert isinstance(config, QuadraticStudy)
        return override(dataclasses.replace(config, law=law), request.fields)

    for label, recipe, law in (
        ("flatness (5, 0.5)", "quadratics", "curvature"),
        ("flatness (20, 0.02)", "quadratics-flat", "curvature"),
        ("flatness (5, 0.5), means of C", "quadratics", "factor"),
        ("flatness (20, 0.02), means of C", "quadratics-flat", "factor"),
    ):
        runs = []
        for seed in range(request.seed, request.seed + seeds):
            config = configured(recipe, law)
            path = request.path / f"{recipe}-{law}-{seed}"
            runs.append(_quadratic_run(config, recipe, path, seed, request))
        settings[label] = _pool_quadratics(runs)
    config = configured("quadratics", "curvature")
    result = {
        "settings": settings,
        "seeds": seeds,
        "tolerance": config.tolerance,
        "configurations": config.rates,
    }
    write_json(request.path / "summary.json", result)
    return result


def _quadratic_run(
    config: QuadraticStudy, recipe: str, path: Path, seed: int, request: Request
) -> dict[str, Any]:
    folder, finished = request.folder(config, recipe, path, seed)
    return finished or train_quadratics(config, folder, seed, request.progress)


def _pool_quadratics(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    steps: dict[str, list[float]] = {}
    medians: dict[str, list[float]] = {}
    for run in runs:
        for row in run["comparison"]:
            steps.setdefault(row["optimiser"], []).append(row["steps"]["mean"])
            medians.setdefault(row["optimiser"], []).append(row["steps"]["median"])
    mean = {name: float(np.mean(values)) for name, values in steps.items()}
    others = min(mean[name] for name in ("SGD-M", "Adam", "RMSprop"))
    return {
        "mean_steps": mean,
        "by_seed": steps,
        "median_steps": {name: float(np.mean(values)) for name, values in medians.items()},
        "to_sgd": mean["MetaMD"] / mean["SGD"],
        "to_best_other": mean["MetaMD"] / others,
        "eq10_to_sgd": mean["eq. 10"] / mean["SGD"],
    }


def _quadratic_tables(result: Mapping[str, Any]) -> list[report.Table]:
    names = list(next(iter(result["settings"].values()))["mean_steps"])
    columns = (
        report.Column("setting", "Tasks"),
        *(report.Column(name, name, numeric=True) for name in names),
        report.Column("sgd", "MetaMD / SGD", numeric=True),
        report.Column("other", "MetaMD / best other", numeric=True),
    )
    rows = []
    for label, found in result["settings"].items():
        steps = [found["mean_steps"][name] for name in names]
        ratios = (found["to_sgd"], found["to_best_other"])
        row = [report.Cell(label)]
        row += [report.Cell(f"{value:,.1f}", value) for value in steps]
        row += [report.Cell(f"{value:.3f}", value) for value in ratios]
        rows.append(tuple(row))
    notes = (
        f"Steps until the gradient norm is below {result['tolerance']:g}, mean over held-out tasks "
        f"and {result['seeds']} seeds; every method tuned on {result['configurations']} "
        "configurations.",
        "Means of C: the spec's law of tasks, whose correlated directions no diagonal can undo.",
    )
    return [report.Table("Quadratics, S000 Fig. 1", columns, tuple(rows), notes)]


def _activation(request: Request) -> dict[str, Any]:
    config = find_recipe("rotated-digits").at(request.budget)  # type: ignore[arg-type]
    assert isinstance(config, ImageStudy)
    config = dataclasses.replace(
        config, geometry="max-of-diagonals", estimator="direct", components=3
    )
    config = override(config, request.fields)
    request.check_new()
    setting = prepare(config, request.data)
    folder, _ = request.folder(config, "rotated-digits")
    summary = train_images(setting, folder, request.seed, request.progress)
    last = report.Run.read(request.path).rounds[-1]
    return {**summary, "activation": last["activation"]}


def _activation_tables(result: Mapping[str, Any]) -> list[report.Table]:
    columns = (
        report.Column("component", "Component"),
        report.Column("share", "Steps at which it is the largest (%)", numeric=True),
    )
    rows = tuple(
        (report.Cell(str(index + 1)), report.Cell(f"{100 * share:.1f}", 100 * share))
        for index, share in enumerate(result["activation"])
    )
    title = "Activation of the components in the last round, S000 Fig. 5"
    return [report.Table(title, columns, rows), *report.summary_tables(result)]


_THREE: Variants = {
    LEARNED: {},
    f"{LEARNED}, max of 3": {"geometry": "max-of-diagonals", "estimator": "direct"},
    f"{LEARNED}, Kronecker": {"geometry": "kronecker", "decay": 0.0},
}
"""Every kind of geometry that S000 and S001 learn."""

REPRODUCTIONS: dict[str, Reproduction] = {
    "s000-fig1": Reproduction(
        "steps to converge on quadratics, both flatness settings", _quadratics, _quadratic_tables
    ),
    "s000-table1-mlp": Reproduction(
        "RotatedMNIST with a 3-layer network, each rotation held out",
        _leave_one_out("rotated-mnist"),
        _beside("s000-table1-mlp"),
    ),
    "s000-table1-lenet": Reproduction(
        "DiverseDigits with LeNet-5, each data set that is present held out",
        _leave_one_out("diverse-digits", _THREE, averaging=True),
        _beside("s000-table1-lenet"),
    ),
    "s000-fig3": Reproduction(
        "learning curves on DiverseDigits with LeNet-5, each data set held out",
        _leave_one_out("diverse-digits"),
        _own_tables,
    ),
    "s000-table2": Reproduction(
        "RotatedMNIST with a linear model, each rotation held out",
        _leave_one_out("rotated-mnist-linear"),
        _beside("s000-table2"),
    ),
    "rotated-mnist-kronecker": Reproduction(
        "a Kronecker geometry beside old and new optimisers, each rotation held out",
        _leave_one_out("rotated-mnist-kronecker"),
        _own_tables,
    ),
    "s000-fig5": Reproduction(
        "how often each of three diagonals is active, on rotated digits",
        _activation,
        _activation_tables,
    ),
    "rotated-digits": Reproduction(
        "the main job with each rotation held out in turn",
        _leave_one_out("rotated-digits"),
        _own_tables,
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
