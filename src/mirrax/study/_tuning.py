r"""Tuning with an equal budget: the same number of configurations or trials for every method.

A grid is tried as it is. The Bayesian tuner asks one configuration of every method at a time, runs
all of them on all tuning tasks in one compiled program, and tells each method's search what came of
its own. A configuration whose run failed has an infinite score, told as such: it counts as a trial,
it is never chosen, and the search takes it for one of the worst there were.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .. import __version__
from .._errors import ConfigError
from .._json import plain
from .._secrets import masked
from ._baselines import Hyperparameters, Method
from ._compare import best, edge_note, score, tune
from ._images import ImageSetting, ImageStudy
from ._kept import Kept
from ._progress import Phase, Progress
from ._streams import TUNE, stream
from ._trials import Arena, compile_trials

if TYPE_CHECKING:
    from ._search import Asked, Search

JOURNAL = "tuning.journal"
"""The file of a run folder that holds its trials, where no other storage is named."""

_EDGE = 0.02  # of a range; what lies so near to a bound may belong beyond it


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What tuning found for a method.

    **Arguments:**

    - `values`: its best configuration.
    - `record`: how it was found, in the form of `summary.json`.
    - `note`: a sentence if the best lies at the edge of what was tried.
    """

    values: Hyperparameters
    record: dict[str, Any]
    note: str | None


def tuned(
    setting: ImageSetting,
    methods: Sequence[Method],
    folder: Path,
    seed: int,
    progress: Progress,
    title: str = "tuning",
) -> list[Tuned]:
    """The best configuration of each method on the tasks of meta-training.

    **Arguments:**

    - `setting`: the study.
    - `methods`: methods with their grids and ranges.
    - `folder`: where trials are kept if the study names no storage, see `Kept`.
    - `seed`: of the run.
    - `progress`, `title`: where to show progress, and as what.

    **Raises:**

    - `ConfigError`: if there are more trials already than there shall be.
    - `MirraxError`: if the storage of trials fails.
    """
    config = setting.config
    if config.tuner == "bayes":
        from ._search import guarded

        where = config.storage or str(folder / JOURNAL)
        with guarded(where):
            return _by_search(setting, methods, where, seed, progress, title)
    place = setting.tuning.select(setting.training)
    scores = grid_scores(config, methods, place, folder, seed, progress, title)
    return [by_grid(method, scores[method.name], config) for method in methods]


def grid_scores(
    config: ImageStudy,
    methods: Sequence[Method],
    place: Arena,
    folder: Path,
    seed: int,
    progress: Progress,
    title: str,
) -> dict[str, np.ndarray]:
    """Scores of every configuration of the methods' grids on every task.

    **Arguments:**

    - `config`: the study.
    - `methods`: methods and their grids.
    - `place`: the tasks.
    - `folder`, `seed`, `progress`, `title`: as for `tuned`.

    **Returns:**

    By method name, an array of shape (configurations, tasks).
    """
    with progress.phase(title, 100) as phase:
        return tune(
            methods,
            place,
            steps=config.steps,
            criterion=config.criterion,
            seeds=config.tune_seeds,
            key=stream(seed, TUNE),
            kept=Kept.within(folder),
            advance=phase.share,
        )


def by_grid(method: Method, scores: np.ndarray, config: ImageStudy) -> Tuned:
    """The best configuration of a grid.

    **Arguments:**

    - `method`: the method whose grid was scored.
    - `scores`: shape (configurations, tasks).
    - `config`: the study.
    """
    means, values = scores.mean(axis=1), best(method, scores)
    within = {}
    for name in values:
        tried = [row[name] for row in method.grid]
        within[name] = {"low": min(tried), "high": max(tried)}
    note = _failed_note(method, means) or edge_note(method, values)
    return Tuned(values, _record(config, means, within), note)


def terms(methods: Sequence[Method]) -> str:
    """A digest of what methods are tuned over, and of the version that compares them.

    What was found on other terms is not taken for the same comparison. The geometries are not in
    it: they follow from a run's fields, or are known by their files.

    **Arguments:**

    - `methods`: in order.
    """
    told = [
        [m.name, m.grid, {name: dataclasses.asdict(found) for name, found in m.space.items()}]
        for m in methods
    ]
    return hashlib.sha256(json.dumps(plain([__version__, told])).encode()).hexdigest()


def _record(
    config: ImageStudy, scores: np.ndarray, within: dict[str, dict[str, float]]
) -> dict[str, Any]:
    return {
        "tuner": config.tuner,
        "criterion": config.criterion,
        "score": float(np.min(scores)),
        "trials": len(scores),
        "failed": int(np.sum(~np.isfinite(scores))),
        "within": within,
    }


