"""What is refused: as a `ValueError` where values are known, inside a program by `eqx.error_if`."""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, PyTree

T = TypeVar("T")


def require(value: T, holds: Bool[Array, ""] | bool, message: str) -> T:
    """The value, if the condition holds."""
    if isinstance(holds, Tracer):
        return eqx.error_if(value, jnp.logical_not(holds), message)
    if not holds:
        raise ValueError(message)
    return value


def check_like(given: PyTree, wanted: PyTree, name: str) -> None:
    """Refuses a tree that has not the structure and the shapes of another."""

    def table(tree: PyTree) -> Any:
        return jax.tree.map(jnp.shape, tree)

    if table(given) != table(wanted):
        raise ValueError(f"{name}: expected the shapes {table(wanted)}, got {table(given)}.")


def close(first: PyTree, second: PyTree) -> Bool[Array, ""]:
    """Whether two trees are equal but for rounding, by the largest entry of each leaf."""

    def near(a: Array, b: Array) -> Array:
        scale = jnp.maximum(jnp.max(jnp.abs(a), initial=0), jnp.max(jnp.abs(b), initial=0))
        return jnp.all(jnp.abs(a - b) <= 64 * jnp.finfo(b.dtype).eps * scale)

    return jnp.all(jnp.stack(jax.tree.leaves(jax.tree.map(near, first, second))))
