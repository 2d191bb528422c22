r"""Training runs of every method, configuration, task and seed, in one compiled program.

Every method, learned or not, is an optax transformation trained by the same loop on the same
batches: run `(configuration, task, seed)` draws its initial weights and batches from the task's
number in its family and the seed only. So methods are compared on equal terms, pair by pair, and
runs on different tasks are independent of each other.
"""

import math
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ..inner import Problem
from ..models import Model
from ..tasks import ImageTask
from ._baselines import Hyperparameters, Make, Method, Read
from ._judged import MOST, judged_logits
from ._kept import Kept, fingerprint
from ._memory import require_memory

_LESS = "try a smaller --model or --batch, or fewer --rows"
_CHUNKS_A_WORKER = 4  # few, or padding wastes runs; several, or progress stands still


class Arena(eqx.Module):
    """A family of tasks with everything a training run is measured on.

    **Arguments:**

    - `problems`: the training problems, leading axis of tasks.
    - `train`, `test`: images, labels and row weights for evaluation, leading axis of tasks.
    - `numbers`: the tasks' numbers in their family, which set their randomness.
    - `model`: the network.
    - `scale`: what stored pixels are multiplied by.
    - `reference`: how many training images batch statistics are taken from, see `judged_logits`.
    """

    problems: Problem
    train: tuple[Array, Array, Array]
    test: tuple[Array, Array, Array]
    numbers: Int[Array, " tasks"]
    model: Model = eqx.field(static=True)
    scale: float = eqx.field(static=True)
    reference: int = eqx.field(static=True)

    def select(self, tasks: Sequence[int]) -> "Arena":
        """The arena of some of the tasks.

        **Arguments:**

        - `tasks`: their positions.
        """
        index = np.asarray(tasks)
        return jax.tree.map(lambda leaf: leaf[index], self)

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
    numbers = jnp.arange(len(tasks))
    train = [(t.train_images[:rows], t.train_labels[:rows]) for t in tasks]
    test = [(t.test_images, t.test_labels) for t in tasks]
    scale = float(tasks[0].scale)
    reference = min(MOST, *(len(labels) for _, labels in train))
    return Arena(problems, _padded(train), _padded(test), numbers, model, scale, reference)


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
    - `test_accuracy`: share of test images classified correctly at the end.
    - `accuracies`: shares of training and of test images classified correctly, last axes (points,
      2); `None` unless asked for.
    """

    train_loss: Float[Array, "... points"]
    test_accuracy: Float[Array, "..."]
    accuracies: Float[Array, "... points 2"] | None = None

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
def _run_chunk(
    makes: tuple[Make, ...],
    reads: tuple[Read, ...],
    contexts: tuple[Any, ...],
    place: Arena,
    starts: PyTree,
    keys: PRNGKeyArray,
    jobs: dict[str, Array],
    steps: int,
    stride: int,
    watch: bool,
) -> Trials:
    """Runs jobs one after another on one core; threads run several chunks at once."""

    def accuracy(logits: Array, data: tuple[Array, Array, Array]) -> Array:
        _, labels, weights = data
        there = weights > 0
        told = (jnp.argmax(logits, -1) == labels) & ~jnp.any(jnp.isnan(logits), -1)
        hits = jnp.sum(told & there)
        # Equal numbers of hits are equal accuracies, which a sum of weights would not make them.
        return hits.astype(jnp.float32) / jnp.sum(there).astype(jnp.float32)

    def run(job: dict[str, Array]) -> Trials:
        task = lambda tree: jax.tree.map(lambda leaf: leaf[job["task"]], tree)  # noqa: E731
        problem, train, test = task(place.problems), task(place.train), task(place.test)
        start = jax.tree.map(lambda leaf: leaf[job["task"], job["seed"]], starts)
        key = keys[job["task"], job["seed"]]
        pairs = zip(makes, contexts, strict=True)
        optimisers = [make(job, context) for make, context in pairs]

        def update(index: int):
            def branch(grads: Any, states: tuple[Any, ...], params: Any):
                updates, state = optimisers[index].update(grads, states[index], params)
                return updates, (*states[:index], state, *states[index + 1 :])

            return branch

        branches = [update(index) for index in range(len(optimisers))]

        def judged(params: Any, states: tuple[Any, ...]) -> Any:
            alone = [lambda p, s, i=i: reads[i](s[i], p) for i in range(len(optimisers))]
            return lax.switch(job["method"], alone, params, states)

        def step(carry: Any, _: None):
            params, states, count = carry
            batch = problem.batches.draw(count, key=jax.random.fold_in(key, count))
            grads = jax.grad(problem.loss)(params, None, batch)
            updates, states = lax.switch(job["method"], branches, grads, states, params)
            params = optax.apply_updates(params, updates)
            return (params, states, count + 1), None

        def logits(params: Any, images: Array) -> Array:
            first = train[0][: place.reference]
            return judged_logits(place.model, params, images, first, place.scale)

        def look(params: Any) -> tuple[Array, Array | None]:
            (images, labels, weights) = train
            found = logits(params, images)
            losses = optax.softmax_cross_entropy_with_integer_labels(found, labels)
            if not watch:
                return losses @ weights, None
            shares = accuracy(found, train), accuracy(logits(params, test[0]), test)
            return losses @ weights, jnp.stack(shares)

        def segment(carry: Any, _: None):
            carry, _ = lax.scan(step, carry, None, length=stride)
            return carry, look(judged(carry[0], carry[1]))

        states = tuple(optimiser.init(start) for optimiser in optimisers)
        begin = (start, states, jnp.zeros((), int))
        (params, states, _), seen = lax.scan(segment, begin, None, length=steps // stride)
        curve, shares = jax.tree.map(
            lambda first, rest: jnp.concatenate([first[None], rest]), look(start), seen
        )
        return Trials(curve, accuracy(logits(judged(params, states), test[0]), test), shares)

    return lax.map(run, jobs)


RunTrials = Callable[..., Trials]
"""`run(jobs, advance=…)`, what `compile_trials` returns."""


def run_trials(
    methods: Sequence[Method],
    jobs: Sequence[tuple[int, Hyperparameters]],
    place: Arena,
    *,
    steps: int,
    stride: int,
    seeds: int,
    key: PRNGKeyArray,
    watch: bool = False,
    kept: Kept | None = None,
    advance: Callable[[float], None] = lambda share: None,
) -> Trials:
    """Trains methods with chosen configurations, on every task, from several seeds.

    **Arguments:**

    - `methods`: the optimisers.
    - `jobs`: pairs of a method's position and its hyper-parameters.
    - `place`, `steps`, `stride`, `seeds`, `key`, `watch`, `kept`: as for `compile_trials`.
    - `advance`: told the share of work done after each chunk.

    **Returns:**

    The results, leading axes (jobs, tasks, seeds).

    **Raises:**

    - `ValueError`: if `stride` does not divide `steps`.
    """
    names = {name for _, values in jobs for name in values}
    run = compile_trials(
        methods,
        names,
        len(jobs),
        place,
        steps=steps,
        stride=stride,
        seeds=seeds,
        key=key,
        watch=watch,
        kept=kept,
    )
    return run(jobs, advance)


def compile_trials(
    methods: Sequence[Method],
    names: Collection[str],
    jobs: int,
    place: Arena,
    *,
    steps: int,
    stride: int,
    seeds: int,
    key: PRNGKeyArray,
    watch: bool = False,
    kept: Kept | None = None,
) -> RunTrials:
    """Compiles the training runs of methods, for jobs that are given later, and in several goes.

    All methods share one compiled program, in which each run selects its optimiser. Runs are dealt
    out in chunks of equal size to one thread a core, on a CPU: one XLA program does not spread such
    small networks over cores by itself.

    **Arguments:**

    - `methods`: the optimisers.
    - `names`: of their hyper-parameters.
    - `jobs`: how many there will be at a time; of more or fewer the last chunk wastes a little.
    - `place`: the tasks.
    - `steps`: the length of a run.
    - `stride`: the curve is measured every so many steps; a divisor of `steps`.
    - `seeds`: runs a job and task.
    - `key`: initial weights and batches; equal keys give equal ones to every method.
    - `watch`: measure accuracies along the curve too.
    - `kept`: where the results of chunks are kept, and taken from if they are there.

    **Returns:**

    A function of pairs of a method's position and its hyper-parameters, and of `advance`, which is
    told the share of work done after each chunk. Its results have leading axes (jobs, tasks,
    seeds).

    **Raises:**

    - `ValueError`: if `stride` does not divide `steps`.
    """
    if steps % stride:
        raise ValueError(f"compile_trials.stride: expected a divisor of {steps}, got {stride!r}.")
    starts, keys = _draw(place.model, place.numbers, seeds, key)
    makes = tuple(method.make for method in methods)
    reads = tuple(method.read for method in methods)
    contexts = tuple(method.context for method in methods)
    # Programs of one accelerator would only wait for each other, each with memory of its own.
    workers = (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1
    size = max(1, -(-jobs * place.count * seeds // (workers * _CHUNKS_A_WORKER)))
    blank = _columns([(0, {})] * size, names, (size, 1, 1))
    shown = {name: jnp.asarray(column) for name, column in blank.items()}
    fixed = (makes, reads, contexts, place, starts, keys)
    lowered = _run_chunk.lower(*fixed, shown, steps, stride, watch)
    compiled, program = lowered.compile(), fingerprint(lowered.as_text(), fixed) if kept else ""
    require_memory(compiled, "the comparison", _LESS, copies=workers)

    def run(
        jobs: Sequence[tuple[int, Hyperparameters]],
        advance: Callable[[float], None] = lambda share: None,
    ) -> Trials:
        shape = (len(jobs), place.count, seeds)
        columns, total = _columns(jobs, names, shape), math.prod(shape)
        count = -(-total // size)
        # The last chunk repeats its first jobs, so that one program serves every chunk.
        order = np.resize(np.arange(total), count * size)
        order[total:] = order[(count - 1) * size]
        parts = [{k: jnp.asarray(v[p]) for k, v in columns.items()} for p in np.split(order, count)]

        def work(part: dict[str, Array]) -> Trials:
            def compute() -> dict[str, Any]:
                done = jax.tree.map(np.asarray, compiled(*fixed, part, steps, stride, watch))
                return {name: array for name, array in vars(done).items() if array is not None}

            found = kept.once(fingerprint(program, part), compute) if kept else compute()
            advance(1 / count)
            return Trials(**found)

        with ThreadPoolExecutor(workers) as pool:
            found = list(pool.map(work, parts))
        whole = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:total], *found)
        return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), whole)

    return run


@eqx.filter_jit
def _draw(
    model: Model, numbers: Int[Array, " tasks"], seeds: int, key: PRNGKeyArray
) -> tuple[PyTree, PRNGKeyArray]:
    """Initial weights and a key a task and seed, whichever other tasks there are."""

    def keys(key: PRNGKeyArray) -> PRNGKeyArray:
        split = lambda number: jax.random.split(jax.random.fold_in(key, number), seeds)  # noqa: E731
        return jax.vmap(split)(numbers)

    start_key, run_key = jax.random.split(key)
    return jax.vmap(jax.vmap(model.init))(keys(start_key)), keys(run_key)


def _columns(
    jobs: Sequence[tuple[int, Hyperparameters]],
    names: Collection[str],
    shape: tuple[int, int, int],
) -> dict[str, np.ndarray]:
    """One entry a run and column: method, task, seed and every hyper-parameter there is."""
    job, task, seed = (index.ravel() for index in np.indices(shape))
    columns = {"method": np.array([method for method, _ in jobs])[job], "task": task, "seed": seed}
    for name in sorted(names):
        column = np.array([values.get(name, 0.0) for _, values in jobs], np.float32)
        columns[name] = column[job]
    return columns
