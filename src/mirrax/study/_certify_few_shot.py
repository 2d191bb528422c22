r"""Certificates of few-shot runs: is the learned map the gradient of a convex potential?

Mirror descent, and Theorem 3.1 of S000 with it, needs a map whose Jacobian is symmetric and
positive. It is measured where runs really go: at the dual points of test tasks, step by step.
"""

import dataclasses
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from .._errors import ConfigError
from .._tree import Dual
from ..certificate import MapDiagnosis, symmetry_of_map, theorem1_counterexample
from ..geometry import AbstractGeometry, AbstractMirrorMap
from ..inner import InnerState, Prior
from ..inner._unroll import walk
from ..meta import FewShot, episode_problem
from ..tasks import Episodes
from ._few_shot import FewShotStudy, prepare_few_shot
from ._few_shot_rates import finished_run
from ._folder import RunFolder
from ._streams import CERTIFY, stream

_TASKS = 4


def certify_few_shot(
    config: FewShotStudy, folder: RunFolder, seed: int, data: Path | None
) -> dict[str, Any]:
    """Diagnoses the learned maps of a run at the dual points of test tasks.

    **Arguments:**

    - `config`: the study.
    - `folder`: its run folder.
    - `seed`: the run's first seed.
    - `data`: the folder of data sets, for those that are not embedded.

    **Returns:**

    `{"kind": "maps", "tasks", "maps": [{"method", "potential", "bounds", "steps": [{"k",
    "smallest", "largest", "asymmetry"}]}], "counterexample": {…}}`; `bounds` hold for the
    eigenvalues at every point, and are `None` for a map without a potential.

    **Raises:**

    - `ConfigError`: if no method of the run learned a mirror map, or none is finished.
    """
    setting, maps, unfinished = prepare_few_shot(config, data), [], []
    for method in config.methods:
        run = finished_run(config, folder, method, seed)
        if not run:
            unfinished.append(method)
            continue
        place, rate = run
        learner, initial = setting.compose(method, seed, rate)
        is_map = isinstance(initial.geometry, AbstractMirrorMap)
        if not is_map or "geometry" not in learner.estimator.wrt:
            continue
        prior = place.load_tree("prior.safetensors", initial)
        found = _along_runs(learner, prior, setting.episodes[2], stream(seed, CERTIFY))
        potential = isinstance(prior.geometry, AbstractGeometry)
        bounds = None
        if isinstance(prior.geometry, AbstractGeometry):
            bounds = [float(bound) for bound in prior.geometry.jacobian_bounds()]
        record = {"method": method, "potential": potential, "bounds": bounds}
        maps.append({**record, "steps": _by_step(found)})
    if not maps:
        but = f" (not finished: {', '.join(unfinished)})" if unfinished else ""
        raise ConfigError(
            f"{folder.path}: no finished method of this run has learned a mirror map{but}; "
            "block_iaf, convex_potential, warped_potential, kronecker_metric and meta_sgd do."
        )
    counterexample = dataclasses.asdict(theorem1_counterexample())
    return {"kind": "maps", "tasks": _TASKS, "maps": maps, "counterexample": counterexample}


@eqx.filter_jit
def _along_runs(
    learner: FewShot, prior: Prior, episodes: Episodes, key: PRNGKeyArray
) -> MapDiagnosis:
    """Diagnoses at the dual points of a few runs, leading axes (tasks, points)."""
    geometry = prior.geometry
    assert isinstance(geometry, AbstractMirrorMap)

    def dual(state: InnerState) -> Dual:
        # A step in a quadratic geometry is made on the parameters.
        return geometry.to_dual(state.primal) if state.dual is None else state.dual

    def one(key: PRNGKeyArray) -> MapDiagnosis:
        draw_key, run_key, probe_key = jax.random.split(key, 3)
        problem = episode_problem(episodes.draw(key=draw_key), learner.model, learner.statistics)
        duals, _, _ = walk(learner.inner, prior, problem, learner.steps, dual, key=run_key)
        return jax.lax.map(lambda dual: symmetry_of_map(geometry, dual, key=probe_key), duals)

    return jax.lax.map(one, jax.random.split(key, _TASKS))


def _by_step(found: MapDiagnosis) -> list[dict[str, float]]:
    """The worst over tasks, by step."""
    smallest, largest, asymmetry = (
        np.asarray(leaf) for leaf in (found.smallest, found.largest, found.asymmetry)
    )
    return [
        {
            "k": k,
            "smallest": float(smallest[:, k].min()),
            "largest": float(largest[:, k].max()),
            "asymmetry": float(asymmetry[:, k].max()),
        }
        for k in range(smallest.shape[1])
    ]
