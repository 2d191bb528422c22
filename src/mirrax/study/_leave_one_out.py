r"""Leave-one-out tables: each task of a family held out in turn, every method tuned on the others.

A baseline's run on a task does not depend on which task is held out, so each configuration is run
once on every task, and for each held-out task the best mean over the *other* tasks is chosen. The
learned geometry is meta-trained, and its grid run, anew for each held-out task on the others only.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from .. import report
from .._files import slug, write_json
from ._baselines import Hyperparameters, Method
from ._compare import (
    AVERAGED,
    CONTROL,
    LEARNED,
    best,
    edge_note,
    evaluate,
    learned_methods,
    spread,
    tune,
)
from ._folder import RunFolder
from ._images import ImageSetting, ImageStudy, prepare
from ._progress import Progress
from ._streams import EVALUATE, TUNE, stream
from ._train import data_notes, meta_train, open_folder, record_of, rivals
from ._trials import Arena, curve_steps

Variants: TypeAlias = Mapping[str, Mapping[str, Any]]

ONE: Variants = {LEARNED: {}}
"""The study as it is."""


def leave_one_out(
    config: ImageStudy,
    path: Path,
    *,
    recipe: str,
    seed: int,
    budget: str,
    data: Path | None,
    resume: bool,
    progress: Progress,
    command: str,
    variants: Variants = ONE,
) -> dict[str, Any]:
    """Makes the whole table, or continues it.

    **Arguments:**

    - `config`: the study; its `held_out` is replaced by each task in turn.
    - `variants`: what is learned, by the name of its row, as changes of the study's fields.
    - `path`: the folder of the table.
    - `recipe`: the name of what the study is a variation of.
    - `seed`, `budget`, `data`, `resume`, `progress`, `command`: as on the command line.

    **Returns:**

    Cells by task and method, means over tasks, ratios and notes.
    """
    if not resume:
        RunFolder.check_new(path)
    setting = prepare(config, data, each=True)
    folder = open_folder(
        config,
        path,
        recipe=recipe,
        seed=seed,
        budget=budget,
        resume=resume,
        command=command,
    )
    done = folder.read_json("cells.json") or {"scores": {}, "cells": {}, "notes": []}
    names = [task.name.rsplit("/", 1)[-1] for task in setting.tasks]
    shared = rivals(setting)
    left = [method for method in shared if method.name not in done["scores"]]
    if left:
        found = _scores(config, setting.tuning, left, seed, progress, "tuning baselines")
        done["scores"] |= {name: scores.tolist() for name, scores in found.items()}
        write_json(folder / "cells.json", done)
    for position, name in enumerate(names):
        if name in done["cells"]:
            continue
        held = dataclasses.replace(
            setting,
            config=dataclasses.replace(config, held_out=name),
            training=tuple(i for i in range(len(names)) if i != position),
            held_out=position,
        )
        ours = []
        for variant, changes in variants.items():
            own = dataclasses.replace(held, config=dataclasses.replace(held.config, **changes))
            where = path / name if len(variants) == 1 else path / name / slug(variant)
            record = record_of(own.config, recipe=recipe, seed=seed, budget=budget, command=command)
            ours += _learned(own, where, variant, record, seed, progress)
            note = f"{variant}, for each task held out: {own.cost}"
            if note not in done["notes"]:
                done["notes"].append(note)
        place, title = setting.tuning.select(held.training), f"tuning, {name} held out"
        scores = _scores(config, place, ours, seed, progress, title)
        for method in shared:
            scores[method.name] = np.array(done["scores"][method.name])[:, held.training]
        methods = [*ours, *shared]
        chosen = [best(method, scores[method.name]) for method in methods]
        done["cells"][name] = _cells(held, methods, chosen, seed, progress)
        for method, values in zip(methods, chosen, strict=True):
            note = edge_note(method, values)
            if note and note not in done["notes"]:
                done["notes"].append(note)
        write_json(folder / "cells.json", done)
    result = _summary(setting, recipe, variants, done)
    write_json(folder / "curves.json", _curves(config, done["cells"]))
    write_json(folder / "summary.json", result)
    report.write_figures(report.Run.read(path))
    return result


def _curves(config: ImageStudy, cells: Mapping[str, Any]) -> dict[str, Any]:
    """What `curves.json` holds: training losses of every method, task by task, over seeds."""
    return {
        "metric": "training loss",
        "steps": curve_steps(config.steps, config.stride),
        "tasks": {
            task: {name: _banded(cell["curve"]) for name, cell in row.items()}
            for task, row in cells.items()
        },
    }


def _banded(curve: Any) -> dict[str, Any]:
    """A curve with its band; a table begun by version 0.1.0 has means alone."""
    return curve if isinstance(curve, dict) else {"mean": curve}


def _scores(
    config: ImageStudy,
    place: Arena,
    methods: Sequence[Method],
    seed: int,
    progress: Progress,
    title: str,
) -> dict[str, np.ndarray]:
    with progress.phase(title, 100) as phase:
        return tune(
            methods,
            place,
            steps=config.steps,
            criterion=config.criterion,
            seeds=config.tune_seeds,
            key=stream(seed, TUNE),
            advance=phase.share,
        )


def _cells(
    held: ImageSetting,
    methods: Sequence[Method],
    chosen: Sequence[Hyperparameters],
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    config = held.config
    with progress.phase(f"{config.held_out} held out", 100) as phase:
        found = evaluate(
            methods,
            chosen,
            held.place.select([held.held_out]),
            steps=config.steps,
            stride=config.stride,
            targets=config.targets,
            seeds=config.seeds,
            key=stream(seed, EVALUATE),
            advance=phase.share,
        )
    return {name: {**row, "curve": curve} for name, (row, curve) in found.items()}


def _learned(
    held: ImageSetting,
    path: Path,
    name: str,
    record: dict[str, Any],
    seed: int,
    progress: Progress,
) -> list[Method]:
    known = (path / "config.json").exists()
    folder = RunFolder.open(path)[0] if known else RunFolder.create(path, record)
    learned = meta_train(held, folder, seed, progress)
    return learned_methods(learned.geometry, held.config.rate, held.config.averaging, name=name)


def _summary(
    setting: ImageSetting,
    recipe: str,
    variants: Variants,
    done: Mapping[str, Any],
) -> dict[str, Any]:
    config, cells = setting.config, done["cells"]
    methods = list(next(iter(cells.values())))
    means = {name: _mean_row(name, [cell[name] for cell in cells.values()]) for name in methods}
    ours = [name for name in methods if name.removesuffix(AVERAGED) in variants]
    return {
        "recipe": recipe,
        "model": config.model,
        "held_out": "each task in turn",
        "seeds": config.seeds,
        "comparison": list(means.values()),
        "cells": {
            task: {
                name: {k: v for k, v in cell.items() if k != "curve"} for name, cell in row.items()
            }
            for task, row in cells.items()
        },
        "against_best_baseline": {name: against_best(means, name, ours) for name in ours},
        "notes": [*done["notes"], *data_notes(setting)],
    }


def _mean_row(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over tasks and seeds; the standard error is over all runs."""

    def pooled(pick: Any) -> dict[str, Any]:
        return spread([value for row in rows for value in pick(row)["values"]])

    return {
        "optimiser": name,
        "hyperparameters": {},
        "test_accuracy": pooled(lambda row: row["test_accuracy"]),
        "final_loss": pooled(lambda row: row["final_loss"]),
        "log_loss_area": pooled(lambda row: row["log_loss_area"]),
        "steps_to": {
            target: pooled(lambda row, t=target: row["steps_to"][t])
            for target in rows[0]["steps_to"]
        },
    }


