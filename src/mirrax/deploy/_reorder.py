r"""One parameter in two layouts: split, permute, merge.

PyTorch and Equinox keep dense weights as `(out, in)` and kernels as `(out, in, height, width)`,
the library and Flax as `(in, out)` and `(height, width, in, out)`. Behind flattened images the
inputs of a dense layer also differ in order: `(channels, height, width)` there, `(height, width,
channels)` here. All of it is `array = own.reshape(split).permute(order).reshape(shape)`, in
whatever framework the numbers live; only the three tuples are made here.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

from ._layout import Leaf, Shape

Convention: TypeAlias = dict[int, tuple[str, ...]]
"""What the axes of a library's layers mean, by their number."""

CHANNELS_FIRST: Convention = {
    1: ("out",),
    2: ("out", "in"),
    3: ("out", "in", "width"),
    4: ("out", "in", "height", "width"),
}
"""The layers of PyTorch and Equinox."""

CHANNELS_LAST: Convention = {
    1: ("out",),
    2: ("in", "out"),
    3: ("width", "in", "out"),
    4: ("height", "width", "in", "out"),
}
"""The layers of this library, Flax and Haiku."""


@dataclasses.dataclass(frozen=True)
class Reorder:
    """How a parameter of a model and an array of an artifact hold the same numbers.

    **Arguments:**

    - `own`: the shape of the parameter.
    - `axes`: for each axis of the array which axis of the parameter it is.
    - `channels`: of the flattened images along the parameter's inputs; 1 where there are none.
    - `first`: whether the model keeps channels before rows and columns.
    - `units`: axes of one entry behind the array of a vector.

    >>> Reorder((3, 2), (1, 0)).shape
    (2, 3)
    """

    own: Shape
    axes: tuple[int, ...]
    channels: int = 1
    first: bool = True
    units: int = 0

    @property
    def shape(self) -> Shape:
        """The shape of the array."""
        return tuple(self.own[axis] for axis in self.axes) + (1,) * self.units

    @property
    def inputs(self) -> int:
        """The inputs of a layer with two axes or more."""
        return self.own[1 if self.first else -2]

    @property
    def outputs(self) -> int:
        """The outputs of a layer with two axes or more."""
        return self.own[0 if self.first else -1]

    @property
    def turns_images(self) -> bool:
        """Whether it is a kernel, with channels before rows and columns on one side alone."""
        last = len(self.axes) - 1
        ends = (1, 0) if self.first else (last, last - 1)
        places = self.axes[-2:] if self.first else self.axes[:2]
        return last > 1 and places == ends

    @property
    def split(self) -> tuple[int, ...]:
        """The parameter's axes, with channels and pixels of flattened images apart."""
        if self.channels == 1:
            return self.own
        pixels = self.inputs // self.channels
        if self.first:
            return (self.outputs, self.channels, pixels)
        return (pixels, self.channels, self.outputs)

    @property
    def order(self) -> tuple[int, ...]:
        """Which axis of the split parameter each axis of the split array is.

        >>> Reorder((10, 24), (1, 0), channels=6).order  # pixels, channels, outputs
        (2, 1, 0)
        """
        if self.channels == 1:
            return self.axes
        places = {0: (0,), 1: (2, 1)} if self.first else {0: (1, 0), 1: (2,)}
        return tuple(place for axis in self.axes for place in places[axis])

    @property
    def ordered(self) -> tuple[int, ...]:
        """The shape of the split array."""
        return tuple(self.split[place] for place in self.order)

    @property
    def back(self) -> tuple[int, ...]:
        """The inverse of `order`."""
        return tuple(self.order.index(place) for place in range(len(self.order)))

    def to_array(self, own: Any, transpose: Callable[[Any, tuple[int, ...]], Any]) -> Any:
        """The parameter with the axes of the artifact.

        **Arguments:**

        - `own`: an array of any framework.
        - `transpose`: the framework's, such as `jnp.transpose` or `torch.permute`.

        >>> import numpy as np
        >>> Reorder((1, 2), (1, 0)).to_array(np.array([[1.0, 2.0]]), np.transpose).tolist()
        [[1.0], [2.0]]
        """
        return transpose(own.reshape(self.split), self.order).reshape(self.shape)

    def from_array(self, array: Any, transpose: Callable[[Any, tuple[int, ...]], Any]) -> Any:
        """The inverse of `to_array`.

        >>> import numpy as np
        >>> Reorder((1, 2), (1, 0)).from_array(np.array([[1.0], [2.0]]), np.transpose).tolist()
        [[1.0, 2.0]]
        """
        return transpose(array.reshape(self.ordered), self.back).reshape(self.own)


