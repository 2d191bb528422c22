"""One case of `benchmarks.estimators`: predicted, planned or run in a process of its own."""

import contextlib
import math
import multiprocessing
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import load
from benchmarks._estimator_agreement import OURS, SOLUTION, SOLUTION_PEERS, Case, sketch
from benchmarks._estimator_problem import Size, one_thread

PATIENCE, BEGINNING = 4, 30
"""A process is stopped after so many times the limit on seconds, and these seconds to begin."""

MINUTE = 60.0
"""The time over which the system averages its load."""

BUSY = 1.5
"""The load by others above which a time is marked."""


def limits_of(rounds: int, seconds: float, gigabytes: float) -> Case:
    """The limits that a record holds."""
    processor = BEGINNING + PATIENCE * seconds
    return {
        "rounds": rounds,
        "seconds": seconds,
        "memory": gigabytes * 1e9,
        "processor": processor,
    }


# what is left out


def predicted(cases: Sequence[Case], steps: int, field: str) -> float:
    """A figure at a longer run: by the line through the last two shorter ones, or from zero.

    Implicit sides stop when they have converged: a single one of theirs is repeated.
    """
    known = [(case["steps"], case[field]) for case in cases if case.get(field) is not None]
    if not known:
        return 0.0
    if len(known) == 1:
        constant = cases[0]["side"] in SOLUTION + SOLUTION_PEERS
        return known[0][1] * (1 if constant else steps / known[0][0])
    (before, low), (last, high) = known[-2:]
    return max(high + (high - low) / (last - before) * (steps - last), high)


def too_large(side: str, steps: int, size: Size, shorter: Sequence[Case], memory: float) -> str:
    """Why a case is not even compiled; nothing if it is."""
    tangents = 16.0 * size.learned * size.parameters  # four arrays in float32
    if side == "forward" and tangents > memory:
        return f"{_bytes(tangents)} of tangents"
    needed = predicted(shorter, steps, "measured_bytes")
    if side not in OURS and needed > memory:  # XLA plans before it runs
        return f"{_bytes(needed)} predicted"
    return ""


def _bytes(count: float) -> str:
    """A number of bytes to read."""
    return f"{count / 1e9:,.0f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


# in a process


def child(side: str, steps: int, size: Size, limits: Case) -> Case:
    """Runs one case in this process."""
    one_thread()
    if side in OURS:  # imported here: the parent only starts processes
        from benchmarks._estimator_sides import case as ours

        result, record = ours(side, steps, size, limits["rounds"], limits["memory"])
    else:
        from benchmarks._estimator_peers import case as theirs

        result, record = theirs(side, steps, size, limits["rounds"])
    if result.slope is not None:
        record["slope"] = sketch(result.slope)
    return record | {"value": result.value} | result.report


def _sent(pipe: Any, *given: Any) -> None:
    """`child`, its record or its error sent back."""
    try:
        record = child(*given)
    except Exception as error:
        record = {"failed": f"{type(error).__name__}: {error}"[:200]}
    with contextlib.suppress(BrokenPipeError):  # whoever started it was interrupted
        pipe.send(record)


def fresh(side: str, steps: int, size: Size, limits: Case) -> Case:
    """Runs one case in a process of its own; says so where it fails or takes too long.

    The processes are forked from one that has imported the frameworks and not used them.
    """
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["benchmarks._estimator_sides", "benchmarks._estimator_peers"])
    receive, send = start.Pipe(duplex=False)
    process = start.Process(target=_sent, args=(send, side, steps, size, limits))
    process.start()
    send.close()
    try:
        record = _received(receive, process, limits["processor"])
    finally:  # also on Ctrl-C
        process.kill()
        process.join()
    if record.get("skipped") == "memory":
        record["skipped"] = f"{_bytes(record['planned_bytes'])} planned"
        del record["value"]
    return record


def _received(receive: Any, process: Any, most: float) -> Case:
    """What a process sends, unless it takes more than so many seconds of the processor.

    One that waits for ever uses none, so ten times as many on the clock are the end too.
    """
    # A limit of the system's own would make the clock of processor time coarse.
    begun = time.monotonic()
    while not receive.poll(0.5):
        if _processor_time(process.pid) > most:
            return {"skipped": f"stopped after {most:.0f} s of processor time"}
        if time.monotonic() - begun > 10 * most:
            return {"failed": f"stopped after {10 * most:.0f} s on the clock"}
    try:
        return receive.recv()
    except EOFError:
        process.join()
        return {"failed": f"ended with status {process.exitcode}"}


def _processor_time(process: int | None) -> float:
    """Seconds of the processor that a process has used; zero where the system does not say."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def one(side: str, steps: int, size: Size, limits: Case, shorter: Sequence[Case]) -> Case:
    """The record of one case, run, planned or predicted."""
    reason = too_large(side, steps, size, shorter, limits["memory"])
    cpu = predicted(shorter, steps, "cpu")
    if cpu <= limits["seconds"]:
        return {"skipped": reason} if reason else fresh(side, steps, size, limits)
    case = {"skipped": reason or f"{cpu:.0f} s predicted", "predicted_cpu": cpu}
    if side in OURS and not reason:
        plan = fresh(side, steps, size, limits | {"memory": -1})  # compiled only
        case |= {key: value for key, value in plan.items() if key != "skipped"}
    return case


# the machine's load


class Load:
    """The load of the machine before a case, and how much of it this command is itself."""

    def __init__(self):
        self.spans: list[tuple[float, float]] = []

    def before(self) -> Case:
        """Both, for the record."""
        now = time.monotonic()
        return {"load_before": load(), "own_load": round(own_load(self.spans, now), 2)}

    def ran(self, begin: float) -> None:
        """Notes that a case has run from `begin`, a time of `time.monotonic`, until now."""
        self.spans.append((begin, time.monotonic()))


def own_load(spans: Sequence[tuple[float, float]], now: float) -> float:
    """What one process that ran in these spans adds to an average that forgets in a minute."""
    weights = (
        math.exp((end - now) / MINUTE) - math.exp((begin - now) / MINUTE) for begin, end in spans
    )
    return sum(weights)


def others(case: Case) -> float:
    """The load by others before a case; zero where the system does not say."""
    return max((case["load_before"] or 0.0) - case["own_load"], 0.0)


def busy(case: Case) -> bool:
    """Whether a case was timed while others used the machine."""
    return "cpu" in case and others(case) > BUSY
