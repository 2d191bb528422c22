"""Tasks turned into problems, stacked along a leading axis so that a family is one program.

A problem holds the data of its task on the device. Tasks of a family share one loss function and
one shape; smaller data sets are padded, and drawn from within their own count.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._tree import Primal, Scalar
from ..inner import Minibatch, Problem, Repeat
from ..models import Model, cross_entropy
from ..tasks import ImageTask, QuadraticTask


@functools.cache
def classification_loss(
    model: Model, scale: float
) -> Callable[[Primal, PyTree[Any], tuple[Array, Array]], Scalar]:
    """The mean cross-entropy of a model on a batch of images and labels.

    One function object a model and scale, so that equal programs are compiled once.

    **Arguments:**

    - `model`: the network.
    - `scale`: what stored pixels are multiplied by to lie in [0, 1].

    **Returns:**

    `loss(params, shared, (images, labels)) -> scalar`.
    """

    def loss(params: Primal, shared: PyTree[Any], batch: tuple[Array, Array]) -> Scalar:
        del shared
        images, labels = batch
        pixels = images.astype(jnp.result_type(float)) * scale
        return cross_entropy(model.apply(params, pixels), labels)

    return loss


def stacked(
    tasks: Sequence[PyTree[Any]],
    loss: Callable[[Primal, PyTree[Any], PyTree[Any]], Scalar],
    batch: int,
) -> Problem:
    """Problems of one's own data, one a task, stacked along a leading axis.

    **Arguments:**

    - `tasks`: the data of each task, a tree of arrays with one leading axis of examples, such as
        `(inputs, targets)`. Tasks may have different numbers of examples.
    - `loss`: `loss(params, shared, batch) -> scalar`, one function for all tasks.
    - `batch`: examples a step, drawn with replacement.

    **Returns:**

    A problem whose arrays have a leading axis of tasks; use it under `jax.vmap`.

    **Raises:**

    - `ValueError`: if there is no task, one without examples, or the tasks differ in more than the
        number of examples.

    >>> tasks = [(np.ones((5, 2)), np.ones(5)), (np.ones((3, 2)), np.ones(3))]
    >>> problem = stacked(tasks, lambda params, shared, batch: params, batch=2)
    >>> problem.batches.count.tolist(), problem.batches.data[0].shape
    ([5, 3], (2, 5, 2))
    """
    arrays = [jax.tree.map(np.asarray, task) for task in tasks]
    kinds = {_kind(task) for task in arrays}
    lengths = [{len(x) if x.ndim else 0 for x in jax.tree.leaves(task)} for task in arrays]
    if len(kinds) != 1 or any(len(found) != 1 or 0 in found for found in lengths):
        raise ValueError(
            "stacked.tasks: expected at least one task, all of the same arrays but for the number "
            f"of examples, which is at least 1, got {sorted(kinds)}, examples "
            f"{[sorted(found) for found in lengths]}."
        )
    data = jax.tree.map(lambda *leaves: jnp.asarray(_stack_padded(leaves)), *arrays)
    counts = jnp.asarray([count for found in lengths for count in found])
    return Problem(loss, Minibatch(data, batch, counts))


def _kind(task: PyTree[np.ndarray]) -> str:
    """What the tasks of a family have in common."""
    leaves = [(*x.shape[1:], x.dtype.name) for x in jax.tree.leaves(task)]
    return f"{jax.tree.structure(task)} of {leaves}"


def _stack_padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
    rows = max(len(array) for array in arrays)
    stacked = np.zeros((len(arrays), rows, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=True):
        row[: len(array)] = array
    return stacked


def classification(tasks: Sequence[ImageTask], model: Model, batch: int) -> Problem:
    """Problems of image classification, one a task, stacked along a leading axis.

    **Arguments:**

    - `tasks`: tasks of one family: equal image shapes, equal pixel scales.
    - `model`: the network they train.
    - `batch`: examples a step, drawn with replacement from the training part.

    **Returns:**

    A problem whose arrays have a leading axis of tasks; use it under `jax.vmap`.

    **Raises:**

    - `ValueError`: if there is no task, or pixel scales or image shapes differ.
    """
    kinds = {(task.scale, task.train_images.shape[1:], task.train_images.dtype) for task in tasks}
    if len(kinds) != 1:
        raise ValueError(
            "classification: tasks must agree on pixel scale, image shape and type, got "
            f"{sorted(map(str, kinds))}."
        )
    loss = classification_loss(model, float(tasks[0].scale))
    return stacked([(task.train_images, task.train_labels) for task in tasks], loss, batch)


def _quadratic_loss(params: Primal, shared: PyTree[Any], batch: QuadraticTask) -> Scalar:
    del shared
    return batch.loss(params)


def quadratic(tasks: QuadraticTask) -> Problem:
    """Quadratic problems with their exact minimisers as comparators.

    **Arguments:**

    - `tasks`: quadratic tasks stacked along a leading axis.

    **Returns:**

    A problem whose arrays have the same leading axis; use it under `jax.vmap`.
    """
    return Problem(_quadratic_loss, Repeat(tasks), tasks.optimum)
