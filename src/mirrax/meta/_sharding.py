"""Tasks spread over devices: each device learns its share of the tasks of a step."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array


def spread(array: Array, devices: int) -> Array:
    """Splits the leading axis of an array over the first devices, within a compiled program.

    Whatever is computed for each entry of that axis is then computed where the entry is.

    **Arguments:**

    - `array`: its leading axis is a multiple of `devices`.
    - `devices`: how many; one leaves everything where it is.
    """
    if devices == 1:
        return array
    mesh = Mesh(np.asarray(jax.devices()[:devices]), ("tasks",))
    return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, PartitionSpec("tasks")))
