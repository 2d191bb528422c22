r"""S000's Fig. 1 re-made: steps to converge on quadratics of two flatnesses, from several seeds.

Both by the law of tasks that S000 states and by the one the spec reads out of it, see
`mirrax.tasks.sample_quadratics`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import report
from .._errors import ConfigError
from ._conclude import draw
from ._quadratics import QuadraticStudy, train_quadratics
from ._recipes import find_recipe
from ._reproduction import Reproduction, Request

_SETTINGS = {
    "flatness (5, 0.5)": ("quadratics", "curvature"),
    "flatness (20, 0.02)": ("quadratics-flat", "curvature"),
    "flatness (5, 0.5), means of C": ("quadratics", "factor"),
    "flatness (20, 0.02), means of C": ("quadratics-flat", "factor"),
}
"""Recipe and law by what they are called."""


def _configure(budget: str) -> QuadraticStudy:
    config = find_recipe("quadratics").at(budget)
    assert isinstance(config, QuadraticStudy)
    return config


def _make(request: Request, config: QuadraticStudy) -> dict[str, Any]:
    """All settings, from three seeds each."""
    plain = QuadraticStudy()
    if (config.flatness, config.law) != (plain.flatness, plain.law):
        raise ConfigError(
            "--flatness, --law: s000-fig1 has runs of both; leave them out, or use mirrax train "
            "quadratics."
        )
    seeds = 1 if request.budget == "smoke" else 3
    settings: dict[str, Any] = {}
    for label, (recipe, law) in _SETTINGS.items():
        known = find_recipe(recipe).config
        assert isinstance(known, QuadraticStudy)
        study = dataclasses.replace(config, flatness=known.flatness, law=law)
        settings[label] = _pooled(
            [
                _run(study, recipe, request, seed)
                for seed in range(request.seed, request.seed + seeds)
            ]
        )
    return {
        "recipe": "s000-fig1",
        "settings": settings,
        "seeds": seeds,
        "held_out": config.held_out,
        "limit": config.limit,
        "tolerance": config.tolerance,
        "configurations": config.rates,
    }


def _run(config: QuadraticStudy, recipe: str, request: Request, seed: int) -> dict[str, Any]:
    path = request.path / f"{recipe}-{config.law}-{seed}"
    folder, finished = request.folder(config, recipe, path, seed)
    if finished:
        draw(folder)
        return finished
    return train_quadratics(config, folder, seed, request.progress)


def _pooled(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
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


QUADRATICS = Reproduction(
    "steps to converge on quadratics, both flatness settings",
    _configure,
    _make,
    report.quadratic_tables,
    frozenset(("flatness", "law")),
)
