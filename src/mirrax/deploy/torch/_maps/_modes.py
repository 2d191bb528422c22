r"""Views and mode products of tensors, `vec(X ×_1 W_1 … ×_r W_r) = (W_1 ⊗ … ⊗ W_r) vec(X)`.

`mirrax._views` says which axes a view has. Source: S004 §4.1; spec A5 and A8.
"""

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from ...._views import Roles, view_order, view_shape


def view(array: Tensor, roles: Roles) -> Tensor:
    """An array with the axes `out`, `in` and `height·width`, those of them that there are.

    >>> import torch
    >>> view(torch.arange(6).reshape(2, 3), ("in", "out")).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    return array.permute(view_order(roles)).reshape(view_shape(array.shape, roles))


def unview(viewed: Tensor, roles: Roles, shape: Sequence[int]) -> Tensor:
    """The inverse of `view`, back to an array of the given shape.

    >>> import torch
    >>> unview(torch.arange(6).reshape(3, 2), ("in", "out"), (2, 3)).tolist()
    [[0, 2, 4], [1, 3, 5]]
    """
    order = view_order(roles)
    split = viewed.reshape([shape[axis] for axis in order])
    return split.permute([order.index(axis) for axis in range(len(order))])


def mode_product(array: Tensor, factors: Sequence[Tensor]) -> Tensor:
    r"""`X ×_1 W_1 … ×_r W_r` for one matrix an axis; `X` itself where there is none.

    >>> import torch
    >>> X = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> mode_product(X, (torch.tensor([[1.0, 1.0]]), torch.eye(2))).tolist()
    [[4.0, 6.0]]
    """
    for axis, factor in enumerate(factors):
        array = (array.movedim(axis, -1) @ factor.mT).movedim(-1, axis)
    return array


@dataclasses.dataclass(frozen=True, eq=False)
class ModeLinear:
    """An affine map of arrays, `X ↦ X ×_1 W_1 … ×_r W_r + b`.

    **Arguments:**

    - `factors`: the matrices `W_d`.
    - `bias`: `b`, of the output's shape.
    """

    factors: tuple[Tensor, ...]
    bias: Tensor

    def __call__(self, array: Tensor) -> Tensor:
        """`X ×_1 W_1 … ×_r W_r + b`."""
        return mode_product(array, self.factors) + self.bias