def _by_search(
    setting: ImageSetting,
    methods: Sequence[Method],
    where: str,
    seed: int,
    progress: Progress,
    title: str,
) -> list[Tuned]:
    from ._search import Search, open_storage
    from ._surrogate import propose

    config, storage = setting.config, open_storage(where)
    searches = []
    for method in methods:
        basis = _basis(setting, method, seed)
        digest = hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()
        proposed = functools.partial(propose, kappa=config.kappa, seed=int(digest[:8], 16))
        name = f"{method.name} {digest[:16]}"
        shared = bool(config.storage)
        found = Search(storage, name, method.space, config.trials, proposed, basis, shared=shared)
        if len(found.done) > config.trials:
            raise ConfigError(
                f"--trials: {method.name} has {len(found.done)} trials in {masked(where)} already; "
                "give at least as many, or another --storage."
            )
        searches.append(found)
    total, done = config.trials * len(methods), sum(len(found.done) for found in searches)
    with progress.phase(title, total, done) as phase:
        if done < total:
            _search(setting, methods, searches, seed, phase)
    return [
        _by_trials(method, found, config) for method, found in zip(methods, searches, strict=True)
    ]


def _search(
    setting: ImageSetting,
    methods: Sequence[Method],
    searches: Sequence["Search"],
    seed: int,
    phase: Phase,
) -> None:
    """Runs trials until every search has all of its own."""
    config = setting.config
    run = compile_trials(
        methods,
        {name for method in methods for name in method.space},
        len(methods),
        setting.tuning.select(setting.training),
        steps=config.steps,
        stride=config.steps,
        seeds=config.tune_seeds,
        key=stream(seed, TUNE),
    )
    known = sum(len(found.done) for found in searches)
    while asked := _next_round(searches):
        jobs = [(index, trial.values) for index, trial in asked.items()]
        means = score(run(jobs), config.criterion).mean(axis=1)
        for (index, trial), value in zip(asked.items(), means, strict=True):
            searches[index].tell(trial, float(value))
        now = sum(len(found.done) for found in searches)  # other workers' among them
        phase.advance(by=now - known)
        known = now


def _next_round(searches: Sequence["Search"]) -> dict[int, "Asked"]:
    """A trial of every search that has one, by its position."""
    for ask in ("ask", "help"):
        asked = {i: trial for i, s in enumerate(searches) if (trial := getattr(s, ask)())}
        if asked:
            return asked
    return {}


def _by_trials(method: Method, search: "Search", config: ImageStudy) -> Tuned:
    trials = search.done
    scores = np.array([value for _, value in trials])
    values = trials[int(np.argmin(scores))][0]
    within = {
        name: {"low": found.low, "high": found.high, "share": found.share(values[name])}
        for name, found in method.space.items()
    }
    note = _failed_note(method, scores) or _bound_note(method, values, within)
    return Tuned(values, _record(config, scores, within), note)


def _failed_note(method: Method, scores: np.ndarray) -> str | None:
    """Says so if there was nothing to choose from: the first configuration is tried then."""
    if np.isfinite(scores).any():
        return None
    return f"Every configuration of {method.name} diverged on the tuning tasks."


def _bound_note(
    method: Method, values: Hyperparameters, within: dict[str, dict[str, float]]
) -> str | None:
    """Says so if a chosen value lies at a bound of its range; only no decay is a bound that may."""
    near = [
        f"{name.replace('_', ' ')} {values[name]:.3g}"
        for name, found in within.items()
        if found["share"] > 1 - _EDGE or (name != "weight_decay" and found["share"] < _EDGE)
    ]
    if not near:
        return None
    lies = "lies" if len(near) == 1 else "lie"
    return f"{method.name}'s best {' and '.join(near)} {lies} at the end of its range."


_SCORE_DECIDING = ("family", "model", "split", "examples", "batch", "steps", "rows", "criterion")
_SCORE_DECIDING += ("tune_seeds", "kappa")


def _basis(setting: ImageSetting, method: Method, seed: int) -> dict[str, Any]:
    """All that the scores of a search depend on, and the order of its trials."""
    context = hashlib.sha256()
    for leaf in map(np.asarray, jax.tree.leaves(method.context)):
        context.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
    return plain(
        {
            "method": method.name,
            "space": {name: dataclasses.asdict(found) for name, found in method.space.items()},
            "context": context.hexdigest(),
            "tasks": [setting.tasks[i].name for i in setting.training],
            "seed": seed,
            "mirrax": __version__,
            **{name: getattr(setting.config, name) for name in _SCORE_DECIDING},
        }
    )
