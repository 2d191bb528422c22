"""What this machine does at best: operations in products of matrices, and bytes copied, a second.

What has to be computed and moved, over these, is a time that no program on this machine is below
but by computing less: the floor of a measurement. Measured anew in every run.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import torch

_SIDE = 1536  # of square matrices: three of them do not fit into a cache
_LENGTH = 1 << 26  # of arrays that are copied, in numbers of 4 bytes
_RUNS = 7


@dataclasses.dataclass(frozen=True)
class Machine:
    """The best of several runs on all cores, in float32.

    **Arguments:**

    - `operations`: multiplications and additions a second, of XLA or PyTorch.
    - `bytes`: read and written a second, in a copy.
    """

    operations: float
    bytes: float

    @staticmethod
    def measure() -> "Machine":
        """Measures products of matrices and copies, some seconds long."""
        one, other = torch.rand(_SIDE, _SIDE), torch.rand(_SIDE, _SIDE)
        ours, theirs = jnp.asarray(one.numpy()), jnp.asarray(other.numpy())
        product = jax.jit(jnp.matmul)
        fastest = min(
            _fastest(lambda: torch.mm(one, other)),
            _fastest(lambda: jax.block_until_ready(product(ours, theirs))),
        )
        source, target = torch.rand(_LENGTH), torch.empty(_LENGTH)
        copy = _fastest(lambda: target.copy_(source))
        return Machine(2 * _SIDE**3 / fastest, 2 * 4 * _LENGTH / copy)

    def floors(self, operations: float, moved: float) -> dict[str, float]:
        """Seconds that work takes at least.

        **Arguments:**

        - `operations`: its multiplications and additions.
        - `moved`: bytes that have to be read or written once.
        """
        return {"arithmetic": operations / self.operations, "memory": moved / self.bytes}

    def told(self) -> str:
        """A line for a terminal."""
        return (
            f"this machine: {self.operations / 1e9:.0f} billion operations and "
            f"{self.bytes / 1e9:.1f} GB a second at best"
        )


def _fastest(run: Callable[[], Any]) -> float:
    times = []
    for _ in range(_RUNS + 1):
        clock = time.perf_counter()
        run()
        times.append(time.perf_counter() - clock)
    return min(times[1:])
