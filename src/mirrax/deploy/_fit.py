r"""Fitting a geometry to parameters by the names of their leaves.

A geometry is learned for one tree of parameters and used on another: a dictionary here, a module
of some neural-network library there. Both are read as a flat mapping from names to arrays, so what
must agree is names and shapes, not the classes of the containers.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .._errors import ArtifactError
from .._tree import leaf_names
from ..geometry import (
    AbstractGeometry,
    AbstractMirrorMap,
    Blockwise,
    ConvexPotential,
    Diagonal,
    Kronecker,
    MaxOfDiagonals,
    Scaled,
    Transformed,
    is_factors,
)
from ._encoding import Stored
from ._layout import Expected, Leaf, Shape, is_below, join, mismatch
from ._reorder import CHANNELS_FIRST, CHANNELS_LAST, without_units


def is_geometry(node: Any) -> bool:
    """Whether a node of a tree is a geometry; the `is_leaf` of trees of geometries."""
    return isinstance(node, AbstractMirrorMap)


def by_name(tree: PyTree, is_leaf: Any = None) -> dict[str, Any]:
    """The leaves of a tree by their names.

    **Raises:**

    - `ValueError`: two leaves have one name (a key contains `/`).

    >>> by_name({"dense_0": {"weight": 1.0}})
    {'dense_0/weight': 1.0}
    """
    names = leaf_names(tree, is_leaf=is_leaf)
    named = dict(zip(names, jax.tree.leaves(tree, is_leaf=is_leaf), strict=True))
    if len(named) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"parameters: {', '.join(map(repr, twice))} name two leaves; rename one.")
    return named


def layer_roles(params: PyTree, outputs: Literal["last", "first"] = "last") -> dict[str, Any]:
    """What the axes of a network's arrays mean, from their number alone, for `save`.

    Weights have two axes, kernels one more a dimension of the images; vectors belong to outputs,
    and so do biases with axes of one entry, which need no word for it.

    **Arguments:**

    - `params`: the parameters, of whatever containers.
    - `outputs`: where layers keep their outputs: `"last"`, as here and in Flax, `(in, out)` and
        `(height, width, in, out)`; or `"first"`, as in Equinox, `(out, in)` and
        `(out, in, height, width)`.

    **Returns:**

    Roles by name, of those arrays that have one to four axes.

    **Raises:**

    - `ValueError`: another word.

    >>> layer_roles({"dense_0": {"weight": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}})
    {'dense_0/bias': ('out',), 'dense_0/weight': ('in', 'out')}
    """
    if outputs not in ("last", "first"):
        raise ValueError(f"layer_roles.outputs: expected 'last' or 'first', got {outputs!r}.")
    convention = CHANNELS_LAST if outputs == "last" else CHANNELS_FIRST
    return {
        name: convention[len(shape)]
        for name, shape in shapes_of(params).items()
        if len(shape) in convention and shape == without_units(name, shape)
    }


def leaves_of(params: PyTree) -> tuple[Leaf, ...]:
    """The table of parameters, without axis roles."""
    named = by_name(params)
    return tuple(
        Leaf(name, tuple(jnp.shape(leaf)), jnp.result_type(leaf).name)
        for name, leaf in named.items()
    )


def shapes_of(params: PyTree) -> dict[str, Shape]:
    """The shapes of parameters by name."""
    return {leaf.name: leaf.shape for leaf in leaves_of(params)}


def expected_leaves(geometry: Stored) -> dict[str, Leaf | None]:
    """What a geometry's own arrays say about its parameters; `None` where they say nothing."""
    if isinstance(geometry, Diagonal):
        return {leaf.name: leaf for leaf in leaves_of(geometry.log_diagonal)}
    if isinstance(geometry, ConvexPotential):
        return {leaf.name: leaf for leaf in leaves_of(geometry.raw_rates)}
    if isinstance(geometry, MaxOfDiagonals):
        table = leaves_of(geometry.log_diagonals)
        return {leaf.name: Leaf(leaf.name, leaf.shape[1:], leaf.dtype) for leaf in table}
    if isinstance(geometry, Kronecker):
        named = by_name(geometry.factors, is_factors)
        return {name: _factored_leaf(name, node) for name, node in named.items()}
    if isinstance(geometry, Scaled | Transformed):
        return expected_leaves(geometry.geometry)
    if isinstance(geometry, Blockwise):
        found: dict[str, Leaf | None] = {}
        for block, inner in by_name(geometry.blocks, is_geometry).items():
            for name, leaf in expected_leaves(inner).items():
                whole = join(block, name)
                found[whole] = leaf and Leaf(whole, leaf.shape, leaf.dtype)
        return found
    return {"": None}


