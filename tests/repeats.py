"""Cases that repeat what others test, kept for `pytest -m slow`: compilation is what they cost."""

from typing import Any

import pytest


def slow(*values: Any, id: str | None = None) -> Any:
    """The values of one case of `pytest.mark.parametrize`, marked slow."""
    return pytest.param(*values, marks=pytest.mark.slow, id=id)
