"""Records of what made a result: sessions, commits, and when nothing is written."""

import dataclasses
import json
import shutil
import subprocess

import pytest

from mirrax._errors import ConfigError, MirraxError
from mirrax._machine import commit
from mirrax.report import record_table
from mirrax.study import _provenance
from mirrax.study._provenance import asked_for, check_same, recorded


@dataclasses.dataclass(frozen=True)
class Toy:
    steps: int = 5


TOY = Toy()
TOLD = {"name": "toys", "command": "mirrax train toys", "seed": 3, "budget": "smoke"}


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    time = {"now": 100.0}
    monkeypatch.setattr(_provenance.time, "perf_counter", lambda: time["now"])
    return time


@pytest.fixture
def on(monkeypatch):
    """Computes on a machine of so many cores."""

    def on(cores):
        monkeypatch.setattr(_provenance, "machine", lambda: {"cores": cores, "versions": {}})

    on(2)
    return on


def read(path):
    return json.loads((path / "record.json").read_text())


def parts(path):
    return [(part["cores"], part["seconds"], part["sessions"]) for part in read(path)["made_by"]]


def work(path, clock, seconds):
    with recorded(path, TOY, **TOLD) as recorder:
        recorder.keep()
        clock["now"] += seconds


def test_sessions_are_added_and_those_of_other_machines_listed(tmp_path, clock, on):
    work(tmp_path, clock, 5.0)
    assert parts(tmp_path) == [(2, 5.0, 1)]
    work(tmp_path, clock, 7.0)
    assert parts(tmp_path) == [(2, 12.0, 2)]
    on(4)
    work(tmp_path, clock, 1.0)
    on(2)
    work(tmp_path, clock, 2.0)
    assert parts(tmp_path) == [(2, 12.0, 2), (4, 1.0, 1), (2, 2.0, 1)]
    rows = {row[0].text: row[1].text for row in record_table(read(tmp_path)).rows}
    assert rows["Wall time"] == "15 s" and rows["Seed"] == "3"
    assert rows["Hardware, part 2"].startswith("cores 4")


def test_the_command_of_a_continued_run_is_its_first(tmp_path, clock, on):
    work(tmp_path, clock, 1.0)
    told = {"command": "mirrax train toys --resume", "name": "toys", "seed": 0, "budget": None}
    with recorded(tmp_path, Toy(steps=7), **told) as recorder:
        recorder.keep()
    assert {key: read(tmp_path)[key] for key in TOLD} == TOLD
    assert read(tmp_path)["fields"] == {"steps": 7}, "as it went on"


def test_a_session_that_only_makes_another_table_is_recorded(tmp_path, clock, on):
    """All its runs were finished: nothing was begun, and yet the fields are new ones."""
    work(tmp_path, clock, 1.0)
    told = {**TOLD, "command": "mirrax train toys --resume --steps 7"}
    with recorded(tmp_path, TOY, **told):
        pass
    assert len(read(tmp_path)["made_by"]) == 1, "nothing is new"
    with recorded(tmp_path, Toy(steps=7), **told):
        clock["now"] += 2.0
    found = read(tmp_path)
    assert found["fields"] == {"steps": 7}
    assert [(part["command"], part["seconds"]) for part in found["made_by"][1:]] == [
        (told["command"], 2.0)
    ]


def test_sessions_of_other_options_are_told_apart(tmp_path, clock, on):
    asked = [
        "--rate 0.1 --steps 2",
        "--steps 2 --resume --out=b",
        "--resume --rate 0.01",
        "--resume",
    ]
    for options in asked:
        command = f"mirrax train toys {options}"
        with recorded(tmp_path, TOY, **{**TOLD, "command": command}) as recorder:
            recorder.keep()
            clock["now"] += 1.0
    found = [(part["command"], part["sessions"]) for part in read(tmp_path)["made_by"]]
    first, third = f"mirrax train toys {asked[0]}", f"mirrax train toys {asked[2]}"
    assert found == [(first, 2), (third, 2)]
    text = record_table(read(tmp_path)).markdown()
    assert f"Command, part 1 | {first}" in text and f"Command, part 2 | {third}" in text


def test_two_commands_in_one_folder_keep_each_others_sessions(tmp_path, clock, on):
    recorders = []
    for cores in (2, 4):
        on(cores)
        recorders.append(_provenance.Recorder(tmp_path, TOY, **TOLD))
    for _ in range(3):
        for recorder in recorders:
            recorder.keep()
        clock["now"] += 10.0
    assert parts(tmp_path) == [(2, 20.0, 1), (4, 20.0, 1)]


@pytest.mark.parametrize("known", [{"seconds": 60.25}, {}])
def test_a_run_begun_without_a_record_has_a_first_part(tmp_path, clock, on, known):
    config = {"recipe": "toys", "seed": 5, "budget": "paper", "fields": {}, "command": "mirrax old"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "cells.json").write_text(json.dumps({"cells": {}, "scores": {}, **known}))
    work(tmp_path, clock, 5.0)
    found = read(tmp_path)
    assert (found["command"], found["seed"], found["budget"]) == ("mirrax old", 5, "paper")
    first, second = found["made_by"]
    assert first["command"] == "mirrax old" and first["commit"] is None and first["started"] is None
    assert second["command"] == TOLD["command"] and second["seconds"] == 5.0
    rows = {row[0].text: row[1].text for row in record_table(found).rows}
    told = ("1 min 0 s", "1 min 5 s") if known else ("not recorded", "not recorded")
    assert (rows["Wall time, part 1"], rows["Wall time"]) == told


