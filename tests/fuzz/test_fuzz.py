"""Every reader of foreign bytes: no crash, no hang, nothing wrong accepted, whatever the bytes.

`pytest -n 0 -m fuzz tests/fuzz` gives each reader 100,000 damaged files and prints what came of
them; MIRRAX_FUZZ_INPUTS sets another number.
"""

import ast
import os
import pickle
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from findings import FINDINGS
from fuzz_targets import TARGETS
from hypothesis import HealthCheck, Phase, given, settings
from judge import Finding, judge
from mutations import files
from target import Target

from mirrax._errors import MirraxError

SOURCE = Path(__file__).parents[2] / "src" / "mirrax"
_FEW, _MANY = 25, int(os.environ.get("MIRRAX_FUZZ_INPUTS", "100000"))
_SLOW_TO_OPEN = ("artifact-torch",)
_EVERY = [
    pytest.param(name, marks=pytest.mark.slow if name in _SLOW_TO_OPEN else ()) for name in TARGETS
]


def run(name: str, folder: Path, inputs: int) -> Counter[str]:
    """Damaged files of one reader, judged; hypothesis makes a finding small before it tells it."""
    target, answers = TARGETS[name], Counter()
    seeds = target.seeds()
    for seed in seeds:
        assert judge(target, seed, folder) == "accepted"

    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(files(seeds))
    def every(data: bytes) -> None:
        answers[judge(target, data, folder)] += 1

    every()
    return answers


@pytest.mark.parametrize("name", _EVERY)
def test_a_few_damaged_files(name, tmp_path):
    answers = run(name, tmp_path, _FEW)
    assert answers["refused"] and answers.total() >= _FEW


@pytest.mark.fuzz
@pytest.mark.parametrize("name", TARGETS)
def test_many_damaged_files(name, tmp_path, capsys):
    begun = time.perf_counter()
    answers = run(name, tmp_path, _MANY)
    spent = time.perf_counter() - begun
    with capsys.disabled():
        told = f"{answers['accepted']:,} accepted, {answers['refused']:,} refused, {spent:.0f} s"
        print(f"\n{name}: {told}", end="")
    assert answers.total() >= _MANY and answers["accepted"] and answers["refused"]


@pytest.mark.parametrize("finding", FINDINGS)
def test_what_was_found_stays_refused(finding, tmp_path):
    name, make = FINDINGS[finding]
    assert judge(TARGETS[name], make(TARGETS[name].seeds()), tmp_path) == "refused"


_HARMS = ("pickle", "outside", "process", "slow", "large", "other", "value", "lines")
_HARMS += ("removes", "renames", "makes a folder", "removes a folder")


@pytest.mark.parametrize("harm", _HARMS)
def test_the_judge_sees_what_must_not_happen(harm, tmp_path, monkeypatch):
    """A judge that sees nothing would pass everything."""
    monkeypatch.setattr("judge.SECONDS", 0.5)
    with pytest.raises(Finding):
        judge(harmful(harm), b"any bytes", tmp_path / "inside")
    assert judge(harmful("none"), b"any bytes", tmp_path / "inside") == "accepted"


def harmful(kind: str) -> Target:
    """A reader that does what none may."""

    def read(path: Path) -> None:
        outside, own = path.parents[1] / "elsewhere", path.with_name("own")
        match kind:
            case "none":
                own.mkdir()
                own.rename(own.with_name("other")).rmdir()
            case "pickle":
                pickle.loads(pickle.dumps([1]))
            case "outside":
                outside.write_bytes(b"")
            case "process":
                subprocess.run([sys.executable, "-c", ""], check=True)
            case "slow":
                while True:
                    pass
            case "large":
                bytearray(4 << 30)
            case "other":
                raise KeyError("a name")
            case "value":
                raise ValueError("a line, which the command line would not catch")
            case "removes":
                outside.unlink(missing_ok=True)
            case "renames":
                path.rename(outside)
            case "makes a folder":
                outside.mkdir()
            case "removes a folder":
                with suppress(FileNotFoundError):
                    outside.rmdir()
            case "lines":
                raise MirraxError("two\nlines")

    return Target("file", tuple, read)


def test_nothing_loads_code():
    """No module of the source names what unpickles or evaluates."""
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    calls = {"eval", "exec"}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", ()) if hasattr(alias, "name")]
            names.append(getattr(node, "module", None) or "")
            found = modules & {name.partition(".")[0] for name in names}
            if isinstance(node, ast.Call):
                function = node.func
                found |= calls & {getattr(function, "id", None)}
                told = {keyword.arg: keyword.value for keyword in node.keywords}
                found |= {"allow_pickle"} & told.keys()
                owner = getattr(getattr(function, "value", None), "id", None)
                if owner in ("np", "numpy", "torch") and getattr(function, "attr", None) == "load":
                    found.add(f"{owner}.load")
            assert not found, f"{path}:{getattr(node, 'lineno', 0)} uses {found}"
