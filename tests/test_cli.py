"""The command line: one real run, and everything that can be asked wrongly."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from mirrax import cli, deploy
from mirrax._errors import ConfigError
from mirrax.geometry import Diagonal
from mirrax.study import _folder, _images, _train
from mirrax.study._config import fields_of, option
from mirrax.study._folder import RunFolder
from mirrax.study._recipes import RECIPES, find_recipe
from repeats import slow

SOURCE = Path(__file__).parents[1] / "src"
SMALL = [
    *("train", "rotated-digits", "--budget", "smoke", "--steps", "10", "--stride", "5"),
    *("--rounds", "2", "--baselines", "SGD", "--seeds", "2", "--model", "mlp-8"),
    *("--reference-steps", "20", "--rows", "200", "--timed", "false"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run, made as a user makes it."""
    path = tmp_path_factory.mktemp("cli") / "run"
    done = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-m", "mirrax", *SMALL, "--json"]
        + ["--out", str(path)],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "MPLBACKEND": "agg"},
    )
    assert done.returncode == 0, done.stderr
    return path, done


@pytest.fixture
def as_in_life(monkeypatch):
    """Studies run in float32 with standard promotion, and draw no figures here."""
    monkeypatch.setattr("mirrax.report.write_figures", lambda run: [])
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def test_json_is_one_object_on_standard_output(finished):
    path, done = finished
    assert len(done.stdout.splitlines()) == 1
    summary = json.loads(done.stdout)
    assert summary["held_out"].endswith("45") and summary["seeds"] == 2
    assert [row["optimiser"] for row in summary["comparison"]] == ["MetaMD", "Euclidean", "SGD"]
    assert summary["comparison"] == json.loads((path / "summary.json").read_text())["comparison"]
    assert "Traceback" not in done.stderr


def test_what_was_found_and_what_made_it_can_be_published(finished):
    path, done = finished
    result = json.loads((path / "result.json").read_text())
    assert result == json.loads(done.stdout)
    record = json.loads((path / "record.json").read_text())
    assert result["record"] == record and record["command"].startswith("mirrax train rotated")
    assert (record["seed"], record["budget"]) == (0, "smoke")
    (part,) = record["made_by"]
    assert part["seconds"] > 0 and part["cores"] >= 1 and part["versions"]["jax"] == jax.__version__
    text = (path / "result.md").read_text()
    assert "Comparison of optimisers" in text and record["command"] in text
    assert part["started"] in text and part["processor"] in text


def test_a_run_leaves_the_files_of_the_contract(finished):
    path, _ = finished
    names = {"config.json", "metrics.jsonl", "geometry.safetensors", "geometry.json"}
    names |= {"summary.json", "curves.json", "checkpoints", "figures"}
    names |= {"record.json", "result.json", "result.md"}
    assert names <= {file.name for file in path.iterdir()}
    assert not list(path.rglob("*.tmp"))
    config = json.loads((path / "config.json").read_text())
    assert config["fields"]["steps"] == 10 and config["fields"]["baselines"] == ["SGD"]
    assert config["command"].startswith("mirrax train rotated-digits --budget smoke --steps 10")
    assert len((path / "metrics.jsonl").read_text().splitlines()) == 2
    curves = json.loads((path / "curves.json").read_text())
    assert curves["steps"] == [0, 5, 10]
    assert all(len(curve["mean"]) == 3 for curve in curves["curves"].values())
    assert any(file.suffix == ".png" for file in (path / "figures").iterdir())
    artifact = deploy.load(path / "geometry.safetensors")
    assert artifact.rate == config["fields"]["rate"]
    assert artifact.roles["dense_0/weight"] == ("in", "out")
    # Hidden units are exchangeable, so they share their rates.
    shared = artifact.geometry.log_diagonal["dense_0"]["weight"]
    assert bool(jnp.all(shared == shared[:, :1])) and not bool(jnp.all(shared == shared[:1]))


def _seconds(path):
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return round(sum(json.loads(line)["seconds"] for line in lines), 2)


def test_a_finished_run_is_called_again_without_a_trace_in_its_record(
    finished, tmp_path, as_in_life, capsys
):
    path, done = finished
    copy = tmp_path / "copy [/of it]"
    shutil.copytree(path, copy)
    assert cli.main([*SMALL, "--out", str(copy), "--resume"]) == 0
    assert f"Results are in {copy}.\n" in capsys.readouterr().out
    assert (copy / "record.json").read_bytes() == (path / "record.json").read_bytes()
    summary = json.loads((copy / "summary.json").read_text())
    assert summary == json.loads((path / "summary.json").read_text())
    assert summary["meta_training_seconds"] == _seconds(path)


