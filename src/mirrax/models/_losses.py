"""Losses and scores of logits: `−log softmax(z)_y` and `[argmax z = y]`, averaged over a batch."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from .._tree import Scalar


def cross_entropy(logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]) -> Scalar:
    r"""Mean cross-entropy, `(1/n) Σ_i (log Σ_c exp z_ic − z_{i,y_i})`, natural logarithm.

    **Arguments:**

    - `logits`: `(batch, classes)`, any finite values.
    - `labels`: `(batch,)`, whole numbers from 0 to `classes − 1`.

    **Returns:**

    A scalar, non-negative; `log classes` for constant logits.

    **Raises:**

    - `ValueError`: if shapes do not fit or labels are not whole numbers.

    >>> float(cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3]))) == float(jnp.log(4.0))
    True
    """
    _check("cross_entropy", logits, labels)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def accuracy(logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]) -> Scalar:
    r"""The share of rows whose largest logit is the label's, `(1/n) Σ_i [argmax_c z_ic = y_i]`.

    A row with a NaN has no largest logit and is wrong.

    **Arguments:**

    - `logits`: `(batch, classes)`.
    - `labels`: `(batch,)`, whole numbers.

    **Returns:**

    A scalar in `[0, 1]`, of the logits' type. Ties go to the smaller class.

    **Raises:**

    - `ValueError`: if shapes do not fit or labels are not whole numbers.

    >>> float(accuracy(jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.array([1, 1])))
    0.5
    >>> float(accuracy(jnp.full((2, 2), jnp.nan), jnp.array([0, 1])))
    0.0
    """
    _check("accuracy", logits, labels)
    chosen = jnp.argmax(logits, axis=-1)
    # The wider of both: in eight bits class 256 would be class 0.
    kind = max(chosen.dtype, labels.dtype, key=lambda dtype: dtype.itemsize)
    right = chosen.astype(kind) == labels.astype(kind)
    ordered = ~jnp.any(jnp.isnan(logits), axis=-1)
    return jnp.mean((right & ordered).astype(logits.dtype))


def _check(owner: str, logits: Array, labels: Array) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"{owner}: expected logits (batch, classes) and labels (batch,), got {logits.shape} "
            f"and {labels.shape}."
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"{owner}.labels: expected whole numbers, got type {labels.dtype}.")
