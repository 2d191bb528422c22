r"""The parameters of a geometry in a model of JAX: which is which, and how their axes lie.

Parameters with the names and shapes that the geometry was learned for are taken as they are, but
for an Equinox module of square weights where the geometry's have their outputs last. Others are
matched as PyTorch's are (`_match`): by name, else layer by layer; Flax's axes are the library's,
Equinox's are PyTorch's. One network follows one convention, which the shapes of all its layers with
roles tell, or else their words: a `kernel` has its outputs last. Where both fit it is asked for.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._tree import leaf_names
from ._fit import by_name, check_shapes, leaves_of
from ._layout import Expected, Leaf, Shape, mismatch
from ._match import Given, Row, matched
from ._reorder import CHANNELS_FIRST, CHANNELS_LAST, Convention, Reorder, shape_in, without_units


@dataclasses.dataclass(frozen=True)
class Table:
    """What is known of the parameters that a geometry was learned for.

    **Arguments:**

    - `expected`: shapes by name, some of which may be free.
    - `leaves`: the whole table, or `None` where something is free.
    - `given`: `names`, `axes` and `flatten`, as the user gave them.
    """

    expected: Expected
    leaves: tuple[Leaf, ...] | None
    given: Given


@dataclasses.dataclass(frozen=True)
class Alignment:
    """A tree of parameters beside a geometry's.

    **Arguments:**

    - `rows`: the pairs.

    >>> leaf = Leaf("dense_0/weight", (1, 2), "float32")
    >>> found = Alignment((Row(leaf, "layers/0/weight", Reorder((2, 1), (1, 0)), "given"),))
    >>> arrays = found.arrays({"layers": [{"weight": jnp.array([[1.0], [2.0]])}]})
    >>> arrays["dense_0/weight"].tolist()
    [[1.0, 2.0]]
    """

    rows: tuple[Row, ...]

    def arrays(self, tree: PyTree) -> dict[str, Array]:
        """The leaves of a tree by the geometry's names, with its axes; scalars stay scalars."""
        named = by_name(tree)
        return {row.leaf.name: _to_array(row.reorder, named[row.name]) for row in self.rows}

    def tree(self, arrays: Mapping[str, Array | np.ndarray], like: PyTree) -> PyTree:
        """The inverse of `arrays`; scalars, which stand for all entries, stay scalars.

        **Arguments:**

        - `arrays`: by the geometry's names.
        - `like`: the tree of parameters.
        """
        rows = {row.name: row for row in self.rows}
        leaves, structure = jax.tree.flatten(like)
        found = []
        for name, leaf in zip(leaf_names(like), leaves, strict=True):
            found.append(_from_array(rows[name].reorder, arrays[rows[name].leaf.name], leaf))
        return jax.tree.unflatten(structure, found)


def align(table: Table, params: PyTree) -> Alignment:
    """Matches parameters with those a geometry was learned for.

    **Arguments:**

    - `table`: what is known of the latter.
    - `params`: the former.

    **Raises:**

    - `ArtifactError`: they are others; both tables are shown.
    - `ValueError`: what was given does not fit, or something would have to be guessed.
    """
    here = leaves_of(params)
    shapes = {leaf.name: leaf.shape for leaf in here}
    told = [name for name, mapping in table.given.items() if mapping]
    same = not told and mismatch(table.expected, shapes) is None
    if same and not (_is_equinox(params) and _may_be_turned(table.leaves or ())):
        known = {leaf.name: leaf for leaf in table.leaves or here}
        return Alignment(tuple(_as_it_is(known[leaf.name]) for leaf in here))
    if table.leaves is None:
        if told:
            raise ValueError(
                f"{told[0]}: the geometry has no table of parameters to which it could refer; "
                "save it with params_like and roles."
            )
        check_shapes(table.expected, params)
    return Alignment(tuple(_matched(table.leaves or (), shapes, table.given, _is_ordered(params))))


def _as_it_is(leaf: Leaf) -> Row:
    return Row(leaf, leaf.name, Reorder(leaf.shape, tuple(range(len(leaf.shape)))), "name")


