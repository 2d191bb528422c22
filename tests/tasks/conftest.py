"""Where the real data sets are, if anywhere; tests that need them are skipped in sight."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from mirrax.tasks import SOURCES

_BESIDE_THE_REPOSITORY = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = Path(os.environ.get("MIRRAX_DATA") or _BESIDE_THE_REPOSITORY)
    if not (folder / "mnist").is_dir():
        pytest.skip("no real data: set MIRRAX_DATA to the folder that holds mnist/, usps/, …")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def without_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIRRAX_DATA", raising=False)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A data folder, and a table of data sets that expects small ones without checksums."""
    small = {"omniglot": 1, "cifar-100": 3, "mini-imagenet": 2}
    for name, per_class in small.items():
        editions = tuple(
            dataclasses.replace(
                edition,
                files=tuple(
                    dataclasses.replace(file, size=None, md5=None, sha256=None)
                    for file in edition.files
                ),
                per_class=per_class,
                train=200,
                test=100,
            )
            for edition in SOURCES[name].editions
        )
        monkeypatch.setitem(SOURCES, name, dataclasses.replace(SOURCES[name], editions=editions))
    return tmp_path
