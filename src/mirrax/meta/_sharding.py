"""The tasks of a step: one after another, side by side, or spread over a grid of devices.

The devices may belong to several processes, each of which runs the same program on the same values.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from ..inner import AbstractBatches, Problem
from ..models import spread_batches


@dataclasses.dataclass(frozen=True)
class Grid:
    """Devices as a rectangle: tasks are spread along one side, the batch of each along the other.

    **Arguments:**

    - `tasks`: over how many devices the tasks are spread.
    - `batch`: over how many devices the rows of every inner batch are spread.
    """

    tasks: int = 1
    batch: int = 1

    @staticmethod
    def dividing(tasks: int) -> "Grid":
        """As many devices as there are that divide the number of tasks.

        **Arguments:**

        - `tasks`: tasks of a step.
        """
        return Grid(max(n for n in range(1, jax.device_count() + 1) if tasks % n == 0))

    @property
    def size(self) -> int:
        """How many devices there are in it."""
        return self.tasks * self.batch

    def layout(self, *axes: str) -> NamedSharding:
        """Arrays whose leading axes are spread along sides of the grid, or lie on all of it.

        **Arguments:**

        - `axes`: `"tasks"` or `"batch"`, one for each of the leading axes.
        """
        devices = np.asarray(jax.devices()[: self.size]).reshape(self.tasks, self.batch)
        return NamedSharding(Mesh(devices, ("tasks", "batch")), PartitionSpec(*axes))

    def everywhere(self, tree: PyTree[Any]) -> PyTree[Any]:
        """The same tree, within a compiled program, with every array whole on every device.

        What a program returns so can be read by every process, and is the same for any grid.

        **Arguments:**

        - `tree`: arrays and anything else.
        """
        if self.size == 1:
            return tree
        arrays, static = eqx.partition(tree, eqx.is_array)
        return eqx.combine(jax.lax.with_sharding_constraint(arrays, self.layout()), static)

    def place(self, tree: PyTree[Any], *axes: str) -> PyTree[Any]:
        """Puts arrays, equal in all processes, where a program wants them, before it is called.

        Otherwise they would be moved at every call, and the program compiled a second time for what
        the first call returns.

        **Arguments:**

        - `tree`: arrays and anything else.
        - `axes`: as for `layout`.
        """
        if self.size == 1:
            return tree
        layout, there = self.layout(*axes), {}

        def put(leaf: Array) -> Array:
            # What several parts of a tree share, such as a set of images, stays one array.
            if id(leaf) not in there:
                there[id(leaf)] = spread(leaf)
            return there[id(leaf)]

        def spread(leaf: Array) -> Array:
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                data = spread(jax.random.key_data(leaf))
                return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
            whole = np.asarray(leaf)
            return jax.make_array_from_callback(whole.shape, layout, lambda part: whole[part])

        arrays, static = eqx.partition(tree, eqx.is_array)
        return eqx.combine(jax.tree.map(put, arrays), static)

    def gather(self, tree: PyTree[Any]) -> PyTree[Any]:
        """Arrays that lie whole on all devices, as arrays of one device of this process.

        **Arguments:**

        - `tree`: arrays and anything else.
        """
        if self.size == 1:
            return tree
        arrays, static = eqx.partition(tree, eqx.is_array)
        return eqx.combine(jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), arrays), static)


class _Spread(AbstractBatches):
    """The batches of another rule, with their rows spread over devices.

    Losses see the whole batch all the same: a mean over rows, and so a gradient or a statistic of
    batch normalisation, becomes a sum over devices.
    """

    whole: AbstractBatches
    layout: NamedSharding = eqx.field(static=True)

    def draw(self, step: Int[Array, ""], *, key: PRNGKeyArray) -> PyTree[Any]:
        return self._spread(self.whole.draw(step, key=key))

    def fixed(self, owner: str) -> PyTree[Any]:
        return self._spread(self.whole.fixed(owner))

    def check_steps(self, steps: int) -> None:
        self.whole.check_steps(steps)

    def _spread(self, batch: PyTree[Any]) -> PyTree[Any]:
        """The same batch; what has no rows, such as a weight of the task, is whole everywhere."""

        def spread(leaf: Any) -> Any:
            if not jnp.ndim(leaf):
                return leaf
            rows, devices = len(leaf), self.layout.mesh.shape["batch"]
            if rows % devices:
                raise ValueError(
                    f"ManyShot.batch_devices: expected a divisor of the {rows} rows of a batch, "
                    f"got {devices!r}."
                )
            return jax.lax.with_sharding_constraint(leaf, self.layout)

        return jax.tree.map(spread, batch)


def with_spread_batches(problem: Problem, grid: Grid) -> Problem:
    """The same problem, with the rows of its batches spread along the grid's second side.

    **Arguments:**

    - `problem`: one task, or several stacked.
    - `grid`: the devices.
    """
    if grid.batch == 1:
        return problem
    batches = _Spread(problem.batches, grid.layout("batch"))
    return dataclasses.replace(problem, batches=batches)


def each(
    function: Callable[..., PyTree[Any]],
    tasks: PyTree[Array],
    grid: Grid = Grid(),  # noqa: B008  # frozen
    in_turn: bool | None = None,
    shared: tuple[Any, ...] = (),
) -> PyTree[Any]:
    """Applies a function to every entry of a leading axis, within a compiled program.

    A CPU is busy with one task, and what it works on stays in its cache; side by side, a network of
    its own for each task makes grouped convolutions. Several cores are best used as several devices
    with tasks of their own: they need not wait for each other in every product. An accelerator
    needs all there is to be busy, unless the network is large.

    **Arguments:**

    - `function`: from one entry, and `shared` behind it, to a pytree of arrays.
    - `tasks`: a pytree of arrays whose leading axis is a multiple of `grid.tasks`.
    - `grid`: over which devices the entries are spread.
    - `in_turn`: whether each device takes its entries one after another; by default CPUs that do
      not share batches.
    - `shared`: what all entries have in common and has been computed, such as a geometry. Between
      rounds it lies on all devices, and inside a loop of one device it may not be closed over.

    **Returns:**

    The results, with that leading axis.
    """
    if in_turn is None:
        in_turn = grid.batch == 1 and jax.default_backend() == "cpu"

    def run(some: PyTree[Array], arrays: PyTree[Array]) -> PyTree[Any]:
        own = eqx.combine(arrays, static)
        one = lambda entry: function(entry, *own)  # noqa: E731
        along = "tasks" if grid.batch > 1 else None  # for what the function says of batches
        # What is spread stays so within a further call, which has no grid of its own.
        with spread_batches(spread_batches.value or grid.batch > 1):
            if in_turn:
                return jax.lax.map(one, some)
            return jax.vmap(one, spmd_axis_name=along)(some)

    arrays, static = eqx.partition(shared, eqx.is_array)
    if grid.size == 1:
        return run(tasks, arrays)
    spread = grid.layout("tasks")
    if in_turn and grid.tasks > 1:
        # A loop over entries that lie on several devices would visit them one after another.
        whole = PartitionSpec()
        return jax.shard_map(
            run,
            mesh=spread.mesh,
            in_specs=(spread.spec, whole),
            out_specs=spread.spec,
            check_vma=False,
        )(tasks, arrays)
    return run(jax.lax.with_sharding_constraint(tasks, spread), arrays)


def check_devices(
    owner: str, grid: Grid, tasks: int | None = None, *, in_turn: bool | None = None
) -> None:
    """Raises if tasks cannot be spread over such a grid.

    **Arguments:**

    - `owner`: the class, for the message.
    - `grid`: what is asked for.
    - `tasks`: how many tasks there are, if that is known.
    - `in_turn`: as for `each`.

    **Raises:**

    - `ValueError`: naming the class, the number and what it may be.
    """
    there = jax.device_count() // max(grid.batch, 1)
    divides = tasks is None or not tasks % max(grid.tasks, 1)
    if grid.batch < 1 or there < 1:
        raise ValueError(
            f"{owner}.batch_devices: expected at least 1, at most the {jax.device_count()} devices "
            f"there are, got {grid.batch!r}."
        )
    if grid.tasks < 1 or not divides or grid.tasks > there:
        divisor = "at least 1" if tasks is None else f"a divisor of the {tasks} tasks"
        raise ValueError(
            f"{owner}.devices: expected {divisor}, at most the {there} devices there "
            f"are, got {grid.tasks!r}."
        )
    if in_turn and grid.tasks > 1 and grid.batch > 1:
        raise ValueError(
            f"{owner}.in_turn: a device that takes its tasks one after another cannot share their "
            "batches with others; choose devices=1 or batch_devices=1."
        )
