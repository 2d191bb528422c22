r"""The inner rate of each few-shot method, chosen among the same few for all on validation tasks.

Every rate makes the first `pilot_steps` meta-steps of the first seed's run. The one whose prior is
then best on validation tasks, the first of equals, goes on from there and is the rate of all seeds.
"""

import shutil
from typing import Any

from .._errors import NumericalError
from .._files import write_json
from ._few_shot import FewShotSetting, FewShotStudy
from ._few_shot_learn import learn_prior, validation_accuracy
from ._folder import RunFolder
from ._progress import Progress

_BESIDE = "pilot"  # a folder within that of a run


def run_folder(folder: RunFolder, method: str, rate: float, seed: int) -> RunFolder:
    """The folder of one run of a method, made or opened.

    **Arguments:**

    - `folder`: the study's.
    - `method`, `rate`, `seed`: which run.
    """
    name = _place(method, rate, seed)
    return folder.part(name, {"method": method, "rate": rate, "seed": seed})


def _place(method: str, rate: float, seed: int) -> str:
    return f"{method.replace(':', '.')}/rate-{rate!r}/seed-{seed}"


def choose_rate(
    setting: FewShotSetting, method: str, seed: int, folder: RunFolder, progress: Progress
) -> dict[str, Any]:
    """Tries the rates of a study with one method; what an interrupted run has finished is kept.

    **Arguments:**

    - `setting`: the study.
    - `method`: the method's name.
    - `seed`: the study's first seed.
    - `folder`: the study's.
    - `progress`: where to show progress.

    **Returns:**

    `{"rate", "pilots": [{"rate", "validation_accuracy", "notes"}]}`, with `None` as the accuracy of
    a rate that diverged, and no pilots if there is but one rate.

    **Raises:**

    - `NumericalError`: if every rate diverges.
    """
    rates = setting.config.rate
    if len(rates) == 1:
        return {"rate": rates[0], "pilots": []}
    pilots = [_pilot(setting, method, seed, rate, folder, progress) for rate in rates]
    best = _best(pilots)
    if best is None:
        raise NumericalError(
            f"{method} diverged at every rate of --rate within {setting.config.pilot_steps} "
            "meta-steps; start another run with smaller ones."
        )
    return {"rate": best, "pilots": pilots}


def finished_run(
    config: FewShotStudy, folder: RunFolder, method: str, seed: int
) -> tuple[RunFolder, float] | None:
    """The folder and rate of a run whose prior is kept, if there is one.

    **Arguments:**

    - `config`: the study.
    - `folder`: the study's.
    - `method`, `seed`: which run; the rate is the one the method chose.
    """
    rate: float | None = config.rate[0]
    if len(config.rate) > 1:
        records = [RunFolder(folder / _place(method, r, seed)) for r in config.rate]
        pilots = [record.read_json("pilot.json", _check) for record in records]
        rate = _best([pilot for pilot in pilots if pilot])
    place = None if rate is None else RunFolder(folder / _place(method, rate, seed))
    if rate is None or place is None or not (place / "prior.safetensors").exists():
        return None
    return place, rate


def _check(pilot: dict[str, Any]) -> None:
    """Fails where this is not what a rate came to."""
    accuracy = pilot["validation_accuracy"]
    sound = accuracy is None or 0 <= accuracy <= 1
    if not (sound and pilot["rate"] > 0 and isinstance(pilot["notes"], list)):
        raise ValueError("no rate, accuracy or notes")


def _best(pilots: list[dict[str, Any]]) -> float | None:
    """The first rate of the highest accuracy; `None` if all diverged."""
    sound = [pilot for pilot in pilots if pilot["validation_accuracy"] is not None]
    return max(sound, key=lambda pilot: pilot["validation_accuracy"])["rate"] if sound else None


def _pilot(
    setting: FewShotSetting,
    method: str,
    seed: int,
    rate: float,
    folder: RunFolder,
    progress: Progress,
) -> dict[str, Any]:
    """What a rate's first meta-steps came to, made or read.

    Where that was lost and the run has gone on since, they are made again beside it, to the same
    bits: the run keeps the steps that it has.
    """
    until, place = setting.config.pilot_steps, run_folder(folder, method, rate, seed)
    known = place.read_json("pilot.json", _check)
    if known:
        return known
    accuracy, here = None, place
    if place.rounds > until:
        here = place.part(_BESIDE, {"method": method, "rate": rate, "seed": seed})
    with progress.phase(f"{method}, rate {rate:g}", until) as phase:
        try:
            learned = learn_prior(setting, method, seed, rate, here, phase, until=until)
        except NumericalError as error:
            notes = [str(error)]
        else:
            notes, state = learned.notes, learned.standing.state
            if int(state.step) == until:
                accuracy = validation_accuracy(learned.learner, state.prior, setting)
    found = {"rate": rate, "validation_accuracy": accuracy, "notes": notes}
    write_json(place / "pilot.json", found)
    shutil.rmtree(place / _BESIDE, ignore_errors=True)
    return found
