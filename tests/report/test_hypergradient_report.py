"""The matrix of hypergradients as tables, in Markdown and on a page; files that are damaged."""

import copy
import json

import pytest

from mirrax import report
from mirrax._errors import MirraxError
from mirrax.report import Run
from mirrax.report._page import page


def make_rows(inner):
    exact = {"estimator": "Reverse", "kind": "exact", "others": 3e-16, "differences": 7.4e-11}
    stepwise = {"estimator": "Reverse", "kind": "exact", "others": 0.0}
    refused = {"estimator": "Implicit, CG", "kind": "refused", "reason": "Implicit: use | Direct."}
    direct = {"estimator": "Direct", "kind": "approximate", "error": 0.5, "cosine": 0.9}
    lost = {"estimator": "Direct", "kind": "approximate", "error": 1.0, "cosine": None}
    random = {"estimator": "Evolution", "kind": "random", "mean_square": 1.1, "largest": 2.5}
    flagged = {"estimator": "Evolution", "kind": "flagged", "reason": "It did not converge."}
    first = [exact | {"closed_form": 2e-15}, refused, direct, random]
    return [
        {"inner": inner, "geometry": "Diagonal", "learned": 8, "entries": first},
        {
            "inner": inner,
            "geometry": "RandomMask",
            "learned": 4,
            "stepwise": "a step function",
            "entries": [stepwise, refused, lost, flagged],
        },
    ]


@pytest.fixture
def matrix():
    """No number here is a measurement."""
    return {
        "recipe": "hypergradients",
        "kind": "hypergradients",
        "about": {"Direct": "the run"},
        "rows": [*make_rows("run"), *make_rows("solution")],
    }


@pytest.fixture
def written(matrix, tmp_path):
    def write(summary=matrix):
        config = {"recipe": "hypergradients", "command": "mirrax reproduce hypergradients"}
        for name, content in {"config": config, "summary": summary}.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return write


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_each_reference_has_its_table_and_the_rest_its_own(matrix):
    tables = report.hypergradient_tables(matrix)
    assert len(tables) == 8
    differences, closed, others, rest = tables[:4]
    assert texts(differences) == [["Diagonal", "8", "7e-11"]]
    assert "RandomMask: a step function." in differences.notes
    assert texts(closed) == [["Diagonal", "8", "2e-15"]]
    assert texts(others) == [["Diagonal", "8", "3e-16"], ["RandomMask", "4", "0e+00"]]
    assert [c.label for c in rest.columns[2:]] == ["Implicit, CG", "Direct", "Evolution"]
    assert texts(rest) == [
        ["Diagonal", "8", "refused (a)", "0.5 (0.90)", "1.10 (2.5)"],
        ["RandomMask", "4", "refused (a)", "1 (–)", "flagged (b)"],
    ]
    assert "Direct leaves out the run." in rest.notes
    assert "a: Implicit: use | Direct." in rest.notes
    assert "solution" in tables[4].title


def test_a_run_is_read_shown_and_written_as_markdown(written, tmp_path):
    run = Run.read(written())
    assert "Exact estimators beside" in page([run])
    path = report.write_markdown([run, run], tmp_path / "tables.md")
    text = path.read_text(encoding="utf-8")
    assert text.count("| Diagonal | 8 | 7e-11 |") == 4
    assert "use \\| Direct" in text


def test_markdown_that_cannot_be_written_is_one_line(written, tmp_path):
    with pytest.raises(MirraxError, match="nowhere"):
        report.write_markdown([Run.read(written())], tmp_path / "nowhere" / "tables.md")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.update(rows=3), "'rows' is not a list"),
        (lambda s: s.update(about=None), "'about' is not an object"),
        (lambda s: s["rows"][0].pop("geometry"), "does not name its geometry"),
        (lambda s: s["rows"][0].pop("learned"), "Diagonal, does not say how much it learns"),
        (lambda s: s["rows"][0].pop("entries"), "'entries of Diagonal' is not a list"),
        (lambda s: s["rows"][0]["entries"][2].pop("cosine"), "Direct is not complete"),
        (lambda s: s["rows"][0]["entries"][0].update(kind="guessed"), "Reverse is not complete"),
    ],
)
def test_damaged_summaries_are_named(matrix, written, change, words):
    summary = copy.deepcopy(matrix)
    change(summary)
    with pytest.raises(MirraxError, match=words):
        Run.read(written(summary))
