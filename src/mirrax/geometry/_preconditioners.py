r"""Learned linear preconditioners in Kronecker form: MetaCurvature and KFO.

MetaCurvature: `P g = G ×_O M_o ×_I M_i ×_F M_f` for convolutions, `M_o G M_iᵀ` for dense weights
and `m ⊙ g` for vectors. Nothing keeps the factors positive, so `P` may become indefinite.
KFO: `P g = (LᵀL) G (RᵀR)`, always positive semi-definite. Both start at the identity, where a step
is a gradient step. Sources: S004 §2 and Table 1 for both as baselines; spec A5, whose factors are
not transposed (public codes differ in that, so factors cannot be exchanged with them), and A6.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._tree import Dual, Primal
from .._views import Axes, as_axes, view_shape
from ._base import AbstractPreconditioner
from ._modes import axes_of, by_name, mode_product, unviewed, viewed


class ModeProducts(AbstractPreconditioner):
    r"""`P g = G ×_O M_o ×_I M_i ×_F M_f`: one learned matrix for each mode of each array.

    **Arguments:**

    - `factors`: for each array by name the matrices of its modes, in the order of its view; a
      vector has the diagonal `m` of one. `identity` builds them.
    - `axes`: the names of the arrays with their roles.

    >>> roles = {"dense_0": {"weight": ("in", "out")}}
    >>> template = {"dense_0": {"weight": jnp.zeros((3, 2))}}
    >>> preconditioner = ModeProducts.identity(template, roles)
    >>> [factor.shape for factor in preconditioner.factors["dense_0/weight"]]
    [(2, 2), (3, 3)]
    """

    factors: dict[str, tuple[Float[Array, "..."], ...]]
    axes: Axes = eqx.field(static=True, converter=as_axes)

    @classmethod
    def identity(cls, template: PyTree, roles: Mapping[str, Any]) -> "ModeProducts":
        """The identity, `M_o = M_i = M_f = I` and `m = 1`.

        **Arguments:**

        - `template`: parameters, or `jax.ShapeDtypeStruct`s of them.
        - `roles`: as `Model.roles`.

        **Raises:**

        - `ValueError`: if roles and parameters do not fit.
        """
        axes = axes_of(template, roles, cls.__name__)
        return cls(_identities(template, axes, _modes), axes)

    def apply(self, gradient: Dual) -> Primal:
        """`G ×_O M_o ×_I M_i ×_F M_f`, array by array."""
        arrays = viewed(gradient, self.axes, "ModeProducts.apply")
        moved = {name: mode_product(array, self.factors[name]) for name, array in arrays.items()}
        return unviewed(moved, self.axes, gradient)


class KroneckerUpdate(AbstractPreconditioner):
    r"""`P g = (LᵀL) G (RᵀR)`: two learned matrices for each array, positive semi-definite.

    A convolution's gradient `(O, I, F)` is taken as one matrix `(I, F)` for each output, all with
    the same `L` and `R`; a vector is `(n, 1)`.

    **Arguments:**

    - `factors`: `(L, R)` for each array by name. `identity` builds them.
    - `axes`: the names of the arrays with their roles.

    >>> roles, template = {"gain": ("out",)}, {"gain": jnp.zeros(2)}
    >>> preconditioner = KroneckerUpdate.identity(template, roles)
    >>> [factor.shape for factor in preconditioner.factors["gain"]]
    [(2, 2), (1, 1)]
    """

    factors: dict[str, tuple[Float[Array, "rows rows"], Float[Array, "columns columns"]]]
    axes: Axes = eqx.field(static=True, converter=as_axes)

    @classmethod
    def identity(cls, template: PyTree, roles: Mapping[str, Any]) -> "KroneckerUpdate":
        """The identity, `L = R = I`; arguments and errors as of `ModeProducts.identity`."""
        axes = axes_of(template, roles, cls.__name__)
        return cls(_identities(template, axes, _sides), axes)

    def apply(self, gradient: Dual) -> Primal:
        """`(LᵀL) G (RᵀR)`, array by array."""
        moved = {}
        for name, array in viewed(gradient, self.axes, "KroneckerUpdate.apply").items():
            left, right = self.factors[name]
            matrices = array.reshape(_as_matrix(array.shape))
            batch = (None,) * (matrices.ndim - 2)
            moved[name] = mode_product(matrices, (*batch, left.T @ left, right.T @ right))
        return unviewed(moved, self.axes, gradient)


def _as_matrix(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a view whose last two modes are the rows and columns of a matrix."""
    return shape + (1,) * max(2 - len(shape), 0)


def _modes(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The shapes of `ModeProducts`' factors of one view: matrices, or the diagonal of one."""
    return ((shape[0],),) if len(shape) == 1 else tuple((size, size) for size in shape)


def _sides(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The shapes of `L` and `R` of one view."""
    rows, columns = _as_matrix(shape)[-2:]
    return (rows, rows), (columns, columns)


def _identities(
    template: PyTree, axes: Axes, shapes: Callable[[tuple[int, ...]], tuple[tuple[int, ...], ...]]
) -> dict[str, Any]:
    """Identities for every array by name: matrices, or vectors of ones."""
    named, factors = by_name(template), {}
    for name, roles in axes:
        leaf = named[name]
        factors[name] = tuple(
            jnp.eye(*shape, dtype=leaf.dtype) if len(shape) == 2 else jnp.ones(shape, leaf.dtype)
            for shape in shapes(view_shape(leaf.shape, roles))
        )
    return factors
