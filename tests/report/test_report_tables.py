"""Tables: content, best marks, and the four ways to show them."""

import json

import pytest
from rich.console import Console

from mirrax import report
from mirrax.report import Cell, Column, Run, Table


def row(name: str, **entries) -> dict:
    return {"optimiser": name, "hyperparameters": {"learning_rate": 0.1}, **entries}


def texts(table: Table, key: str) -> list[str]:
    index = [column.key for column in table.columns].index(key)
    return [cells[index].text for cells in table.rows]


def best(table: Table, key: str) -> list[str]:
    index = [column.key for column in table.columns].index(key)
    return [cells[0].text for cells in table.rows if cells[index].best]


def lines(table: Table, width: int) -> list[str]:
    console = Console(width=width, force_terminal=False, record=True, file=open("/dev/null", "w"))
    console.print(table)
    console.file.close()
    return console.export_text().splitlines()


def test_comparison_has_every_column_of_the_contract(run_folder):
    summary = Run.read(run_folder).summary
    table = report.comparison_table(summary)
    assert [column.label for column in table.columns] == [
        "Optimiser",
        "Hyper-parameters",
        "Test accuracy (%)",
        "Final training loss",
        "Mean log training loss",
        "Steps to loss 0.3",
        "Steps to loss 0.1",
    ]
    assert "rotated-digits" in table.title and "45 degrees" in table.title
    assert "3 seeds" in table.notes[0]
    for key, sign in (("test_accuracy", 1), ("final_loss", -1), ("log_loss_area", -1)):
        top = max(summary["comparison"], key=lambda r, k=key, s=sign: s * r[k]["mean"])
        assert best(table, key) == [top["optimiser"]]


def test_accuracy_is_shown_in_per_cent():
    entry = {"mean": 0.97412, "se": 0.00123, "values": [0.97]}
    table = report.comparison_table({"comparison": [row("A", test_accuracy=entry)]})
    assert texts(table, "test_accuracy") == ["97.41 ± 0.12"]
    with pytest.raises(ValueError, match="fractions"):
        report.comparison_table({"comparison": [row("A", test_accuracy=97.4)]})


def test_targets_that_were_not_reached():
    def steps(values):
        found = [v for v in values if v is not None]
        return {"mean": sum(found) / len(found) if found else None, "se": None, "values": values}

    rows = [
        row("never", steps_to={"0.1": steps([None, None])}),
        row("sometimes", steps_to={"0.1": steps([50, None])}),
        row("always", steps_to={"0.1": steps([90, 110])}),
        row("slower", steps_to={"0.1": steps([190, 210])}),
        row("unknown"),
        row("half", steps_to={"0.1": {"mean": None, "se": None, "values": [50, None]}}),
    ]
    table = report.comparison_table({"comparison": rows})
    assert texts(table, "steps_to_0.1") == [
        "not reached",
        "50 (in 1 of 2 runs)",
        "100",
        "200",
        "–",
        "in 1 of 2 runs",
    ]
    # A mean over fewer runs is a mean over the easier ones: it must not win.
    assert best(table, "steps_to_0.1") == ["always"]


def test_targets_go_from_easy_to_hard_and_may_be_words():
    steps = {"0.1": 3, "gradient_norm 1e-6": 9, "0.3": 1, "2": 0.5}
    table = report.comparison_table({"comparison": [row("A", steps_to=steps)]})
    assert [c.label for c in table.columns[2:]] == [
        "Steps to loss 2",
        "Steps to loss 0.3",
        "Steps to loss 0.1",
        "Steps to gradient norm 1e-6",
    ]


def test_unknown_metrics_have_a_column_without_a_best():
    rows = [row("A", memory_peak={"mean": 3.0}), row("B", memory_peak={"mean": 4.0})]
    table = report.comparison_table({"comparison": rows})
    assert table.columns[2].label == "Memory peak"
    assert best(table, "memory_peak") == []


