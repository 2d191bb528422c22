r"""The networks inside blockIAF: encoders, autoregressors and decoders of arrays.

An encoder halves every mode three times, `e = vec relu(L_3 relu(L_2 relu(L_1 X)))`. An
autoregressor is one dense layer from the embeddings of all earlier blocks to the codes of the
arrays of one block. A decoder doubles every mode back and ends in two heads, which give the raw
scale and the shift of each entry. All layers are mode products with a full bias.
Source: S004 §4.1; spec A8, layer sizes as in the official code.
"""

import dataclasses
import functools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._draws import Draw
from ._modes import ModeLinear

Shape = tuple[int, ...]
Encoder = tuple[ModeLinear, ...]

HALVINGS = 3


class Decoder(eqx.Module):
    """From a code to the raw scale and the shift of one array.

    **Arguments:**

    - `hidden`: two layers, each twice as wide as the one before.
    - `scale`, `shift`: the heads, of the array's own size.
    """

    hidden: tuple[ModeLinear, ...]
    scale: ModeLinear
    shift: ModeLinear

    def __call__(self, code: Array) -> tuple[Array, Array]:
        """The raw scale and the shift."""
        for layer in self.hidden:
            code = layer(jax.nn.relu(code))
        code = jax.nn.relu(code)
        return self.scale(code), self.shift(code)


def encode(encoder: Encoder, array: Array) -> Float[Array, " size"]:
    """The embedding of one array's view."""
    for layer in encoder:
        array = jax.nn.relu(layer(array))
    return jnp.ravel(array)


def halved(shape: Shape, times: int) -> Shape:
    """Every mode halved, rounded down but at least one.

    >>> halved((64, 3, 9), 3)
    (8, 1, 1)
    """
    return tuple(max(size // 2**times, 1) for size in shape)


def want_layer(inputs: Shape, outputs: Shape, bias: float = 0.0) -> ModeLinear:
    """A layer with factors as PyTorch starts its dense ones, `U(±1/√inputs)`, and one bias."""
    factors = (Draw((o, i), 1 / math.sqrt(i)) for i, o in zip(inputs, outputs, strict=True))
    return ModeLinear(tuple(factors), Draw(outputs, centre=bias))  # pyright: ignore[reportArgumentType]


def want_dense(inputs: int, outputs: int) -> ModeLinear:
    """A dense layer as PyTorch starts its own: weights and bias `U(±1/√inputs)`."""
    bound = 1 / math.sqrt(inputs)
    return ModeLinear((Draw((outputs, inputs), bound),), Draw((outputs,), bound))  # pyright: ignore[reportArgumentType]


def want_encoder(shape: Shape) -> Encoder:
    """An encoder of arrays whose view has this shape."""
    sizes = [halved(shape, times) for times in range(HALVINGS + 1)]
    return tuple(want_layer(sizes[t], sizes[t + 1]) for t in range(HALVINGS))


def want_decoder(shape: Shape, *, live: bool) -> Decoder:
    """A decoder to arrays whose view has this shape, with heads that start at zero.

    **Arguments:**

    - `shape`: the shape of the view.
    - `live`: whether the heads are live: with all factors zero (the official start) the gradient
      of every factor contains another one, so that heads with two modes or more never move
      (papers.md#s004-heads). A live head has zeros in its last factor only, whose own gradient is
      not zero, and the hidden layers before it a small positive bias: arrays of few entries have
      codes of one or two units, and where these are off, all after them would be off for good.
    """
    sizes = [halved(shape, times) for times in reversed(range(HALVINGS + 1))]
    bias = 0.1 if live else 0.0
    hidden = tuple(want_layer(sizes[t], sizes[t + 1], bias) for t in range(HALVINGS - 1))
    return Decoder(hidden, _want_head(sizes[-2], shape, live), _want_head(sizes[-2], shape, live))


def _want_head(inputs: Shape, outputs: Shape, live: bool) -> ModeLinear:
    head = want_layer(inputs, outputs)
    zero = [Draw(factor.shape) for factor in head.factors]
    kept = head.factors[:-1] if live else zero[:-1]
    return ModeLinear((*kept, *zero[-1:]), head.bias)  # pyright: ignore[reportArgumentType]


class Equals(eqx.Module):
    """Networks of equal shapes for several arrays, stacked: one batched call for all of them.

    A network repeats few shapes many times, so this makes a far smaller program to compile.

    **Arguments:**

    - `stacked`: a network whose arrays have one leading axis, the arrays it stands for.
    - `names`: their names, in order.
    """

    stacked: Any
    names: tuple[str, ...] = eqx.field(static=True, converter=tuple)

    def __call__(
        self, function: Callable[..., Any], *inputs: Mapping[str, Array]
    ) -> dict[str, Any]:
        """`function(network, *inputs)` for those arrays that the inputs name."""
        rows = [row for row, name in enumerate(self.names) if name in inputs[0]]
        names = [self.names[row] for row in rows]
        if not names:
            return {}
        networks = self.stacked
        if len(rows) < len(self.names):
            networks = jax.tree.map(lambda leaf: leaf[np.array(rows)], networks)
        arrays = [jnp.stack([given[name] for name in names]) for given in inputs]
        found = jax.vmap(function)(networks, *arrays)
        return {name: jax.tree.map(lambda leaf: leaf[row], found) for row, name in enumerate(names)}  # noqa: B023


def grouped(shapes: Mapping[str, Shape]) -> list[tuple[Shape, tuple[str, ...]]]:
    """Shapes with the names of the arrays that have them, in order of their first.

    >>> grouped({"a": (2,), "b": (3, 2), "c": (2,)})
    [((2,), ('a', 'c')), ((3, 2), ('b',))]
    """
    names = defaultdict(list)
    for name, shape in shapes.items():
        names[shape].append(name)
    return [(shape, tuple(members)) for shape, members in names.items()]


def want_equals(wanted: Callable[[Shape], Any], shapes: Mapping[str, Shape]) -> tuple[Equals, ...]:
    """A network for each array, equal ones stacked."""
    return tuple(
        Equals(jax.tree.map(functools.partial(_repeated, len(names)), wanted(shape)), names)
        for shape, names in grouped(shapes)
    )


def _repeated(count: int, draw: Draw) -> Draw:
    return dataclasses.replace(draw, shape=(count, *draw.shape))
