"""Metrics in TensorBoard and W&B: what a run wrote, once, however often it was continued."""

import importlib.util
import io
import json
import struct
import subprocess
import sys
import warnings

import pytest
from rich.console import Console

from mirrax import report
from mirrax.cli import main
from mirrax.study import _logging
from mirrax.study._folder import RunFolder
from mirrax.study._logging import log_kinds, logging_to
from mirrax.study._progress import say

CONFIG = {"recipe": "toy", "seed": 3, "budget": "smoke", "fields": {"rounds": 4, "rate": 0.5}}
TABLE = report.Table("Toy", (report.Column("optimiser", "Optimiser"),), ((report.Cell("SGD"),),))


def line(number):
    return {"round": number, "value": 0.5 / (1 + number), "last_loss": None, "tasks": ["a"]}


def events(folder):
    """What a reader of TensorBoard finds, by the format of its records: length, CRC, bytes, CRC."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("*tfevents*")):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def scalars_of(root):
    """`(tag, step, value)` of every number, and the texts by tag."""
    numbers, texts = [], {}
    for event in events(root / "logs" / "tensorboard"):
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "text":
                texts.setdefault(value.tag, []).append(value.tensor.string_val[0].decode())
            else:
                numbers.append((value.tag, event.step, round(value.simple_value, 6)))
    return numbers, texts


def write(root, rounds, kinds=("tensorboard",), finished=True, said=None):
    """A run, or its continuation, of some rounds; its second part counts anew."""
    exists = (root / "config.json").exists()
    folder = RunFolder.open(root)[0] if exists else RunFolder.create(root, CONFIG)
    with logging_to(root, kinds, print if said is None else said.append) as log:
        for number in rounds:
            folder.append_metrics(line(number))
        folder.part("parts/one", {}).append_metrics({"round": rounds[0], "loss": 2.0})
        if finished:
            log([TABLE])


def expected(rounds, parts):
    own = [("value", n, round(0.5 / (1 + n), 6)) for n in rounds]
    return sorted(own + [("parts/one/loss", n, 2.0) for n in parts])


def test_metrics_tables_and_fields_are_copied(tmp_path):
    write(tmp_path / "run", range(3))
    numbers, texts = scalars_of(tmp_path / "run")
    assert sorted(numbers) == expected(range(3), [0])
    assert "| rate | 0.5 |" in texts["hyperparameters/text_summary"][0]
    assert TABLE.markdown() in texts["results/text_summary"][0]


def test_a_continued_run_repeats_nothing(tmp_path):
    """Stopped after three rounds, of which the last is made again from the checkpoint before."""
    root = tmp_path / "run"
    write(root, range(3), finished=False)
    RunFolder(root).truncate_metrics(2)
    write(root, range(2, 5))
    numbers, texts = scalars_of(root)
    assert sorted(numbers) == expected(range(5), [0, 2])
    assert {tag: len(found) for tag, found in texts.items()} == dict.fromkeys(texts, 1)
    write(root, range(5, 6))  # results that have not changed
    assert scalars_of(root)[1] == texts


def test_a_log_may_begin_on_resuming(tmp_path):
    root = tmp_path / "run"
    write(root, range(3), kinds=())
    assert not (root / "logs").exists()
    write(root, range(3, 4))
    assert sorted(scalars_of(root)[0]) == expected(range(4), [0, 3])


def test_a_log_that_fails_and_cannot_say_so_does_not_end_the_run(tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("[/tmp/x] is closed")

    monkeypatch.setattr(_logging.TensorBoard, "write", fails)
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    with logging_to(folder.path, ("tensorboard",), fails):
        folder.append_metrics(line(0))
    assert (folder / "metrics.jsonl").exists()


def test_what_is_said_is_printed_as_it_is():
    console = Console(file=io.StringIO(), width=20)
    told = "--log tensorboard stops here: [/tmp/x] and [bold]."
    say(console, told)
    assert console.file.getvalue() == told + "\n"


def test_a_log_that_fails_stops_with_one_line(tmp_path, monkeypatch):
    root, said = tmp_path / "run", []

    def full(self, step, scalars):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_logging.TensorBoard, "write", full)
    write(root, range(4), said=said)
    assert said == [
        "--log tensorboard stops here: the disk is full; free some space or choose another folder. "
        "The run goes on without it."
    ]
    assert len((root / "metrics.jsonl").read_text().splitlines()) == 4


def test_wandb_stays_offline_and_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    root, said = tmp_path / "run", []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        write(root, range(2), kinds=("wandb",), finished=False, said=said)
        write(root, range(2, 3), kinds=("wandb",), said=said)
    assert said == []
    runs = sorted((root / "logs" / "wandb" / "wandb").glob("offline-run-*"))
    assert len({path.name.rsplit("-", 1)[1] for path in runs}) == 1  # one identity
    written = json.loads((root / "logs" / "wandb" / "written.json").read_text())
    assert written["rounds"] == {".": 2, "parts/one": 2}
    assert list(written["texts"]) == ["hyperparameters", "results"]
    stored = b"".join(path.read_bytes() for run in runs for path in run.glob("*.wandb"))
    assert b"parts/one/loss" in stored and b"0.25" in stored


def test_a_missing_package_is_said_before_anything_is_made(tmp_path, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "wandb" else found(name, *rest),
    )
    assert log_kinds("tensorboard") == ("tensorboard",)
    out = tmp_path / "run"
    assert main(["train", "rotated-digits", "--log", "both", "--out", str(out)]) == 2
    assert capsys.readouterr().err == (
        "mirrax: --log wandb needs wandb; pip install 'mirrax[log]'.\n"
    )
    assert not out.exists()
    assert main(["train", "rotated-digits", "--log", "paper", "--out", str(out)]) == 2
    assert "invalid choice: 'paper'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_whole_run_goes_on_in_its_log(tmp_path):
    out = tmp_path / "run"
    words = ["train", "rotated-digits", "--budget", "smoke", "--out", str(out)]
    words += ["--log", "tensorboard"]
    for rounds in (["--rounds", "1"], ["--rounds", "3", "--resume"]):
        command = [sys.executable, "-m", "mirrax.cli", *words, *rounds]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
    numbers, texts = scalars_of(out)
    assert [n for tag, n, _ in numbers if tag == "value"] == [0, 1, 2]
    assert len(texts["results/text_summary"]) == 2  # of one round, and of three
    assert "MetaMD" in texts["results/text_summary"][1]
