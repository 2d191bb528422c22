"""Leave-one-out tables: what was tuned where, averaged variants, continuation, standings."""

import dataclasses
import json
import shutil
import zlib

import jax
import numpy as np
import pytest
from test_run_folder import QUIET
from toys import MODEL, TASKS

from mirrax._errors import ConfigError
from mirrax.deploy import load
from mirrax.report import standing_table
from mirrax.study import _compare, _images, _leave_one_out, _tuning
from mirrax.study._baselines import BASELINES, find_baseline
from mirrax.study._compare import control_methods, spread
from mirrax.study._images import ImageStudy
from mirrax.study._leave_one_out import against_best, leave_one_out
from mirrax.study._trials import Trials
from repeats import slow

VARIANTS = {"MetaMD": {}, "MetaMD, Kronecker": {"geometry": "kronecker", "decay": 0.0}}
OURS = ["MetaMD", "MetaMD, averaged", "MetaMD, Kronecker", "MetaMD, Kronecker, averaged"]
RIVALS = ["Euclidean", "Euclidean, averaged", "SGD"]
STUDY = ImageStudy(
    model="linear",
    steps=4,
    stride=2,
    rounds=1,
    batch=5,
    baselines=("SGD",),
    averaging=True,
    seeds=2,
    tune_seeds=1,
    rows=12,
    comparator="last",
    timed=False,
)


def accuracies(name, values, task, seeds):
    """As if measured: numbers that depend on method, configuration, task and seed alone."""
    words = json.dumps([name, sorted(values.items()), int(task)])
    return np.random.default_rng(zlib.crc32(words.encode())).uniform(size=seeds)