def against_best(
    means: Mapping[str, Mapping[str, Any]], name: str, learned: Sequence[str]
) -> dict[str, Any]:
    """How a learned geometry stands to the best baseline of each column.

    **Arguments:**

    - `means`: rows by method.
    - `name`: the method whose standing it is.
    - `learned`: the methods that are no baselines, besides the control.

    **Returns:**

    The difference of test accuracies with the paired standard error over runs, the ratios of
    final losses and of steps to each target (`None` where a method did not always get there).
    """
    ours = means[name]
    own = {*learned, CONTROL, CONTROL + AVERAGED}
    others = {name: row for name, row in means.items() if name not in own}

    def lowest(pick: Any) -> tuple[str, float] | None:
        known = {name: pick(row)["mean"] for name, row in others.items()}
        known = {name: value for name, value in known.items() if value is not None}
        return min(known.items(), key=lambda item: item[1]) if known else None

    rival = max(others, key=lambda name: others[name]["test_accuracy"]["mean"] or 0)
    pairs = zip(
        ours["test_accuracy"]["values"], others[rival]["test_accuracy"]["values"], strict=True
    )
    gain = spread([a - b for a, b in pairs])

    def against(pick: Any) -> dict[str, Any] | None:
        best, value = lowest(pick), pick(ours)["mean"]
        if best is None or value is None:
            return None
        return {"rival": best[0], "ratio": value / best[1]}

    return {
        "accuracy": {"rival": rival, "gain": gain["mean"], "paired_se": gain["se"]},
        "final_loss": against(lambda row: row["final_loss"]),
        "steps_to": {
            target: against(lambda row, t=target: row["steps_to"][t]) for target in ours["steps_to"]
        },
    }
