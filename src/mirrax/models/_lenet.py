"""LeNet-5: two convolutions, each pooled, then three dense layers; ReLU throughout.

Source: LeCun et al., 1998, "Gradient-Based Learning Applied to Document Recognition", fig. 2, in
the form of S000's LeNet with 61,706 parameters at 28×28×1 and 10 classes.
"""

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ._batch_last import convolve_batch_last
from ._checks import image_shape, images_like, positive
from ._layers import blocks_of, dense, init_layers, roles_of
from ._model import Model, Parameters
from ._pooling import max_pool

_SMALLEST = 12
"""The least height and width that leave one pixel after both convolutions and poolings."""


def lenet5(input_shape: tuple[int, ...], classes: int) -> Model:
    r"""LeNet-5: conv 5×5×6 (padding 2), pool, conv 5×5×16, pool, dense 120, 84, `classes`.

    Pooling takes the maximum over 2×2 windows, not the original's scaled average: maximum and
    ReLU commute, so pooling comes first and the ReLU sees a quarter of the entries, with the same
    values. Every convolution and dense layer has a bias. Weights start as
    `U(−√(6/fan_in), √(6/fan_in))` (He et al., 2015), biases at zero.

    **Arguments:**

    - `input_shape`: `(height, width, channels)` of one image, at least 12 by 12.
    - `classes`: number of logits.

    **Returns:**

    A `Model` with `conv_0`, `conv_1`, `dense_0`, `dense_1`, `dense_2`.

    **Raises:**

    - `ValueError`: if the images are too small, or a size is not a positive whole number.

    Source: LeCun et al., 1998, fig. 2; S000 §5.

    >>> lenet5((28, 28, 1), 10).count
    61706
    """
    height, width, channels = shape = image_shape("lenet5", input_shape)
    if min(height, width) < _SMALLEST:
        raise ValueError(
            f"lenet5.input_shape: needs images of at least {_SMALLEST} by {_SMALLEST} pixels, got "
            f"{height} by {width}; use an mlp, or resample the images."
        )
    flat = ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2) * 16
    shapes = {
        "conv_0": (5, 5, channels, 6),
        "conv_1": (5, 5, 6, 16),
        "dense_0": (flat, 120),
        "dense_1": (120, 84),
        "dense_2": (84, positive("lenet5", "classes", classes)),
    }

    def init(key: PRNGKeyArray) -> Parameters:
        return init_layers(key, shapes)

    def apply(
        params: Parameters,
        images: Float[Array, "batch height width channels"],
        *,
        reference: int | None = None,
    ) -> Float[Array, "batch classes"]:
        del reference  # no batch statistics
        hidden = images_like("lenet5", shape, images, params["conv_0"]["weight"])
        hidden = hidden.transpose(3, 1, 2, 0)
        for name, padding in (("conv_0", 2), ("conv_1", 0)):
            weight, bias = params[name]["weight"], params[name]["bias"][:, None, None, None]
            hidden = convolve_batch_last(hidden, weight, padding) + bias
            hidden = jax.nn.relu(max_pool(hidden))
        hidden = hidden.transpose(3, 1, 2, 0).reshape(len(images), flat)
        for name in ("dense_0", "dense_1"):
            hidden = jax.nn.relu(dense(params[name], hidden))
        return dense(params["dense_2"], hidden)

    return Model("lenet5", init, apply, roles_of(shapes), blocks_of(shapes))
