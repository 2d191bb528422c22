"""Reading a run folder: whole, in progress, killed, damaged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mirrax._errors import MirraxError
from mirrax.report import Run


def failure(folder: Path) -> str:
    """The one line that reading `folder` ends with."""
    with pytest.raises(MirraxError) as caught:
        Run.read(folder)
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.exit_code == 2
    return line


def test_a_finished_run_is_read_whole(run_folder):
    run = Run.read(run_folder)
    assert run.recipe == "rotated-digits"
    assert run.command.startswith("mirrax train rotated-digits --seed 0")
    assert [record["round"] for record in run.rounds] == list(range(12))
    for name in ("summary", "curves", "geometry"):
        assert getattr(run, name) == json.loads((run_folder / f"{name}.json").read_text())
    assert run.notes == ()
    shares = run.activation_by_step
    assert shares == run.rounds[-1]["activation_by_step"]


def test_wall_time_and_hardware_come_from_the_record(run_folder):
    path = run_folder / "summary.json"
    summary = json.loads(path.read_text())
    del summary["wall_seconds"], summary["hardware"]
    path.write_text(json.dumps(summary))
    parts = [{"seconds": 60.0, "cores": 2}, {"seconds": 30.5, "cores": 4}]
    (run_folder / "record.json").write_text(json.dumps({"made_by": parts}))
    facts = {"wall_seconds": 90.5, "hardware": "cores 2; cores 4"}
    assert Run.read(run_folder).summary == {**summary, **facts}
    (run_folder / "record.json").write_text('{"made_by": [3]}')
    assert "record.json" in failure(run_folder)


def test_a_run_in_progress_has_only_some_files(run_folder):
    for name in ("summary.json", "curves.json", "geometry.json", "metrics.jsonl"):
        (run_folder / name).unlink()
    run = Run.read(run_folder)
    assert run.rounds == () and run.summary is None and run.curves is None
    assert any("No meta-round" in note for note in run.notes)
    assert any("summary.json" in note for note in run.notes)


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_last_line_cut_short_is_noted(run_folder, cut):
    path = run_folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[: -cut - 1])
    run = Run.read(run_folder)
    assert len(run.rounds) == 11
    assert any("cut short" in note for note in run.notes)


def test_a_last_line_without_its_end_is_read(run_folder):
    path = run_folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    run = Run.read(run_folder)
    assert len(run.rounds) == 12 and run.notes == ()


def test_a_letter_cut_in_half_is_tolerated(run_folder):
    path = run_folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + '{"round": 12, "tasks": ["é'.encode()[:-1])
    assert len(Run.read(run_folder).rounds) == 12


def test_a_round_run_again_after_a_resume_counts_once(run_folder):
    path = run_folder / "metrics.jsonl"
    again = json.dumps({"round": 5, "value": -1.0}) + "\n"
    path.write_text(path.read_text() + again)
    run = Run.read(run_folder)
    assert len(run.rounds) == 12
    assert run.rounds[5]["value"] == -1.0


def test_not_a_number_is_tolerated_in_metrics(run_folder):
    path = run_folder / "metrics.jsonl"
    path.write_text(path.read_text() + '{"round": 12, "value": NaN}\n')
    assert len(Run.read(run_folder).rounds) == 13


def test_missing_folder_names_the_command(tmp_path):
    line = failure(tmp_path / "nothing")
    assert "nothing" in line and "mirrax train" in line


def test_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    assert "no run folder" in failure(tmp_path / "file")


def test_a_folder_that_is_no_run(tmp_path):
    assert "config.json" in failure(tmp_path)


@pytest.mark.parametrize("name", ["config", "summary", "curves", "geometry"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe", b'{"a": 1', b"[" * 100_000])
def test_a_damaged_file_is_named_with_a_remedy(run_folder, name, content):
    (run_folder / f"{name}.json").write_bytes(content)
    line = failure(run_folder)
    assert f"{name}.json" in line
    assert "delete it" in line or "restore it" in line


def test_a_damaged_line_in_the_middle_is_numbered(run_folder):
    path = run_folder / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[6] = lines[6][:25]
    path.write_bytes(b"\n".join(lines))
    assert "metrics.jsonl is damaged at line 7" in failure(run_folder)


@pytest.mark.parametrize(
    "line",
    [
        "3",
        '{"value": 1}',
        '{"round": "x"}',
        '{"round": 1, "activation": "x"}',
        '{"round": 1, "activation_by_step": [1, 2]}',
        '{"round": 1, "value": "x"}',
        '{"round": 1, "last_loss": [1]}',
    ],
)
def test_a_line_that_is_no_record(run_folder, line):
    (run_folder / "metrics.jsonl").write_text(line + "\n")
    assert "line 1" in failure(run_folder)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("config", lambda c: c.pop("recipe") and None, "recipe"),
        ("summary", lambda c: c.update(comparison={"SGD": 1}), "comparison"),
        ("summary", lambda c: c["comparison"][0].pop("optimiser") and None, "entry 1"),
        ("summary", lambda c: c["comparison"][1].update(steps_to=[1]), "steps_to"),
        ("summary", lambda c: c["comparison"][0]["steps_to"]["0.3"].update(values=True), "values"),
        ("summary", lambda c: c["comparison"][0].update(test_accuracy={"mean": 97.0}), "fraction"),
        ("summary", lambda c: c.update(certificate=[1]), "certificate"),
        ("summary", lambda c: c["certificate"].update(bounds=[1.0]), "'bounds' of 'certificate'"),
        ("summary", lambda c: c["certificate"].update(satisfied=[1]), "'satisfied' of"),
        ("summary", lambda c: c["certificate"].update(notes=3), "'notes' of 'certificate'"),
        ("summary", lambda c: c["certificate"]["by_step"].pop("regret") and None, "'by_step'"),
        ("summary", lambda c: c["certificate"]["by_step"].pop("steps") and None, "'steps' in"),
        ("summary", lambda c: c["certificate"]["by_step"].update(bounds=[1]), "'by_step'"),
        ("summary", lambda c: c["certificate"]["by_step"].update(bounds={"a": [1]}), "'a' in"),
        ("summary", lambda c: c.update(cells=3), "cells"),
        ("summary", lambda c: c.update(cells={"0": {"SGD": 3}}), "cells"),
        ("summary", lambda c: c.update(notes="x"), "notes"),
        ("curves", lambda c: c.pop("steps") and None, "steps"),
        ("curves", lambda c: c["steps"].__setitem__(3, None), "steps"),
        ("curves", lambda c: c.update(curves=[1]), "curves"),
        ("curves", lambda c: c["curves"]["SGD"].pop("mean") and None, "SGD"),
        ("curves", lambda c: c["curves"]["Adam"]["low"].pop() and None, "400 numbers"),
        ("geometry", lambda c: c.update(leaves=None), "leaves"),
        ("geometry", lambda c: c["leaves"][0].pop("name") and None, "no name"),
        ("geometry", lambda c: c["leaves"][0].update(shape=3), "'shape' of dense_0"),
        ("geometry", lambda c: c["leaves"][0].update(roles=3), "'roles' of dense_0"),
        ("geometry", lambda c: c["leaves"][0].update(spectrum=[-0.1, -0.2]), "negative"),
        ("geometry", lambda c: c["leaves"][2]["histogram"]["edges"].pop() and None, "dense_1"),
    ],
)
def test_wrong_content_is_named(run_folder, edit, name, change, said):
    edit(name, change)
    line = failure(run_folder)
    assert f"{name}.json" in line and said in line


def test_hostile_names_cannot_break_the_line(run_folder, edit):
    edit("geometry", lambda c: c["leaves"][0].update(name="a\n\x1b[31mb", histogram={}))
    line = failure(run_folder)
    assert "\x1b" not in line


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user without rights")
def test_an_unreadable_file(run_folder):
    (run_folder / "curves.json").chmod(0)
    assert "permissions" in failure(run_folder)


def test_a_folder_in_place_of_a_file(run_folder):
    (run_folder / "curves.json").unlink()
    (run_folder / "curves.json").mkdir()
    assert "cannot read" in failure(run_folder)


def test_importing_the_package_is_light():
    code = (
        "import mirrax.report, sys; "
        "print([m for m in ('jax', 'numpy', 'matplotlib', 'rich', 'jinja2') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
