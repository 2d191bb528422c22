r"""The main job: meta-train a geometry, compare it on the held-out task, write everything down."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import deploy
from .._errors import ConfigError
from .._files import write_json
from .._json import plain
from .._machine import now
from ..geometry import AbstractMirrorMap
from ._baselines import Method
from ._certify import certify_images
from ._compare import control_methods, evaluate, learned_methods, methods_of, timed
from ._conclude import conclude
from ._config import fields_of, made_otherwise, option
from ._describe import describe_geometry
from ._distributed import dismiss_others
from ._folder import RunFolder
from ._images import ImageSetting
from ._kept import Kept
from ._learn import Learned, check_rounds, learn
from ._progress import Progress
from ._step_cost import seconds_a_step
from ._streams import CERTIFY, EVALUATE, META, stream
from ._trials import curve_steps
from ._tuning import terms, tuned


def meta_train(setting: ImageSetting, folder: RunFolder, seed: int, progress: Progress) -> Learned:
    """Meta-trains the geometry of a study, or continues where it was stopped.

    **Arguments:**

    - `setting`: the study.
    - `folder`: the run folder.
    - `seed`: seed of the run.
    - `progress`: where to show progress.
    """
    config = setting.config
    learner, initial = setting.learner(seed)
    learned = learn(
        learner,
        initial,
        setting.place.select(setting.training).problems,
        [setting.tasks[i].name for i in setting.training],
        rounds=config.rounds,
        rate=config.rate,
        folder=folder,
        progress=progress,
        key=stream(seed, META),
    )
    deploy.save(
        folder / "geometry.safetensors",
        learned.geometry,
        rate=config.rate,
        roles=setting.model.roles,
        record={
            "family": config.family,
            "tasks": [setting.tasks[i].name for i in setting.training],
            "model": config.model,
            "steps": config.steps,
            "seed": seed,
        },
    )
    write_json(
        folder / "geometry.json",
        describe_geometry(learned.geometry, config.rate, setting.model.roles),
    )
    return learned


def compare_images(
    setting: ImageSetting,
    geometry: AbstractMirrorMap,
    folder: RunFolder,
    seed: int,
    progress: Progress,
) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
    """Tunes every method on the meta-training tasks and tries it on the held-out one.

    Methods already in the comparison of an interrupted run are not run again, unless it was made
    with another geometry, other settings, another grid or another version; there is one file a
    tuner.

    **Arguments:**

    - `setting`: the study.
    - `geometry`: what was learned.
    - `folder`: the run folder.
    - `seed`: seed of the run.
    - `progress`: where to show progress.

    **Returns:**

    The rows of the comparison, the curves by method, and notes.
    """
    config, name = setting.config, f"comparison-{setting.config.tuner}.json"
    methods = roster(setting, geometry)
    geometry_file = (folder / "geometry.safetensors").read_bytes()
    basis = {"geometry": hashlib.sha256(geometry_file).hexdigest()}
    basis |= plain({name: getattr(config, name) for name in _ROW_DECIDING})
    done = _compared(folder, name, basis)
    own = {method.name: terms([method]) for method in methods}
    left = [m for m in methods if done["rows"].get(m.name, {}).get("terms") != own[m.name]]
    if left:
        found = tuned(setting, left, folder.path, seed, progress)
        chosen = [one.values for one in found]
        place = setting.place.select([setting.held_out])
        with progress.phase("held-out task", 100) as phase:
            evaluated = evaluate(
                left,
                chosen,
                place,
                steps=config.steps,
                stride=config.stride,
                targets=config.targets,
                seeds=config.seeds,
                key=stream(seed, EVALUATE),
                kept=Kept.within(folder.path),
                advance=phase.share,
            )
        moment, seconds = now(), seconds_a_step(left, chosen, place) if config.timed else {}
        done = _compared(folder, name, basis)  # another command may have added to it meanwhile
        for method, one in zip(left, found, strict=True):
            row, done["curves"][method.name] = evaluated[method.name]
            row |= {"tuning": one.record, "note": one.note, "terms": own[method.name]}
            if method.name in seconds:
                row = {**timed(row, seconds[method.name]), "timed_at": moment}
            done["rows"][method.name] = row
        write_json(folder / name, done)
    Kept.within(folder.path).clear()
    names = [method.name for method in methods]
    found = [done["rows"][name] for name in names]
    rows = [{key: row[key] for key in row if key not in _KEPT} for row in found]
    notes = [row["note"] for row in found if row["note"]]
    notes += [*filter(None, map(_lost_note, rows)), *_timing_note(found)]
    return rows, {name: done["curves"][name] for name in names}, notes


_KEPT = ("note", "terms", "timed_at")
"""What a row is kept with and no table shows."""


def _timing_note(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Says so if steps were not all timed in turn."""
    times = len({row["timed_at"] for row in rows if "timed_at" in row})
    if times < 2:
        return []
    return [
        f"Steps were timed at {times} times, some methods at each: between them the machine may "
        "have become slower or faster."
    ]


def _lost_note(row: Mapping[str, Any]) -> str | None:
    """Says so if runs of a method ended with a loss that is not finite."""
    losses = row["final_loss"]["values"]
    lost = losses.count(None)
    if not lost:
        return None
    return (
        f"{row['optimiser']} diverged in {lost} of {len(losses)} runs on the held-out task: their "
        "training loss is not finite at the end."
    )


def _compared(folder: RunFolder, name: str, basis: Mapping[str, Any]) -> dict[str, Any]:
    """The methods that were compared already, on the same terms."""
    done = folder.read_json(name) or {}
    return done if done.get("basis") == basis else {"basis": basis, "rows": {}, "curves": {}}


