"""The tasks of a step: one after another, side by side, or spread over several devices."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree


def each(
    function: Callable[..., PyTree[Any]],
    tasks: PyTree[Array],
    devices: int,
    in_turn: bool | None = None,
    shared: tuple[Any, ...] = (),
) -> PyTree[Any]:
    """Applies a function to every entry of a leading axis, within a compiled program.

    A CPU is busy with one task, and what it works on stays in its cache; side by side, a network of
    its own for each task makes grouped convolutions. An accelerator needs all there is to be busy,
    unless the network is large.

    **Arguments:**

    - `function`: from one entry, and `shared` behind it, to a pytree of arrays.
    - `tasks`: a pytree of arrays whose leading axis is a multiple of `devices`.
    - `devices`: over how many the entries are spread.
    - `in_turn`: whether each device takes its entries one after another; by default a single CPU.
    - `shared`: what all entries have in common and has been computed, such as a geometry. Between
      rounds it lies on all devices, and inside a loop of one device it may not be closed over.

    **Returns:**

    The results, with that leading axis.
    """
    if in_turn is None:
        in_turn = devices == 1 and jax.default_backend() == "cpu"

    def run(some: PyTree[Array], arrays: PyTree[Array]) -> PyTree[Any]:
        own = eqx.combine(arrays, static)
        one = lambda entry: function(entry, *own)  # noqa: E731
        return jax.lax.map(one, some) if in_turn else jax.vmap(one)(some)

    arrays, static = eqx.partition(shared, eqx.is_array)
    if devices == 1:
        return run(tasks, arrays)
    mesh = Mesh(np.asarray(jax.devices()[:devices]), ("tasks",))
    if in_turn:
        # A loop over entries that lie on several devices would visit them one after another.
        spread, whole = PartitionSpec("tasks"), PartitionSpec()
        return jax.shard_map(
            run, mesh=mesh, in_specs=(spread, whole), out_specs=spread, check_vma=False
        )(tasks, arrays)
    spread = NamedSharding(mesh, PartitionSpec("tasks"))
    return run(jax.lax.with_sharding_constraint(tasks, spread), arrays)


def check_devices(owner: str, devices: int, tasks: int | None = None) -> None:
    """Raises if tasks cannot be spread over so many devices.

    **Arguments:**

    - `owner`: the class, for the message.
    - `devices`: how many are asked for.
    - `tasks`: how many tasks there are, if that is known.

    **Raises:**

    - `ValueError`: naming the class, the number and what it may be.
    """
    divides = tasks is None or not tasks % max(devices, 1)
    if devices < 1 or not divides or devices > jax.device_count():
        divisor = "at least 1" if tasks is None else f"a divisor of the {tasks} tasks"
        raise ValueError(
            f"{owner}.devices: expected {divisor}, at most the {jax.device_count()} devices there "
            f"are, got {devices!r}."
        )
