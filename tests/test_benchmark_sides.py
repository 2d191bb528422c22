"""The pieces that all comparisons with peers share."""

import json

import numpy as np
import pytest


def test_a_line_says_who_is_ahead_and_how_far_the_floor_is():
    from benchmarks._floor import Machine
    from benchmarks._sides import OURS, of_memory, standing, told

    times = {
        OURS: {"median": 0.2, "fastest": 0.1, "median_cpu": 0.3},
        "slow, 1 thread": {"median": 1.0, "fastest": 0.4, "median_cpu": 0.5},
        "slow, 2 threads": {"median": 0.8, "fastest": 0.7, "median_cpu": 0.9},
    }
    machine = Machine(operations=1e9, bytes=1e8)
    work = {"operations": np.float64(1e8), "moved": np.int64(4_000_000)}
    line = standing("it", times, machine, **work, allowed=0.25, floors=4.0)
    assert line["peer"] == "slow, 2 threads" and line["held"]
    assert json.loads(json.dumps(line)) == line
    np.testing.assert_allclose([line["ratio"], line["cpu_ratio"]], [0.25, 0.6])
    np.testing.assert_allclose([*line["floor"].values(), line["of_floor"]], [0.1, 0.04, 2.0])
    assert not standing("it", times, machine, **work, allowed=0.24)["held"]
    assert not standing("it", times, machine, **work, floors=1.9)["held"]
    assert standing("it", times, machine, **work)["held"]
    memory = of_memory("bytes", 2e6, "slow", 4e8, allowed=0.004, predicted=True)
    text = told([line, memory])
    assert "200 ms" in text and "2 of 4" in text and "~400 MB" in text
    assert [row.rsplit(None, 1)[1] for row in text.splitlines()[2:]] == ["yes", "NO"]


def test_a_side_that_differs_ends_the_benchmark():
    from benchmarks._sides import require_agreement

    require_agreement({"one": 0.0, "other": 1e-9}, 1e-9)
    for wrong in (2e-9, float("nan")):
        with pytest.raises(SystemExit, match="something else: {'other'"):
            require_agreement({"one": 0.0, "other": wrong}, 1e-9)


def test_operations_are_those_of_the_layers():
    """Conv4-64 at 28 x 28: 64 kernels of 9 entries at 784 places, then of 576 at 196, 49, 9."""
    from benchmarks._episodes import Work

    work = Work.make("omniglot", "meta-curvature")
    places = (784 * 9, 196 * 576, 49 * 576, 9 * 576)
    assert work.forward == [*(2 * 64 * count for count in places), 2 * 64 * 5]
    # (64, 64, 9), three times, (64, 1, 9) and (5, 64): entries times the sum of their sides.
    modes = 3 * 36_864 * 137 + 576 * 74 + 320 * 69
    assert work.of_modes == 2 * modes


def test_the_whole_may_be_measured_in_several_goes(tmp_path, monkeypatch, capsys):
    import benchmarks.__main__ as whole

    def line(name, held):
        figures = {"what": name, "unit": "s", "ours": 1.0, "theirs": 2.0, "peer": "p", "ratio": 0.5}
        return {**figures, "cpu_ratio": 0.5, "allowed": None, "held": held}

    def part(name, words):
        if name == failing:
            return None
        made = [{"started": str(go), "seconds": 1.0}]
        record = {"command": name, "made_by": made}
        return {"machine": {"cores": go}, "record": record, "standings": [line(name, go != 2)]}

    monkeypatch.setattr(whole, "part", part)
    file, status, failing = tmp_path / "record.json", [], "evaluation"
    for number, names in enumerate((["implicit", "evaluation"], ["implicit"], ["evaluation"]), 1):
        go = number
        status.append(whole.main(["--parts", *names, "--json", str(file)]))
        failing = None
    found = json.loads(file.read_text())
    assert status == [2, 1, 1] and [*found["parts"]] == ["evaluation", "implicit"]
    made = [(one["command"], one["cores"], one["started"]) for one in found["record"]["made_by"]]
    assert made == [("evaluation", 3, "3"), ("implicit", 2, "2")]
    assert [one["what"] for one in found["standings"]] == ["evaluation", "implicit"]
    failing = "evaluation"
    assert whole.main(["--parts", "evaluation", "--json", str(file)]) == 2
    assert json.loads(file.read_text()) == found
    assert "implicit" in capsys.readouterr().out.rpartition("# all")[2]
    with pytest.raises(SystemExit, match="2"):
        whole.main(["--quick", "--json", str(file)])
    assert "record.json is a record without --quick" in capsys.readouterr().err
