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
from ..meta import Descent, ManyShot, RoundRecord, diverged
from ._failures import failure_notes
from ._folder import RunFolder
from ._memory import require_memory
from ._progress import Progress

_LESS = "try --in-turn true, a smaller --model or a smaller --batch"
_SHORTER = ", --estimator checkpointed, --estimator truncated --window N, or fewer --steps"
_ACTIVATION_POINTS = 50
_LOST = 1e30  # a run that reached this diverged, whatever its last digit


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
    check_rounds(int(state.round), rounds)
    grid = learner.grid
    state, problems = grid.place(state), grid.place(problems, "tasks")
    lines = folder.truncate_metrics(int(state.round))
    if int(state.round) < rounds:
        program = ManyShot.round.lower(learner, state, problems).compile()
        # What a closed form needs does not grow with the steps.
        less = _LESS + _SHORTER if isinstance(learner.outer, Descent) else _LESS
        require_memory(program, "a round of meta-training", less, devices=grid.size)
    with progress.phase("meta-training", rounds, done=int(state.round)) as phase:
        while int(state.round) < rounds:
            number, clock = int(state.round), time.perf_counter()
            state, record = learner.round(state, problems)
            trouble = _checked(learner, record, number, names, rate)
            line = _metrics(record, number, names, time.perf_counter() - clock)
            line |= _failures(record, names)
            if trouble and learner.outer.recovers:
                line["trouble"] = trouble
            folder.append_metrics(line)
            folder.save_checkpoint(state, number + 1)
            lines.append(line)
            phase.advance(_note(line))
    seconds = sum(line.get("seconds", 0.0) for line in lines)
    return Learned(grid.gather(state.geometry), (*notes, *_notes(lines, rounds)), seconds)


def check_rounds(made: int, asked: int) -> None:
    """Refuses to go on to fewer rounds than are made.

    **Arguments:**

    - `made`, `asked`: how many are, and how many there shall be.

    **Raises:**

    - `ConfigError`: with both.
    """
    if made > asked:
        raise ConfigError(
            f"--rounds: {made} rounds are made already, got {asked}; ask for at least as many, or "
            "start another run with --out."
        )


def _checked(
    learner: ManyShot, record: RoundRecord, number: int, names: Sequence[str], rate: float
) -> str | None:
    """What was wrong with a round that is gone on from all the same; raises if it is not."""
    trouble = _divergence(record, number, names, learner.steps, rate)
    goes_on = learner.outer.recovers and number > 0 or record.attempts is not None
    if trouble and (record.failed or not goes_on):
        raise NumericalError(f"{trouble}; choose a smaller --rate and continue with --resume.")
    if record.failed:
        remedy = "larger --damping" if learner.outer.recovers else "smaller --outer-rate"
        raise NumericalError(
            f"round {number}: the geometry that its runs call for is not finite; choose a "
            f"{remedy} and continue with --resume."
        )
    return trouble


def _notes(lines: Sequence[dict[str, Any]], rounds: int) -> list[str]:
    """What is to be said of the rounds as a whole."""
    notes = []
    if lines and "trouble" in lines[-1]:
        told = lines[-1]["trouble"]
        notes.append(f"Last round: {told}. Rates were lowered after it; --rounds adds rounds.")
    notes += failure_notes(lines, f"{rounds} rounds")
    froze = sum(line.get("frozen", 0) > 0.5 for line in lines)
    if froze:
        notes.append(
            f"Freezing: in {froze} of {rounds} rounds most runs hardly reduced their loss. With "
            "the last point as comparator a regret bound is small when nothing is learned "
            "(docs/papers.md#s000-eq10-last); use a reference run or the known solution as "
            "comparator."
        )
    return notes


def _divergence(
    record: RoundRecord, number: int, names: Sequence[str], steps: int, rate: float
) -> str | None:
    """Names the first run of a round that diverged, if one did."""
    summary = jax.tree.map(np.asarray, record.summary)
    finite, first, last = summary.finite_steps, summary.first_loss, summary.last_loss
    bad = np.asarray(diverged(summary, steps))
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


def _failures(record: RoundRecord, names: Sequence[str]) -> dict[str, Any]:
    """What a line of metrics says of a round that went on where runs failed."""
    if record.attempts is None or not np.any(record.attempts.failed_runs):
        return {}
    failed_runs = np.asarray(record.attempts.failed_runs)
    failed = [name for name, visits in zip(names, failed_runs, strict=True) if visits.any()]
    return {"failed": failed, "halved": int(record.attempts.halved)}


def _number(value: Any) -> float | None:
    """A number worth writing down: JSON has no infinity, and a figure no room for 1e300."""
    return float(value) if abs(value) < _LOST else None


def _note(line: dict[str, Any]) -> str:
    if line["value"] is None or line["last_loss"] is None:
        return "diverged; going back"
    return f"loss {line['last_loss']:.4f}  bound {line['value']:.4g}"
