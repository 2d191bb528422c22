"""Timing of several things in turn, so that whatever else the machine does meets all alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def interleave(
    sides: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    pause: float = 0.05,
    turn: float = 0.05,
) -> dict[str, dict[str, float]]:
    """Times each side once a round, so that whatever else the machine does meets all alike.

    Each side runs once untimed first (compilation, allocation). A pause before each run lets the
    worker threads of the side before fall asleep: some spin for a while when idle. What takes less
    than a turn is run again until the turn is over, as in a loop of such calls: the first of them
    finds its own threads asleep and its data out of the caches.

    **Arguments:**

    - `sides`: functions by name; each returns when its work is done.
    - `rounds`: how often each is timed.
    - `pause`: seconds of rest before each turn.
    - `turn`: seconds that a turn takes at least; a time is the turn's over its number of runs.

    **Returns:**

    For each side `median`, `fastest` and `first` (the untimed run), in seconds, and
    `median_cpu`, the seconds of processor time over all threads: on a machine that others use too
    it changes far less from run to run.
    """
    first = {name: seconds_of(run)[0] for name, run in sides.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            time.sleep(pause)
            times[name].append(_turn(run, turn))
    return {
        name: {
            "median": statistics.median(seconds for seconds, _ in pairs),
            "fastest": min(seconds for seconds, _ in pairs),
            "median_cpu": statistics.median(cpu for _, cpu in pairs),
            "first": first[name],
        }
        for name, pairs in times.items()
    }


def _turn(run: Callable[[], Any], least: float) -> tuple[float, float]:
    """As `seconds_of`, averaged over as many runs as take so long."""
    runs, seconds, cpu = 0, 0.0, 0.0
    while not runs or seconds < least:
        one = seconds_of(run)
        runs, seconds, cpu = runs + 1, seconds + one[0], cpu + one[1]
    return seconds / runs, cpu / runs


def seconds_of(run: Callable[[], Any]) -> tuple[float, float]:
    """Seconds on the clock that a call takes, and of processor time over all threads."""
    clock, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - clock, time.process_time() - cpu
