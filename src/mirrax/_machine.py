"""Facts about the machine, the versions and the source tree. Loads no JAX."""

import functools
import os
import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from . import __version__

PACKAGES = ("jax", "jaxlib", "equinox", "optax", "numpy", "scipy", "scikit-learn", "optuna")
"""Distributions whose versions may decide a result."""

_SOURCE = Path(__file__).parent


def machine(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Cores, processor, system, and the versions of mirrax and of what is installed of `packages`.

    **Arguments:**

    - `packages`: names of distributions.

    >>> sorted(machine())
    ['cores', 'processor', 'python', 'system', 'versions']
    """
    versions = {"mirrax": __version__}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "cores": cores(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def cores() -> int:
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _processor() -> str:
    """The processor's name where the system tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


@functools.cache
def commit(*folders: Path) -> str | None:
    """The git commit of a source tree, with `+` behind it where its files were changed since.

    **Arguments:**

    - `folders`: what is asked about; mirrax itself by default.

    **Returns:**

    `None` where there is no such tree: a package that lies in somebody's repository without being
    part of it, as an installed one does, was not made from that commit.
    """
    first, *_ = folders = folders or (_SOURCE,)

    def git(*words: str) -> str | None:
        # No locks: the record of a run must not disturb who works in the tree.
        settings = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        try:
            done = subprocess.run(
                ["git", "-C", str(first), *words],
                capture_output=True,
                text=True,
                timeout=20,
                env=settings,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    found = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--", *map(str, folders))
    return found + "+" * bool(changed) if found and changed is not None else None


def now() -> str:
    """This second in coordinated universal time, such as `2026-01-31T12:00:00Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
