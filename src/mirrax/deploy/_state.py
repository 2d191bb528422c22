"""What an optimiser's state is made of: copies of its own, in at least 32 bits, and a count."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.core import Tracer
from jax.sharding import AxisType
from jaxtyping import Array, PyTree

from ..geometry import AbstractMirrorMap


def following(count: Array) -> Array:
    """The count after one more step; it stays where its type ends.

    >>> int(following(jnp.int32(2**31 - 1))) == 2**31 - 1
    True
    """
    return jnp.asarray(optax.safe_increment(count))


def working_dtype(params: PyTree) -> Any:
    """The type to compute in: 64 bits where any leaf has them, and 32 bits elsewhere.

    >>> working_dtype({"w": jnp.ones(2, jnp.bfloat16)}).name
    'float32'
    """
    dtypes = {jnp.result_type(leaf) for leaf in jax.tree.leaves(params)}
    return jnp.dtype("float64") if jnp.dtype("float64") in dtypes else jnp.dtype("float32")


def cast(tree: PyTree, dtype: Any) -> PyTree:
    """A tree with every leaf of one type.

    >>> cast({"w": jnp.ones(2, jnp.bfloat16)}, "float32")["w"].dtype.name
    'float32'
    """
    return jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(dtype), tree)


def owned(tree: PyTree, dtype: Any) -> PyTree:
    """Copies for a state: donating it must not delete the geometry or the parameters.

    The barrier keeps a compiled `init` from computing with megabytes of constants at compile time.

    **Arguments:**

    - `tree`: parameters, or a geometry.
    - `dtype`: the type of the copies.

    >>> owned({"w": jnp.ones(2)}, "float32")["w"].tolist()
    [1.0, 1.0]
    """
    copies = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)
    return cast(lax.optimization_barrier(copies), dtype)


def as_state(params: PyTree) -> PyTree:
    """Copies of parameters, of at least 32 bits, for an optimiser's state.

    >>> as_state({"w": jnp.ones(2, jnp.bfloat16)})["w"].dtype.name
    'float32'
    """
    return owned(params, working_dtype(params))


def map_given(function: Callable[..., Any], gradients: PyTree, *others: PyTree) -> PyTree:
    """As `jax.tree.map`, but where a gradient is `None` so is what is found.

    **Arguments:**

    - `function`: of a gradient and an entry of each other tree.
    - `gradients`: `None` for parameters that are frozen.
    - `others`: trees like that of the parameters.

    >>> map_given(lambda g, x: g + x, {"v": None, "w": 1.0}, {"v": 2.0, "w": 2.0})
    {'v': None, 'w': 3.0}
    """

    def found(gradient: Any, *entries: Any) -> Any:
        return None if gradient is None else function(gradient, *entries)

    return jax.tree.map(found, gradients, *others, is_leaf=lambda leaf: leaf is None)


def stands_for_params(params: PyTree) -> bool:
    """Whether this is a node in place of parameters, as `optax.tree_map_params` gives to `init`.

    What `init` returns then tells it which parts of a state are like parameters.

    **Arguments:**

    - `params`: what `init` was given.
    """
    empty = not jax.tree.leaves(params)
    return empty and not isinstance(params, dict | list | tuple | None)


def to_primal(geometry: AbstractMirrorMap, dual: PyTree) -> PyTree:
    """`∇ψ*(z)`, which lies on the devices as `z` does.

    **Arguments:**

    - `geometry`: `ψ`.
    - `dual`: `z`.
    """
    return _mapped(type(geometry).to_primal, geometry, dual)


def to_dual(geometry: AbstractMirrorMap, primal: PyTree) -> PyTree:
    """`∇ψ(x)`, which lies on the devices as `x` does.

    **Arguments:**

    - `geometry`: `ψ`.
    - `primal`: `x`.
    """
    return _mapped(type(geometry).to_dual, geometry, primal)


def _mapped(function: Callable[..., PyTree], geometry: Any, point: PyTree) -> PyTree:
    """Where types say how arrays lie (explicit meshes), the compiler decides within the map.

    Not every operation of a geometry, such as a triangular solve, says how its result does.
    """
    layouts = jax.tree.map(lambda leaf: jax.typeof(leaf).sharding, point)
    meshes = [layout.mesh for layout in jax.tree.leaves(layouts)]
    if any(AxisType.Explicit in mesh.axis_types for mesh in meshes):
        function = jax.sharding.auto_axes(function, out_sharding=layouts)
    return function(geometry, point)


def placed_like(tree: PyTree, params: PyTree) -> PyTree:
    """A tree whose arrays lie on the devices as the parameters of the same shape do.

    Inside a compiled program the compiler places them.

    **Arguments:**

    - `tree`: of the structure of `params`; scalars are left alone.
    - `params`: parameters.

    >>> placed_like({"w": jnp.ones(2)}, {"w": jnp.zeros(2)})["w"].tolist()
    [1.0, 1.0]
    """

    def place(leaf: Array, param: Any) -> Array:
        known = isinstance(param, Array) and not isinstance(param, Tracer)
        same = known and leaf.shape == param.shape and not isinstance(leaf, Tracer)
        return jax.device_put(leaf, param.sharding) if same else leaf

    return jax.tree.map(place, tree, params)
