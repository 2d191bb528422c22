"""Multilayer perceptrons, `h ← relu(h W_k + b_k)`, the last layer without relu."""

from collections.abc import Sequence

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ._checks import image_shape, images_like, positive
from ._layers import blocks_of, dense, init_layers, roles_of
from ._model import Model, Parameters


def mlp(input_shape: tuple[int, ...], widths: Sequence[int], classes: int) -> Model:
    r"""A perceptron on flattened images with one hidden ReLU layer for each width.

    `h_0 = vec(x)`, `h_{k+1} = max(h_k W_k + b_k, 0)`, `logits = h_K W_K + b_K`. Weights start as
    `U(−√(6/fan_in), √(6/fan_in))` (He et al., 2015), biases at zero.

    **Arguments:**

    - `input_shape`: `(height, width, channels)` of one image.
    - `widths`: sizes of the hidden layers; empty for a linear classifier.
    - `classes`: number of logits.

    **Returns:**

    A `Model` named `mlp-W1-W2-…` with the leaves `dense_k/weight` and `dense_k/bias`.

    **Raises:**

    - `ValueError`: if a size is not a positive whole number.

    Source: S000 §5 uses three dense layers on RotatedMNIST; its widths are not published.

    >>> import jax
    >>> model = mlp((8, 8, 1), (128, 64), 10)
    >>> model.name, model.count
    ('mlp-128-64', 17226)
    >>> params = model.init(jax.random.key(0))
    >>> model.apply(params, jax.numpy.zeros((5, 8, 8, 1))).shape
    (5, 10)
    """
    return perceptron("-".join(["mlp", *map(str, widths)]), input_shape, widths, classes)


def perceptron(
    name: str, input_shape: tuple[int, ...], widths: Sequence[int], classes: int
) -> Model:
    """As `mlp`, under any name."""
    height, width, channels = shape = image_shape(name, input_shape)
    sizes = [
        height * width * channels,
        *(positive(name, "widths", size) for size in widths),
        positive(name, "classes", classes),
    ]
    shapes: dict[str, tuple[int, ...]] = {
        f"dense_{i}": pair for i, pair in enumerate(zip(sizes[:-1], sizes[1:], strict=True))
    }
    last = len(shapes) - 1

    def init(key: PRNGKeyArray) -> Parameters:
        return init_layers(key, shapes)

    def apply(
        params: Parameters,
        images: Float[Array, "batch height width channels"],
        *,
        reference: int | None = None,
    ) -> Float[Array, "batch classes"]:
        del reference  # no batch statistics
        images = images_like(name, shape, images, params["dense_0"]["weight"])
        hidden = images.reshape(len(images), sizes[0])
        for i in range(last):
            hidden = jax.nn.relu(dense(params[f"dense_{i}"], hidden))
        return dense(params[f"dense_{last}"], hidden)

    return Model(name, init, apply, roles_of(shapes), blocks_of(shapes))
