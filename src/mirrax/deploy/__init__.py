"""The way out: a learned geometry as one file, and as an optimiser in somebody else's loop.

`save` and `load` write and read the artifact, `to_optax` makes it an optax optimiser, and
`learned_start` the parameters that were learned with it; `averaged` averages an optimiser's points,
`check_fits` compares an artifact with parameters, `layer_roles` says what their axes mean,
`register` lets files hold a class of your own. Each is imported when it is first touched, so that
readers of the file format alone need not load JAX.
`mirrax.deploy.torch` is the way into PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._artifact import Artifact as Artifact
    from ._artifact import check_fits as check_fits
    from ._artifact import load as load
    from ._artifact import save as save
    from ._averaging import AveragedState as AveragedState
    from ._averaging import averaged as averaged
    from ._averaging import averaged_params as averaged_params
    from ._encoding import register as register
    from ._encoding import storable as storable
    from ._fit import layer_roles as layer_roles
    from ._optax import to_optax as to_optax
    from ._start import learned_start as learned_start

__all__ = [
    "Artifact",
    "AveragedState",
    "averaged",
    "averaged_params",
    "check_fits",
    "layer_roles",
    "learned_start",
    "load",
    "register",
    "save",
    "storable",
    "to_optax",
]

_HOME = {
    "Artifact": "_artifact",
    "AveragedState": "_averaging",
    "averaged": "_averaging",
    "averaged_params": "_averaging",
    "check_fits": "_artifact",
    "layer_roles": "_fit",
    "learned_start": "_start",
    "load": "_artifact",
    "register": "_encoding",
    "save": "_artifact",
    "storable": "_encoding",
    "to_optax": "_optax",
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use."""
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    if name == "torch":
        return importlib.import_module(".torch", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