def test_what_differs_from_part_to_part_is_no_field_of_a_record(tmp_path, clock, on):
    with recorded(tmp_path, TOY, **TOLD, varies={"steps"}) as recorder:
        recorder.keep()
    assert read(tmp_path)["fields"] == {}


def test_no_password_is_written_down(tmp_path, clock, on):
    @dataclasses.dataclass(frozen=True)
    class Stored:
        storage: str = "mysql://ada:secret@host/trials"

    with recorded(tmp_path, Stored(), **TOLD) as recorder:
        recorder.keep()
    assert read(tmp_path)["fields"] == {"storage": "mysql://ada:***@host/trials"}


def test_the_record_of_something_else_is_not_continued(tmp_path, clock, on):
    work(tmp_path, clock, 1.0)
    check_same(tmp_path, "toys")
    check_same(tmp_path / "none", "toys")
    with pytest.raises(ConfigError, match="was made by mirrax toys; choose another --out"):
        check_same(tmp_path, "s000-fig1")


def test_a_run_goes_on_with_its_own_seed_and_budget(tmp_path, clock, on):
    def asked(**given):
        return asked_for(tmp_path, "toys", resume=True, **{"seed": None, "budget": None, **given})

    assert asked() == {"seed": 0, "budget": "default"}  # nothing was begun
    assert asked(seed=4) == {"seed": 4, "budget": "default"}
    on(2)
    work(tmp_path, clock, 1)
    made = {"seed": 3, "budget": "smoke"}
    assert asked() == asked(seed=3) == asked(**made) == made
    with pytest.raises(ConfigError, match="--seed: .* was made with 3, not 0; ask for the same"):
        asked(seed=0)
    with pytest.raises(ConfigError, match="--budget: .* was made with smoke, not default; ask"):
        asked(budget="default")
    with pytest.raises(ConfigError, match="was made by mirrax toys; choose another --out"):
        asked_for(tmp_path, "others", seed=3, budget=None, resume=True)
    again = {"seed": 5, "budget": None, "resume": False}
    assert asked_for(tmp_path, "others", **again) == {"seed": 5, "budget": "default"}


def test_a_killed_session_counts_to_its_last_sign_of_progress(tmp_path, clock, on):
    recorder = _provenance.Recorder(tmp_path, TOY, **TOLD)
    recorder.keep()
    for _ in range(3):
        clock["now"] += 6.0
        recorder.keep()
    assert parts(tmp_path) == [(2, 12.0, 1)], "at most every ten seconds"
    work(tmp_path, clock, 1.0)
    assert parts(tmp_path) == [(2, 13.0, 2)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ConfigError("no")])
def test_how_a_session_ends_does_not_matter(tmp_path, clock, on, error):
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        with recorded(tmp_path, TOY, **TOLD) as recorder:
            recorder.keep()
            clock["now"] += 3.0
            raise error
    assert parts(tmp_path) == [(2, 3.0, 1)]


def test_without_a_folder_or_progress_nothing_is_written(tmp_path, clock, on):
    with pytest.raises(ConfigError), recorded(tmp_path, TOY, **TOLD):
        raise ConfigError("exists already")
    assert not list(tmp_path.iterdir())
    with recorded(tmp_path / "later", TOY, **TOLD) as recorder:
        recorder.keep()
        assert not (tmp_path / "later").exists() and not recorder.begun
        (tmp_path / "later").mkdir()
        recorder.keep()
        assert recorder.begun
    assert recorder.read() == read(tmp_path / "later")
    assert _provenance.Recorder(tmp_path, TOY, **TOLD).read() is None


def test_a_record_that_cannot_be_written_does_not_hide_what_went_wrong(
    tmp_path, clock, on, monkeypatch
):
    def full(path, obj):
        raise MirraxError("cannot write: the disk is full")

    with pytest.raises(KeyboardInterrupt), recorded(tmp_path, TOY, **TOLD) as recorder:
        recorder.keep()
        monkeypatch.setattr(_provenance, "write_json", full)
        raise KeyboardInterrupt


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_that_of_a_source_tree_and_of_no_installed_package(tmp_path):
    def git(*words):
        done = subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    package, installed = tmp_path / "src", tmp_path / ".venv"
    for folder in (package, installed):
        folder.mkdir()
        (folder / "__init__.py").write_text("")
    git("init", "--quiet")
    git("add", "src")
    git("commit", "--quiet", "-m", "one")
    assert commit.__wrapped__(package) == git("rev-parse", "HEAD")
    assert commit.__wrapped__(installed) is None
    assert commit.__wrapped__(tmp_path / "nowhere") is None
    (tmp_path / "notes.txt").write_text("beside the package")
    assert commit.__wrapped__(package) == git("rev-parse", "HEAD")
    (package / "new.py").write_text("")
    assert commit.__wrapped__(package) == git("rev-parse", "HEAD") + "+"
