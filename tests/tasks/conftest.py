"""Where the real data sets are, if anywhere; tests that need them are skipped in sight."""

import os
from pathlib import Path

import numpy as np
import pytest

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
