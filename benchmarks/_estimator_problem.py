r"""The problem of `benchmarks.estimators`, in numpy, and how one case is measured.

Every parameter has a loss of its own, `ℓ(θ) = Σ w (√(1 + (θ − c)²) − 1)`: convex, smooth, of
varying curvature, and so cheap that what is measured is the estimator. A run makes `T` diagonal
mirror steps `θ ← θ − η g/m²` from zero with `η = 2/T`, so that runs of all lengths end at nearly
the same point, well before they converge, and their hypergradients are comparable. What a run is
worth is `E = ℓ(θ_T; other c) + ½ Σ m² θ_T²`, and `log m` is learned. Implicit sides differentiate
the solution `θ*` of `∇ℓ(θ) + m² θ/(2η) = 0` with `η = 1` instead.
"""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.memory import peak, settle

HORIZON = 2.0
"""`η T`."""

NEAR = 1.0
"""`η` of the proximal problem."""

TOLERANCE = 256 * float(np.finfo(np.float32).eps)
"""Of all solvers; mirrax takes no smaller one in float32."""

LONG = 3.0
"""Seconds after which a first run counts and one more is enough, as for all rounds together."""

SHORT = 0.05
"""Seconds of the processor that all rounds take at least."""


class Size(NamedTuple):
    """How many numbers are learned, and how many parameters share each."""

    learned: int
    each: int = 1

    @staticmethod
    def read(text: str) -> "Size":
        """From `"10"` or `"10x10000"`."""
        return Size(*(int(part) for part in text.split("x")))

    def __str__(self) -> str:
        """As it is read."""
        return f"{self.learned}x{self.each}" if self.each > 1 else str(self.learned)

    @property
    def parameters(self) -> int:
        """How many parameters a run moves."""
        return self.learned * self.each


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Weights, both centres and `log m`, in float32.

    Parameters are `(learned, each)` and `log m` is `(learned, 1)`; without the second axis if no
    number is shared, as XLA sums arrays of shape `(n, 1)` thirty times more slowly than `(n,)`.
    """

    weight: np.ndarray
    centre: np.ndarray
    query: np.ndarray
    log_m: np.ndarray

    @staticmethod
    def make(size: Size) -> "Numbers":
        """Random numbers, the same for every side."""
        rng = np.random.default_rng(0)
        shape = tuple(size) if size.each > 1 else (size.learned,)
        weight = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        centre, noise = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
        log_m = 0.1 * rng.standard_normal((size.learned, 1)[: len(shape)])
        return Numbers(weight, centre, centre + noise, log_m.astype(np.float32))

    @property
    def curvature_at_most(self) -> float:
        """A bound on the curvature of `ℓ`."""
        return float(self.weight.max())


class Result(NamedTuple):
    """What a side computes: a value, the derivative in `log m`, and what its solvers did."""

    value: float
    slope: np.ndarray | None
    report: dict[str, Any] = {}


def one_thread() -> None:
    """Leaves XLA one thread, so that processor time is what an idle machine's clock would say.

    To be called before JAX has a backend. Keeping the process on one core would do the same, but on
    a busy machine it waits there for whoever else is on that core.
    """
    os.environ["NPROC"] = "1"


def measure(run: Callable[[], Result], rounds: int) -> tuple[Result, dict[str, Any]]:
    """Memory and time of a side that is ready to run; called in a fresh process.

    **Arguments:**

    - `run`: one hypergradient.
    - `rounds`: how often it is timed, if that takes less than `LONG`.

    **Returns:**

    What the first run gave, and the record: its rise of resident memory, and of the seconds on the
    clock and of those of the processor the medians, the least and the most.
    """
    before = settle()
    result, *first = _timed(run)
    rise = peak() - before
    pairs = _rounds(run, rounds, first)
    return result, {
        "first": first[0],
        "measured_bytes": max(rise, 0),
        **_spread("seconds", [clock for clock, _ in pairs]),
        **_spread("cpu", [cpu for _, cpu in pairs]),
        "rounds": len(pairs),
    }


def _spread(name: str, times: list[float]) -> dict[str, Any]:
    """The median; the least and the most."""
    return {name: statistics.median(times), f"{name}_range": [min(times), max(times)]}


def _rounds(run: Callable[[], Result], rounds: int, first: list[float]) -> list[list[float]]:
    """Times of so many runs, of more if they are short and of fewer if long, but of two."""
    pairs = [first] if first[0] > LONG else []
    clock = cpu = 0.0
    while len(pairs) < 2 or (clock < LONG and (len(pairs) < rounds or cpu < SHORT)):
        pairs.append(_timed(run)[1:])
        clock, cpu = clock + pairs[-1][0], cpu + pairs[-1][1]
    return pairs


def _timed(run: Callable[[], Result]) -> list[Any]:
    clock, cpu = time.perf_counter(), time.process_time()
    result = run()
    return [result, time.perf_counter() - clock, time.process_time() - cpu]
