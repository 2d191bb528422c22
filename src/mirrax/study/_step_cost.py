"""Seconds that a training step of each method takes, measured in turn."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax

from .._clock import interleave, seconds_of
from ..inner import Problem
from ._baselines import Hyperparameters, Method
from ._trials import Arena

_ROUNDS = 7
_WORTH = 0.1  # seconds that one timed run is to take, or one step where that takes longer
_MOST = 1000


def training_steps(
    optimiser: optax.GradientTransformation,
    gradient: Callable[[Any, Any, Any], Any],
    start: Any,
    data: Any,
) -> Callable[[int], Any]:
    """Training steps as one compiled program, which returns when they are done.

    **Arguments:**

    - `optimiser`: the optimiser.
    - `gradient`: `gradient(params, number, data)`, of the step of a number.
    - `start`: the parameters to begin with.
    - `data`: what is trained on.

    **Returns:**

    A function of how many steps are made.
    """

    @eqx.filter_jit
    def run(params: Any, state: Any, data: Any, number: Any) -> Any:
        def step(count: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            params, state = carry
            updates, state = optimiser.update(gradient(params, count, data), state, params)
            return optax.apply_updates(params, updates), state

        return lax.fori_loop(0, number, step, (params, state))

    state = optimiser.init(start)
    return lambda number: jax.block_until_ready(run(start, state, data, jnp.asarray(number)))


def seconds_a_step(
    methods: Sequence[Method], chosen: Sequence[Hyperparameters], place: Arena
) -> dict[str, float]:
    """Seconds that a step of each method takes on this machine when nothing else runs beside it.

    A step draws a batch, differentiates the loss and updates the parameters.

    **Arguments:**

    - `methods`, `chosen`: the methods and a configuration each.
    - `place`: tasks, of which the first is trained on.

    **Returns:**

    By method name, the median over runs of several steps.
    """
    problem = jax.tree.map(lambda leaf: leaf[0], place.problems)
    key = jax.random.key(0)
    start = jax.jit(place.model.init)(key)

    def gradient(params: Any, count: Any, problem: Problem) -> Any:
        batch = problem.batches.draw(count, key=jax.random.fold_in(key, count))
        return jax.grad(problem.loss)(params, None, batch)

    runs, counts = {}, {}
    for method, values in zip(methods, chosen, strict=True):
        numbers = {name: jnp.asarray(value, float) for name, value in values.items()}
        run = training_steps(method.make(numbers, method.context), gradient, start, problem)
        run(1)  # compiled, and allocated
        once, _ = seconds_of(lambda run=run: run(1))
        counts[method.name] = max(1, min(_MOST, int(_WORTH / once)))
        runs[method.name] = lambda run=run, count=counts[method.name]: run(count)
    found = interleave(runs, _ROUNDS)
    return {name: times["median"] / counts[name] for name, times in found.items()}
