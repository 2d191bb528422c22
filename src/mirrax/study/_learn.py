r"""Meta-training with progress, metrics and checkpoints; a killed run continues to the bit."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from .._errors import ConfigError, NumericalError
from ..geometry import AbstractGeometry
from ..inner import Problem
from ..meta import ManyShot, RoundRecord
from ._folder import RunFolder
from ._progress import Progress

_ACTIVATION_POINTS = 50
_LOST = 1e30  # a run that reached this diverged, whatever its last digit
_BLOWN_UP = 10.0  # so did one that ended this many times above its first loss


@dataclasses.dataclass(frozen=True)
class Learned:
    """A learned geometry, what is to be said about how it was learned, and its rounds' seconds."""

    geometry: AbstractGeometry
    notes: tuple[str, ...]
    seconds: float


def learn(
    learner: ManyShot,
    initial: AbstractGeometry,
    problems: Problem,
    names: Sequence[str],
    *,
    rounds: int,
    rate: float,
    folder: RunFolder,
    progress: Progress,
    key: jax.Array,
) -> Learned:
    """Makes the rounds that are left, keeping metrics and checkpoints.

    **Arguments:**

    - `learner`, `initial`: the learner and the geometry it starts from.
    - `problems`: the meta-training tasks, stacked.
    - `names`: their names, for messages.
    - `rounds`: how many rounds in all.
    - `rate`: the inner step size, for messages.
    - `folder`: where to write, and to resume from.
    - `progress`: where to show progress.
    - `key`: randomness of meta-training.

    **Returns:**

    The geometry.

    **Raises:**

    - `ConfigError`: if more rounds are made already.
    - `NumericalError`: if a run diverges, with round, task, step and rate, or the geometry is not
      finite. The checkpoint of the round before stays.
    """
    state, notes = folder.load_checkpoint(learner.init(initial, key=key))
    if int(state.round) > rounds:
        raise ConfigError(
            f"--rounds: {int(state.round)} rounds are made already, got {rounds}; ask for at least "
            "as many, or start another run with --out."
        )
    trouble, grid = None, learner.grid
    state, problems = grid.place(state), grid.place(problems, "tasks")
    earlier = folder.truncate_metrics(int(state.round))
    froze = sum(line.get("frozen", 0) > 0.5 for line in earlier)
    spent = sum(line.get("seconds", 0.0) for line in earlier)
    with progress.phase("meta-training", rounds, done=int(state.round)) as phase:
        while int(state.round) < rounds:
            number, clock = int(state.round), time.perf_counter()
            state, record = learner.round(state, problems)
            trouble = _divergence(record, number, names, learner.steps, rate)
            if trouble and (record.failed or number == 0 or not learner.outer.recovers):
                raise NumericalError(
                    f"{trouble}; choose a smaller --rate and continue with --resume."
                )
            if record.failed:
                remedy = "larger --damping" if learner.outer.recovers else "smaller --outer-rate"
                raise NumericalError(
                    f"round {number}: the geometry that its runs call for is not finite; choose a "
                    f"{remedy} and continue with --resume."
                )
            line = _metrics(record, number, names, time.perf_counter() - clock)
            folder.append_metrics(line)
            folder.save_checkpoint(state, number + 1)
            froze += line["frozen"] > 0.5
            spent += line["seconds"]
            phase.advance(_note(line))
    if trouble:
        notes.append(f"Last round: {trouble}. Rates were lowered after it; --rounds adds rounds.")
    if froze:
        notes.append(
            f"Freezing: in {froze} of {rounds} rounds most runs hardly reduced their loss. With "
            "the last point as comparator a regret bound is small when nothing is learned "
            "(docs/papers.md#s000-eq10-last); use a reference run or the known solution as "
            "comparator."
        )
    return Learned(grid.gather(state.geometry), tuple(notes), spent)


def _divergence(
    record: RoundRecord, number: int, names: Sequence[str], steps: int, rate: float
) -> str | None:
    """Names the first run of a round that diverged, if one did."""
    finite = np.asarray(record.summary.finite_steps)
    first, last = np.asarray(record.summary.first_loss), np.asarray(record.summary.last_loss)
    bad = (finite < steps) | ~(last <= _BLOWN_UP * np.abs(first))
    if not bad.any():
        return None
    run = int(np.where(bad, finite, steps + 1).argmin())
    return (
        f"the inner loop diverged: round {number}, task {names[run // finite.shape[1]]}, step "
        f"{finite.flat[run]}, rate {rate:g}, loss {first.flat[run]:.3g} at first and "
        f"{last.flat[run]:.3g} at last"
    )


def _metrics(
    record: RoundRecord, number: int, names: Sequence[str], seconds: float
) -> dict[str, Any]:
    line: dict[str, Any] = {
        "round": number,
        "value": _number(record.value),
        "first_loss": _number(record.summary.first_loss.mean()),
        "last_loss": _number(record.summary.last_loss.mean()),
        "frozen": float(record.frozen),
        "seconds": round(seconds, 4),
        "tasks": list(names),
    }
    if record.activation is not None:
        table = np.asarray(record.activation)
        line["activation"] = table.mean(axis=0).tolist()
        bins = np.array_split(table, min(len(table), _ACTIVATION_POINTS))
        line["activation_by_step"] = [part.mean(axis=0).tolist() for part in bins]
    return line


def _number(value: Any) -> float | None:
    """A number worth writing down: JSON has no infinity, and a figure no room for 1e300."""
    return float(value) if abs(value) < _LOST else None


def _note(line: dict[str, Any]) -> str:
    if line["value"] is None or line["last_loss"] is None:
        return "diverged; going back"
    return f"loss {line['last_loss']:.4f}  bound {line['value']:.4g}"
