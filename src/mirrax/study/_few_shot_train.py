r"""A whole few-shot study: every method from every seed, tested on the same new tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from .. import deploy
from .._errors import NumericalError
from .._files import write_json
from .._tree import leaf_names, select
from ..geometry import Transformed
from ..hypergradient import split
from ..inner import Prior
from ..meta import Scores
from ..tasks import Episodes
from ._conclude import conclude
from ._few_shot import FewShotSetting
from ._few_shot_learn import Learned, judge, learn_prior
from ._few_shot_pool import compared, curve, moments
from ._few_shot_rates import choose_rate, run_folder
from ._folder import RunFolder
from ._progress import Progress
from ._streams import EVALUATE, SEEN, stream


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
    config = setting.config
    runs: dict[str, list[dict[str, Any]]] = {}
    chosen: dict[str, dict[str, Any]] = {}
    notes = [setting.family.note] if setting.family.note else []
    for method in config.methods:
        try:
            chosen[method] = choose_rate(setting, method, seed, folder, progress)
            rate = chosen[method]["rate"]
            runs[method] = [
                _run(setting, method, number, rate, folder, progress)
                for number in range(seed, seed + config.seeds)
            ]
        except NumericalError as error:
            if method == config.method:
                raise
            notes.append(f"{method} is left out: {error}")
    summary = {
        "recipe": config.family,
        "kind": "few-shot",
        "family": setting.family.name,
        "protocol": _protocol(setting),
        "model": config.model,
        "seeds": config.seeds,
        "meta_steps": config.meta_steps,
        "methods": compared(runs, chosen),
        "notes": [*notes, *_notes(runs, chosen)],
    }
    _keep_geometry(setting, seed, chosen[config.method]["rate"], folder)
    return conclude(folder, summary)


def _protocol(setting: FewShotSetting) -> dict[str, Any]:
    """What all methods had in common, and the options of those that have some."""
    config = setting.config
    several = len(config.rate) > 1
    return {
        "name": config.protocol,
        "way": config.way,
        "shot": config.shot,
        "test_queries": config.test_queries,
        "train_queries": setting.episodes[0].query,
        "statistics": config.statistics,
        "rotations": config.rotations,
        "inner_steps": config.steps,
        "rate": list(config.rate) if several else config.rate[0],
        "pilot_steps": config.pilot_steps if several else None,
        "rate_unit": "mean cross-entropy",
        "tasks": config.tasks,
        "validate_every": config.validate_every,
        "validation_tasks": config.validation_tasks,
        "test_tasks": config.test_tasks,
        "optimiser": config.optimiser,
        "outer_rate": config.outer_rate,
        "decay": config.decay,
        "clip": config.clip,
        "on_failure": config.on_failure,
        "first_order": config.first_order,
        "warp": config.warp,
        "penalty": config.penalty,
    }


def _run(
    setting: FewShotSetting,
    method: str,
    seed: int,
    rate: float,
    folder: RunFolder,
    progress: Progress,
) -> dict[str, Any]:
    """One method from one seed: its result, made or read."""
    place = run_folder(folder, method, rate, seed)
    basis = _basis(setting)
    done = place.read_json("result.json", _check)
    if done and done["basis"] == basis:
        if "failure" in done:
            raise NumericalError(done["failure"])
        return done
    with progress.phase(f"{method}, seed {seed}", setting.config.meta_steps) as phase:
        try:
            learned = learn_prior(
                setting, method, seed, rate, place, phase, until=setting.config.meta_steps
            )
        except NumericalError as error:
            write_json(place / "result.json", {"basis": basis, "failure": str(error)})
            raise
        phase.advance("testing", 0)
        found, failures = _result(setting, learned)
        result = {"basis": basis, "method": method, "seed": seed, **found}
    result["notes"] = [*learned.notes, *failures]
    metadata = {"kind": "prior", "method": method, "seed": seed}
    place.save_tree("prior.safetensors", learned.standing.best, metadata)
    write_json(place / "result.json", result)
    return result


def _keep_geometry(setting: FewShotSetting, seed: int, rate: float, folder: RunFolder) -> None:
    """Keeps the geometry that the study's own method learned from the first seed."""
    method = setting.config.method
    learner, initial = setting.compose(method, seed, rate)
    path = folder / "geometry.safetensors"
    if not deploy.storable(initial.geometry):
        path.unlink(missing_ok=True)  # that of another method, whose run was continued
        return
    place = run_folder(folder, method, rate, seed)
    prior = place.load_tree("prior.safetensors", initial)
    adapted = frozenset(leaf_names(prior.start))
    # Where some parameters are shared, a start of the others alone would be of no use.
    whole = prior.shared is None
    deploy.save(
        path,
        prior.geometry,
        rate=rate,
        params_like=None if whole else prior.start,
        start=learner.inner.init(prior).primal if whole else None,
        roles=select(learner.model.roles, adapted.__contains__)[0],
        record={"method": method, "seed": seed, "family": setting.config.family},
    )


