r"""Momentum, `v⁺ = g + μ v`, in at least 32 bits whatever the type of the gradients.

With eight bits a `μ` near one would hardly decay: `v − μ v` is less than half a last digit of `v`.
`optax.trace` keeps the gradients' type.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ._state import map_given, working_dtype


def momentum_trace(momentum: float | Array, nesterov: bool) -> optax.GradientTransformation:
    """The transformation that hands on `v⁺`, or `g + μ v⁺` with Nesterov's.

    **Arguments:**

    - `momentum`: `μ`.
    - `nesterov`: whether Nesterov's.

    **Returns:**

    A transformation with the state of `optax.trace`; what it hands on has the gradients' type.

    >>> optimiser = momentum_trace(0.5, nesterov=False)
    >>> state = optimiser.init(jnp.ones((), jnp.bfloat16))
    >>> state.trace.dtype.name
    'float32'
    """

    def init(params: PyTree) -> optax.TraceState:
        dtype = working_dtype(params)
        return optax.TraceState(jax.tree.map(lambda x: jnp.zeros_like(x, dtype=dtype), params))

    def add(gradient: Array, trace: Array) -> Array:
        share = jnp.asarray(momentum).astype(trace.dtype)
        return gradient.astype(trace.dtype) + share * trace

    def update(updates: PyTree, state: Any, params: Any = None):
        del params
        moved = map_given(add, updates, state.trace)
        found = map_given(add, updates, moved) if nesterov else moved
        found = map_given(lambda g, v: v.astype(g.dtype), updates, found)
        trace = jax.tree.map(lambda old, new: old if new is None else new, state.trace, moved)
        return found, optax.TraceState(trace)

    return optax.GradientTransformation(init, update)
