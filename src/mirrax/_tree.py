"""Parameters as points of a vector space: what optax's tree operations leave open.

Parameters, gradients and duals are pytrees of arrays with one structure. Sums, products and inner
products of such trees come from `optax.tree`; this file adds the type aliases and the names of
leaves, which artifacts and reports use.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

Primal = PyTree[Float[Array, "..."]]
"""A point of parameter space: a pytree of floating-point arrays."""

Dual = PyTree[Float[Array, "..."]]
"""A point of the dual space (a gradient, or the image of a point under the mirror map)."""

Scalar = Float[Array, ""]


def leaf_names(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> list[str]:
    """Names the leaves of a tree by their path, joined with `/`, in flattening order.

    **Arguments:**

    - `tree`: any pytree.
    - `is_leaf`: as in `jax.tree.map`.

    **Returns:**

    One name a leaf, such as `dense_0/weight`.

    >>> leaf_names({"dense_0": {"weight": 1.0, "bias": 2.0}})
    ['dense_0/bias', 'dense_0/weight']
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]


_ARRAYS = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)


def check_floating(function: str, params: PyTree, remedy: str = "optax.masked") -> None:
    """Refuses parameters that are no floating-point numbers: nothing else has a gradient.

    **Arguments:**

    - `function`: what was given them.
    - `params`: the parameters.
    - `remedy`: what leaves others out.

    **Raises:**

    - `ValueError`: with the name and the type of a leaf.

    >>> check_floating("to_optax", {"w": jnp.ones(2)})
    >>> check_floating("to_optax", {"w": np.array(["a"])})
    Traceback (most recent call last):
    ValueError: to_optax: expected floating-point parameters, got 'w' of type str32; leave it out...
    """
    for name, leaf in zip(leaf_names(params), jax.tree.leaves(params), strict=True):
        is_array = isinstance(leaf, _ARRAYS)
        dtype = leaf.dtype if is_array else np.result_type(type(leaf))
        if not jnp.issubdtype(dtype, jnp.floating):
            kind = dtype.name if is_array else type(leaf).__name__
            raise ValueError(
                f"{function}: expected floating-point parameters, got {name!r} of type {kind}; "
                f"leave it out with {remedy}."
            )


Layers = dict[str, dict[str, Any]]
"""Nested dicts, layer by layer, as models have them: `{"dense_0": {"weight": …}}`."""


def select(params: Layers, keep: Callable[[str], bool]) -> tuple[Layers, Layers]:
    """Splits the arrays of layers in two by their names.

    **Arguments:**

    - `params`: nested dicts, layer by layer.
    - `keep`: whether a name such as `dense_0/weight` belongs to the first part.

    **Returns:**

    The two parts, without the layers of which nothing is in them.

    >>> select({"a": {"x": 1, "y": 2}, "b": {"x": 3}}, lambda name: name != "a/x")
    ({'a': {'y': 2}, 'b': {'x': 3}}, {'a': {'x': 1}})
    """

    def part(wanted: bool) -> Layers:
        layers = {
            layer: {leaf: x for leaf, x in arrays.items() if keep(f"{layer}/{leaf}") == wanted}
            for layer, arrays in params.items()
        }
        return {layer: arrays for layer, arrays in layers.items() if arrays}

    return part(True), part(False)


def join(first: Layers, second: Layers) -> Layers:
    """Puts together what `select` split.

    >>> join({"a": {"y": 2}}, {"a": {"x": 1}})
    {'a': {'y': 2, 'x': 1}}
    """
    layers = dict.fromkeys([*first, *second])
    return {layer: {**first.get(layer, {}), **second.get(layer, {})} for layer in layers}


def all_finite(*trees: PyTree) -> Bool[Array, ""]:
    """Whether every floating-point entry of every leaf is finite.

    >>> bool(all_finite({"a": jnp.array([1.0, jnp.inf])}))
    False
    """
    leaves = filter(eqx.is_inexact_array, jax.tree.leaves(trees))
    return functools.reduce(
        jnp.logical_and, [jnp.all(jnp.isfinite(leaf)) for leaf in leaves], jnp.array(True)
    )


def strong(tree: PyTree) -> PyTree:
    """The same arrays with types of their own, where they came from a number of Python's.

    A program that is given a weak type returns a strong one, and would be compiled again for it.

    >>> jnp.full(2, 1.0).weak_type, strong({"a": jnp.full(2, 1.0)})["a"].weak_type
    (True, False)
    """

    def one(leaf: Any) -> Any:
        weak = isinstance(leaf, jax.Array) and getattr(leaf, "weak_type", False)
        return jax.lax.convert_element_type(leaf, leaf.dtype) if weak else leaf

    return jax.tree.map(one, tree)


def choose(condition: Array, first: PyTree, second: PyTree) -> PyTree:
    """`first` where the condition holds, else `second`, leaf by leaf.

    Leaves that are no numbers (keys, static values) come from `first`; they must be equal in both.

    >>> choose(jnp.array(False), {"a": jnp.array(1)}, {"a": jnp.array(2)})["a"].item()
    2
    """

    def one(a: Any, b: Any) -> Any:
        number = eqx.is_array(a) and not jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
        return jnp.where(condition, a, b) if number else a

    return jax.tree.map(one, first, second)


def total(function: Callable[..., Array], *trees: PyTree) -> Scalar:
    """Sums `function(leaf, ...)` over all entries of all leaves: `Σ_leaves Σ_entries f`.

    **Arguments:**

    - `function`: maps one leaf of each tree to an array.
    - `*trees`: pytrees of one structure.

    **Returns:**

    A scalar; zero for a tree without leaves.

    >>> float(total(lambda x: x**2, {"a": jnp.array([3.0, 4.0])}))
    25.0
    """
    parts = jax.tree.map(lambda *leaves: jnp.sum(function(*leaves)), *trees)
    leaves = jax.tree.leaves(parts)
    return functools.reduce(jnp.add, leaves) if leaves else jnp.zeros(())


def sums_type(tree: PyTree) -> Any:
    """The type of what is summed over the steps of a run: the leaves' widest, float32 at least.

    A loss may be of another type than the parameters, and bfloat16 is none to sum in.

    >>> sums_type({"a": jnp.ones(1, jnp.bfloat16)}).__name__
    'float32'
    """
    types = [np.float32, *(jnp.result_type(leaf).type for leaf in jax.tree.leaves(tree))]
    floating = [kind for kind in types if jnp.issubdtype(kind, jnp.floating)]
    return max(floating, key=lambda kind: jnp.finfo(kind).bits)


def dot(first: PyTree, second: PyTree) -> Scalar:
    """The pairing of a dual with a primal point, `⟨z, x⟩ = Σ z_i x_i`.

    >>> float(dot({"a": jnp.array([1.0, 2.0])}, {"a": jnp.array([3.0, 4.0])}))
    11.0
    """
    return total(jnp.multiply, first, second)
