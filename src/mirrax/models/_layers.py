r"""Dense and convolutional layers: how they start and what their axes mean.

Both rules draw from a uniform distribution whose width depends on `fan_in`, the number of inputs
one output sees. `he`: weights `U(−√(6/fan_in), √(6/fan_in))`, whose variance `2/fan_in` keeps the
size of signals through layers with ReLU; biases start at zero. `pytorch`: weights and biases
`U(−1/√fan_in, 1/√fan_in)`, the default of PyTorch's layers, in which published few-shot results
start; behind batch statistics the scale of a kernel changes no output but decides how large a
gradient step is.
Source: He et al., 2015, "Delving Deep into Rectifiers", eq. 10.
"""

import itertools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._model import Blocks, Parameters, Roles

ImageShape = tuple[int, int, int]
"""Height, width, channels."""

Rule = Literal["he", "pytorch"]

DENSE_ROLES = {"weight": ("in", "out"), "bias": ("out",)}
CONV_ROLES = {"weight": ("height", "width", "in", "out"), "bias": ("out",)}


def init_layers(
    key: PRNGKeyArray, shapes: dict[str, tuple[int, ...]], rule: Rule = "he"
) -> Parameters:
    """Draws the weights (and biases) of all layers; all axes of a shape but the last are inputs.

    All numbers come from one draw, cut up: random generators are what takes longest to compile.

    >>> import jax
    >>> layers = init_layers(jax.random.key(0), {"conv_0": (3, 3, 4, 8)})
    >>> layers["conv_0"]["weight"].shape, layers["conv_0"]["bias"].shape
    ((3, 3, 4, 8), (8,))
    >>> bool(abs(layers["conv_0"]["weight"]).max() <= 6**-0.5)
    True
    """
    square, biases = (6, False) if rule == "he" else (1, True)
    sizes = [math.prod(shape) + biases * shape[-1] for shape in shapes.values()]
    ends = list(itertools.accumulate(sizes))
    drawn = jnp.split(jax.random.uniform(key, (ends[-1],), minval=-1, maxval=1), ends[:-1])
    layers = {}
    for numbers, (name, shape) in zip(drawn, shapes.items(), strict=True):
        count, bound = math.prod(shape), math.sqrt(square / math.prod(shape[:-1]))
        bias = bound * numbers[count:] if biases else jnp.zeros(shape[-1:], numbers.dtype)
        layers[name] = {"weight": bound * numbers[:count].reshape(shape), "bias": bias}
    return layers


def roles_of(shapes: dict[str, tuple[int, ...]]) -> Roles:
    """Axis roles of dense (two axes) and convolutional (four axes) layers."""
    return {
        name: dict(CONV_ROLES if len(shape) == 4 else DENSE_ROLES) for name, shape in shapes.items()
    }


def blocks_of(shapes: dict[str, tuple[int, ...]]) -> Blocks:
    """One block a layer, the weight before the bias."""
    return tuple((f"{name}/weight", f"{name}/bias") for name in shapes)


def dense(layer: dict[str, Array], inputs: Float[Array, "batch in"]) -> Float[Array, "batch out"]:
    """`x W + b`."""
    return inputs @ layer["weight"] + layer["bias"]
