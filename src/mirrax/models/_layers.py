r"""Dense and convolutional layers: how they start and what their axes mean.

Both start as PyTorch's `nn.Linear` and `nn.Conv2d` do by default: Kaiming-uniform with negative
slope `√5`, which is `U(−1/√fan_in, 1/√fan_in)`, for weights and biases alike, with `fan_in` the
number of inputs one output sees. Parameters carried over to PyTorch then start from the same law.
Source: He et al., 2015, "Delving Deep into Rectifiers", eq. 10, with gain `√(2/(1 + 5))`.
"""

import math

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ._model import Parameters, Roles

ImageShape = tuple[int, int, int]
"""Height, width, channels."""

DENSE_ROLES = {"weight": ("in", "out"), "bias": ("out",)}
CONV_ROLES = {"weight": ("height", "width", "in", "out"), "bias": ("out",)}


def init_layer(key: PRNGKeyArray, shape: tuple[int, ...]) -> dict[str, Array]:
    """Draws weight and bias of one layer; all axes of `shape` but the last are inputs.

    >>> import jax
    >>> layer = init_layer(jax.random.key(0), (3, 3, 4, 8))
    >>> layer["weight"].shape, layer["bias"].shape
    ((3, 3, 4, 8), (8,))
    >>> bool(abs(layer["weight"]).max() <= 1 / 6)
    True
    """
    bound = 1 / math.sqrt(math.prod(shape[:-1]))
    weight_key, bias_key = jax.random.split(key)
    return {
        "weight": jax.random.uniform(weight_key, shape, minval=-bound, maxval=bound),
        "bias": jax.random.uniform(bias_key, shape[-1:], minval=-bound, maxval=bound),
    }


def init_layers(key: PRNGKeyArray, shapes: dict[str, tuple[int, ...]]) -> Parameters:
    """Draws all layers; each has its own key, in the order given."""
    keys = jax.random.split(key, len(shapes))
    return {
        name: init_layer(layer_key, shape)
        for layer_key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def roles_of(shapes: dict[str, tuple[int, ...]]) -> Roles:
    """Axis roles of dense (two axes) and convolutional (four axes) layers."""
    return {
        name: dict(CONV_ROLES if len(shape) == 4 else DENSE_ROLES) for name, shape in shapes.items()
    }


def dense(layer: dict[str, Array], inputs: Float[Array, "batch in"]) -> Float[Array, "batch out"]:
    """`x W + b`."""
    return inputs @ layer["weight"] + layer["bias"]
