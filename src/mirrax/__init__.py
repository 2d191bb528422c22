"""Learn the geometry of an optimiser from a family of tasks; use it anywhere.

The packages follow the mathematics: `geometry` holds potentials and mirror maps, `inner` how one
task is learned, `objective` what a trajectory is worth, `hypergradient` how to differentiate it,
`meta` the outer loop, `deploy` the way out; `online` learns rates while one task is learned.
Importing `mirrax` imports neither JAX nor PyTorch: each package is loaded when it is first touched.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PACKAGES = (
    "certificate",
    "deploy",
    "geometry",
    "hypergradient",
    "inner",
    "meta",
    "methods",
    "models",
    "objective",
    "online",
    "report",
    "study",
    "tasks",
)


def __getattr__(name: str) -> Any:
    """Imports a package of `mirrax` at its first use."""
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PACKAGES])
