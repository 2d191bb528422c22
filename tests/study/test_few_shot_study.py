"""Few-shot studies as a user runs them: files, tables, resuming, and what is asked wrongly."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from mirrax import cli, deploy
from mirrax.deploy._archive import read_archive
from mirrax.study import _few_shot_learn, _few_shot_train
from mirrax.study._recipes import RECIPES
from mirrax.tasks import glyphs

WORDS = [
    *("train", "few-shot-glyphs", "--budget", "smoke", "--model", "mlp-8", "--stride", "2"),
    *("--meta-steps", "4", "--validate-every", "2", "--validation-tasks", "4"),
    *("--pilot-steps", "2"),
    *("--test-tasks", "8", "--curve-steps", "6", "--json"),
]


@pytest.fixture(scope="module", autouse=True)
def no_figures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mirrax.report.write_figures", lambda run, **kept: [])
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, as_in_life):
    path = tmp_path_factory.mktemp("few-shot") / "run"
    assert cli.main([*WORDS, "--out", str(path)]) == 0
    return path


def latest(path):
    """The arrays of a run's newest checkpoint."""
    return read_archive(max((path / "checkpoints").glob("*.safetensors")))[0]


def test_a_run_leaves_the_files_of_the_contract(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["kind"] == "few-shot"
    assert [row["method"] for row in summary["methods"]] == ["convex_potential", "maml"]
    assert summary["protocol"] == {
        "name": "standard",
        "way": 5,
        "shot": 1,
        "test_queries": 15,
        "train_queries": 15,
        "statistics": "query",
        "rotations": False,
        "inner_steps": 5,
        "rate": 0.1,
        "pilot_steps": None,
        "rate_unit": "mean cross-entropy",
        "tasks": 4,
        "validate_every": 2,
        "validation_tasks": 4,
        "test_tasks": 8,
        "optimiser": "adam",
        "outer_rate": 0.001,
        "decay": "none",
        "clip": 10.0,
        "on_failure": "stop",
        "first_order": False,
        "warp": "spatial",
        "penalty": 0.01,
    }
    for row in summary["methods"]:
        assert 0 <= row["test_accuracy"]["mean"] <= 1 and row["test_accuracy"]["ci95"] > 0
        assert len(row["adaptation"]["support_loss"]) == 7
        # The inner loop descends, whatever was learned in four steps.
        assert row["adaptation"]["support_loss"][-1] < row["adaptation"]["support_loss"][0]
        place = finished / row["method"] / "rate-0.1/seed-0"
        lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
        assert [line["round"] for line in lines] == [0, 2]
        assert {"config.json", "prior.safetensors", "result.json"} <= {
            file.name for file in place.iterdir()
        }
    place = finished / summary["methods"][0]["method"] / "rate-0.1/seed-0"
    prior, _ = read_archive(place / "prior.safetensors")
    start = deploy.load(finished / "geometry.safetensors").start
    assert start
    for name, array in start.items():
        np.testing.assert_array_equal(array, prior[f"start/{name}"])


def test_resuming_makes_nothing_again_and_changes_no_byte(finished, tmp_path, as_in_life):
    path = tmp_path / "run"
    shutil.copytree(finished, path)
    (path / "summary.json").unlink()
    before = json.loads((finished / "summary.json").read_text())
    assert cli.main([*WORDS[:2], "--resume", "--out", str(path), "--json"]) == 0
    after = json.loads((path / "summary.json").read_text())
    assert before == after


def test_a_run_stopped_and_continued_is_the_same_run(finished, tmp_path, as_in_life, monkeypatch):
    """Stopped after the first validation of the second method, with one line cut short."""
    path = tmp_path / "run"
    shutil.copytree(finished, path)
    place = path / "maml/rate-0.1/seed-0"
    for file in (
        "summary.json",
        "maml/rate-0.1/seed-0/result.json",
        "maml/rate-0.1/seed-0/prior.safetensors",
    ):
        (path / file).unlink()
    max((place / "checkpoints").glob("*.safetensors")).unlink()
    lines = (place / "metrics.jsonl").read_text().splitlines()
    (place / "metrics.jsonl").write_text(lines[0] + "\n" + lines[1][:20])
    assert cli.main([*WORDS[:2], "--resume", "--out", str(path), "--json"]) == 0
    expected, found = latest(finished / "maml/rate-0.1/seed-0"), latest(place)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.slow
def test_certify_says_which_map_has_a_potential(finished, as_in_life, capsys):
    assert cli.main(["certify", str(finished), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (row,) = found["maps"]
    assert row["method"] == "convex_potential" and row["potential"]
    assert [step["k"] for step in row["steps"]] == list(range(6))
    lower, upper = row["bounds"]
    for step in row["steps"]:
        # Rounding of float32 in Lanczos' method.
        assert 0 < lower <= step["smallest"] * (1 + 1e-5)
        assert step["largest"] <= upper * (1 + 1e-5)
        # Rounding of float32 in a sum over the 7,000 parameters.
        assert step["asymmetry"] < 1e-5
    assert found["counterexample"]["monotonicity"] == -9.0


def test_certify_says_what_is_not_finished(finished, tmp_path, as_in_life, capsys):
    path = tmp_path / "run"
    shutil.copytree(finished, path)
    (path / "convex_potential/rate-0.1/seed-0/prior.safetensors").unlink()
    assert cli.main(["certify", str(path)]) == 2
    error = capsys.readouterr().err
    assert "no finished method of this run has learned a mirror map" in error
    assert "(not finished: convex_potential)" in error


def test_inspect_shows_the_rate_of_every_parameter(finished, as_in_life, capsys):
    assert cli.main(["inspect", str(finished), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["geometry"] == "Transformed(ConvexPotential)" and found["rate"] == 0.1
    leaves = {leaf["name"]: leaf for leaf in found["leaves"]}
    assert leaves["dense_0/weight"]["roles"] == ["in", "out"]
    for leaf in leaves.values():
        # Four steps of 1e-3 have moved every factor by little, in whichever direction.
        assert leaf["rate_low"] > 0.09 and leaf["rate_high"] < 0.11


def test_report_prints_the_table(finished, as_in_life, capsys):
    assert cli.main(["report", str(finished)]) == 0
    text = capsys.readouterr().out
    assert "convex potential" in text and "5-way 1-shot" in text and "8 test tasks" in text


@pytest.mark.parametrize(
    "words, message",
    [
        (["--way", "400"], "episodes of 400 ways need 400 classes"),
        (["--shot", "10"], "need 25 images a class"),
        (["--method", "mamal"], "no few-shot method 'mamal'. Did you mean 'maml'"),
        (["--meta-steps", "5"], "--meta-steps: expected a multiple of --stride (2), got 5"),
        (["--curve-steps", "2"], "--curve-steps: expected at least --steps (5), got 2"),
        (["--method", "warp_maml"], "model 'mlp-8' has no warp layers"),
        (["--rate", "-1"], "--rate: expected a positive number, got -1.0"),
        (["--rate", "0.1", "0.1"], "--rate: expected different numbers, got (0.1, 0.1)"),
        (
            ["--rate", "1", "2", "--pilot-steps", "8"],
            "--pilot-steps: expected at most --meta-steps",
        ),
        (["--protocol", "offical"], "--protocol: cannot read 'offical' as one of standard"),
    ],
)
def test_bad_requests(words, message, tmp_path, as_in_life, capsys):
    assert cli.main([*WORDS, *words, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_checkpoints_of_another_method_are_refused(finished, tmp_path, as_in_life, capsys):
    path = tmp_path / "run"
    shutil.copytree(finished, path)
    (path / "summary.json").unlink()
    shutil.rmtree(path / "maml")
    shutil.copytree(path / "convex_potential", path / "maml")
    assert cli.main([*WORDS[:2], "--resume", "--out", str(path), "--json"]) == 2
    error = capsys.readouterr().err
    assert "has checkpoints of method 'convex_potential', not 'maml'" in error


def test_a_checkpoint_brought_from_another_method_is_refused(
    finished, tmp_path, as_in_life, capsys
):
    """It lies in MAML's own folder, and its arrays contain all that MAML asks for."""
    path = tmp_path / "run"
    shutil.copytree(finished, path)
    (path / "summary.json").unlink()
    theirs, ours = (path / f"{name}/rate-0.1/seed-0" for name in ("convex_potential", "maml"))
    for name in ("result.json", "prior.safetensors"):
        (ours / name).unlink()
    shutil.rmtree(ours / "checkpoints")
    shutil.copytree(theirs / "checkpoints", ours / "checkpoints")
    assert cli.main([*WORDS[:2], "--resume", "--out", str(path), "--json"]) == 2
    error = capsys.readouterr().err
    assert "is a checkpoint of method 'convex_potential', not 'maml'" in error


@pytest.mark.slow
def test_between_validations_a_checkpoint_is_kept_now_and_then(
    finished, tmp_path, as_in_life, monkeypatch
):
    """At least once a minute; here after every call."""
    monkeypatch.setattr("mirrax.study._few_shot_learn._SAVED_EVERY", 0.0)
    path = tmp_path / "run"
    words = [*WORDS, "--method", "maml", "--baselines", "maml", "--validate-every", "4"]
    assert cli.main([*words, "--out", str(path)]) == 0
    place = path / "maml/rate-0.1/seed-0"
    kept = sorted((place / "checkpoints").glob("*.safetensors"))
    assert [file.stem for file in kept] == ["round-000002", "round-000004"]
    expected = latest(place)
    for file in (kept[1], place / "result.json", path / "summary.json"):
        file.unlink()
    assert cli.main([*WORDS[:2], "--resume", "--out", str(path)]) == 0
    found = latest(place)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_what_would_be_another_run_cannot_change(finished, as_in_life, capsys):
    words = ["train", "few-shot-glyphs", "--resume", "--out", str(finished), "--shot", "2"]
    assert cli.main(words) == 2
    assert "--shot: cannot change once meta-training has begun" in capsys.readouterr().err


@pytest.mark.slow
def test_a_rate_that_diverges_late_in_its_pilot_is_not_chosen(
    finished, tmp_path, as_in_life, monkeypatch
):
    """However good its prior was before: the failure comes behind the first validation."""
    real = _few_shot_learn._divergence

    def diverges(records, made, run):
        return real(records, made, run) or (f"{run} diverged" if made >= 2 and fails else None)

    monkeypatch.setattr(_few_shot_learn, "_divergence", diverges)
    fails, path = True, tmp_path / "run"
    words = [*WORDS, "--method", "maml", "--rate", "0.1", "0.05", "--pilot-steps", "4"]
    assert cli.main([*words, "--out", str(path)]) == 3
    fails = False
    # What a rate came to is kept: nothing is tried again.
    assert cli.main([*WORDS[:2], "--resume", "--out", str(path)]) == 3
    (path / "maml/rate-0.05/seed-0/pilot.json").unlink()
    assert cli.main([*WORDS[:2], "--resume", "--out", str(path)]) == 0
    (row,) = json.loads((path / "summary.json").read_text())["methods"]
    assert row["rate"] == 0.05 and row["pilots"][0]["validation_accuracy"] is None


def test_nothing_that_a_failed_rate_depends_on_can_change(tmp_path, as_in_life, capsys):
    """A rate that diverged leaves no checkpoint, but an outcome that is not tried again."""
    path = tmp_path / "run"
    words = [*WORDS, "--method", "maml", "--rate", "1e30", "2e30", "--out", str(path)]
    assert cli.main(words) == 3
    assert not list(path.rglob("round-*")) and list(path.rglob("pilot.json"))
    capsys.readouterr()
    assert cli.main([*WORDS[:2], "--resume", "--out", str(path), "--outer-rate", "1e-4"]) == 2
    assert "--outer-rate: cannot change once meta-training has begun" in capsys.readouterr().err


def test_the_geometry_kept_is_that_of_the_method_asked_for(finished, tmp_path, as_in_life):
    path = tmp_path / "run"
    shutil.copytree(finished, path)
    words = [*WORDS[:2], "--resume", "--out", str(path), "--json"]
    assert cli.main([*words, "--method", "maml", "--baselines", "convex_potential"]) == 0
    assert type(deploy.load(path / "geometry.safetensors").geometry).__name__ == "Euclidean"
    # A geometry that no file can hold does not leave another method's behind.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploy, "storable", lambda geometry: False)
        assert cli.main([*words, "--method", "maml", "--baselines", "convex_potential"]) == 0
    assert not (path / "geometry.safetensors").exists()


def test_a_task_that_diverged_leaves_a_run_that_can_be_continued(
    finished, tmp_path, as_in_life, monkeypatch, capsys
):
    path = tmp_path / "run"
    shutil.copytree(finished, path)
    judge = _few_shot_train.judge

    def diverging(*arguments, **options):
        found = judge(*arguments, **options)
        losses, norms = found.query_loss.copy(), found.gradient_norm.copy()
        losses[0], norms[0, -1] = np.inf, np.nan
        return dataclasses.replace(found, query_loss=losses, gradient_norm=norms)

    monkeypatch.setattr(_few_shot_train, "judge", diverging)
    (path / "maml/rate-0.1/seed-0/result.json").unlink()
    words = [*WORDS[:2], "--resume", "--out", str(path), "--json"]
    (path / "summary.json").unlink()
    assert cli.main(words) == 0
    summary = json.loads((path / "summary.json").read_text())
    (row,) = [row for row in summary["methods"] if row["method"] == "maml"]
    assert row["query_loss"]["mean"] is None and row["query_loss"]["ci95"] is None
    assert row["adaptation"]["gradient_norm"][-1] is None
    assert row["adaptation"]["gradient_norm"][-2] > 0
    assert [note for note in summary["notes"] if note.startswith("maml")] == [
        "maml, seed 0: on 1 of 8 test tasks the query loss is not finite: all its images count as "
        "wrong, and it has no mean.",
        "maml, seed 0: on 1 of 4 meta-training tasks the query loss is not finite: it has no mean.",
    ]
    (path / "summary.json").unlink()
    assert cli.main(words) == 0
    assert json.loads((path / "summary.json").read_text()) == summary
    capsys.readouterr()
    assert cli.main(["report", str(path)]) == 0 and "–" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_is_prolonged_is_the_one_that_was_to_be_as_long(tmp_path, as_in_life):
    """The end of the shorter one, between two validations, is none that the longer one knows."""
    words = [*WORDS, "--method", "maml", "--baselines", "--validate-every", "4", "--json"]
    for path, lengths in (("once", ["10"]), ("twice", ["6", "10"])):
        for length in lengths:
            resume = ["--resume"] * (length != lengths[0])
            out = ["--out", str(tmp_path / path), "--meta-steps", length]
            assert cli.main([*words, *out, *resume]) == 0
    once, twice = (
        json.loads((tmp_path / path / "maml/rate-0.1/seed-0/result.json").read_text())
        for path in ("once", "twice")
    )
    for name in ("best_step", "validation_accuracy", "test_accuracies", "train_loss"):
        assert once[name] == twice[name]


def test_a_method_that_diverges_is_left_out_and_named(tmp_path, as_in_life, capsys):
    """A rate of 1e20 overflows float32 in the first inner step."""
    words = [*WORDS, "--rate", "1e20", "--out", str(tmp_path / "run")]
    assert cli.main(words) == 3
    error = capsys.readouterr().err
    assert "the outer loop diverged: convex_potential, seed 0, meta-step 0" in error
    assert "smaller --rate" in error


def test_each_method_keeps_its_best_rate_and_goes_on_from_there(finished, tmp_path, as_in_life):
    """1e20 diverges at once; what 0.1 becomes is, to the bit, the run that had no choice."""
    path = tmp_path / "run"
    words = [*WORDS, "--method", "maml", "--rate", "1e20", "0.1", "--out", str(path)]
    assert cli.main(words) == 0
    summary = json.loads((path / "summary.json").read_text())
    assert summary["protocol"]["rate"] == [1e20, 0.1] and summary["protocol"]["pilot_steps"] == 2
    (row,) = summary["methods"]
    assert row["rate"] == 0.1
    assert [pilot["validation_accuracy"] is None for pilot in row["pilots"]] == [True, False]
    assert "maml, rate 1e+20: the outer loop diverged" in summary["notes"][0]
    place = "maml/rate-0.1/seed-0"
    for name, array in latest(finished / place).items():
        np.testing.assert_array_equal(latest(path / place)[name], array, err_msg=name)


def test_what_a_rate_came_to_is_made_again_behind_a_run_that_went_on(tmp_path, as_in_life, capsys):
    """Its run has more meta-steps by then, and keeps them; nor is the choice another."""
    path = tmp_path / "run"
    words = [*WORDS, "--method", "maml", "--baselines", "maml", "--rate", "0.1", "0.05"]
    assert cli.main([*words, "--out", str(path)]) == 0
    before = json.loads((path / "summary.json").read_text())
    place = path / f"maml/rate-{before['methods'][0]['rate']!r}/seed-0"
    kept = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    assert len(list((place / "checkpoints").iterdir())) == 2
    (place / "pilot.json").write_text('{"rate": 0.')
    resumed = [*WORDS[:2], "--resume", "--out", str(path)]
    capsys.readouterr()
    assert cli.main(resumed) == 2
    assert "pilot.json is damaged; delete it and pass --resume" in capsys.readouterr().err
    (place / "pilot.json").unlink()
    assert cli.main(resumed) == 0
    assert {file: file.read_bytes() for file in place.rglob("*") if file.is_file()} == kept
    assert json.loads((path / "summary.json").read_text()) == before
    assert not (place / "pilot").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"basis": None},
        {"test_accuracy": {"mean": 0.5}},
        {"test_accuracies": [0.5]},
        {"query_loss": "low"},
        {"train_loss": []},
        {"validation_accuracy": 0.5},
        {"adaptation": {"steps": [0]}},
        {"training": {"steps": [2, 4], "loss": [0.5]}},
        {"failure": 7},
    ],
    ids=lambda change: next(iter(change)),
)
def test_results_that_are_none_are_damaged(finished, tmp_path, as_in_life, capsys, change):
    """Valid JSON, as of a file of something else that was laid there."""
    path = tmp_path / "run"
    shutil.copytree(finished, path)
    (path / "summary.json").unlink()
    file = path / "maml/rate-0.1/seed-0/result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert cli.main([*WORDS[:2], "--resume", "--out", str(path), "--json"]) == 2
    assert f"{file} is damaged; delete it and pass --resume" in capsys.readouterr().err


def test_a_baseline_that_diverges_becomes_a_note(finished, tmp_path, as_in_life, monkeypatch):
    path = tmp_path / "run"
    shutil.copytree(finished, path)
    (path / "summary.json").unlink()
    shutil.rmtree(path / "maml")
    real = _few_shot_train.learn_prior

    def fails(setting, method, *rest, **options):
        if method == "maml":
            raise _few_shot_train.NumericalError("the outer loop diverged: maml, meta-step 3")
        return real(setting, method, *rest, **options)

    monkeypatch.setattr(_few_shot_train, "learn_prior", fails)
    assert cli.main([*WORDS[:2], "--resume", "--out", str(path), "--json"]) == 0
    summary = json.loads((path / "summary.json").read_text())
    assert [row["method"] for row in summary["methods"]] == ["convex_potential"]
    assert any(note.startswith("maml is left out") for note in summary["notes"])


# --- what studies are made of -----------------------------------------------------------------


@pytest.fixture
def small_images(monkeypatch):
    """miniImageNet's place is taken by glyphs; the rows are few."""
    monkeypatch.setattr("mirrax.study._few_shot.mini_imagenet", lambda data: glyphs())
    monkeypatch.setattr(
        "mirrax.study._recipes.RECIPES",
        {"mini-imagenet": dataclasses.replace(RECIPES["mini-imagenet"], needs=())},
    )
    for name, rows in {"TABLE1": (), "FIGURE1": ("anil",)}.items():
        monkeypatch.setattr(f"mirrax.study._reproduce_few_shot.{name}", rows)


BRIEF = [
    *("--budget", "smoke", "--model", "mlp-8", "--method", "maml", "--meta-steps", "2"),
    *("--stride", "2", "--validate-every", "2", "--validation-tasks", "4", "--test-tasks", "6"),
]


@pytest.mark.slow
def test_the_table_of_the_paper_is_made_again(small_images, tmp_path, as_in_life, capsys):
    words = ["reproduce", "s004-table1", *BRIEF, "--out", str(tmp_path / "run")]
    assert cli.main(words) == 0
    found = json.loads((tmp_path / "run/result.json").read_text())["shots"]
    assert {name: run["protocol"]["shot"] for name, run in found.items()} == {
        "1-shot": 1,
        "5-shot": 5,
    }
    text = capsys.readouterr().out
    assert "48.70 ± 1.84" in text, "the paper's MAML"
    assert cli.main([*words[:-1], str(tmp_path / "other"), "--shot", "5"]) == 2
    assert "--shot: s004-table1 has runs of 1 and of 5 shots" in capsys.readouterr().err


@pytest.mark.slow
def test_the_figure_of_the_paper_is_made_again(small_images, tmp_path, as_in_life, capsys):
    words = ["reproduce", "s004-fig1", *BRIEF, "--out", str(tmp_path / "run")]
    assert cli.main(words) == 0
    rows = json.loads((tmp_path / "run/summary.json").read_text())["methods"]
    assert [row["method"] for row in rows] == ["maml", "anil"]
    assert all(row["adaptation"]["steps"] == list(range(11)) for row in rows)
    assert "after k steps" in capsys.readouterr().out
