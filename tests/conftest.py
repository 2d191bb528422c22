"""Every test runs in float64, with strict promotion and warnings as errors."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest

from mirrax import _xla

with pytest.MonkeyPatch.context() as one_core:
    # One device on every machine, for commands that tests start too; some tests ask for more.
    one_core.setattr(_xla, "cores", lambda: 1)
    _xla.set_devices()
_xla.set_flags()

CACHE = "JAX_COMPILATION_CACHE_DIR"
if "PYTEST_XDIST_WORKER" not in os.environ:
    # What several tests or workers compile is compiled once, and kept until the end.
    os.environ[CACHE] = tempfile.mkdtemp(prefix="mirrax-tests-")
    atexit.register(shutil.rmtree, os.environ[CACHE], ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", os.environ[CACHE])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
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