def test_what_looks_the_same_is_not_ranked():
    rows = [row("A", final_loss={"mean": 0.10001}), row("B", final_loss={"mean": 0.10002})]
    table = report.comparison_table({"comparison": rows})
    assert best(table, "final_loss") == ["A", "B"]


def test_missing_and_infinite_means_are_dashes():
    rows = [row("A", final_loss={"mean": float("inf")}), row("B", final_loss=None)]
    table = report.comparison_table({"comparison": rows})
    assert texts(table, "final_loss") == ["–", "–"]
    assert "Infinity" not in json.dumps(table.json(), allow_nan=False)


def test_an_empty_comparison_is_an_empty_table():
    assert report.comparison_table({}).rows == ()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_terminal_shows_every_figure_unbroken(run_folder, width):
    table = report.comparison_table(Run.read(run_folder).summary)
    shown = lines(table, width)
    assert max(map(len, shown)) <= width
    joined = " ".join(shown)
    for cells in table.rows:
        for cell in cells:
            for word in cell.text.split():
                assert word in joined


def test_a_narrow_terminal_gets_hyper_parameters_below(run_folder):
    table = report.comparison_table(Run.read(run_folder).summary)
    narrow = "\n".join(lines(table, 80))
    assert "Hyper-parameters, SGD: learning rate 0.1, weight decay 0.0001" in narrow
    assert "Hyper-parameters, SGD" not in "\n".join(lines(table, 200))


def test_best_is_bold_in_each_form(run_folder):
    table = report.comparison_table(Run.read(run_folder).summary)
    assert "| **95." in table.markdown() or "| **9" in table.markdown()
    assert any(cell["test_accuracy"]["best"] for cell in table.json()["rows"])
    assert "* best of its column" in table.text()
    console = Console(width=160, force_terminal=True, record=True, file=open("/dev/null", "w"))
    console.print(table)
    console.file.close()
    assert "\x1b[1m" in console.export_text(styles=True)


def test_hostile_words_stay_words():
    name = "a|b[bold]\x1b[31m<script>*x*\nc"
    table = report.comparison_table({"comparison": [row(name, final_loss=1.0)]})
    for shown in (table.text(), table.markdown(), "\n".join(lines(table, 200))):
        assert "\x1b" not in shown
    assert len(table.markdown().splitlines()) == 7
    assert "<script>" not in table.markdown()
    assert "[bold]" in "\n".join(lines(table, 200))


def test_a_row_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match=r"Table\.rows: a row has 1 cells for 2 columns"):
        Table("t", (Column("a", "A"), Column("b", "B")), ((Cell("1"),),))


def test_ours_stands_directly_above_the_paper():
    paper = report.S000_TABLE1_MLP
    ours = {"MetaMD": {"0": {"mean": 95.0, "se": 0.2}, "15": (94.0, 0.1)}, "Muon": {"0": 96.0}}
    table = report.side_by_side(ours, paper)
    names = [(cells[0].text, cells[1].text) for cells in table.rows]
    assert names[:2] == [("SGD", "ours"), ("SGD", "paper")]
    assert names[-2:] == [("MetaMD", "paper"), ("Muon", "ours")]  # which the paper does not have
    mine, theirs = table.rows[8], table.rows[9]
    assert [mine[i].text for i in (2, 3, 4)] == ["95.00 ± 0.20", "94.00 ± 0.10", "–"]
    assert theirs[2].text == "95.22 ± 0.70" and theirs[2].best
    assert table.rows[10][2].best and not mine[2].best  # best among ours, apart from the paper's
    assert mine[-1].text == "–"  # no mean over columns that were not all run
    assert float(theirs[-1].text) == pytest.approx(
        sum(mean for mean, _ in paper["rows"]["MetaMD"]) / 6, abs=0.005
    )
    assert "Table 1 (top)" in table.notes[0]


def test_iteration_counts_are_whole_numbers_and_lower_is_better():
    ours = {"MetaMD": {"top row": 14}, "SGD": {"top row": 160}}
    table = report.side_by_side(ours, report.S000_FIGURE1)
    assert texts(table, "bottom row")[1] == "27,328"
    assert best(table, "top row") == ["MetaMD", "MetaMD"]