def without_units(name: str, shape: Shape) -> Shape:
    """The shape of a vector where Equinox gives a bias one axis a dimension of the images.

    >>> without_units("layers/0/bias", (6, 1, 1)), without_units("layers/0/weight", (6, 1, 1))
    ((6,), (6, 1, 1))
    """
    is_bias = "bias" in name.casefold().split("/")[-1]
    return shape[:1] if is_bias and all(size == 1 for size in shape[1:]) else shape


def found_axes(leaf: Leaf, own: Shape, convention: Convention) -> tuple[int, ...] | None:
    """Which axis of a parameter each axis of an artifact's array is.

    By roles where the artifact knows them; else by shape, where only one of the two conventions
    fits.

    **Arguments:**

    - `leaf`: the array.
    - `own`: the shape of the parameter.
    - `convention`: what its axes mean.

    **Returns:**

    The axes, or `None` where no order fits.

    **Raises:**

    - `ValueError`: without roles, several orders fit.

    >>> found_axes(Leaf("w", (2, 3), "float32", ("in", "out")), (3, 2), CHANNELS_FIRST)
    (1, 0)
    """
    rank, wanted = len(own), without_units(leaf.name, leaf.shape)
    if rank != len(wanted):
        return None
    if rank < 2:
        return tuple(range(rank)) if own == wanted else None
    roles = convention.get(rank, ())
    if leaf.roles is not None and set(leaf.roles) == set(roles):
        orders = {tuple(map(roles.index, leaf.roles))}
    else:
        known = (found[rank] for found in (CHANNELS_FIRST, CHANNELS_LAST) if rank in found)
        orders = {tuple(range(rank))} | {tuple(map(roles.index, found)) for found in known}
    fitting = sorted(axes for axes in orders if Reorder(own, axes).shape == leaf.shape)
    if len(fitting) > 1:
        raise ValueError(
            f"axes: the artifact does not say what the axes of {leaf.name!r} {leaf.shape} mean; "
            f"save it with roles, or pass axes={{{leaf.name!r}: {fitting[1]}}} or {fitting[0]}."
        )
    return fitting[0] if fitting else None


def shape_in(leaf: Leaf, convention: Convention) -> Shape | None:
    """The shape of the same layer in a convention; `None` where roles do not tell.

    >>> leaf = Leaf("w", (5, 5, 1, 6), "float32", ("height", "width", "in", "out"))
    >>> shape_in(leaf, CHANNELS_FIRST)
    (6, 1, 5, 5)
    """
    shape = without_units(leaf.name, leaf.shape)
    if len(shape) < 2:
        return shape
    roles = convention.get(len(leaf.shape), ())
    if leaf.roles is None or set(leaf.roles) != set(roles):
        return None
    return tuple(leaf.shape[leaf.roles.index(role)] for role in roles)


def with_channels(name: str, reorder: Reorder, channels: int) -> Reorder:
    """The same for a dense layer behind flattened images.

    **Raises:**

    - `ValueError`: it is no dense layer, or its inputs are no whole number of channels.
    """
    inputs = reorder.inputs if len(reorder.own) == 2 else 0
    if channels < 1 or not inputs or inputs % channels:
        raise ValueError(
            f"flatten: {name!r} of shape {reorder.own} has no inputs that are images of "
            f"{channels} channels; give the channels of the last convolution, or 1."
        )
    return dataclasses.replace(reorder, channels=channels)
