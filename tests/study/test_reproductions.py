"""Every reproduction by name, as a user runs it at the smallest budget."""

import json

import pytest

from mirrax import cli
from mirrax.report import Run
from mirrax.study._reproduce import REPRODUCTIONS

EMBEDDED = ("s000-fig1", "s000-fig5", "rotated-digits", "s002-fig1", "s002-fig2", "s002-bounds")
LONG = {"curve", "curves", "loss", "sensitivity", "training"}


def keys(value):
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


def run(name, path, capsys, *more):
    """Runs it; without its data, a skip that says so."""
    words = ["reproduce", name, "--budget", "smoke", "--json", "--out", str(path), *more]
    code = cli.main(words)
    out, err = capsys.readouterr()
    if code == 2 and name not in EMBEDDED:
        assert err.count("\n") == 1 and "data" in err and not path.exists()
        pytest.skip(err.strip())
    assert code == 0, err
    return json.loads(out)


def drawn(path):
    """Figures, and the curves that they are drawn from."""
    return sorted([*path.rglob("figures/*.*"), *path.rglob("curves.json")])


@pytest.mark.slow
@pytest.mark.needs_data
@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_every_reproduction_runs_at_the_smoke_budget(name, tmp_path, as_in_life, capsys):
    path = tmp_path / "run"
    result = run(name, path, capsys)
    assert result == json.loads((path / "result.json").read_text())
    record = result["record"]
    assert record == json.loads((path / "record.json").read_text())
    assert f"reproduce {name} --budget smoke" in record["command"] and record["budget"] == "smoke"
    assert record["fields"] and record["made_by"][0]["seconds"] > 0
    assert not keys(result) & LONG and (path / "result.json").stat().st_size < 400_000
    text = (path / "result.md").read_text()
    assert text.count("| :---") >= 2 and "**What made it**" in text
    if any(word in name for word in ("fig2", "fig3", "fig6", "fig7", "table1-mlp", "table2")):
        assert any((path / "figures").glob("*.svg"))
    # Continued, it finds everything done but the figures, which a kill may have kept from it, and
    # their curves, which the error line on a damaged file asks to delete.
    figures = drawn(path)
    for figure in figures:
        figure.unlink()
    again = run(name, path, capsys, "--resume")
    assert {**again, "record": None} == {**result, "record": None} and drawn(path) == figures


def test_a_reproduction_is_published(tmp_path, as_in_life, capsys):
    """The cheapest, among fast tests; a finished one that is called again keeps its record."""
    words = ["reproduce", "s002-fig2", "--budget", "smoke", "--problems", "1", "--steps", "5"]
    path = tmp_path / "run"
    assert cli.main([*words, "--out", str(path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    names = ("result.json", "result.md", "record.json")
    before = [(path / name).read_bytes() for name in names]
    assert result == json.loads(before[0]) and result["record"] == json.loads(before[2])
    assert result["record"]["fields"] == {"problems": 1, "steps": 5, "rates": 1}
    assert not keys(result) & LONG, "curves and sweeps are in summary.json"
    assert keys(Run.read(path).summary) & LONG
    assert Run.read(path).summary["hardware"].startswith("processor ")
    assert "Rates learned online" in before[1].decode() and "Wall time" in before[1].decode()
    figures = drawn(path)
    figures[0].unlink()  # as a kill leaves it that comes among the figures
    assert cli.main([*words, "--out", str(path), "--resume"]) == 0
    assert [(path / name).read_bytes() for name in names] == before
    assert drawn(path) == figures
