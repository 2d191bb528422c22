"""What a run prints at its end: the lines that use its geometry in a training loop."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def lines_to_use(path: Path, summary: Mapping[str, Any]) -> list[str]:
    """The lines that use a geometry a run has left; none where `to_optax` takes none such.

    Where a comparison tuned its rate and momentum, they are those of its row.

    **Arguments:**

    - `path`: the file of the geometry.
    - `summary`: what the run found.
    """
    from .. import deploy
    from ..geometry import AbstractMirrorMap
    from ._compare import LEARNED, rate_at

    if not path.exists():
        return []
    artifact = deploy.load(path)
    if not isinstance(artifact.geometry, AbstractMirrorMap):
        return []
    rows = [row for row in summary.get("comparison", ()) if row["optimiser"] == LEARNED]
    tuned, settings = rows[0].get("hyperparameters", {}) if rows else {}, ""
    if {"rate_scale", "momentum"} <= tuned.keys():
        rate, momentum = rate_at(tuned, float(artifact.rate)), tuned["momentum"]
        settings = f", {rate:.6g}"
        settings += f", momentum={momentum:.6g}, nesterov=True" if momentum else ""
    begin = f'params = mirrax.deploy.learned_start("{path}", params)  # for each new task'
    return [
        *([begin] if artifact.start else []),
        f'optimiser = mirrax.deploy.to_optax("{path}"{settings})',
        "state = optimiser.init(params)",
        "updates, state = optimiser.update(gradients, state, params)",
        "params = optax.apply_updates(params, updates)",
    ]
