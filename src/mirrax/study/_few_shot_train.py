r"""A whole few-shot study: every method from every seed, tested on the same new tasks."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.typing import ArrayLike

from .. import deploy, report
from .._errors import NumericalError
from .._files import write_json
from ..hypergradient import split
from ..meta import Scores
from ..tasks import Episodes
from ._few_shot import FewShotSetting
from ._few_shot_learn import Learned, judge, learn_prior
from ._folder import RunFolder
from ._progress import Progress
from ._streams import EVALUATE, SEEN, stream
from ._train import hardware

_Z95 = 1.959963984540054  # the normal quantile of a 95% interval


def train_few_shot(
    setting: FewShotSetting, folder: RunFolder, seed: int, progress: Progress
) -> dict[str, Any]:
    """Runs a few-shot study in its folder; what an interrupted run has finished is kept.

    **Arguments:**

    - `setting`: the study, with its data.
    - `folder`: an opened run folder, new or to be continued.
    - `seed`: the first seed; the study has `config.seeds` of them from there on.
    - `progress`: where to show progress.

    **Returns:**

    What `summary.json` holds.
    """
    begun = time.perf_counter()
    config = setting.config
    runs: dict[str, list[dict[str, Any]]] = {}
    notes = [setting.family.note] if setting.family.note else []
    for method in config.methods:
        try:
            runs[method] = [
                _run(setting, method, number, folder, progress, keep=number == seed)
                for number in range(seed, seed + config.seeds)
            ]
        except NumericalError as error:
            if method == config.method:
                raise
            notes.append(f"{method} is left out: {error}")
    summary = {
        "recipe": config.family,
        "kind": "few-shot",
        "protocol": {
            "name": config.protocol,
            "way": config.way,
            "shot": config.shot,
            "test_queries": config.test_queries,
            "train_queries": setting.episodes[0].query,
            "statistics": config.statistics,
            "inner_steps": config.steps,
            "rate": config.rate,
            "rate_unit": "mean cross-entropy",
            "test_tasks": config.test_tasks,
        },
        "model": config.model,
        "seeds": config.seeds,
        "meta_steps": config.meta_steps,
        "wall_seconds": round(time.perf_counter() - begun, 2),
        "hardware": hardware(),
        "methods": [_pooled(method, found) for method, found in runs.items()],
        "notes": [*notes, *_notes(runs)],
    }
    write_json(folder / "summary.json", summary)
    report.write_figures(report.Run.read(folder.path))
    return summary


def _run(
    setting: FewShotSetting,
    method: str,
    seed: int,
    folder: RunFolder,
    progress: Progress,
    *,
    keep: bool,
) -> dict[str, Any]:
    """One method from one seed: its result, made or read."""
    place = folder.part(f"{method.replace(':', '.')}/seed-{seed}", {"method": method, "seed": seed})
    basis = _basis(setting, method)
    done = place.read_json("result.json")
    if done and done["basis"] == basis:
        return done
    with progress.phase(f"{method}, seed {seed}", setting.config.meta_steps) as phase:
        learned = learn_prior(setting, method, seed, place, phase)
        phase.advance("testing", 0)
        result = {"basis": basis, "method": method, "seed": seed, **_result(setting, learned)}
    best = learned.standing.best
    result["notes"] = learned.notes
    place.save_tree("prior.safetensors", best, {"kind": "prior", "method": method, "seed": seed})
    if keep and method == setting.config.method and deploy.storable(best.geometry):
        deploy.save(
            folder / "geometry.safetensors",
            best.geometry,
            rate=setting.config.rate,
            params_like=best.start,
            record={"method": method, "seed": seed, "family": setting.config.family},
        )
    write_json(place / "result.json", result)
    return result


def _notes(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """What must be said of single runs: late divergence, damaged checkpoints passed over."""
    return [
        f"{method}, seed {run['seed']}: {note}."
        for method, found in runs.items()
        for run in found
        for note in run["notes"]
    ]


def _basis(setting: FewShotSetting, method: str) -> dict[str, Any]:
    """What the figures of a method depend on; a result made with anything else is made again."""
    fields = dict(vars(setting.config))
    for name in ("method", "baselines", "seeds"):
        fields.pop(name)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}


def _result(setting: FewShotSetting, learned: Learned) -> dict[str, Any]:
    """The test of a prior, and the course of its meta-training, as plain numbers."""
    config, prior = setting.config, learned.standing.best
    further = config.curve_steps - config.steps

    def judged(episodes: Episodes, count: int, purpose: int) -> Scores:
        key = stream(0, purpose)
        return judge(learned.learner, prior, episodes, count, further=further, key=key)

    test = judged(setting.episodes[2], config.test_tasks, EVALUATE)
    seen = judged(setting.seen, config.validation_tasks, SEEN)
    parts, _ = split(prior, learned.learner.estimator.wrt)
    steps = sum(line["steps"] for line in learned.metrics)
    late = learned.metrics[1:] or learned.metrics  # the first line has the time of compilation
    return {
        "test_accuracy": _moments(test.query_accuracy),
        "query_loss": _moments(test.query_loss),
        "train_loss": _moments(seen.query_loss),
        "validation_accuracy": {"mean": float(learned.standing.accuracy)},
        "best_step": int(learned.standing.step),
        "learned": sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(parts, eqx.is_array))),
        "seconds_per_step": sum(x["seconds"] for x in late) / sum(x["steps"] for x in late),
        "adaptation": {
            "steps": list(range(config.curve_steps + 1)),
            "support_loss": _curve(test.support_loss),
            "gradient_norm": _curve(test.gradient_norm),
        },
        "training": {
            "steps": [line["round"] + line["steps"] for line in learned.metrics],
            "loss": [line["value"] for line in learned.metrics],
        },
        "meta_steps": steps,
    }


def _moments(values: ArrayLike) -> dict[str, float]:
    return {
        "mean": float(np.mean(values)),
        "sd": float(np.std(values, ddof=1)) if np.size(values) > 1 else 0.0,
        "tasks": np.size(values),
    }


def _curve(values: ArrayLike) -> list[dict[str, float]]:
    """Moments of each column."""
    return [_moments(column) for column in np.asarray(values).T]


def _interval(moments: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Mean and half-width of the 95% interval over tasks, pooled over seeds.

    All seeds are tested on the same tasks, so seeds do not make the interval over tasks narrower:
    its half-width is `1.96 s/√n` for the tasks of one seed, widened by the spread between seeds.
    """
    means = [m["mean"] for m in moments]
    tasks = np.mean([m["sd"] ** 2 / m["tasks"] for m in moments])
    seeds = np.var(means, ddof=1) / len(means) if len(means) > 1 else 0.0
    half = float(_Z95 * np.sqrt(tasks + seeds))
    return {"mean": float(np.mean(means)), "ci95": half, "values": means}


def _pooled(method: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The runs of a method in the form of `summary.json`."""
    first = runs[0]
    curves: dict[str, Any] = {"steps": first["adaptation"]["steps"]}
    for name in ("support_loss", "gradient_norm"):
        columns = zip(*(run["adaptation"][name] for run in runs), strict=True)
        points = [_interval(column) for column in columns]
        curves[name] = [point["mean"] for point in points]
        curves[f"{name}_ci95"] = [point["ci95"] for point in points]
    return {
        "method": method,
        "learned": first["learned"],
        **{n: _interval([run[n] for run in runs]) for n in _MEASURES},
        "validation_accuracy": {
            "values": [run["validation_accuracy"]["mean"] for run in runs],
            "mean": float(np.mean([run["validation_accuracy"]["mean"] for run in runs])),
        },
        "best_step": [run["best_step"] for run in runs],
        "seconds_per_step": float(np.mean([run["seconds_per_step"] for run in runs])),
        "adaptation": curves,
        "training": {
            "steps": first["training"]["steps"],
            "loss": np.mean([run["training"]["loss"] for run in runs], axis=0).tolist(),
        },
    }


_MEASURES = ("test_accuracy", "query_loss", "train_loss")
