"""A learned geometry as a PyTorch optimiser. Needs PyTorch, and does not import JAX."""

import importlib.util

if importlib.util.find_spec("torch") is None:
    raise ImportError("mirrax.deploy.torch needs PyTorch; pip install 'mirrax[torch]'")

from ._optimiser import MirrorDescent as MirrorDescent

__all__ = ["MirrorDescent"]
