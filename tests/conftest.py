"""Every test runs in float64, with strict promotion and warnings as errors."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

os.environ["JAX_COMPILATION_CACHE_DIR"] = ""  # the command line keeps no programs of tests
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")

GOLDENS = Path(__file__).parent / "goldens"


@pytest.fixture
def golden():
    """Loads a file of independent reference values by name."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDENS / f"{name}.npz", allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}

    return load
