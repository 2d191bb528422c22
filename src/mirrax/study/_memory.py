"""An estimate of the memory a compiled program takes, before it runs, beside what there is."""

from typing import Any

import jax

from .._errors import ConfigError
from .._memory import GIB, VARIABLE, allowed, free_memory


def planned(program: Any) -> int | None:
    """Bytes that a run of a program takes beside its arguments, which are there already.

    **Arguments:**

    - `program`: what `.lower(…).compile()` of a function under `eqx.filter_jit` returned. Calling
      the function with the same shapes then compiles nothing again.

    **Returns:**

    XLA's own plan: temporary arrays and results; `None` where the backend has none.
    """
    plan = program.compiled.memory_analysis()
    if plan is None:
        return None
    own = plan.output_size_in_bytes - plan.alias_size_in_bytes
    return plan.temp_size_in_bytes + own


def available() -> float | None:
    """Bytes that are free where this process computes, on its fullest device; `None` if unknown."""
    told = allowed()
    if told is not None:
        return told
    devices = jax.local_devices()  # those of other processes do not answer
    if devices[0].platform == "cpu":
        return free_memory()
    told = [device.memory_stats() or {} for device in devices]
    if any("bytes_limit" not in stats for stats in told):
        return None
    return min(stats["bytes_limit"] - stats.get("bytes_in_use", 0) for stats in told)


def require_memory(
    program: Any, what: str, remedy: str, *, copies: int = 1, devices: int = 1
) -> None:
    """Refuses a program that needs more memory than there is.

    **Arguments:**

    - `program`: as for `planned`.
    - `what`: what it does, for the message.
    - `remedy`: what takes less.
    - `copies`: how many runs of it there are at once.
    - `devices`: over how many devices one run is spread; those of a CPU share its memory.

    **Raises:**

    - `ConfigError`: with the estimate, what there is, and what to do.
    """
    plan, there = planned(program), available()
    if plan is None or there is None:
        return
    sharing = min(devices, jax.local_device_count()) if jax.default_backend() == "cpu" else 1
    need = plan * copies * sharing
    if need <= there:
        return
    raise ConfigError(
        f"{what} takes about {need / GIB:.3g} GiB of memory and {there / GIB:.3g} GiB are "
        f"free; {remedy}, or set {VARIABLE} to the GiB it may take."
    )
