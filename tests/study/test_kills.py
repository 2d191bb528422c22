"""Nothing is lost: a death, a full disk or a jump of the clock at every place of a small run."""

import datetime
import errno
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from benchmarks import kills
from benchmarks._mortal import mortal
from rich.console import Console

from mirrax import _machine, report
from mirrax._errors import MirraxError
from mirrax._files import append_line, sweep, write_atomically, write_json
from mirrax.deploy import save
from mirrax.meta import quadratic
from mirrax.methods import meta_md
from mirrax.study._folder import RunFolder
from mirrax.study._learn import learn
from mirrax.study._progress import Progress
from mirrax.study._provenance import recorded
from mirrax.study._quadratics import QuadraticStudy
from mirrax.tasks import sample_quadratics

KEY = jax.random.key(4)
CONFIG = {"recipe": "quadratics", "seed": 0, "fields": {"rate": 0.05}, "command": "mirrax"}
TOLD = {"name": "train quadratics", "command": "mirrax", "seed": 0, "budget": "smoke"}


class Dead(BaseException):
    """What stands for the end of a process: nothing runs on, and nothing is tidied up."""


def zeros(key):
    del key
    return jnp.zeros(2)


def live(path, rounds=3):
    """A small run with everything that a large one writes, begun or continued."""
    with recorded(path, QuadraticStudy(flatness=(5.0, 0.5)), **TOLD) as recorder:
        begun = not RunFolder.is_blank(path)
        folder = RunFolder.open(path)[0] if begun else RunFolder.create(path, CONFIG)
        recorder.keep()
        learner, initial = meta_md(zeros, steps=20, rate=0.05, comparator="solution", key=KEY)
        learned = learn(
            learner,
            initial,
            quadratic(sample_quadratics(KEY, 3)),
            ["a", "b", "c"],
            rounds=rounds,
            rate=0.05,
            folder=folder,
            progress=Progress(Console(file=io.StringIO(), quiet=True)),
            key=KEY,
        )
        save(folder / "geometry.safetensors", learned.geometry, rate=0.05)
        write_json(folder / "summary.json", {"recipe": "quadratics", "notes": learned.notes})
    report.write_result(path, {"recipe": "quadratics"}, [], recorder.read())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an undisturbed run comes to, and how many of its calls change files."""
    calls = 0

    def count(number):
        nonlocal calls
        calls = number

    path = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        mortal(lambda *change: patch.setattr(os, *change), 0, lambda: None, count)
        live(path)
    return kills.outcome(path), calls


def leftovers(path):
    return [file for file in path.rglob(".*") if file.is_file()]


def die_at(number, path):
    """Runs until the call of a number, behind which no call has any effect."""
    dead = False

    def die():
        nonlocal dead
        dead = True
        raise Dead

    with pytest.MonkeyPatch.context() as patch:
        mortal(lambda *change: patch.setattr(os, *change), number, die)
        for name in ("write", "fsync", "replace", "unlink", "mkdir", "ftruncate", "rmdir"):
            call = getattr(os, name)

            def run(*arguments, call=call, **named):
                if dead:
                    raise Dead
                return call(*arguments, **named)

            patch.setattr(os, name, run)
        with pytest.raises(Dead):
            live(path)


def test_a_death_at_any_write_loses_nothing(whole, tmp_path):
    expected, calls = whole
    assert calls >= 40  # each of three rounds has about ten
    left = 0
    for number in range(1, calls + 1):
        path = tmp_path / str(number)
        die_at(number, path)
        assert not list(kills.examine(path)) or RunFolder.is_blank(path), number
        left += len(leftovers(path))
        live(path)
        assert kills.outcome(path) == expected, f"after a death at call {number}"
        assert not leftovers(path), number
        shutil.rmtree(path)
    assert left  # or the test could not have found any that stay


@pytest.mark.parametrize(
    "error", [errno.ENOSPC, pytest.param(errno.EDQUOT, marks=pytest.mark.slow)]
)
def test_a_disk_full_at_any_write_loses_nothing(whole, tmp_path, error):
    expected, calls = whole
    stopped = 0
    step = 1 if error == errno.ENOSPC else 9
    for number in range(1, calls + 1, step):
        path = tmp_path / str(number)

        def full():
            raise OSError(error, os.strerror(error))

        with pytest.MonkeyPatch.context() as patch:
            mortal(lambda *change, p=patch: p.setattr(os, *change), number, full)
            try:
                live(path)
            except MirraxError as told:
                stopped += 1
                assert "\n" not in str(told) and "disk" in str(told), number
        assert not leftovers(path), number
        for file in path.rglob("metrics.jsonl"):
            assert file.read_bytes().endswith(b"\n") or not file.stat().st_size
        assert not path.exists() or not list(kills.examine(path)) or RunFolder.is_blank(path)
        live(path)
        assert kills.outcome(path) == expected, f"after a full disk at call {number}"
        shutil.rmtree(path)
    assert stopped > calls / step / 3  # others are of calls that may fail: flushing a folder


def test_a_line_that_does_not_fit_is_taken_back(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    append_line(path, '{"round": 0}')
    before, whole_write = path.read_bytes(), os.write

    def half(descriptor, data):
        monkeypatch.setattr(os, "write", full)
        return whole_write(descriptor, data[:5])

    def full(*_):
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(MirraxError, match="disk is full"):
        append_line(path, '{"round": 1, "value": 0.5}')
    assert path.read_bytes() == before


def test_what_a_living_process_writes_is_not_swept(tmp_path):
    """Another process holds its temporary file, by a lock that ends with it."""
    code = (
        "import os, sys, time\n"
        "from mirrax import _files\n"
        "def held(*_):\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
        "os.fsync = held\n"
        "_files.write_atomically(sys.argv[1], b'new')\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "a")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout and writer.stdout.readline() == "writing\n"
        sweep(tmp_path)
        assert len(leftovers(tmp_path)) == 1
        writer.send_signal(signal.SIGKILL)
    assert len(leftovers(tmp_path)) == 1
    (tmp_path / ".editor.tmp").write_text("not ours")
    sweep(tmp_path)
    assert [file.name for file in leftovers(tmp_path)] == [".editor.tmp"]


def test_a_file_that_is_swept_before_it_is_locked_is_begun_again(tmp_path, monkeypatch):
    swept = []

    def late(descriptor, how):
        if not swept:  # another process comes between
            swept.extend(leftovers(tmp_path))
            sweep(tmp_path)

    monkeypatch.setattr("fcntl.flock", late)
    write_atomically(tmp_path / "a", b"new")
    assert len(swept) == 1 and [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_folder_that_is_not_free_is_not_swept(tmp_path):
    """Nothing of somebody else's is removed before a command says that it is not its own."""
    other = tmp_path / "of-another-run"
    other.mkdir()
    (other / "summary.json").write_text("{}")
    for folder in (tmp_path, other):
        (folder / ".0123456789abcdef.tmp").write_bytes(b"half")
    assert not RunFolder.is_blank(tmp_path) and not RunFolder.is_blank(other)
    assert len(leftovers(tmp_path)) + len(leftovers(other)) >= 2
    (other / "summary.json").unlink()
    assert RunFolder.is_blank(other) and len(leftovers(other)) == 1


