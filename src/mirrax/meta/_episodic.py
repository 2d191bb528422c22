r"""Episodes turned into problems: the support set is learned from, the query set judges.

Query images are normalised by their own batch's statistics (transductive, as in the published
codes), or by those of the support set: the batch then holds more images than labels, the support
images first, and only the last are classified.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._tree import Layers, Scalar, join
from ..inner import Problem, Repeat
from ..models import Model, cross_entropy
from ..tasks import Episode

Statistics = Literal["query", "support"]
"""Whose batch statistics normalise query images."""

Batch = tuple[Float[Array, "images height width channels"], Int[Array, " labels"]]


def logits_of(
    model: Model, params: Layers, shared: PyTree[Any], batch: Batch
) -> Float[Array, "labels classes"]:
    """Logits of the labelled images of a batch, which are its last.

    **Arguments:**

    - `model`: the network.
    - `params`, `shared`: the parameters that a task adapts, and the others (`None` if none).
    - `batch`: images and labels; images without a label are the reference of batch statistics.
    """
    images, labels = batch
    reference = len(images) - len(labels)
    logits = model.apply(join(params, shared or {}), images, reference=reference or None)
    return logits[reference:]


@functools.cache
def episode_loss(model: Model) -> Callable[[Layers, PyTree[Any], Batch], Scalar]:
    """The mean cross-entropy on a batch of an episode; one function object a model.

    **Arguments:**

    - `model`: the network.

    **Returns:**

    `loss(params, shared, (images, labels)) -> scalar`.
    """

    def loss(params: Layers, shared: PyTree[Any], batch: Batch) -> Scalar:
        return cross_entropy(logits_of(model, params, shared, batch), batch[1])

    return loss


def episode_problem(episode: Episode, model: Model, statistics: Statistics = "query") -> Problem:
    """The problem of one episode.

    **Arguments:**

    - `episode`: support and query sets.
    - `model`: the network.
    - `statistics`: whose batch statistics normalise query images.

    **Raises:**

    - `ValueError`: if `statistics` is unknown.
    """
    if statistics not in ("query", "support"):
        raise ValueError(
            f"episode_problem.statistics: expected 'query' or 'support', got {statistics!r}."
        )
    images = episode.query_images
    if statistics == "support":
        images = jnp.concatenate([episode.support_images, images])
    support = (episode.support_images, episode.support_labels)
    return Problem(episode_loss(model), Repeat(support), query=(images, episode.query_labels))
