r"""The kinds of studies: how each is prepared, run and shown."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import report
from ._certify import certify_image_run, certify_quadratic_run
from ._certify_few_shot import certify_few_shot
from ._few_shot import FewShotStudy, prepare_few_shot
from ._few_shot_train import train_few_shot
from ._folder import RunFolder
from ._images import ImageStudy, prepare
from ._progress import Progress
from ._quadratics import QuadraticStudy, train_quadratics
from ._recipes import Study
from ._train import train_images


@dataclasses.dataclass(frozen=True)
class Kind:
    """What the command line needs to know of a kind of study.

    **Arguments:**

    - `prepare`: loads its data, `(config, data) -> setting`; fails before a folder is made.
    - `train`: runs it, `(setting, folder, seed, progress) -> summary`.
    - `tables`: its summary as tables.
    - `certify`: what theory says of its result, `(config, folder, seed, data) -> certificate`.
    - `certified`: the certificate as tables.
    - `spreads`: whether its meta-training can be spread over devices.
    """

    prepare: Callable[[Any, Path | None], Any]
    train: Callable[[Any, RunFolder, int, Progress], dict[str, Any]]
    tables: Callable[[Mapping[str, Any]], list[report.Table]]
    certify: Callable[[Any, RunFolder, int, Path | None], dict[str, Any]]
    certified: Callable[[Mapping[str, Any]], list[report.Table]]
    spreads: bool = True


def _compared(summary: Mapping[str, Any]) -> list[report.Table]:
    tables = report.summary_tables(summary)
    if summary.get("certificate"):
        tables.append(report.certificate_table(summary["certificate"]))
    return tables


def _adapted(summary: Mapping[str, Any]) -> list[report.Table]:
    return [report.few_shot_table(summary)]


def _bounded(certificate: Mapping[str, Any]) -> list[report.Table]:
    tables = (report.certificate_table(certificate), report.assumption_table(certificate))
    return [table for table in tables if table is not None]


def _as_it_is(config: QuadraticStudy, data: Path | None) -> QuadraticStudy:
    """Quadratics are drawn, not loaded."""
    del data
    return config


_KINDS: dict[type, Kind] = {
    ImageStudy: Kind(prepare, train_images, _compared, certify_image_run, _bounded),
    QuadraticStudy: Kind(
        _as_it_is, train_quadratics, _compared, certify_quadratic_run, _bounded, spreads=False
    ),
    FewShotStudy: Kind(
        prepare_few_shot, train_few_shot, _adapted, certify_few_shot, report.map_tables
    ),
}


def kind_of(config: Study) -> Kind:
    """The kind of a study.

    **Arguments:**

    - `config`: its configuration.
    """
    return _KINDS[type(config)]