def test_the_certificate_says_whether_each_bound_holds(run_folder):
    certificate = Run.read(run_folder).summary["certificate"]
    table = report.certificate_table(certificate)
    assert [cells[3].text for cells in table.rows] == ["–", "holds", "holds", "–"]
    broken = report.certificate_table({"regret": 2.0, "bounds": {"printed step": 1.0}})
    assert broken.rows[1][3].text == "BROKEN" and broken.rows[1][2].text == "0.5"
    unknown = report.certificate_table({"regret": None, "bounds": {"a": 1.0}, "radius": 2.0})
    assert [cells[3].text for cells in unknown.rows] == ["–", "–", "–"]
    assert unknown.rows[2][0].text == "Radius"


def test_assumptions_that_were_not_checked_are_said_to_be_so(run_folder):
    table = report.assumption_table(Run.read(run_folder).summary["certificate"])
    assert [[cell.text for cell in cells[:2]] for cells in table.rows] == [
        ["Convexity", "does not hold"],
        ["Lipschitz gradients", "holds"],
        ["Known comparator", "not checked"],
    ]
    assert report.assumption_table({}) is None


@pytest.mark.parametrize("name", sorted(report.PAPERS))
def test_printed_figures_are_complete_and_name_their_source(name):
    paper = report.PAPERS[name]
    assert paper["source"].startswith(name[:4].upper())
    assert paper["better"] in {"higher", "lower"}
    for pairs in paper["rows"].values():
        assert len(pairs) == len(paper["columns"]) and all(len(pair) == 2 for pair in pairs)


@pytest.mark.parametrize("name", [name for name in report.PAPERS if name.startswith("s000")])
def test_printed_figures_of_meta_mirror_descent_have_its_optimisers(name):
    paper = report.PAPERS[name]
    others = {"s000-fig1": {"SGD"}, "s000-fig4": {"AdamW"}}.get(name, {"SGD", "RMSprop"})
    assert set(paper["rows"]) == {"SGD-M", "Adam", "MetaMD"} | others


def test_printed_figures_agree_with_what_the_paper_prints_in_bold():
    """The entries in bold in S000, Table 1: a slip in copying would move the best."""
    table = report.side_by_side({}, report.S000_TABLE1_LENET)
    bold = {"MNIST": "RMSprop", "QMNIST": "MetaMD", "KMNIST": "MetaMD"}
    bold |= {"FashionMNIST": "SGD", "USPS": "MetaMD", "SVHN": "MetaMD"}
    assert {key: best(table, key) for key in bold} == {k: [v] for k, v in bold.items()}
    mlp = report.side_by_side({}, report.S000_TABLE1_MLP)
    assert all(best(mlp, key) == ["MetaMD"] for key in report.S000_TABLE1_MLP["columns"])


def test_a_spread_over_problems_is_not_called_one_over_seeds():
    row = {"optimiser": "SGD", "steps": {"mean": 20.0, "se": 5.8, "values": [10, 20, 30]}}
    table = report.comparison_table({"seeds": 1, "problems": 1280, "comparison": [row]})
    assert table.notes[0] == ("± is one standard error of the mean over 1,280 held-out problems.")


def test_one_seed_has_no_error():
    row = {"optimiser": "SGD", "test_accuracy": {"mean": 0.9, "se": None, "values": [0.9]}}
    table = report.comparison_table({"seeds": 1, "comparison": [row]})
    assert table.rows[0][1].text == "90.00"
    assert table.notes[0] == "One seed: no standard error is known."


def test_an_error_over_tasks_is_not_called_one_over_seeds():
    row = {"optimiser": "SGD", "test_accuracy": {"mean": 0.9, "se": 0.01, "tasks": 2}}
    table = report.comparison_table({"seeds": 3, "cells": {"a": {}, "b": {}}, "comparison": [row]})
    assert table.notes[0] == "± is one standard error of the mean over 2 tasks, 3 seeds each."
