r"""Leave-one-out tables: each task of a family held out in turn, every method tuned on the others.

A baseline's run on a task does not depend on which task is held out, so each configuration of its
grid is run once on every task, and for each held-out task the best mean over the *other* tasks is
chosen. The learned geometry is meta-trained, and its grid run, anew for each held-out task on the
others only; and so is every method where each trial follows from those before.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from .._files import slug, write_json
from ._baselines import Method
from ._compare import AVERAGED, CONTROL, LEARNED, evaluate, learned_methods, spread, timed
from ._conclude import conclude, draw
from ._folder import RunFolder
from ._images import ImageSetting, ImageStudy, prepare
from ._kept import Kept
from ._progress import Progress
from ._step_cost import seconds_a_step
from ._streams import EVALUATE, stream
from ._train import data_notes, meta_train, open_folder, record_of, rivals
from ._trials import curve_steps
from ._tuning import Tuned, by_grid, grid_scores, terms, tuned

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
    kept = Kept.within(path)
    others = rivals(setting)
    done: dict[str, Any] = {"terms": terms(others), "scores": {}, "cells": {}}
    done |= {"notes": [], "timing": {}}
    known = folder.read_json("cells.json") or {}
    names = [task.name.rsplit("/", 1)[-1] for task in setting.tasks]
    finished = folder.read_json("summary.json")
    if finished and all(name in known.get("cells", {}) for name in names):
        write_json(folder / "curves.json", _curves(config, known["cells"]))
        draw(folder)
        return finished
    if known.get("terms") == done["terms"]:
        done = known
    left = [method for method in others if method.name not in done["scores"]]
    if left and config.tuner == "grid":
        title = "tuning baselines"
        found = grid_scores(config, left, setting.tuning, path, seed, progress, title)
        done["scores"] |= {name: scores.tolist() for name, scores in found.items()}
        write_json(folder / "cells.json", done)
        kept.clear()
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
            part = RunFolder.made_or_opened(where, record)
            learned = meta_train(own, part, seed, progress)
            ours += learned_methods(
                learned.geometry, own.config.rate, own.config.averaging, name=variant
            )
            note = f"{variant}, for each task held out: {own.cost}"
            if note not in done["notes"]:
                done["notes"].append(note)
        done["cells"][name] = _tried(held, ours, others, done, path, seed, progress)
        write_json(folder / "cells.json", done)
        kept.clear()
    kept.clear()  # where a kill came between
    result = _summary(setting, recipe, variants, done)
    write_json(folder / "curves.json", _curves(config, done["cells"]))
    return conclude(folder, result)


def _curves(config: ImageStudy, cells: Mapping[str, Any]) -> dict[str, Any]:
    """What `curves.json` holds: training losses of every method, task by task, over seeds."""
    return {
        "metric": "training loss",
        "steps": curve_steps(config.steps, config.stride),
        "tasks": {
            task: {name: cell["curve"] for name, cell in row.items()} for task, row in cells.items()
        },
    }


def _tried(
    held: ImageSetting,
    ours: Sequence[Method],
    others: Sequence[Method],
    done: dict[str, Any],
    path: Path,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Every method tuned without the task held out, and tried on it; adds to notes and timing."""
    config, methods = held.config, [*ours, *others]
    known = {
        # JSON has no infinity: a configuration that failed was written as null.
        method.name: np.nan_to_num(np.array(scores, float), nan=np.inf, posinf=np.inf)
        for method in others
        if (scores := done["scores"].get(method.name)) is not None
    }
    anew = [method for method in methods if method.name not in known]
    title = f"tuning, {config.held_out} held out"
    found = dict(
        zip((m.name for m in anew), tuned(held, anew, path, seed, progress, title), strict=True)
    )
    for method in others:
        if method.name in known:
            found[method.name] = by_grid(method, known[method.name][:, held.training], config)
    chosen = [found[method.name] for method in methods]
    notes = [f"Tuned for {config.held_out}: {one.note}" for one in chosen if one.note]
    done["notes"] += [note for note in notes if note not in done["notes"]]
    cells = _cells(held, methods, chosen, path, seed, progress)
    if config.timed and not done["timing"]:  # what a step costs does not depend on the task
        place = held.place.select([held.held_out])
        done["timing"] = seconds_a_step(methods, [one.values for one in chosen], place)
    return cells


def _cells(
    held: ImageSetting,
    methods: Sequence[Method],
    chosen: Sequence[Tuned],
    path: Path,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    config = held.config
    with progress.phase(f"{config.held_out} held out", 100) as phase:
        found = evaluate(
            methods,
            [one.values for one in chosen],
            held.place.select([held.held_out]),
            steps=config.steps,
            stride=config.stride,
            targets=config.targets,
            seeds=config.seeds,
            key=stream(seed, EVALUATE),
            kept=Kept.within(path),
            advance=phase.share,
        )
    return {
        method.name: {**row, "tuning": one.record, "curve": curve}
        for method, one in zip(methods, chosen, strict=True)
        for row, curve in [found[method.name]]
    }


def _summary(
    setting: ImageSetting,
    recipe: str,
    variants: Variants,
    done: Mapping[str, Any],
) -> dict[str, Any]:
    config, cells, timing = setting.config, done["cells"], done["timing"]
    methods = list(next(iter(cells.values())))
    if timing:
        cells = {
            task: {name: timed(cell, timing[name]) for name, cell in row.items()}
            for task, row in cells.items()
        }
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
    """Means over tasks and seeds, with standard errors over tasks."""
    targets = [key for key in ("steps_to", "seconds_to") if key in rows[0]]

    def pooled(pick: Any) -> dict[str, Any]:
        return spread([value for row in rows for value in pick(row)["values"]], len(rows))

    return {
        "optimiser": name,
        "hyperparameters": {},
        "test_accuracy": pooled(lambda row: row["test_accuracy"]),
        "final_loss": pooled(lambda row: row["final_loss"]),
        "log_loss_area": pooled(lambda row: row["log_loss_area"]),
        **{
            key: {target: pooled(lambda row, k=key, t=target: row[k][t]) for target in rows[0][key]}
            for key in targets
        },
        **{key: rows[0][key] for key in ("seconds_a_step",) if key in rows[0]},
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

    The difference of test accuracies with its paired standard error over tasks, the ratios of
    final losses and of steps to each target (`None` where a method did not always get there, or
    the best baseline is at zero, to which nothing has a ratio).
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
    gain = spread([a - b for a, b in pairs], ours["test_accuracy"]["tasks"])

    def against(pick: Any) -> dict[str, Any] | None:
        best, value = lowest(pick), pick(ours)["mean"]
        if best is None or value is None or best[1] == 0:
            return None
        return {"rival": best[0], "ratio": value / best[1]}

    return {
        "accuracy": {"rival": rival, "gain": gain["mean"], "paired_se": gain["se"]},
        "final_loss": against(lambda row: row["final_loss"]),
        "steps_to": {
            target: against(lambda row, t=target: row["steps_to"][t]) for target in ours["steps_to"]
        },
    }
