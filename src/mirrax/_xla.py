"""Settings of XLA and BLAS in the environment, for programs: command line, tests, benchmarks.

The library itself leaves them alone, as it may share a process with others.
"""

import os
from importlib import metadata
from pathlib import Path

from ._machine import cores

_DEVICES = "--xla_force_host_platform_device_count"
_KEPT = "JAX_COMPILATION_CACHE_DIR"
_EMITTERS = "--xla_cpu_use_fusion_emitters"
_KNOWN = (0, 7), (0, 11)  # an unknown flag ends the process, so only for versions that were tried


def set_flags() -> None:
    """Has the CPU's fusions emitted as LLVM code directly, and LAPACK's routines run on one thread.

    JAX's own default emits fusions by MLIR. A few-shot meta-step compiles and runs in 0.8 of the
    time without (`benchmarks.meta_step`), many steps of a small network take up to 1.1 times as
    long (`benchmarks.hypergradient`), and of a loss without a network several times
    (`benchmarks.estimators`). XLA has threads of its own: where OpenBLAS's wait for a core
    beside them, small triangular solves can take many times as long. What the environment already
    says about either stands. To be called before JAX is imported.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    version = tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2])
    if _KNOWN[0] <= version < _KNOWN[1]:
        _add_flag(_EMITTERS, "false")


def set_devices() -> None:
    """Has a CPU pass for as many devices as this process may use cores.

    Few-shot learning takes them for tasks of their own: a meta-step then takes 0.7 of the time that
    one device with as many threads takes (`benchmarks.meta_step`). What the environment already
    says stands. To be called before JAX is imported.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        _add_flag(_DEVICES, str(cores()))


def _add_flag(name: str, value: str) -> None:
    flags = os.environ.get("XLA_FLAGS", "")
    if name not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {name}={value}".strip()


def keep_programs() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second run starts at once.

    `JAX_COMPILATION_CACHE_DIR` names another folder; an empty one keeps nothing, and so does a user
    without a home. To be called before JAX is imported.
    """
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    if _KEPT in os.environ:
        return
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # as in a container whose user has no entry in passwd
        return
    os.environ[_KEPT] = str(cache / "mirrax" / "compiled")