def test_resuming_gives_the_same_bytes(finished, tmp_path, as_in_life, capsys):
    path, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    for name in ("geometry.safetensors", "summary.json", "curves.json", "comparison-grid.json"):
        (copy / name).unlink()
    (copy / "checkpoints" / "round-000002.safetensors").write_bytes(b"cut short")
    assert cli.main([*SMALL, "--out", str(copy), "--resume", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert any("round-000002" in note for note in summary["notes"])
    assert summary["meta_training_seconds"] == _seconds(copy)
    # The second session is of the same machine, and its time is added.
    (before,), (after,) = (
        json.loads((place / "record.json").read_text())["made_by"] for place in (path, copy)
    )
    assert after["sessions"] == 2 and after["seconds"] > before["seconds"]
    assert after["started"] == before["started"]
    name = "geometry.safetensors"
    assert (copy / name).read_bytes() == (path / name).read_bytes()
    assert (copy / "curves.json").read_bytes() == (path / "curves.json").read_bytes()
    assert (copy / "config.json").read_bytes() == (path / "config.json").read_bytes()
    assert len((copy / "metrics.jsonl").read_text().splitlines()) == 2


# The first ends in a finite, huge loss, the second in none.
@pytest.mark.parametrize("rate", ["1e+06", slow("1e+30")])
def test_divergence_is_named_and_resumed_with_a_smaller_rate(
    rate, finished, tmp_path, as_in_life, capsys, monkeypatch
):
    path, run = tmp_path / "run", finished[0]
    assert cli.main([*SMALL, "--rate", rate, "--out", str(path)]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("mirrax: the inner loop diverged")
    assert "round 0, task rotated-digits/" in error and "step " in error and f"rate {rate}" in error
    assert not (path / "geometry.safetensors").exists() and not list(path.rglob("*.tmp"))
    # The comparison is that of the finished run; here only the learning is of interest.
    rows = json.loads((run / "summary.json").read_text())["comparison"]
    curves = json.loads((run / "curves.json").read_text())["curves"]
    monkeypatch.setattr(_train, "compare_images", lambda *_: (rows, curves, []))
    words = ["train", "rotated-digits", "--out", str(path), "--resume"]
    assert cli.main([*words, "--rate", "0.1"]) == 0
    config = json.loads((path / "config.json").read_text())
    assert config["fields"]["rate"] == 0.1
    name = "geometry.safetensors"
    assert (path / name).read_bytes() == (run / name).read_bytes()
    capsys.readouterr()
    # From now on the tasks cannot change, or the held-out one would have been seen.
    assert cli.main([*words, "--held-out", "75"]) == 2
    assert "--held-out: cannot change once meta-training has begun" in capsys.readouterr().err


def fails(words, capsys, code=2):
    assert cli.main(list(map(str, words))) == code
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err and err.startswith("mirrax: ")
    return err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "no command 'trian'; known are .* Did you mean 'train'"),
        (["train", "rotated-digts"], "no recipe 'rotated-digts'. Did you mean 'rotated-digits'"),
        (["train", "rotated-digits", "--rouds", "3"], "no field --rouds .*Did you mean 'rounds'"),
        (["train", "rotated-digits", "--budget", "smal"], "--budget: expected smoke.*'smal'"),
        (["train", "rotated-digits", "--rate", "-0.1"], "--rate: expected a positive.*-0.1"),
        (["train", "rotated-digits", "--rate", "0"], "--rate: expected a positive"),
        (["train", "rotated-digits", "--rate", "nan"], "--rate: expected a positive"),
        (["train", "rotated-digits", "--rounds"], "--rounds: a value is missing"),
        (["train", "--rounds", "5"], "mirrax train needs a name; see mirrax list"),
        (["train"], "mirrax train needs a name"),
        (["train", "rotated-digits", "--seed", "-1"], "--seed: expected 0 to"),
        (["train", "rotated-digits", "--seed", "99999999999"], "--seed: expected 0 to"),
        (["train", "rotated-digits", "--held-out", "46"], "--held-out: no task '46'"),
        (["train", "rotated-digits", "--model", "lenet"], "Did you mean 'lenet5' or"),
        (["train", "rotated-digits", "--model", "conv4-32"], "--model: conv4.* 16 by 16 pixels"),
        (["train", "rotated-digits", "--model", "lenet5"], "--model: lenet5.* 12 by 12 pixels"),
        (["reproduce", "rotated-digits", "--model", "lenet5"], "--model: lenet5.* 12 by 12 pixels"),
        (["train", "rotated-digits", "--examples", "2"], "--examples: .* apart.* got 2; give more"),
        (["reproduce", "rotated-digits", "--examples", "1"], "--examples: .* apart.* got 1"),
        (
            ["reproduce", "s002-fig1", "--budget", "smoke", "--examples", "1"],
            "--examples: .* apart.* got 1",
        ),
        (["train", "rotated-digits", "--baselines", "Adma"], "Did you mean 'Adam'"),
        (["train", "rotated-digits", "--resume"], "is not a run folder"),
        (["train", "rotated-mnist", "--data", "nowhere"], "nowhere"),
        (["train", "quadratics", "--flatness", "-1"], "--flatness: expected positive"),
        (["compare", "nowhere"], "nowhere is not a run folder"),
        (
            ["compare", "nowhere", "--tune", "random"],
            "--tune: expected grid or bayes, got 'random'",
        ),
        (["compare", "nowhere", "--trials", "many"], "--trials: invalid int value: 'many'"),
        (["train", "rotated-digits", "--tuner", "bays"], "--tuner: .*one of grid, bayes"),
        (["train", "rotated-digits", "--trials", "0"], "--trials: expected a positive"),
        (["train", "rotated-digits", "--trials", "7"], "--trials: is of --tuner bayes; choose"),
        (["train", "rotated-digits", "--storage", "a"], "--storage: is of --tuner bayes; choose"),
        (["reproduce", "rotated-digits", "--held-out", "9"], "--held-out: takes several values"),
        (
            ["train", "few-shot-glyphs", "--method", "json:dumps"],
            "'json:dumps' is no function",
        ),
        (["train", "nope"], r"no recipe 'nope'. Known: .*mini-imagenet\. See mirrax list"),
        (
            ["--json", "list"],
            "--json: options stand behind .*mirrax list --json",
        ),
        (["--data", "x", "train"], "--data: options stand behind the command, .*train --data"),
        (
            ["train", "rotated-digits", "--tuner", "bayes", "--storage", "nowhere/a"],
            "nowhere/a: its folder does not exist",
        ),
        (["certify", "nowhere"], "nowhere is not a run folder"),
        (["report", "nowhere"], "nowhere"),
        (["inspect", "nowhere.safetensors"], "there is no such file"),
        (["inspect", "nowhere", "--rate", "3"], "mirrax inspect has no option '--rate'"),
        (["reproduce", "s000-table3"], "no reproduction 's000-table3'. Did you mean"),
        (["reproduce", "rotated-digits", "--rate", "-1"], "--rate: expected a positive"),
        (["reproduce", "s000-table2", "--data", "nowhere"], "nowhere"),
        (["reproduce", "s000-fig5", "--geometry", "diagonal"], "--geometry: s000-fig5 shows which"),
        (["data", "mnsit"], "no data set 'mnsit'.*Did you mean 'mnist'"),
        (["data", "--fetch"], "--fetch: name one data set"),
    ],
)
def test_bad_requests(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MIRRAX_DATA", raising=False)
    error = fails(words, capsys)
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["train", "reproduce"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "7"], "--seed: .* was made with 3, not 7; ask for the same to continue"),
        (["--budget", "paper"], "--budget: .* was made with smoke, not paper; ask for the same"),
        (["--seed", "3", "--budget", "default"], "--budget: .* was made with smoke, not default"),
    ],
)
def test_a_run_goes_on_with_no_other_seed_or_budget(verb, words, message, tmp_path, capsys):
    path, name = tmp_path / "run", "rotated-digits"
    fields = fields_of(find_recipe(name).at("smoke"))
    RunFolder.create(path, {"recipe": name, "seed": 3, "budget": "smoke", "fields": fields})
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    error = fails([verb, name, "--resume", "--out", path, *words], capsys)
    assert error.count("\n") == 1 and re.search(message, error), error
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--rounds", "5", "rotated-digits", "--seed=3"],
        ["train", "--rounds=5", "--seed", "3", "rotated-digits"],
        ["train", "--json", "rotated-digits", "--rounds", "5", "--seed", "3"],
        ["train", "--seed", "3", "--rounds", "5", "rotated-digits"],
    ],
)
def test_a_recipe_is_found_among_its_options(words):
    options, rest = cli._parse(words)
    assert (options.recipe, options.seed) == ("rotated-digits", 3)
    assert "=".join(rest) == "--rounds=5"


