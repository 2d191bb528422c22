"""Records of the estimators' benchmark: compared afterwards, continued, merged, refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
LIMITS = {"rounds": 3, "seconds": 20.0, "memory": 6e9, "processor": 110.0}


@pytest.fixture
def command(monkeypatch, tmp_path):
    """The command on a file, every case taking no time; and what it ran."""
    from benchmarks import estimators

    ran = []

    def one(side, steps, size, limits, shorter):
        ran.append((side, str(size), steps))
        return _measured(np.full(size.learned, 1.0 + steps))

    monkeypatch.setattr(estimators, "one", one)
    file = tmp_path / "cost.json"

    def run(*given):
        ran.clear()
        return estimators.main([*given, "--json", str(file)]), list(ran)

    return file, run


def _measured(slope):
    from benchmarks._estimator_agreement import sketch

    times = {"first": 0.1, "seconds": 0.1, "cpu": 0.1, "rounds": 3, "measured_bytes": 0}
    return times | {"slope": sketch(np.asarray(slope)), "value": 1.0}


def _case(side, slope=None, **more):
    made = {} if slope is None else _measured(slope)
    fixed = {"size": "3", "steps": 10, "limits": LIMITS, "load_before": 0.5, "own_load": 0.5}
    return {"side": side} | fixed | made | more


def _cases(file):
    return json.loads(file.read_text())["estimators"]["cases"]


# comparing


def test_differences_are_those_of_the_slopes():
    from benchmarks._estimator_agreement import judged

    _, case = judged([_case("reverse", [3.0, 4.0, 0.0]), _case("higher", [3.0, 4.0, 0.5])])
    assert case["reference"] == "reverse"
    assert case["difference"] == pytest.approx(0.1)
    assert case["cosine"] == pytest.approx(1 / np.sqrt(1.01))


@pytest.mark.parametrize("scale", [1e-5, 1.0])
def test_projections_keep_the_length_of_a_difference(scale):
    from benchmarks._estimator_agreement import judged

    rng = np.random.default_rng(1)
    exact, noise = rng.standard_normal((2, 100_000)) + [[1.0], [0.0]]
    _, case = judged([_case("reverse", exact), _case("direct", exact + scale * noise)])
    true = scale * np.linalg.norm(noise) / np.linalg.norm(exact)
    assert case["difference"] == pytest.approx(true, rel=0.2)


def test_a_reference_above_its_limits_gives_way_to_the_next_exact_side():
    from benchmarks._estimator_agreement import judged

    cases = judged(
        [
            _case("reverse", skipped="30 s predicted"),
            _case("reverse, checkpoints", [1.0, 0.0, 0.0]),
            _case("higher", [1.0, 0.0, 0.5]),
        ]
    )
    assert "difference" not in cases[1]
    assert (cases[2]["reference"], cases[2]["difference"]) == ("reverse, checkpoints", 0.5)


def test_where_no_exact_side_could_run_the_record_says_so():
    from benchmarks._estimator_agreement import EXACT, judged
    from benchmarks._estimator_tables import faults

    skipped = [_case(side, skipped="40 GB planned") for side in EXACT]
    cases = judged([*skipped, _case("direct", [1.0, 0.0, 0.0])])
    assert "limits" in cases[-1]["incomparable"]
    assert not faults(cases)


def test_a_solution_that_did_not_converge_is_no_reference():
    from benchmarks._estimator_agreement import SOLUTION, judged

    flagged = [_case(side, [1.0] * 3, flags=["inner_unconverged"]) for side in SOLUTION]
    assert all("incomparable" in c for c in judged([*flagged, _case("betty, cg", [1.0] * 3)]))


@pytest.mark.parametrize("others", [[], [_case("reverse", failed="OSError: no")]], ids=len)
def test_a_missing_reference_is_a_fault(others):
    from benchmarks._estimator_agreement import judged
    from benchmarks._estimator_tables import faults

    cases = judged([*others, _case("higher", [1.0, 0.0, 0.0])])
    assert faults(cases)[0].startswith("higher, 3, T = 10: not compared: reverse ")


# continuing


def test_the_command_continues_its_file(command):
    file, run = command
    given = ("--sizes", "3", "--steps", "10")
    assert run(*given, "--sides", "reverse") == (0, [("reverse", "3", 10)])
    status, ran = run(*given, "--sides", "higher", "reverse", "run")
    assert (status, ran) == (0, [("run", "3", 10), ("higher", "3", 10)])
    assert [case["side"] for case in _cases(file)] == ["run", "reverse", "higher"]
    assert _cases(file)[2]["difference"] == 0.0
    assert _cases(file)[2]["limits"] == LIMITS
    assert run(*given, "--sides", "reverse", "--redo", "all")[1] == [("reverse", "3", 10)]


def test_a_part_without_its_reference_fails_until_that_is_run(command, capsys):
    _, run = command
    given = ("--sizes", "3", "--steps", "10", "--sides")
    assert run(*given, "higher")[0] == 1
    assert "higher, 3, T = 10: not compared: reverse was not run" in capsys.readouterr().out
    assert run(*given, "reverse")[0] == 0


def test_a_plan_and_a_report_run_nothing(command, capsys):
    file, run = command
    given = ("--sizes", "3", "--steps", "10", "--sides", "reverse", "run")
    assert run(*given, "--plan") == (0, []) and not file.exists()
    assert "2 cases" in capsys.readouterr().out
    assert run(*given, "--report", "--discard") == (0, []) and not file.exists()


def test_what_is_run_again():
    from benchmarks._estimator_problem import Size
    from benchmarks._estimator_record import Job, remaining

    def again(case, redo="", limits=LIMITS):
        return bool(remaining([case], [Job("reverse", Size(3), 10)], limits, redo))

    done, skipped = _case("reverse", [1.0]), _case("reverse", skipped="9 s predicted")
    assert not again(done) and again(done, "all") and not again(done, "busy")
    assert again(done | {"load_before": 2.1}, "busy")
    assert not again(skipped) and again(skipped, limits=LIMITS | {"seconds": 8.0})
    assert again(_case("reverse", failed="ended with status -9"))


def test_small_problems_and_references_come_first():
    from benchmarks._estimator_problem import Size
    from benchmarks._estimator_record import jobs

    found = jobs(["higher", "forward", "implicit, cg"], [Size(10, 5), Size(20)], [100, 10])
    assert [job.side for job in found[:3]] == ["implicit, cg", "forward", "higher"]
    assert [str(job.size) for job in found[::3]] == ["20", "10x5", "20", "10x5"]


def test_the_own_load_forgets_in_a_minute():
    from benchmarks._estimator_case import own_load

    assert own_load([(0.0, 600.0)], 600.0) == pytest.approx(1.0, abs=1e-4)
    assert own_load([(0.0, 600.0)], 660.0) == pytest.approx(np.exp(-1), abs=1e-4)


# files


def test_parts_are_merged_and_the_calmer_case_kept(command, tmp_path):
    file, run = command
    given = ("--sizes", "3", "--steps", "10", "--sides", "reverse", "higher")
    run(*given)
    record = json.loads(file.read_text())
    reverse, higher = record["estimators"]["cases"]
    part = tmp_path / "part.json"
    calmer, busier = {"load_before": 0.0, "cpu": 7.0}, {"load_before": 99.0, "cpu": 8.0}
    reverse["load_before"] = higher["load_before"] = 50.0
    file.write_text(json.dumps(record))
    record["estimators"]["cases"] = [reverse | busier, higher | calmer, higher | {"steps": 20}]
    part.write_text(json.dumps(record))
    status, ran = run(*given, "--merge", str(part), "--report")
    assert (status, ran) == (1, [])  # the reference of 20 steps is missing
    assert [case["cpu"] for case in _cases(file)] == [0.1, 7.0, 0.1]


@pytest.mark.parametrize("text", ["", "[1]", '{"estimators": {"cases": [{"side": "run"}]}}'])
def test_a_damaged_file_is_refused_in_one_line(command, capsys, text):
    file, run = command
    file.write_text(text)
    assert run() == (1, [])
    assert capsys.readouterr().err == f"{file}: not a record of this benchmark, or damaged\n"
    assert file.read_text() == text


def test_cases_of_other_code_are_refused_or_discarded(command, capsys, monkeypatch):
    file, run = command
    given = ("--sizes", "3", "--steps", "10", "--sides", "reverse")
    run(*given)
    monkeypatch.setenv("XLA_FLAGS", "--other")
    assert run(*given) == (1, [])
    error = capsys.readouterr().err
    assert "its 1 cases were made with other flags" in error and error.count("\n") == 1
    assert run(*given, "--discard") == (0, [("reverse", "3", 10)])


def test_all_of_mirrax_that_the_sides_use_is_part_of_the_version():
    from benchmarks._estimator_record import sources

    script = (
        "import sys, benchmarks._estimator_sides\n"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('mirrax.')), sep='\\n')"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    # Settings, which are recorded as flags; messages; facts, which are recorded themselves.
    beside = {"_xla.py", "_errors.py", "_machine.py"}
    known = {file.resolve() for file in sources()}
    assert {Path(file) for file in loaded if Path(file).resolve() not in known} == {
        Path(file) for file in loaded if Path(file).name in beside
    }
