r"""S004's table and figure re-made: every method under one protocol, theirs printed beside ours."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import report
from .._errors import ConfigError
from ._few_shot import FewShotStudy, prepare_few_shot
from ._few_shot_train import train_few_shot
from ._recipes import find_recipe
from ._reproduction import Reproduction, Request

TABLE1 = ("maml", "anil", "meta_sgd", "t_net", "mt_net", "warp_maml", "warpgrad") + (
    "meta_curvature",
    "meta_kfo",
    "ecml",
    "block_iaf",
    "block_iaf_official",
    "kronecker_metric",
    "warped_potential",
)  # and the convex potential, which is the recipe's own method
FIGURE1 = ("maml", "meta_sgd", "meta_curvature", "block_iaf", "kronecker_metric")
_SMOKE = {"meta_steps": 4, "stride": 2, "validate_every": 2}
_SMOKE |= {"validation_tasks": 4, "test_tasks": 8}
"""Less than the recipe's: every method is compiled anew, for each number of shots."""


def _study(budget: str, baselines: tuple[str, ...], **fields: Any) -> FewShotStudy:
    config = find_recipe("mini-imagenet").at(budget)
    assert isinstance(config, FewShotStudy)
    smoke = _SMOKE if budget == "smoke" else {}
    return dataclasses.replace(config, baselines=baselines, **fields, **smoke)


def _run(request: Request, config: FewShotStudy, path: Path | None = None) -> dict[str, Any]:
    setting = prepare_few_shot(config, request.data)
    folder, _ = request.folder(config, "mini-imagenet", path)
    return train_few_shot(setting, folder, request.seed, request.progress)


def _configure_table1(budget: str) -> FewShotStudy:
    return _study(budget, TABLE1, seeds=1 if budget == "smoke" else 3)


def _table1(request: Request, config: FewShotStudy) -> dict[str, Any]:
    """All methods, 1-shot and 5-shot."""
    if config.shot != 1:
        raise ConfigError(
            "--shot: s004-table1 has runs of 1 and of 5 shots; leave it out, or use "
            "mirrax train mini-imagenet."
        )
    shots = {
        f"{shot}-shot": _run(
            request, dataclasses.replace(config, shot=shot), request.path / f"{shot}-shot"
        )
        for shot in (1, 5)
    }
    return {"shots": shots}


def _table1_tables(result: Mapping[str, Any]) -> list[report.Table]:
    runs = list(result["shots"].values())
    beside = report.few_shot_side_by_side(runs, report.S004_TABLE1)
    return [*(report.few_shot_table(run) for run in runs), beside]


def _configure_figure1(budget: str) -> FewShotStudy:
    """The paper judges by 1,000 new tasks."""
    return _study(budget, FIGURE1, **({} if budget == "smoke" else {"test_tasks": 1000}))


def _figure1(request: Request, config: FewShotStudy) -> dict[str, Any]:
    """Adaptation on new tasks, for k = 0, …, 10."""
    return _run(request, config)


def _figure1_tables(result: Mapping[str, Any]) -> list[report.Table]:
    return [report.few_shot_table(result), report.adaptation_table(result)]


FEW_SHOT_REPRODUCTIONS: dict[str, Reproduction] = {
    "s004-table1": Reproduction(
        "miniImageNet 5-way 1-shot and 5-shot, every method under one protocol",
        _configure_table1,
        _table1,
        _table1_tables,
        frozenset(("shot",)),
    ),
    "s004-fig1": Reproduction(
        "loss and gradient norm against the adaptation step on new tasks",
        _configure_figure1,
        _figure1,
        _figure1_tables,
    ),
}
