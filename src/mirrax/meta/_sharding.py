"""The tasks of a step: one after another on a CPU, side by side on an accelerator or on several."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree


def each(function: Callable[[Array], PyTree[Any]], tasks: Array, devices: int) -> PyTree[Any]:
    """Applies a function to every entry of a leading axis, within a compiled program.

    A CPU is busy with one task, and what it works on stays in its cache; side by side, a network of
    its own for each task makes grouped convolutions. An accelerator needs all there is to be busy.

    **Arguments:**

    - `function`: from one entry to a pytree of arrays.
    - `tasks`: its leading axis is a multiple of `devices`.
    - `devices`: over how many the entries are spread.

    **Returns:**

    The results, with that leading axis.
    """
    if devices > 1:
        mesh = Mesh(np.asarray(jax.devices()[:devices]), ("tasks",))
        spread = NamedSharding(mesh, PartitionSpec("tasks"))
        tasks = jax.lax.with_sharding_constraint(tasks, spread)
    elif jax.default_backend() == "cpu":
        return jax.lax.map(function, tasks)
    return jax.vmap(function)(tasks)