def _factored_leaf(name: str, node: Any) -> Leaf:
    """The parameters that factors, or `log m`, belong to."""
    if is_factors(node):
        return Leaf(name, node.shape, jnp.result_type(node.rows).name)
    return Leaf(name, tuple(jnp.shape(node)), jnp.result_type(node).name)


def expected_shapes(geometry: Stored) -> Expected:
    """`expected_leaves`, shapes only."""
    table = expected_leaves(geometry)
    return {name: leaf.shape if leaf else None for name, leaf in table.items()}


def whole_table(geometry: Stored) -> tuple[Leaf, ...] | None:
    """The table of a geometry's own arrays, or `None` where they leave any parameters free."""
    known = expected_leaves(geometry)
    leaves = tuple(leaf for leaf in known.values() if leaf is not None)
    return leaves if len(leaves) == len(known) else None


def check_shapes(expected: Expected, params: PyTree) -> None:
    """Compares parameters with what a geometry expects.

    **Raises:**

    - `ArtifactError`: names or shapes differ; both tables are shown.
    """
    table = mismatch(expected, shapes_of(params))
    if table is not None:
        raise ArtifactError(
            "the parameters are not those the geometry was learned for; build the same model, "
            f"or learn a geometry for this one:\n{table}"
        )


def flattened(geometry: Any) -> Any:
    """The same geometry over flat mappings from names to arrays (blocks: one level above)."""
    if isinstance(geometry, Diagonal):
        return Diagonal(by_name(geometry.log_diagonal))
    if isinstance(geometry, MaxOfDiagonals):
        return MaxOfDiagonals(by_name(geometry.log_diagonals))
    if isinstance(geometry, Kronecker):
        return Kronecker(by_name(geometry.factors, is_factors))
    if isinstance(geometry, Scaled):
        return Scaled(flattened(geometry.geometry), geometry.log_scale)
    if isinstance(geometry, Transformed):
        return Transformed(flattened(geometry.geometry), geometry.raw_factors, geometry.axes)
    if isinstance(geometry, Blockwise):
        blocks = by_name(geometry.blocks, is_geometry)
        return Blockwise({name: flattened(block) for name, block in blocks.items()})
    return geometry


def _blocks(geometry: AbstractMirrorMap) -> dict[str, AbstractGeometry] | None:
    """The blocks of a flattened geometry, through any scales and coordinates around them."""
    while isinstance(geometry, Scaled | Transformed):
        geometry = geometry.geometry
    return dict(geometry.blocks) if isinstance(geometry, Blockwise) else None


def fold(geometry: AbstractMirrorMap, named: dict[str, Any]) -> dict[str, Any]:
    """Arranges named leaves as a flattened geometry takes them."""
    blocks = _blocks(geometry)
    if blocks is None:
        return named
    parts: dict[str, dict[str, Any]] = {block: {} for block in blocks}
    for name, leaf in named.items():
        # Keys may contain "/", so the longest block name that fits is the right one.
        block = max((block for block in blocks if is_below(name, block)), key=len)
        parts[block][name.removeprefix(block).removeprefix("/")] = leaf
    return {block: fold(blocks[block], part) for block, part in parts.items()}


def unfold(geometry: AbstractMirrorMap, folded: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `fold`."""
    blocks = _blocks(geometry)
    if blocks is None:
        return folded
    return {
        join(block, name): leaf
        for block, part in folded.items()
        for name, leaf in unfold(blocks[block], part).items()
    }