def test_a_limit_on_the_size_of_files_is_a_line(tmp_path):
    """The system's own refusal, not one of a test's making."""
    code = (
        "import resource, signal, sys\n"
        "from mirrax._files import append_line, write_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "for write in (write_atomically, append_line):\n"
        "    try:\n"
        "        write(sys.argv[1], b'x' * 200 if write is write_atomically else 'x' * 200)\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__, error)\n"
    )
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n")
    found = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    line = f"MirraxError cannot write {path}: files may not be so large here; raise the limit"
    assert [said.startswith(line) for said in found.stdout.splitlines()] == [True, True]
    assert path.read_bytes() == b"{}\n" and not leftovers(tmp_path)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100


def test_a_disk_that_is_full_is_a_line(tmp_path):
    """A real file system of 64 KiB, where this user may mount one."""
    words = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if not shutil.which("mount") or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("mounting a file system needs privileges")
    try:
        write_atomically(tmp_path / "a", b"a" * 10_000)
        with pytest.raises(MirraxError, match="the disk is full"):
            write_atomically(tmp_path / "a", b"b" * 60_000)
        assert (tmp_path / "a").read_bytes() == b"a" * 10_000 and not leftovers(tmp_path)
        for _ in range(100):
            try:
                append_line(tmp_path / "m", json.dumps({"round": "x" * 1000}))
            except MirraxError as error:
                assert "the disk is full" in str(error)
                break
        else:
            raise AssertionError("the disk did not fill")
        for line in (tmp_path / "m").read_text().splitlines(keepends=True):
            assert line.endswith("\n") and json.loads(line)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_clock_that_jumps_changes_nothing(whole, tmp_path, monkeypatch, jump):
    """Wall clock and dates jump between any two looks, and files' times lie; nobody reads them."""
    real, calls = time.time, iter(range(10**9))

    class Date(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + datetime.timedelta(seconds=jump * (next(calls) % 2) / 10)

    monkeypatch.setattr(time, "time", lambda: real() + jump * (next(calls) % 3))
    monkeypatch.setattr(_machine, "datetime", Date)
    path = tmp_path / "run"
    live(path, rounds=2)
    newest, older = sorted((path / "checkpoints").iterdir(), reverse=True)
    os.utime(newest, (0, 0))  # the newest by its number looks the oldest
    os.utime(older, (4e9, 4e9))
    live(path)
    assert kills.outcome(path) == whole[0]
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    made = json.loads((path / "record.json").read_text())["made_by"]
    seconds = [line["seconds"] for line in lines] + [part["seconds"] for part in made]
    assert all(0 <= second < 1000 for second in seconds)


def test_what_a_killed_run_has_is_reported(whole, tmp_path):
    path = tmp_path / "run"
    live(path)
    (path / "summary.json").unlink()
    with open(path / "metrics.jsonl", "ab") as file:
        file.write(b'{"round": 3, "va')
    run = report.Run.read(path)
    assert len(run.rounds) == 3
    assert any("cut short" in note for note in run.notes)


def test_the_note_on_a_last_round_survives_a_kill_behind_it(tmp_path):
    """It is made of the metrics, so it is known when the last round is not made again."""
    path = tmp_path / "run"
    live(path)
    lines = (path / "metrics.jsonl").read_text().splitlines()
    lines[-1] = json.dumps({**json.loads(lines[-1]), "trouble": "the inner loop diverged"})
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    live(path)
    notes = json.loads((path / "summary.json").read_text())["notes"]
    assert any(note.startswith("Last round: the inner loop diverged") for note in notes)


@pytest.mark.slow
def test_random_kills_lose_nothing():
    """The command that a maintainer runs, with fewer kills of each kind."""
    words = [sys.executable, "-m", "benchmarks.kills", "--kills", "28"]
    found = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert found.returncode == 0, found.stdout + found.stderr