def drawn(methods, jobs, place, *, steps, stride, seeds, key, advance, kept=None):
    """In the place of `run_trials`, which `test_comparison` compares with plain loops."""
    del key, kept
    advance(1.0)
    found = np.array(
        [
            [accuracies(methods[index].name, values, task, seeds) for task in place.numbers]
            for index, values in jobs
        ]
    )
    points = np.arange(steps // stride + 1)
    return Trials((1 - found)[..., None] + np.flip(points), found)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder and the result of a table of two variants, and how to continue it."""
    path = tmp_path_factory.mktemp("table") / "run"

    def make(resume, **changes):
        return leave_one_out(
            dataclasses.replace(STUDY, **changes),
            path,
            recipe="toys",
            seed=0,
            budget="smoke",
            data=None,
            resume=resume,
            progress=QUIET,
            command="mirrax reproduce toys",
            variants=VARIANTS,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_images, "load_family", lambda *_: TASKS)
        patch.setattr(_compare, "run_trials", drawn)
        with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
            yield path, make(False), make


def test_the_table_has_every_variant_averaged_and_not(made):
    path, result, _ = made
    assert list(result["cells"]) == ["0", "1", "2"]
    for cells in result["cells"].values():
        assert list(cells) == [*OURS, *RIVALS]
    assert list(result["against_best_baseline"]) == OURS
    for standing in result["against_best_baseline"].values():
        assert standing["accuracy"]["rival"] == standing["final_loss"]["rival"] == "SGD"
    for mean in result["comparison"]:
        cells = [cells[mean["optimiser"]] for cells in result["cells"].values()]
        for column in ("test_accuracy", "final_loss"):
            values = [value for cell in cells for value in cell[column]["values"]]
            assert len(values) == 6 and mean[column] == spread(values, 3)
            by_task = np.mean(np.reshape(values, (3, 2)), axis=1)
            error = np.std(by_task, ddof=1) / 3**0.5
            assert (mean[column]["se"], mean[column]["tasks"]) == (pytest.approx(error), 3)
    assert json.loads((path / "summary.json").read_text()) == result


def test_every_method_is_chosen_by_the_other_tasks_and_judged_by_the_one_held_out(made):
    _, result, _ = made
    params = MODEL.init(jax.random.key(0))
    grids = {method.name: method.grid for method in control_methods(params, averaging=True)}
    grids |= {name: grids["Euclidean" + name.removeprefix("MetaMD")] for name in OURS[:2]}
    grids |= dict(zip(OURS[2:], (grids[name] for name in OURS[:2]), strict=True))
    grids["SGD"] = BASELINES["SGD"].grid
    for held, cells in enumerate(result["cells"].values()):
        others = [task for task in range(3) if task != held]
        for name, cell in cells.items():
            values = cell["hyperparameters"]

            def error(values, name=name, others=others):
                return np.mean([1 - accuracies(name, values, task, 1) for task in others])

            assert error(values) == min(map(error, grids[name]))
            np.testing.assert_allclose(
                cell["test_accuracy"]["values"], accuracies(name, values, held, 2), rtol=1e-6
            )


def test_each_geometry_is_learned_without_the_task_held_out(made):
    path, result, _ = made
    kinds = {"metamd": "Diagonal", "metamd-kronecker": "Kronecker"}
    for held in ("0", "1", "2"):
        others = [f"toy/{name}" for name in ("0", "1", "2") if name != held]
        for variant, kind in kinds.items():
            folder = path / held / variant
            config = json.loads((folder / "config.json").read_text())
            assert config["fields"]["held_out"] == held
            assert config["fields"]["geometry"] == kind.lower()
            assert json.loads((folder / "geometry.json").read_text())["geometry"] == kind
            assert load(folder / "geometry.safetensors").record["tasks"] == others
    costs = [note.split(":")[0] for note in result["notes"] if "held out" in note]
    assert costs == [f"{variant}, for each task held out" for variant in VARIANTS]


def test_a_table_cut_short_is_continued_to_the_same_numbers(made, monkeypatch):
    path, result, make = made
    cut = json.loads((path / "cells.json").read_text())
    del cut["cells"]["2"]
    (path / "cells.json").write_text(json.dumps(cut))
    held, meta_train = [], _leave_one_out.meta_train

    def watched(setting, *rest):
        held.append((setting.config.held_out, setting.config.geometry))
        return meta_train(setting, *rest)

    monkeypatch.setattr(_leave_one_out, "meta_train", watched)
    again = make(True, in_turn=True)
    assert held == [("2", "diagonal"), ("2", "kronecker")]
    assert again == result
    with pytest.raises(ConfigError, match="^--steps: .* was made with [0-9]+, not 8; "):
        make(True, steps=8)


def test_a_finished_table_is_left_alone(made):
    path, result, make = made
    old = {**result, "wall_seconds": 7.0}
    (path / "summary.json").write_text(json.dumps(old))
    assert make(True) == old and make(True, in_turn=True) == old
    assert json.loads((path / "summary.json").read_text()) == old


@pytest.mark.parametrize("change", [slow("version"), "grid"])
def test_a_table_begun_on_other_terms_is_made_anew(made, tmp_path, monkeypatch, change):
    """Scores of another grid were read with this one, and cells of two versions stood together."""
    path, result, _ = made
    old = tmp_path / "old"
    shutil.copytree(path, old)
    for name in ("summary.json", "curves.json"):
        (old / name).unlink()
    cells = json.loads((old / "cells.json").read_text())
    del cells["cells"]["2"]
    shutil.rmtree(old / "2" / "metamd")
    (old / "2" / "metamd" / "checkpoints").mkdir(parents=True)  # as a kill may leave it
    (old / "cells.json").write_text(json.dumps(cells))
    if change == "version":
        monkeypatch.setattr(_tuning, "__version__", "0.0.1")
    else:
        fewer = dataclasses.replace(find_baseline("SGD"), grid=find_baseline("SGD").grid[::-2])
        monkeypatch.setattr(_compare, "find_baseline", {"SGD": fewer}.get)
    told = {"recipe": "toys", "seed": 0, "budget": "smoke", "data": None, "resume": True}
    told |= {"progress": QUIET, "command": "mirrax reproduce toys --resume", "variants": VARIANTS}
    judged = []
    evaluate = _leave_one_out.evaluate
    monkeypatch.setattr(
        _leave_one_out, "evaluate", lambda *given, **kw: judged.append(1) or evaluate(*given, **kw)
    )
    again = leave_one_out(dataclasses.replace(STUDY, in_turn=True), old, **told)
    assert len(judged) == 3
    tried = {cells["SGD"]["tuning"]["trials"] for cells in again["cells"].values()}
    assert tried == ({len(fewer.grid)} if change == "grid" else {15})
    assert (again == result) == (change == "version")


def row(accuracy, loss, steps):
    """Means over two tasks, of one seed each."""
    fill = lambda values: spread(values, 2)  # noqa: E731
    return {
        "test_accuracy": fill(accuracy),
        "final_loss": fill(loss),
        "steps_to": {"0.1": fill(steps), "0.3": fill(steps)},
    }


def test_standing_against_the_best_baseline_of_each_column():
    means = {
        "MetaMD": row([0.9, 0.8], [0.1, 0.3], [10, 20]),
        "Euclidean": row([1.0, 1.0], [0.0, 0.0], [1, 1]),
        "SGD": row([0.8, 0.7], [0.4, 0.4], [30, 30]),
        "Adam": row([0.6, 0.5], [0.3, 0.2], [None, 5]),
    }
    found = against_best(means, "MetaMD", ["MetaMD"])
    assert found["accuracy"]["rival"] == "SGD"
    assert np.isclose(found["accuracy"]["gain"], 0.1)
    assert np.isclose(found["accuracy"]["paired_se"], 0, atol=1e-12)
    assert found["final_loss"]["rival"] == "Adam"
    assert np.isclose(found["final_loss"]["ratio"], 0.8)
    assert found["steps_to"]["0.1"]["rival"] == "SGD"
    assert np.isclose(found["steps_to"]["0.1"]["ratio"], 0.5)


def test_standing_of_what_diverged_or_never_arrived():
    means = {
        "MetaMD": row([0.1, 0.1], [None, 0.3], [None, 20]),
        "SGD": row([0.8, 0.7], [0.4, 0.4], [30, 30]),
    }
    found = against_best(means, "MetaMD", ["MetaMD"])
    assert found["final_loss"] is None and found["steps_to"]["0.1"] is None
    means["SGD"] = row([0.8, 0.7], [None, 1.0], [None, None])
    means["MetaMD"] = row([0.9, 0.9], [0.1, 0.1], [1, 1])
    found = against_best(means, "MetaMD", ["MetaMD"])
    assert found["final_loss"] is None and found["steps_to"]["0.1"] is None


def test_no_ratio_to_a_rival_at_zero():
    """It was at a target before its first step, or its loss has underflowed."""
    means = {
        "MetaMD": row([0.9, 0.9], [0.1, 0.0], [1, 0]),
        "SGD": row([0.8, 0.7], [0.0, 0.0], [0, 0]),
    }
    found = against_best(means, "MetaMD", ["MetaMD"])
    assert found["final_loss"] is None and found["steps_to"] == {"0.1": None, "0.3": None}
    assert np.isclose(found["accuracy"]["gain"], 0.15)
    table = standing_table({"against_best_baseline": {"MetaMD": found}})
    assert [column.key for column in table.columns] == ["geometry", "accuracy"]
    means["SGD"] = row([0.8, 0.7], [0.2, 0.2], [2, 2])
    means["MetaMD"] = row([0.9, 0.9], [0.0, 0.0], [0, 0])
    found = against_best(means, "MetaMD", ["MetaMD"])
    assert found["final_loss"]["ratio"] == found["steps_to"]["0.1"]["ratio"] == 0


def test_neither_the_control_nor_an_averaged_geometry_is_a_baseline():
    means = {
        "MetaMD": row([0.8, 0.8], [0.2, 0.2], [20, 20]),
        "MetaMD, averaged": row([0.9, 0.9], [0.1, 0.1], [10, 10]),
        "Euclidean": row([1.0, 1.0], [0.0, 0.0], [1, 1]),
        "Euclidean, averaged": row([1.0, 1.0], [0.0, 0.0], [1, 1]),
        "AdamW, schedule-free": row([0.7, 0.7], [0.4, 0.4], [40, 40]),
        "SGD": row([0.6, 0.6], [0.5, 0.5], [50, 50]),
    }
    learned = ["MetaMD", "MetaMD, averaged"]
    for name, gain, loss, steps in (("MetaMD", 0.1, 0.5, 0.5), (learned[1], 0.2, 0.25, 0.25)):
        found = against_best(means, name, learned)
        columns = (found["accuracy"], found["final_loss"], *found["steps_to"].values())
        assert [column["rival"] for column in columns] == ["AdamW, schedule-free"] * 4
        assert np.isclose(found["accuracy"]["gain"], gain)
        assert np.isclose(found["final_loss"]["ratio"], loss)
        assert np.isclose(found["steps_to"]["0.1"]["ratio"], steps)


def test_learning_curves_are_kept_and_drawn_task_by_task(made):
    path, result, _ = made
    curves = json.loads((path / "curves.json").read_text())
    assert curves["steps"] == [0, 2, 4]
    assert list(curves["tasks"]) == list(result["cells"])
    for task, row in curves["tasks"].items():
        assert list(row) == list(result["cells"][task])
        for curve in row.values():
            low, mean, high = (np.array(curve[key]) for key in ("low", "mean", "high"))
            assert (low <= mean * (1 + 1e-6)).all() and (mean <= high * (1 + 1e-6)).all()
        assert (path / "figures" / f"curves-{task}.svg").exists()
    assert (path / "figures" / "curves.svg").exists()


def test_curves_that_were_lost_or_damaged_are_written_again(made):
    path, result, make = made
    file, figure = path / "curves.json", path / "figures" / "curves-1.svg"
    kept, drawn_before = file.read_bytes(), figure.read_bytes()
    for content in (None, b'{"steps": [1'):
        file.unlink() if content is None else file.write_bytes(content)
        figure.unlink()
        assert make(True)["cells"] == result["cells"]
        assert file.read_bytes() == kept and figure.read_bytes() == drawn_before