def _notes(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], chosen: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """What must be said of single runs: divergence, damaged checkpoints passed over."""
    pilots = [
        f"{method}, rate {pilot['rate']:g}: {note}"
        for method in runs
        for pilot in chosen[method]["pilots"]
        for note in pilot["notes"]
    ]
    return pilots + [
        f"{method}, seed {run['seed']}: {note}."
        for method, found in runs.items()
        for run in found
        for note in run["notes"]
    ]


def _basis(setting: FewShotSetting) -> dict[str, Any]:
    """What the figures of a method depend on; a result made with anything else is made again."""
    fields = dict(vars(setting.config))
    for name in ("method", "baselines", "seeds", "stride"):
        fields.pop(name)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}


def _result(setting: FewShotSetting, learned: Learned) -> tuple[dict[str, Any], list[str]]:
    """The test of a prior and the course of its meta-training as plain numbers, and notes."""
    config, standing = setting.config, learned.standing
    further = config.curve_steps - config.steps

    def judged(prior: Prior, episodes: Episodes, count: int, purpose: int) -> Scores:
        key = stream(0, purpose)
        return judge(learned.learner, prior, episodes, count, further=further, key=key)

    test = judged(standing.best, setting.episodes[2], config.test_tasks, EVALUATE)
    # The last prior: training losses are compared after equally many meta-steps.
    seen = judged(standing.state.prior, setting.seen, config.validation_tasks, SEEN)
    parts, _ = split(standing.best, learned.learner.estimator.wrt)
    failures = [
        *_not_finite(test.query_loss, "test tasks", "all its images count as wrong, and "),
        *_not_finite(seen.query_loss, "meta-training tasks"),
    ]
    result = {
        "test_accuracy": moments(test.query_accuracy),
        "test_accuracies": np.round(test.query_accuracy, 6).tolist(),
        "query_loss": moments(test.query_loss),
        "train_loss": moments(seen.query_loss),
        "validation_accuracy": {"mean": float(standing.accuracy)},
        "best_step": int(standing.step),
        "learned": _size(parts),
        # The median: a line in which something was compiled takes longer.
        "seconds_per_step": float(np.median([x["seconds"] / x["steps"] for x in learned.metrics])),
        "adaptation": {
            "steps": list(range(config.curve_steps + 1)),
            "support_loss": curve(test.support_loss),
            "gradient_norm": curve(test.gradient_norm),
        },
        "training": {
            "steps": [line["round"] + line["steps"] for line in learned.metrics],
            "loss": [line["value"] for line in learned.metrics],
        },
        "meta_steps": sum(line["steps"] for line in learned.metrics),
    }
    return result, failures


def _not_finite(losses: Float[Array, " tasks"], which: str, hence: str = "") -> list[str]:
    """What is to be said of tasks on which a run diverged."""
    failed = int((~np.isfinite(losses)).sum())
    said = f"on {failed} of {len(losses):,} {which} the query loss is not finite"
    return [f"{said}: {hence}it has no mean"] if failed else []


def _check(result: dict[str, Any]) -> None:
    """Fails where this is neither a failure nor what `compared` can pool."""
    if not isinstance(result["basis"], dict) or not isinstance(result.get("failure", ""), str):
        raise TypeError("no basis, or no failure")
    if "failure" not in result:
        method, accuracy = result["method"], result["test_accuracy"]["mean"]
        if not 0 <= accuracy <= 1:
            raise ValueError("no accuracy")
        compared({method: [result]}, {method: {"rate": 0.0, "pilots": []}})
        if len(result["test_accuracies"]) != result["test_accuracy"]["tasks"]:
            raise ValueError("not every task is there")


def _size(parts: Prior) -> int:
    """How many numbers are learned."""
    stored = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(parts, eqx.is_array)))
    geometry = parts.geometry
    return stored - (geometry.idle if isinstance(geometry, Transformed) else 0)
