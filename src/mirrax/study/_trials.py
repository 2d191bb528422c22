r"""Training runs, vectorised over hyper-parameters, tasks and seeds in one compiled program.

Every method, learned or not, is an optax transformation trained by the same loop on the same
batches: run `(configuration, task, seed)` draws its initial weights and batches from the task's
and seed's keys only, so methods are compared on equal terms, pair by pair.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..inner import Minibatch, Problem
from ..models import Model
from ..tasks import ImageTask
from ._baselines import Hyperparameters, Make, Method


class Arena(eqx.Module):
    """A family of tasks with everything a training run is measured on.

    **Arguments:**

    - `problems`: the training problems, leading axis of tasks.
    - `train`, `test`: images, labels and row weights for evaluation, leading axis of tasks.
    - `model`: the network.
    - `scale`: what stored pixels are multiplied by.
    """

    problems: Problem
    train: tuple[Array, Array, Array]
    test: tuple[Array, Array, Array]
    model: Model = eqx.field(static=True)
    scale: float = eqx.field(static=True)

    def select(self, tasks: Sequence[int]) -> "Arena":
        """The arena of some of the tasks.

        **Arguments:**

        - `tasks`: their positions.
        """
        index = np.asarray(tasks)
        pick = lambda tree: jax.tree.map(lambda leaf: leaf[index], tree)  # noqa: E731
        return Arena(pick(self.problems), pick(self.train), pick(self.test), self.model, self.scale)

    @property
    def count(self) -> int:
        """The number of tasks."""
        return self.train[1].shape[0]


def arena(tasks: Sequence[ImageTask], problems: Problem, model: Model, rows: int) -> Arena:
    """Prepares the evaluation data of a family.

    **Arguments:**

    - `tasks`: the tasks.
    - `problems`: their problems, as `meta.classification` stacks them.
    - `model`: the network.
    - `rows`: the training loss is measured on at most this many training examples.

    **Returns:**

    The arena.
    """
    train = [(t.train_images[:rows], t.train_labels[:rows]) for t in tasks]
    test = [(t.test_images, t.test_labels) for t in tasks]
    return Arena(problems, _padded(train), _padded(test), model, float(tasks[0].scale))


def _padded(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[Array, Array, Array]:
    rows = max(len(labels) for _, labels in parts)

    def pad(array: np.ndarray) -> np.ndarray:
        return np.pad(array, [(0, rows - len(array))] + [(0, 0)] * (array.ndim - 1))

    images = np.stack([pad(images) for images, _ in parts])
    labels = np.stack([pad(labels) for _, labels in parts])
    weights = np.stack([pad(np.full(len(y), 1 / len(y), np.float32)) for _, y in parts])
    return jnp.asarray(images), jnp.asarray(labels), jnp.asarray(weights)


class Trials(eqx.Module):
    """What training runs showed; leading axes (configurations, tasks, seeds).

    **Arguments:**

    - `train_loss`: training loss at each point of the curve, last axis of points.
    - `batch_log_loss`: mean over the run of the logarithm of the minibatch loss.
    - `test_accuracy`: share of test images classified correctly at the end.
    """

    train_loss: Float[Array, "... points"]
    batch_log_loss: Float[Array, "..."]
    test_accuracy: Float[Array, "..."]

    @property
    def final_loss(self) -> Float[Array, "..."]:
        """Training loss at the end."""
        return self.train_loss[..., -1]


def curve_steps(steps: int, stride: int) -> list[int]:
    """The step numbers at which a curve is measured: 0, stride, …, steps.

    >>> curve_steps(10, 5)
    [0, 5, 10]
    """
    return list(range(0, steps + 1, stride))


@eqx.filter_jit
def _run_all(
    make: Make,
    context: PyTree,
    grid: dict[str, Array],
    place: Arena,
    starts: PyTree,
    keys: PRNGKeyArray,
    steps: int,
    stride: int,
    chunk: int,
) -> Trials:
    def logits(params: Any, images: Array) -> Array:
        return place.model.apply(params, images.astype(jnp.float32) * place.scale)

    def train_loss(params: Any, data: tuple[Array, Array, Array]) -> Array:
        images, labels, weights = data
        losses = optax.softmax_cross_entropy_with_integer_labels(logits(params, images), labels)
        return losses @ weights

    def test_accuracy(params: Any, data: tuple[Array, Array, Array]) -> Array:
        images, labels, weights = data
        return (jnp.argmax(logits(params, images), -1) == labels).astype(jnp.float32) @ weights

    def run(values: Hyperparameters, problem: Problem, train, test, start, key) -> Trials:
        optimiser = make(values, context)

        def step(carry, _):
            params, state, count, logs = carry
            batch = problem.batches.draw(count, key=jax.random.fold_in(key, count))
            loss, grads = jax.value_and_grad(problem.loss)(params, None, batch)
            updates, state = optimiser.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state, count + 1, logs + jnp.log(jnp.maximum(loss, 1e-8))), None

        def segment(carry, _):
            carry, _ = lax.scan(step, carry, None, length=stride)
            return carry, train_loss(carry[0], train)

        begin = (start, optimiser.init(start), jnp.zeros((), int), jnp.zeros(()))
        (params, _, _, logs), curve = lax.scan(segment, begin, None, length=steps // stride)
        curve = jnp.concatenate([train_loss(start, train)[None], curve])
        return Trials(curve, logs / steps, test_accuracy(params, test))

    over_seeds = jax.vmap(run, in_axes=(None, None, None, None, 0, 0))
    over_tasks = jax.vmap(over_seeds, in_axes=(None, 0, 0, 0, None, None))

    def configuration(values: dict[str, Array]) -> Trials:
        return over_tasks(values, place.problems, place.train, place.test, starts, keys)

    return lax.map(configuration, grid, batch_size=chunk)


def run_trials(
    method: Method,
    grid: Sequence[Hyperparameters],
    place: Arena,
    *,
    steps: int,
    stride: int,
    seeds: int,
    key: PRNGKeyArray,
    chunk: int = 5,
) -> Trials:
    """Trains a method with every configuration, on every task, from several seeds.

    **Arguments:**

    - `method`: the optimiser.
    - `grid`: configurations, all with the same names.
    - `place`: the tasks.
    - `steps`: the length of a run.
    - `stride`: the curve is measured every so many steps; a divisor of `steps`.
    - `seeds`: runs a configuration and task.
    - `key`: initial weights and batches; equal keys give equal ones to every method.
    - `chunk`: configurations vectorised at a time.

    **Returns:**

    The results, leading axes (configurations, tasks, seeds).

    **Raises:**

    - `ValueError`: if `stride` does not divide `steps` or the batches are not random rows.
    """
    if steps % stride:
        raise ValueError(f"run_trials.stride: expected a divisor of {steps}, got {stride!r}.")
    if not isinstance(place.problems.batches, Minibatch):
        raise ValueError("run_trials.place: expected problems with Minibatch batches.")
    columns = {name: jnp.asarray([row[name] for row in grid]) for name in grid[0]}
    start_key, run_key = jax.random.split(key)
    starts = jax.vmap(place.model.init)(jax.random.split(start_key, seeds))
    keys = jax.random.split(run_key, seeds)
    return _run_all(
        method.make,
        method.context,
        columns,
        place,
        starts,
        keys,
        steps,
        stride,
        min(chunk, len(grid)),
    )
