"""Runs commands of mirrax in processes that can be killed anywhere, and says where they were.

    python -m benchmarks._mortal

reads a line of JSON a command, `{"words": […], "delay": SECONDS}` or `{"words": […], "aim": N}`,
and answers with one: exit status (-9 for killed), the phase where it ended, seconds and how many
calls changed files. Everything is imported once; each command is a fork of that. `aim` kills at the
N-th call that changes a file, and a write halfway.
"""

import functools
import itertools
import json
import mmap
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

PHASES = (
    "start",
    "compile",
    "program written to the cache",
    "step",
    "checkpoint write",
    "metric write",
    "comparison",
    "report",
    "other",
)
CHANGING = ("write", "fsync", "replace", "unlink", "mkdir", "ftruncate", "rmdir")


class Place:
    """Where a process is, in memory that survives it."""

    def __init__(self):
        self._shared = mmap.mmap(-1, 16)

    @property
    def phase(self) -> int:
        """The number of the phase."""
        return self._shared[0]

    @phase.setter
    def phase(self, number: int) -> None:
        self._shared[0] = number

    @property
    def calls(self) -> int:
        """How many calls changed files."""
        return int.from_bytes(self._shared[8:16], "little")

    @calls.setter
    def calls(self, number: int) -> None:
        self._shared[8:16] = number.to_bytes(8, "little")

    def within(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, in a phase."""
        number = PHASES.index(phase)

        @functools.wraps(function)
        def run(*arguments: Any, **named: Any) -> Any:
            before, self.phase = self.phase, number
            try:
                return function(*arguments, **named)
            finally:
                self.phase = before

        return run


def mortal(
    change: Callable[[str, Callable[..., Any]], None],
    aim: int,
    die: Callable[[], None],
    count: Callable[[int], None] = lambda number: None,
) -> None:
    """Has the `aim`-th call that changes a file die, a write when half of it is written.

    **Arguments:**

    - `change`: sets an attribute of the module `os`.
    - `aim`: counted from 1; 0 for never.
    - `die`: ends the process, or what stands for it in a test.
    - `count`: told the number of every call.
    """
    numbers = itertools.count(1)

    def fatal(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            count(number := next(numbers))
            if number == aim:
                if name == "write":
                    call(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                die()
            return call(*arguments, **named)

        return run

    for name in CHANGING:
        change(name, fatal(name, getattr(os, name)))


def _watch(place: Place) -> None:
    """Notes phases from here on."""
    from jax._src import compiler, lru_cache

    from mirrax import report
    from mirrax.meta import FewShot, ManyShot
    from mirrax.study import _leave_one_out, _quadratics, _train
    from mirrax.study._folder import RunFolder

    def enter(owner: Any, name: str, phase: str) -> None:
        setattr(owner, name, place.within(phase, getattr(owner, name)))

    def enter_method(owner: type, name: str, phase: str) -> None:
        whole = vars(owner)[name]

        def run(self: Any, *arguments: Any, **named: Any) -> Any:
            return place.within(phase, whole.__get__(self, owner))(*arguments, **named)

        run.lower = whole.lower  # type: ignore[attr-defined]
        setattr(owner, name, run)

    enter(compiler, "compile_or_get_cached", "compile")
    enter(lru_cache.LRUCache, "put", "program written to the cache")
    enter_method(ManyShot, "round", "step")
    enter_method(FewShot, "run", "step")
    enter(RunFolder, "save_checkpoint", "checkpoint write")
    enter(RunFolder, "append_metrics", "metric write")
    for owner, name in (
        (_train, "compare_images"),
        (_leave_one_out, "_tried"),
        (_quadratics, "_compare"),
    ):
        enter(owner, name, "comparison")
    for name in ("write_figures", "write_result", "html"):
        enter(report, name, "report")
    place.phase = PHASES.index("other")


def _live(words: list[str], aim: int, place: Place, silent: int) -> None:
    """One command in this process, to its end."""
    from mirrax.cli import main

    os.dup2(silent, 1)
    _watch(place)

    def count(number: int) -> None:
        place.calls = number

    mortal(functools.partial(setattr, os), aim, lambda: os.kill(os.getpid(), signal.SIGKILL), count)
    try:
        status = main(words)
    except BaseException:
        traceback.print_exc()
        status = 70
    sys.stderr.flush()
    os._exit(status)


def _serve(request: dict[str, Any], silent: int) -> dict[str, Any]:
    place, begun = Place(), time.perf_counter()
    child = os.fork()
    if not child:
        _live(request["words"], request.get("aim") or 0, place, silent)
    timer = None
    if request.get("delay") is not None:
        timer = threading.Timer(request["delay"], os.kill, (child, signal.SIGKILL))
        timer.start()
    _, status = os.waitpid(child, 0)
    if timer is not None:
        timer.cancel()
        timer.join()
    return {
        "status": os.waitstatus_to_exitcode(status),
        "phase": PHASES[place.phase],
        "seconds": time.perf_counter() - begun,
        "calls": place.calls,
    }


def main() -> None:
    """Answers every line."""
    from mirrax._xla import keep_programs, set_devices, set_flags

    set_flags()
    set_devices()
    keep_programs()
    import mirrax.study._kinds
    import mirrax.study._reproduce
    import mirrax.study.commands  # noqa: F401

    silent = os.open(os.devnull, os.O_WRONLY)
    for line in sys.stdin:
        print(json.dumps(_serve(json.loads(line), silent)), flush=True)


if __name__ == "__main__":
    main()
