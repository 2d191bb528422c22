r"""The inner rate of each few-shot method, chosen among the same few for all on validation tasks.

Every rate makes the first `pilot_steps` meta-steps of the first seed's run. The one whose prior is
best on validation tasks goes on from there, and is the rate of all seeds.
"""

from typing import Any

from .._errors import NumericalError
from .._files import write_json
from ._few_shot import FewShotSetting
from ._few_shot_learn import learn_prior
from ._folder import RunFolder
from ._progress import Progress


def method_folder(method: str) -> str:
    """The folder of a method within a run's.

    >>> method_folder("my_method:sparse")
    'my_method.sparse'
    """
    return method.replace(":", ".")


def run_folder(folder: RunFolder, method: str, rate: float, seed: int) -> RunFolder:
    """The folder of one run of a method, made or opened.

    **Arguments:**

    - `folder`: the study's.
    - `method`, `rate`, `seed`: which run.
    """
    name = f"{method_folder(method)}/rate-{rate:g}/seed-{seed}"
    return folder.part(name, {"method": method, "rate": rate, "seed": seed})


def finished_run(folder: RunFolder, method: str, seed: int) -> tuple[RunFolder, float] | None:
    """The folder and rate of a run whose prior is kept, if there is one.

    **Arguments:**

    - `folder`: the study's.
    - `method`, `seed`: which run.
    """
    parts = f"{method_folder(method)}/rate-*/seed-{seed}/prior.safetensors"
    for path in folder.path.glob(parts):
        place = RunFolder(path.parent)
        return place, (place.read_json("config.json") or {})["rate"]
    return None


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

    `{"rate", "validation_accuracy": [one a rate, None where it diverged]}`; without the accuracies
    if there is but one rate.

    **Raises:**

    - `NumericalError`: if every rate diverges.
    """
    config = setting.config
    if len(config.rate) == 1:
        return {"rate": config.rate[0]}
    record = f"{method_folder(method)}/rates.json"
    known = folder.read_json(record)
    if known:
        return known
    accuracies = [_pilot(setting, method, seed, rate, folder, progress) for rate in config.rate]
    sound = [accuracy for accuracy in accuracies if accuracy is not None]
    if not sound:
        raise NumericalError(
            f"{method} diverged at every rate of --rate within {config.pilot_steps} meta-steps; "
            "start another run with smaller ones."
        )
    found = {
        "rate": config.rate[accuracies.index(max(sound))],
        "validation_accuracy": accuracies,
    }
    write_json(folder / record, found)
    return found


def _pilot(
    setting: FewShotSetting,
    method: str,
    seed: int,
    rate: float,
    folder: RunFolder,
    progress: Progress,
) -> float | None:
    """The best validation accuracy of a rate's first meta-steps; `None` if it diverges."""
    until, place = setting.config.pilot_steps, run_folder(folder, method, rate, seed)
    with progress.phase(f"{method}, rate {rate:g}", until) as phase:
        try:
            learned = learn_prior(setting, method, seed, rate, place, phase, until=until)
        except NumericalError:
            return None
    return float(learned.standing.accuracy)
