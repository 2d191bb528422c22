r"""Dense and convolutional layers: how they start and what their axes mean.

Both start as PyTorch's `nn.Linear` and `nn.Conv2d` do by default: Kaiming-uniform with negative
slope `√5`, which is `U(−1/√fan_in, 1/√fan_in)`, for weights and biases alike, with `fan_in` the
number of inputs one output sees. Parameters carried over to PyTorch then start from the same law.
Source: He et al., 2015, "Delving Deep into Rectifiers", eq. 10, with gain `√(2/(1 + 5))`.
"""

import itertools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._model import Parameters, Roles

ImageShape = tuple[int, int, int]
"""Height, width, channels."""

DENSE_ROLES = {"weight": ("in", "out"), "bias": ("out",)}
CONV_ROLES = {"weight": ("height", "width", "in", "out"), "bias": ("out",)}


def init_layers(key: PRNGKeyArray, shapes: dict[str, tuple[int, ...]]) -> Parameters:
    """Draws weights and biases of all layers; all axes of a shape but the last are inputs.

    All numbers come from one draw, cut up: random generators are what takes longest to compile.

    >>> import jax
    >>> layers = init_layers(jax.random.key(0), {"conv_0": (3, 3, 4, 8)})
    >>> layers["conv_0"]["weight"].shape, layers["conv_0"]["bias"].shape
    ((3, 3, 4, 8), (8,))
    >>> bool(abs(layers["conv_0"]["weight"]).max() <= 1 / 6)
    True
    """
    sizes = [math.prod(shape) + shape[-1] for shape in shapes.values()]
    ends = list(itertools.accumulate(sizes))
    drawn = jnp.split(jax.random.uniform(key, (ends[-1],), minval=-1, maxval=1), ends[:-1])
    layers = {}
    for numbers, (name, shape) in zip(drawn, shapes.items(), strict=True):
        scaled = numbers / math.sqrt(math.prod(shape[:-1]))
        weight, bias = jnp.split(scaled, [math.prod(shape)])
        layers[name] = {"weight": weight.reshape(shape), "bias": bias}
    return layers


def roles_of(shapes: dict[str, tuple[int, ...]]) -> Roles:
    """Axis roles of dense (two axes) and convolutional (four axes) layers."""
    return {
        name: dict(CONV_ROLES if len(shape) == 4 else DENSE_ROLES) for name, shape in shapes.items()
    }


def dense(layer: dict[str, Array], inputs: Float[Array, "batch in"]) -> Float[Array, "batch out"]:
    """`x W + b`."""
    return inputs @ layer["weight"] + layer["bias"]
