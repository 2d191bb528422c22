r"""One parameter in two layouts: split, permute, merge.

PyTorch keeps dense weights as `(out, in)` and kernels as `(out, in, height, width)`, the library as
`(in, out)` and `(height, width, in, out)`. Behind flattened images the inputs of a dense layer also
differ in order: `(channels, height, width)` there, `(height, width, channels)` here. All of it is
`array = tensor.reshape(split).permute(order).reshape(shape)`.
"""

import dataclasses

from torch import Tensor

from .._layout import Leaf, Shape

TORCH_ROLES = {
    1: ("out",),
    2: ("out", "in"),
    3: ("out", "in", "width"),
    4: ("out", "in", "height", "width"),
}
"""What the axes of PyTorch's layers mean, by their number."""

_ROLES = {2: ("in", "out"), 3: ("width", "in", "out"), 4: ("height", "width", "in", "out")}
"""The same of layers that keep channels last."""


@dataclasses.dataclass(frozen=True)
class Reorder:
    """How a tensor and an array of an artifact hold the same numbers.

    **Arguments:**

    - `own`: the shape of the tensor.
    - `axes`: for each axis of the array which axis of the tensor it is.
    - `channels`: of the flattened images along the tensor's second axis; 1 where there are none.

    >>> Reorder((3, 2), (1, 0)).shape
    (2, 3)
    """

    own: Shape
    axes: tuple[int, ...]
    channels: int = 1

    @property
    def shape(self) -> Shape:
        """The shape of the array."""
        return tuple(self.own[axis] for axis in self.axes)

    @property
    def channels_last(self) -> bool:
        """Whether the array has channels behind rows and columns, and the tensor before them."""
        return len(self.axes) > 2 and self.axes[-2:] == (1, 0)

    def to_array(self, tensor: Tensor) -> Tensor:
        """The tensor with the axes of the artifact."""
        split, order = self._split()
        return tensor.reshape(split).permute(order).reshape(self.shape)

    def to_tensor(self, array: Tensor) -> Tensor:
        """The inverse of `to_array`."""
        split, order = self._split()
        ordered = array.reshape([split[axis] for axis in order])
        back = [order.index(axis) for axis in range(len(order))]
        return ordered.permute(back).reshape(self.own)

    def _split(self) -> tuple[list[int], list[int]]:
        """The tensor's axes with images apart, and those in the order of the array."""
        if self.channels == 1:
            return list(self.own), list(self.axes)
        out, inputs = self.own
        split = [out, self.channels, inputs // self.channels]
        places = {0: [0], 1: [2, 1]}
        return split, [place for axis in self.axes for place in places[axis]]


def found_axes(leaf: Leaf, own: Shape) -> tuple[int, ...] | None:
    """Which axis of a tensor each axis of an artifact's array is.

    By roles where the artifact knows them; else by shape, where only one of PyTorch's order and
    channels last fits.

    **Arguments:**

    - `leaf`: the array.
    - `own`: the shape of the tensor.

    **Returns:**

    The axes, or `None` where no order fits.

    **Raises:**

    - `ValueError`: without roles, both orders fit.

    >>> found_axes(Leaf("w", (2, 3), "float32", ("in", "out")), (3, 2))
    (1, 0)
    """
    rank = len(own)
    if rank != len(leaf.shape):
        return None
    if rank < 2:
        return tuple(range(rank)) if own == leaf.shape else None
    roles = TORCH_ROLES.get(rank, ())
    if leaf.roles is not None and set(leaf.roles) == set(roles):
        orders = {tuple(map(roles.index, leaf.roles))}
    else:
        orders = {tuple(range(rank))}
        orders |= {tuple(map(roles.index, _ROLES[rank]))} if rank in _ROLES else set()
    fitting = sorted(axes for axes in orders if Reorder(own, axes).shape == leaf.shape)
    if len(fitting) > 1:
        raise ValueError(
            f"MirrorDescent.axes: the artifact does not say what the axes of {leaf.name!r} "
            f"{leaf.shape} mean; save it with roles, or pass axes={{{leaf.name!r}: {fitting[1]}}} "
            f"or {fitting[0]}."
        )
    return fitting[0] if fitting else None


def torch_shape(leaf: Leaf) -> Shape | None:
    """The shape that PyTorch's layer of the same roles has; `None` where roles do not tell.

    >>> torch_shape(Leaf("w", (5, 5, 1, 6), "float32", ("height", "width", "in", "out")))
    (6, 1, 5, 5)
    """
    if len(leaf.shape) < 2:
        return leaf.shape
    roles = TORCH_ROLES.get(len(leaf.shape), ())
    if leaf.roles is None or set(leaf.roles) != set(roles):
        return None
    return tuple(leaf.shape[leaf.roles.index(role)] for role in roles)


def with_channels(name: str, reorder: Reorder, channels: int) -> Reorder:
    """The same for a dense layer behind flattened images.

    **Raises:**

    - `ValueError`: it is no dense layer, or its inputs are no whole number of channels.
    """
    inputs = reorder.own[1] if len(reorder.own) == 2 else 0
    if channels < 1 or not inputs or inputs % channels:
        raise ValueError(
            f"MirrorDescent.flatten: {name!r} of shape {reorder.own} has no inputs that are images "
            f"of {channels} channels; give the channels of the last convolution, or 1."
        )
    return dataclasses.replace(reorder, channels=channels)
