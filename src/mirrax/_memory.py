"""How much memory there is for one more program, on this machine and within its limits.

Linux tells what can still be had (`/proc/meminfo`), and what a container or a batch system allows
(`/sys/fs/cgroup`, both versions); elsewhere nothing is known. Loads no JAX.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ._errors import ConfigError

VARIABLE = "MIRRAX_MEMORY"
GIB = 2**30
_ROOT = Path("/")


def allowed() -> float | None:
    """The bytes that `MIRRAX_MEMORY` names in GiB, whatever the machine says; `None` if unset.

    **Raises:**

    - `ConfigError`: if it is no positive number.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    try:
        gib = float(text)
    except ValueError:
        gib = 0.0
    if not gib > 0:
        raise ConfigError(f"{VARIABLE}: expected a positive number of GiB, got {text!r}.")
    return gib * GIB


def free_memory(root: Path = _ROOT) -> int | None:
    """Bytes that a program can still have: what is free or may be freed, within every limit.

    **Arguments:**

    - `root`: where `/proc` and `/sys` are.

    **Returns:**

    `None` where the system does not say.
    """
    found = [*_of_machine(root), *_of_groups(root)]
    return max(0, min(found)) if found else None


def _of_machine(root: Path) -> Iterator[int]:
    with suppress(OSError, ValueError, LookupError):
        lines = (root / "proc/meminfo").read_text().splitlines()
        fields = {name: rest.split()[0] for name, _, rest in (x.partition(":") for x in lines)}
        yield 1024 * (int(fields["MemAvailable"]) + int(fields["SwapFree"]))


def _of_groups(root: Path) -> Iterator[int]:
    """What each control group of this process leaves: its limit less what it cannot give back."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for number, controllers, path in (line.split(":", 2) for line in groups if line.count(":") > 1):
        if number == "0":
            base, files = "sys/fs/cgroup", ("memory.max", "memory.current")
            given = ("inactive_file", "active_file", "slab_reclaimable")
        elif "memory" in controllers.split(","):
            base = "sys/fs/cgroup/memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            given = ("total_inactive_file", "total_active_file")
        else:
            continue
        here = Path(path.lstrip("/"))
        for part in (here, *here.parents):
            yield from _of_group(root / base / part, files, given)


def _of_group(folder: Path, files: tuple[str, str], given: tuple[str, ...]) -> Iterator[int]:
    """The limit less the use, and the caches that the system gives back before it kills."""
    with suppress(OSError, ValueError):  # no such group, or "max"
        most, used = (int((folder / name).read_text()) for name in files)
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        yield most - used + sum(int(stat.get(name, 0)) for name in given)