def _matched(
    leaves: Sequence[Leaf], shapes: Mapping[str, Shape], given: Given, ordered: bool
) -> list[Row]:
    flat = {name: without_units(name, shape) for name, shape in shapes.items()}
    listed = flat if ordered else {name: flat[name] for name in sorted(flat, key=_natural)}
    convention = _convention(leaves, listed, given["axes"])
    return matched(leaves, listed, **given, ordered=ordered, convention=convention)


def _is_equinox(params: PyTree) -> bool:
    """Whether the parameters, or a part of them, are a module of Equinox."""
    nodes = jax.tree.leaves(params, is_leaf=lambda node: isinstance(node, eqx.Module))
    return any(isinstance(node, eqx.Module) for node in nodes)


def _may_be_turned(leaves: Sequence[Leaf]) -> bool:
    """Whether weights with other roles than Equinox's have nevertheless its shapes."""
    weights = [leaf for leaf in _with_roles(leaves) if len(leaf.shape) > 1]
    others = [leaf for leaf in weights if leaf.roles != CHANNELS_FIRST[len(leaf.shape)]]
    return bool(others) and all(shape_in(leaf, CHANNELS_FIRST) == leaf.shape for leaf in weights)


def _with_roles(leaves: Sequence[Leaf]) -> list[Leaf]:
    """Those whose shape in either convention is known; vectors need no roles."""
    return [leaf for leaf in leaves if shape_in(leaf, CHANNELS_FIRST) is not None]


def _is_ordered(node: PyTree) -> bool:
    """Whether leaves come in the order of the model: in sequences and declared fields they do.

    Dictionaries, and the modules of Flax, are sorted by their keys.
    """
    entries, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda below: below is not node)
    filled = [(path[0], below) for path, below in entries if path and jax.tree.leaves(below)]
    return _keeps_order(node, [key for key, _ in filled]) and all(
        _is_ordered(below) for _, below in filled
    )


def _keeps_order(node: Any, keys: Sequence[Any]) -> bool:
    if len(keys) < 2 or isinstance(node, tuple):
        return True
    if dataclasses.is_dataclass(node):
        names = [getattr(key, "name", None) for key in keys]
        return names == [field.name for field in dataclasses.fields(node) if field.name in names]
    return all(isinstance(key, jax.tree_util.SequenceKey) for key in keys)


def _natural(name: str) -> list[Any]:
    """A key by which `layer_10` comes behind `layer_9`."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in _parts(name)]


def _parts(name: str) -> list[str]:
    return re.split(r"(\d+)", name)


def _convention(
    leaves: Sequence[Leaf], shapes: Mapping[str, Shape], axes: Mapping[str, Any]
) -> Convention:
    """What the axes of the model's layers mean.

    Where no convention fits the layers that have roles, neither does any match.
    """
    known = _with_roles(leaves)
    free = [leaf for leaf in known if leaf.name not in axes]
    present = Counter(shapes.values())

    def fitting(told: Sequence[Leaf]) -> list[Convention]:
        both = (CHANNELS_FIRST, CHANNELS_LAST)
        return [
            found for found in both if Counter(shape_in(leaf, found) for leaf in told) <= present
        ]

    for told in (known, free):
        if len(fitting(told)) == 1:
            return fitting(told)[0]
    if any("kernel" in name.casefold().split("/") for name in shapes):
        return CHANNELS_LAST
    asked = [leaf.name for leaf in free if len(leaf.shape) > 1]
    if asked and fitting(free):
        raise ValueError(
            f"axes: inputs and outputs of {asked[0]!r} cannot be told apart by shape; pass "
            f"axes={{{asked[0]!r}: …}} and the same of the other weights, (1, 0) for one whose "
            "axes are the other way round here, (0, 1) for one whose are not."
        )
    return CHANNELS_FIRST


def _to_array(reorder: Reorder, leaf: Array) -> Array:
    return leaf if jnp.ndim(leaf) == 0 else reorder.to_array(jnp.asarray(leaf), jnp.transpose)


def _from_array(reorder: Reorder, array: Array | np.ndarray, like: Array) -> Array | np.ndarray:
    if jnp.ndim(array) == 0:
        return array
    return reorder.from_array(array, jnp.transpose).reshape(jnp.shape(like))