def roster(setting: ImageSetting, geometry: AbstractMirrorMap) -> list[Method]:
    """The methods of a comparison: the learned geometry, its control, the baselines.

    **Arguments:**

    - `setting`: the study.
    - `geometry`: what was learned.
    """
    config = setting.config
    return [*learned_methods(geometry, config.rate, config.averaging), *rivals(setting)]


def rivals(setting: ImageSetting) -> list[Method]:
    """What a learned geometry is compared with: the control and the baselines.

    **Arguments:**

    - `setting`: the study.
    """
    config = setting.config
    control = control_methods(setting.template, config.averaging) if config.control else []
    return methods_of(control, config.baselines, config.grid == "wide")


def train_images(
    setting: ImageSetting, folder: RunFolder, seed: int, progress: Progress
) -> dict[str, Any]:
    """Runs a whole image study in its folder.

    **Arguments:**

    - `setting`: the study, with its data; prepared first, so that missing data leave no folder.
    - `folder`: an opened run folder, new or to be continued.
    - `seed`: seed of the run.
    - `progress`: where to show progress.

    **Returns:**

    What `summary.json` holds.
    """
    config = setting.config
    learned = meta_train(setting, folder, seed, progress)
    dismiss_others()  # what follows is made on one device
    rows, curves, notes = compare_images(setting, learned.geometry, folder, seed, progress)
    write_json(
        folder / "curves.json",
        {
            "metric": "training loss",
            "steps": curve_steps(config.steps, config.stride),
            "curves": curves,
        },
    )
    certificate = certify_images(setting, learned.geometry, key=stream(seed, CERTIFY))
    summary = {
        "recipe": RunFolder.open(folder.path)[1]["recipe"],
        "held_out": setting.tasks[setting.held_out].name,
        "seeds": config.seeds,
        "meta_training_seconds": round(learned.seconds, 2),
        "comparison": rows,
        "certificate": certificate,
        "notes": [setting.cost, *learned.notes, *notes, *data_notes(setting)],
    }
    return conclude(folder, summary)


def data_notes(setting: ImageSetting) -> Sequence[str]:
    """What a reader must know of the data, by the tasks that it is true of."""
    names: dict[str, list[str]] = {}
    for task in setting.tasks:
        names.setdefault(task.note, []).append(task.name)
    return [f"{', '.join(tasks)}: {note}" for note, tasks in names.items() if note]


def open_folder(
    config: Any,
    path: Path,
    *,
    recipe: str,
    seed: int,
    budget: str,
    resume: bool,
    command: str,
) -> RunFolder:
    """Makes the folder of a run, or opens that of the same run.

    **Arguments:**

    - `config`: the study.
    - `path`: the folder.
    - `recipe`, `seed`, `budget`, `resume`, `command`: as on the command line.

    **Raises:**

    - `ConfigError`: if it exists and is not to be continued, or was made with other fields.
    """
    record = record_of(config, recipe=recipe, seed=seed, budget=budget, command=command)
    if not resume or RunFolder.is_blank(path):  # also a part that a kill left without a file
        return RunFolder.create(path, record)
    folder, found = RunFolder.open(path)
    if found["recipe"] != recipe:
        raise ConfigError(
            f"{path} is a run of {found['recipe']!r}, not of {recipe!r}; choose another --out."
        )
    before, free = _completed(config, found["fields"]), getattr(config, "placement", ())
    for name, asked in record["fields"].items():
        if name not in free and before.get(name) != asked:
            raise made_otherwise(path, option(name), before.get(name), asked)
    if found["seed"] != seed:
        raise made_otherwise(path, "--seed", found["seed"], seed)
    return folder


_ROW_DECIDING = ("criterion", "seeds", "tune_seeds", "stride", "targets", "rows", "grid", "rate")
_ROW_DECIDING += ("trials", "kappa", "timed")
"""Fields on which, besides the geometry, the figures of a comparison depend."""


def revise(folder: RunFolder, record: Mapping[str, Any], config: Any) -> bool:
    """Writes down fields changed on resuming, and drops the summary of the run as it was.

    **Arguments:**

    - `folder`: the folder of the run.
    - `record`: what its `config.json` holds.
    - `config`: the study as it goes on.

    **Returns:**

    Whether any was.

    **Raises:**

    - `ConfigError`: if meta-training has begun and a field cannot change any more, or more rounds
      are made than are asked for.
    """
    fields = fields_of(config)
    before = _completed(config, record["fields"])
    changed = {name for name, value in fields.items() if before.get(name) != value}
    fixed = sorted(changed - config.changeable)
    if folder.begun and fixed:
        raise ConfigError(
            f"{option(fixed[0])}: cannot change once meta-training has begun; "
            "start another run with --out."
        )
    if "rounds" in fields:
        check_rounds(folder.rounds, fields["rounds"])
    if changed:
        write_json(folder / "config.json", {**record, "fields": fields})
    if changed - set(getattr(config, "placement", ())):
        # They would be read as those of the run as it now is.
        for name in ("summary.json", "result.json", "result.md"):
            (folder / name).unlink(missing_ok=True)
    return bool(changed)


def record_of(config: Any, *, recipe: str, seed: int, budget: str, command: str) -> dict[str, Any]:
    """What `config.json` holds of a run."""
    return {
        "recipe": recipe,
        "seed": seed,
        "budget": budget,
        "fields": fields_of(config),
        "command": command,
    }


def _completed(config: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded fields, and the defaults of those that there were not when they were recorded."""
    return {f.name: plain(f.default) for f in dataclasses.fields(config)} | dict(fields)
