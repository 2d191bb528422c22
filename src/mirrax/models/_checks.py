"""Static checks that every model makes of what it is built from and given."""

import operator

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._layers import ImageShape


def positive(owner: str, field: str, value: int) -> int:
    """Returns `value` as an int, or raises if it is not a positive whole number.

    >>> positive("mlp", "widths", 0)
    Traceback (most recent call last):
    ...
    ValueError: mlp.widths: expected positive whole numbers, got 0.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number <= 0 or isinstance(value, bool):
        raise ValueError(f"{owner}.{field}: expected positive whole numbers, got {value!r}.")
    return number


def image_shape(owner: str, shape: tuple[int, ...]) -> ImageShape:
    """Returns `(height, width, channels)`, or raises if `shape` is anything else."""
    if len(shape) != 3:
        raise ValueError(
            f"{owner}.input_shape: expected (height, width, channels), got {tuple(shape)!r}."
        )
    height, width, channels = (positive(owner, "input_shape", size) for size in shape)
    return height, width, channels


def images_like(
    owner: str, shape: ImageShape, images: Array, weight: Array
) -> Float[Array, "batch height width channels"]:
    """Returns images in the type of the weights, or raises if they cannot be this model's input.

    Raw bytes are refused and not scaled silently: the scale belongs to the task.
    """
    if images.ndim != 4 or images.shape[1:] != shape:
        raise ValueError(
            f"{owner}.apply: expected images of shape (batch, {', '.join(map(str, shape))}), "
            f"got {images.shape}."
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"{owner}.apply: expected floating-point images, got {images.dtype}; "
            "multiply the raw pixels by the task's scale first."
        )
    return images.astype(weight.dtype)
