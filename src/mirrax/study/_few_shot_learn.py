r"""Meta-training of one few-shot method from one seed; a killed run continues to the bit."""

import dataclasses
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._errors import ConfigError, NumericalError
from .._tree import choose
from ..inner import Prior
from ..meta import FewShot, FewShotState, Scores, StepRecord
from ..tasks import Episodes
from ._failures import failure_notes
from ._few_shot import FewShotSetting
from ._folder import RunFolder
from ._memory import require_memory
from ._progress import Phase
from ._streams import META, VALIDATE, stream

_LESS = "try fewer --tasks, a smaller --model, fewer --steps, or --first-order true"
_TOGETHER = 20
"""At most so many tasks are judged by one call."""
_SAVED_EVERY = 60.0  # seconds; validations may be an hour apart


class Standing(eqx.Module):
    """Where the meta-training of a method stands, and the best prior so far on validation.

    **Arguments:**

    - `state`: the learner's state.
    - `best`, `accuracy`, `step`: the best prior, its validation accuracy, and when it was found.
    """

    state: FewShotState
    best: Prior
    accuracy: Float[Array, ""]
    step: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Learned:
    """A learned prior, how it was come by, and what must be said of it."""

    learner: FewShot
    standing: Standing
    metrics: list[dict[str, Any]]
    notes: list[str]


def learn_prior(
    setting: FewShotSetting,
    method: str,
    seed: int,
    rate: float,
    folder: RunFolder,
    phase: Phase,
    *,
    until: int,
) -> Learned:
    """Makes the meta-steps that are left, keeping metrics and checkpoints.

    **Arguments:**

    - `setting`: the study.
    - `method`: the method's name.
    - `seed`, `rate`: seed and inner rate of this run.
    - `folder`: where to write, and to resume from.
    - `phase`: where to show progress, one unit a meta-step.
    - `until`: how many meta-steps there shall be.

    **Raises:**

    - `ConfigError`: if more steps are made already.
    - `NumericalError`: if a value or hypergradient is not finite before any validation; names
      method and step. Later, the best prior found until then is returned with a note.
    """
    config = setting.config
    learner, prior = setting.compose(method, seed, rate)
    fresh = Standing(
        learner.init(prior, key=stream(seed, META)), prior, jnp.array(-1.0), jnp.array(0)
    )
    owner = {"method": method, "rate": rate, "seed": seed}
    standing, notes = folder.load_checkpoint(fresh, **owner)
    standing = learner.grid.place(standing)
    made = int(standing.state.step)
    if made > until:
        raise ConfigError(
            f"--meta-steps: {method} has made {made} steps already, more than {until}; ask "
            "for at least as many, or start another run with --out."
        )
    metrics = folder.truncate_metrics(made)
    phase.advance(method, made)
    if made < until:
        length = min(config.stride, until - made)
        program = FewShot.run.lower(learner, standing.state, setting.episodes[0], length).compile()
        require_memory(program, f"a meta-step of {method}", _LESS, devices=learner.grid.size)
    saved, due = time.monotonic(), not made % config.validate_every
    while made < until:
        clock, length = time.perf_counter(), min(config.stride, until - made)
        state, records = learner.run(standing.state, setting.episodes[0], length)
        records = jax.tree.map(np.asarray, records)
        trouble = _divergence(records, made, f"{method}, seed {seed}")
        if trouble and int(standing.step) == 0:
            raise NumericalError(
                f"{trouble}; start another run with a smaller --rate or --outer-rate."
            )
        if trouble:
            notes.append(
                f"{trouble}; its best prior until then was tested, and the training loss is that "
                f"of meta-step {made}"
            )
            break
        due = (made + length) // config.validate_every > made // config.validate_every
        made += length
        line = _metrics(records, made - length, time.perf_counter() - clock)
        standing = Standing(state, standing.best, standing.accuracy, standing.step)
        if due:
            standing, line["validation_accuracy"] = _validated(learner, standing, setting)
        folder.append_metrics(line)
        if due or made == until or time.monotonic() - saved > _SAVED_EVERY:
            folder.save_checkpoint(standing, made, **owner)
            saved = time.monotonic()
        metrics.append(line)
        phase.advance(f"{method}  loss {line['value']:.3f}", length)
    notes += failure_notes(metrics, f"{made} meta-steps")
    if made == config.meta_steps and not due:
        # Kept in no checkpoint: a run that is prolonged is the one that was to be as long at once.
        standing, _ = _validated(learner, standing, setting)
    return Learned(learner, standing, metrics, notes)


def judge(
    learner: FewShot,
    prior: Prior,
    episodes: Episodes,
    count: int,
    *,
    further: int | None,
    key: jax.Array,
) -> Scores:
    """Scores of a prior on `count` tasks as numpy arrays, see `FewShot.evaluate`.

    **Arguments:**

    - `learner`, `prior`, `episodes`, `count`, `further`, `key`: as there. Tasks are judged a few
      at a time, the last few with some again, so that sets of any size are one compiled program.
    """
    calls = -(-count // _TOGETHER)
    numbers = (np.arange(calls * _TOGETHER) % count).reshape(calls, _TOGETHER)
    parts = [
        learner.evaluate(prior, episodes, jnp.asarray(part), further=further, key=key)
        for part in numbers
    ]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *parts)


def validation_accuracy(learner: FewShot, prior: Prior, setting: FewShotSetting) -> float:
    """The mean accuracy on the validation tasks.

    They are the same for all methods and seeds: their noise is no ground for a choice.

    **Arguments:**

    - `learner`, `prior`: what is judged.
    - `setting`: the study.
    """
    config = setting.config
    further = config.curve_steps - config.steps
    tasks, key = config.validation_tasks, stream(0, VALIDATE)
    scores = judge(learner, prior, setting.episodes[1], tasks, further=further, key=key)
    return float(np.mean(scores.query_accuracy))


def _validated(
    learner: FewShot, standing: Standing, setting: FewShotSetting
) -> tuple[Standing, float]:
    """The standing after validation: the better of the best prior so far and the current one."""
    state = standing.state
    accuracy = validation_accuracy(learner, state.prior, setting)
    better = jnp.asarray(accuracy) > standing.accuracy
    here = (state.prior, jnp.asarray(accuracy, standing.accuracy.dtype), state.step)
    best = choose(better, here, (standing.best, standing.accuracy, standing.step))
    return Standing(state, *best), accuracy


def _divergence(records: StepRecord, made: int, run: str) -> str | None:
    """Names the first meta-step that failed, if one did."""
    if not records.failed.any():
        return None
    first = int(records.failed.argmax())
    return (
        f"the outer loop diverged: {run}, meta-step {made + first}, loss "
        f"{records.value[first]:.3g}, hypergradient norm {records.gradient_norm[first]:.3g}"
    )


def _metrics(records: StepRecord, first: int, seconds: float) -> dict[str, Any]:
    line = {
        "round": first,
        "steps": len(records.value),
        "value": float(records.value.mean()),
        "first_loss": float(records.summary.first_loss.mean()),
        "last_loss": float(records.summary.last_loss.mean()),
        "gradient_norm": float(records.gradient_norm.mean()),
        "seconds": round(seconds, 4),
    }
    if records.attempts is not None and records.attempts.failed_runs.any():
        failed, halved = records.attempts.failed_runs, records.attempts.halved
        line |= {"failed": int(failed.sum()), "halved": int(halved.sum())}
    return line
