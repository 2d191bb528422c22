"""How studies run for a user."""

import jax
import pytest


@pytest.fixture(scope="module")
def as_in_life():
    """In float32, with standard promotion."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield
