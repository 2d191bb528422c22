r"""Mode products: one small matrix for each axis of an array.

`(X ×_d W)[.., a, ..] = Σ_j W[a, j] X[.., j, ..]` acts on axis `d` alone, so
`vec(X ×_1 W_1 … ×_r W_r) = (W_1 ⊗ … ⊗ W_r) vec(X)` in C order. Which axes an array has is said by
the *view* that papers take (`_views`): convolutional weights `(O, I, F)` with `F = height·width` in
C order, dense weights `(O, I)`, vectors `(n,)`. The library keeps `(height, width, in, out)` and
`(in, out)`; the roles of a model's axes lead from one to the other. Sources: S004 §4.1 (blockIAF
and MetaCurvature); spec A5 and A8, untransposed factors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._tree import leaf_names
from .._views import ORDER, Axes, Roles, as_axes, view_order, view_shape


def axes_of(template: PyTree, roles: Mapping[str, Any], owner: str) -> Axes:
    """The axes of parameters, checked against their shapes.

    **Arguments:**

    - `template`: parameters, or `jax.ShapeDtypeStruct`s of them.
    - `roles`: as `Model.roles`: a tree like the parameters whose leaves are tuples of strings.
    - `owner`: who asks, for the message.

    **Raises:**

    - `ValueError`: if a parameter has no roles, or as many as its axes it has not, or one of them
      is not `height`, `width`, `in` or `out`.
    """
    is_role = lambda node: isinstance(node, tuple | list) and all(isinstance(r, str) for r in node)  # noqa: E731
    named = by_name(roles, is_role)
    for name, leaf in by_name(template).items():
        found = named.get(name)
        distinct = set(found or ()) & set(ORDER)
        if found is None or not len(distinct) == len(found) == len(leaf.shape):
            raise ValueError(
                f"{owner}.roles: expected {len(leaf.shape)} distinct roles out of "
                f"{', '.join(ORDER)} for {name!r} of shape {leaf.shape}, got {found!r}."
            )
    return as_axes((name, named[name]) for name in by_name(template))


def by_name(tree: PyTree, is_leaf: Any = None) -> dict[str, Any]:
    """The leaves of a tree by their names, in flattening order."""
    leaves = jax.tree.leaves(tree, is_leaf=is_leaf)
    return dict(zip(leaf_names(tree, is_leaf), leaves, strict=True))


def rebuilt(named: Mapping[str, Any], like: PyTree) -> PyTree:
    """The tree with the structure of `like` and the named leaves."""
    leaves = [named[name] for name in leaf_names(like)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def view(array: Array, roles: Roles) -> Array:
    """An array as papers see it: `(out, in, height·width)`.

    **Arguments:**

    - `array`: the array as the library keeps it.
    - `roles`: what each of its axes means.

    **Returns:**

    The same numbers with the axes `out`, `in` and `height·width`, those of them that there are.

    >>> view(jnp.arange(6).reshape(2, 3), ("in", "out")).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    ordered = jnp.transpose(array, view_order(roles))
    return ordered.reshape(view_shape(array.shape, roles))


def unview(viewed: Array, roles: Roles, shape: Sequence[int]) -> Array:
    """The inverse of `view`, back to an array of the given shape.

    >>> unview(jnp.arange(6).reshape(3, 2), ("in", "out"), (2, 3)).tolist()
    [[0, 2, 4], [1, 3, 5]]
    """
    order = view_order(roles)
    split = viewed.reshape([shape[axis] for axis in order])
    return jnp.transpose(split, [order.index(axis) for axis in range(len(order))])


def viewed(tree: PyTree, axes: Axes, owner: str) -> dict[str, Array]:
    """The views of all leaves by name, in the order of `axes`.

    **Raises:**

    - `ValueError`: if the leaves of the tree are not those of `axes`.
    """
    named = by_name(tree)
    check_names(named, axes, owner)
    return {name: view(named[name], roles) for name, roles in axes}


def check_names(named: Mapping[str, Any], axes: Axes, owner: str) -> None:
    """Refuses parameters whose leaves are not those a map was made for."""
    if set(named) != {name for name, _ in axes}:
        raise ValueError(
            f"{owner}: expected the parameters {', '.join(name for name, _ in axes)}, got "
            f"{', '.join(named)}."
        )


def unviewed(named: Mapping[str, Array], axes: Axes, like: PyTree) -> PyTree:
    """The tree with the structure and shapes of `like` whose leaves have the named views."""
    shapes = {name: leaf.shape for name, leaf in by_name(like).items()}
    leaves = {name: unview(named[name], roles, shapes[name]) for name, roles in axes}
    return rebuilt(leaves, like)


def mode_product(array: Array, factors: Sequence[Array | None]) -> Array:
    r"""`X ×_1 W_1 … ×_r W_r`.

    **Arguments:**

    - `array`: `X`.
    - `factors`: for each axis a matrix `W_d`, the diagonal of one as a vector, or `None` for the
      identity.

    **Returns:**

    An array whose axis `d` has as many entries as `W_d` has rows.

    >>> X = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    >>> mode_product(X, (jnp.array([[1.0, 1.0]]), jnp.array([1.0, 10.0]))).tolist()
    [[4.0, 60.0]]
    """
    for axis, factor in enumerate(factors):
        if factor is None:
            continue
        if factor.ndim == 1:
            array = array * jnp.expand_dims(factor, range(1, array.ndim - axis))
        elif axis == array.ndim - 1:  # the result is in place at once
            array = jnp.tensordot(array, factor, axes=(axis, 1))
        else:
            array = jnp.moveaxis(jnp.tensordot(factor, array, axes=(1, axis)), 0, axis)
    return array


class ModeLinear(eqx.Module):
    r"""An affine map of arrays, `X ↦ X ×_1 W_1 … ×_r W_r + b`.

    **Arguments:**

    - `factors`: the matrices `W_d`, `(out_d, in_d)`.
    - `bias`: `b`, a full array of the output's shape.
    """

    factors: tuple[Float[Array, "out_d in_d"], ...]
    bias: Float[Array, "..."]

    def __call__(self, array: Array) -> Array:
        """`X ×_1 W_1 … ×_r W_r + b`."""
        return mode_product(array, self.factors) + self.bias
