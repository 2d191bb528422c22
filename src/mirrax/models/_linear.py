"""Multinomial logistic regression, `logits = vec(x) W + b`: convex, so the bounds apply."""

from ._mlp import perceptron
from ._model import Model


def linear(input_shape: tuple[int, ...], classes: int) -> Model:
    r"""A linear classifier, `logits = vec(x) W + b`; its cross-entropy is convex in `W, b`.

    **Arguments:**

    - `input_shape`: `(height, width, channels)` of one image.
    - `classes`: number of logits.

    **Returns:**

    A `Model` with the leaves `dense_0/weight` and `dense_0/bias`.

    **Raises:**

    - `ValueError`: if a size is not a positive whole number.

    >>> linear((28, 28, 1), 10).count
    7850
    """
    return perceptron("linear", input_shape, (), classes)