def test_a_list_of_values_is_not_a_recipe():
    words = ["train", "--baselines", "SGD", "Adam", "rotated-digits"]
    options, rest = cli._parse(words)
    assert options.recipe == "rotated-digits" and rest == ["--baselines", "SGD", "Adam"]
    words = ["train", "--json", "rotated-digits", "--baselines", "SGD", "Adam"]
    assert cli._parse(words)[0].recipe == "rotated-digits"


@pytest.mark.parametrize("name", ["s000-fig1", "s004-table1", "rotated-digits"])
def test_no_reproduction_touches_another_run(name, finished, capsys):
    path, _ = finished
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    words = ["reproduce", name, "--budget", "smoke", "--out", path]
    assert "exists already; pass --resume" in fails(words, capsys)
    error = fails([*words, "--resume"], capsys)
    assert f"{path} was made by mirrax train rotated-digits; choose another --out." in error
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def test_an_existing_run_is_refused_before_anything_is_loaded(finished, capsys, monkeypatch):
    path, _ = finished
    monkeypatch.setattr(_images, "load_family", None)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    assert "exists already; pass --resume" in fails([*SMALL, "--out", path], capsys)
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before
    error = fails(["train", "quadratics", "--out", path, "--resume"], capsys)
    assert "is a run of 'rotated-digits', not of 'quadratics'" in error


