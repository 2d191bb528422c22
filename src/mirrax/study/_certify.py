r"""Certificates of runs: Theorem 3.1 beside the regret measured on a held-out task."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .. import deploy
from .._errors import ConfigError
from ..certificate import RegretCertificate, certify_run
from ..geometry import AbstractGeometry
from ..inner import (
    AbstractInner,
    MirrorDescent,
    PreconditionedDescent,
    Prior,
    Problem,
    mirror_step,
    with_reference,
)
from ..meta import quadratic
from ..models import Model
from ..tasks import sample_quadratics
from ._folder import RunFolder
from ._images import ImageSetting, ImageStudy, prepare
from ._quadratics import QuadraticStudy
from ._streams import CERTIFY, stream

_LONGER = 4  # the reference run's length, in units of the judged run's


def certify_images(
    setting: ImageSetting, geometry: AbstractGeometry, *, key: jax.Array
) -> dict[str, Any]:
    """Certifies one run of mirror descent on the held-out task.

    The comparator is the end of a reference run from the same weights, four times as long.

    **Arguments:**

    - `setting`: the study.
    - `geometry`: the learned geometry.
    - `key`: initial weights and batches.

    **Returns:**

    The certificate in the form of `summary.json`.
    """
    config = setting.config
    problem = jax.tree.map(lambda leaf: leaf[setting.held_out], setting.place.problems)
    printed = config.step == "printed"
    inner = PreconditionedDescent(config.rate) if printed else mirror_step(geometry, config.rate)
    longer = _LONGER * config.steps
    prior, problem, run_key = _judged(setting.model, inner, geometry, problem, longer, key)
    certificate = certify_run(
        inner,
        prior,
        problem,
        config.steps,
        key=run_key,
        convex=config.model == "linear",
        source=f"the end of a reference run of {longer:,} steps from the same weights",
    )
    return as_record(certificate, setting.tasks[setting.held_out].name)


@eqx.filter_jit
def _judged(
    model: Model,
    inner: AbstractInner,
    geometry: AbstractGeometry,
    problem: Problem,
    steps: int,
    key: jax.Array,
) -> tuple[Prior, Problem, jax.Array]:
    """Initial weights, the task with its comparator, and the key of the run, in one program."""
    start_key, run_key, reference_key = jax.random.split(key, 3)
    prior = Prior(geometry, model.init(start_key))
    return prior, with_reference(problem, inner, prior, steps, key=reference_key), run_key


def certify_quadratics(
    config: QuadraticStudy, geometry: AbstractGeometry, seed: int
) -> dict[str, Any]:
    """Certifies one run of mirror descent on a held-out quadratic, compared with its minimiser.

    **Arguments:**

    - `config`: the study.
    - `geometry`: the learned geometry.
    - `seed`: seed of the run.

    **Returns:**

    The certificate in the form of `summary.json`.
    """
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(seed), 3)
        tasks = sample_quadratics(
            keys[1], config.held_out, flatness=config.flatness, law=config.law
        )
        problem = jax.tree.map(lambda leaf: leaf[0], quadratic(tasks))
        prior = Prior(geometry, jnp.zeros(len(config.flatness)))
        certificate = certify_run(
            MirrorDescent(config.rate),
            prior,
            problem,
            config.steps,
            key=keys[2],
            convex=True,
            source="the minimiser in closed form",
        )
        return as_record(certificate, "quadratic 0")


def as_record(certificate: RegretCertificate, task: str) -> dict[str, Any]:
    """A certificate in the form of `summary.json`.

    **Arguments:**

    - `certificate`: the certificate.
    - `task`: the task it was measured on.
    """
    plain = certificate.to_dict()
    return {
        "task": task,
        "steps": plain["steps"],
        "rate": plain["rate"],
        "regret": plain["regret"],
        "linearised_regret": plain["linearised_regret"],
        "bounds": {bound["name"]: bound["value"] for bound in plain["bounds"]},
        "satisfied": {bound["name"]: bound["satisfied"] for bound in plain["bounds"]},
        "status": plain["status"],
        "comparator": certificate.assumption("comparator").detail,
        "assumptions": {
            item["name"]: {"holds": item["holds"], "how": item["how"], "why": item["detail"]}
            for item in plain["assumptions"]
        },
        "notes": [f"Theorem 3.1 on this run: {plain['status']}."],
    }


def certify_image_run(
    config: ImageStudy, folder: RunFolder, seed: int, data: Path | None
) -> dict[str, Any]:
    """Certifies the geometry of an image study's folder.

    **Arguments:**

    - `config`: the study.
    - `folder`: its run folder.
    - `seed`: seed of the run.
    - `data`: the folder of data sets, for those that are not embedded.

    **Raises:**

    - `ConfigError`: if the geometry has no potential.
    """
    artifact = deploy.load(folder / "geometry.safetensors")
    setting = prepare(config, data, learns=False)
    deploy.check_fits(artifact, setting.template)
    return certify_images(setting, _geometry(artifact, folder.path), key=stream(seed, CERTIFY))


def certify_quadratic_run(
    config: QuadraticStudy, folder: RunFolder, seed: int, data: Path | None
) -> dict[str, Any]:
    """Certifies the geometry of a quadratic study's folder.

    **Arguments:**

    - `config`, `folder`, `seed`, `data`: as for `certify_image_run`.
    """
    del data
    with jax.enable_x64(True):
        artifact = deploy.load(folder / "geometry.safetensors")
    return certify_quadratics(config, _geometry(artifact, folder.path), seed)


def _geometry(artifact: deploy.Artifact, path: Path) -> AbstractGeometry:
    if not isinstance(artifact.geometry, AbstractGeometry):
        raise ConfigError(f"{path}: {type(artifact.geometry).__name__} has no regret bound.")
    return artifact.geometry