@pytest.mark.parametrize("damage", ["cut", "byte"])
def test_damaged_artifacts(finished, tmp_path, capsys, damage):
    data = bytearray((finished[0] / "geometry.safetensors").read_bytes())
    data[-7] ^= 1
    path = tmp_path / "geometry.safetensors"
    path.write_bytes(data[:-20] if damage == "cut" else data)
    error = fails(["inspect", path], capsys)
    assert str(path) in error and error.count("\n") == 1


@pytest.mark.parametrize("verb", ["compare", "certify"])
def test_an_artifact_of_another_architecture_shows_both_tables(finished, tmp_path, capsys, verb):
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    other = Diagonal({"dense_0": {"bias": jnp.zeros(3), "weight": jnp.zeros((64, 3))}})
    deploy.save(copy / "geometry.safetensors", other, rate=0.1)
    error = fails([verb, copy], capsys)
    assert "(64, 3)" in error and "(64, 8)" in error and "! dense_0/weight" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tune", "bayes", "--trials", "0"], "--trials: expected a positive number, got 0"),
        (["--tune", "bayes", "--baselines", "Adma"], "no baseline 'Adma'.* Did you mean 'Adam'"),
        (["--trials", "9"], "--trials and --storage are of --tune bayes"),
        (["--tune", "bayes", "--storage", "{run}/config.json"], "is not a journal of trials"),
        (["--tune", "bayes", "--storage", "{run}/a/b"], "a/b: its folder does not exist"),
        (["--tune", "bayes", "--storage", "{run}"], "a folder of that name exists"),
    ],
)
def test_bad_requests_to_compare(finished, words, message, capsys):
    path = finished[0]
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    error = fails(["compare", path, *(word.format(run=path) for word in words)], capsys)
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_compare_asks_for_every_baseline_and_shares_one_way_of_tuning(
    finished, as_in_life, capsys, monkeypatch
):
    from mirrax.study._baselines import BASELINES

    asked = []

    def compared(setting, geometry, folder, seed, progress):
        asked.append(setting.config)
        return [{"optimiser": "MetaMD", "hyperparameters": {}}], {}, ["a note"]

    monkeypatch.setattr(_train, "compare_images", compared)
    words = ["compare", str(finished[0]), "--baselines", "all", "--json", "--tune", "bayes"]
    assert cli.main([*words, "--trials", "7", "--storage", str(finished[0] / "t")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["notes"] == ["a note"] and result["comparison"][0]["optimiser"] == "MetaMD"
    (config,) = asked
    assert config.baselines == tuple(BASELINES)
    assert (config.tuner, config.trials, config.storage) == ("bayes", 7, str(finished[0] / "t"))
    shutil.rmtree(finished[0] / "compared-bayes")


def test_compare_leaves_what_it_found_and_what_made_it(finished, tmp_path, as_in_life, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    shutil.rmtree(copy / "compared-grid", ignore_errors=True)
    before = (copy / "record.json").read_bytes()
    run = json.loads(before)["made_by"]
    commands = []
    for names in (["SGD"], ["SGD"], ["SGD", "RMSprop"]):  # the first is known from the run
        words = ["compare", str(copy), "--baselines", *names, "--json"]
        assert cli.main(words) == 0
        result = json.loads(capsys.readouterr().out)
        assert json.loads((copy / "compared-grid" / "result.json").read_text()) == result
        assert names[-1] in (copy / "compared-grid" / "result.md").read_text()
        record, commands = result["record"], [*commands, " ".join(["mirrax", *words])]
        assert (record["name"], record["command"]) == ("compare rotated-digits", commands[0])
        parts = record["made_by"]
        assert parts[: len(run)] == run
        assert [part["command"] for part in parts[len(run) :]] == list(dict.fromkeys(commands))
    assert (copy / "record.json").read_bytes() == before


def test_ctrl_c_in_compare_says_how_to_go_on(finished, as_in_life, capsys, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_train, "compare_images", stopped)
    error = fails(["compare", finished[0]], capsys, 130)
    assert error == "mirrax: stopped; the same command continues.\n"


def test_inspect_and_list_print_json(finished, capsys):
    assert cli.main(["inspect", str(finished[0]), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["geometry"] == "Diagonal" and described["rate"] == 0.1
    assert cli.main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert "rotated-digits" in [row["name"] for row in listed["recipes"]]


def test_debug_raises():
    with pytest.raises(ConfigError, match="no recipe"):
        cli.main(["train", "nothing", "--debug"])


def test_a_variable_that_is_not_set_names_no_folder(monkeypatch, capsys):
    """`--data ""` was the folder one stands in."""
    asked = []
    monkeypatch.setattr(
        "mirrax.study.commands.run_list", lambda options, *_: asked.append(options.data) or {}
    )
    for words in (["--data", ""], ["--data", "here"]):
        assert cli.main(["list", "--json", *words]) == 0
    assert asked == [None, Path("here")]


def test_numbers_that_json_lacks_are_null(capsys, monkeypatch):
    monkeypatch.setattr(
        "mirrax.study.commands.run_list", lambda *_: {"bound": float("inf"), "regret": float("nan")}
    )
    assert cli.main(["list", "--json"]) == 0
    assert capsys.readouterr().out == '{"bound": null, "regret": null}\n'


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "stopped; add --resume"),
        (OSError(28, "No space left on device", "figures/a.png"), 2, "figures/a.png: the disk is"),
    ],
)
def test_what_the_world_does(error, code, words, capsys, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr("mirrax.study.commands.run_list", fail)
    assert words in fails(["list"], capsys, code)


@pytest.mark.parametrize("words", [["train", name] for name in RECIPES])
def test_help_shows_every_field_of_a_recipe(words, capsys):
    assert cli.main([*words, "--help", "--out", "nowhere"]) == 0
    shown = capsys.readouterr().out
    fields = [field.name for field in dataclasses.fields(RECIPES[words[1]].config)]
    for name in fields:
        assert re.search(rf"{option(name)}\b", shown), name


def test_help_shows_the_fields_of_a_reproduction_that_can_be_chosen(capsys):
    assert cli.main(["reproduce", "s000-table1-lenet", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--rounds" in shown and "one of grid, bayes" in " ".join(shown.split())
    assert "--held-out" not in shown and "--geometry" not in shown


def test_help_and_version(capsys):
    for words in (["--help"], ["train", "--help"], ["--version"]):
        with contextlib.suppress(SystemExit):
            cli.main(words)
        assert "mirrax" in capsys.readouterr().out
    assert cli.main([]) == 0 and "COMMAND" in capsys.readouterr().out


def test_a_full_disk_during_a_run_is_one_line(tmp_path, as_in_life, capsys, monkeypatch):
    from mirrax._errors import MirraxError

    def full(self, state, rounds):
        raise MirraxError("cannot write round-000001.safetensors: the disk is full; free some")

    monkeypatch.setattr(_folder.RunFolder, "save_checkpoint", full)
    path = tmp_path / "run"
    assert cli.main([*SMALL, "--out", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(path.rglob("*.tmp")) and (path / "config.json").exists()
