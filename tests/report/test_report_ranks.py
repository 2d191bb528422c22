"""Mean ranks: by hand, and against SciPy; seconds and tuning as tables; what old files lack."""

import json
from itertools import product

import numpy as np
import pytest
from scipy import stats

from mirrax import report
from mirrax._errors import MirraxError
from mirrax.report._rank_tests import friedman, holm, mean_ranks, signed_rank


def row(name, **values):
    return {"optimiser": name, **{key: {"values": list(v)} for key, v in values.items()}}


def texts(table, key):
    position = [column.key for column in table.columns].index(key)
    return [cells[position].text for cells in table.rows]


def test_ranks_by_hand():
    # Cell 1: 1 < 2 = 2; cell 2: 1 < 2 < 3, of which the last failed.
    assert mean_ranks([[1.0, 0.3], [2.0, 0.1], [2.0, np.inf]]) == [1.5, 1.75, 2.75]


@pytest.mark.parametrize("cells", [5, 8, 30])
def test_wilcoxons_p_without_ties_is_scipys_exact_one(cells):
    rng = np.random.default_rng(cells)
    for _ in range(5):
        first, second = rng.normal(size=cells), rng.normal(0.4, size=cells)
        expected = stats.wilcoxon(first, second, method="exact").pvalue
        np.testing.assert_allclose(signed_rank(first, second), expected, rtol=1e-9)


def by_all_signs(first, second):
    """Every sign of every difference that is not zero, with Pratt's ranks."""
    difference = np.subtract(first, second)
    ranks = stats.rankdata(np.abs(difference))[difference != 0]
    seen = ranks[difference[difference != 0] > 0].sum()
    sums = [ranks @ np.array(signs) for signs in product((0, 1), repeat=len(ranks))]
    below, above = np.mean(np.array(sums) <= seen), np.mean(np.array(sums) >= seen)
    return min(1.0, 2 * min(below, above))


def test_wilcoxons_p_with_ties_and_zeros_counts_all_signs():
    rng = np.random.default_rng(0)
    for cells in (4, 7, 9, 10):
        first, second = rng.integers(0, 4, (2, cells)).astype(float)
        np.testing.assert_allclose(signed_rank(first, second), by_all_signs(first, second))
    assert signed_rank([1.0, 1.0], [1.0, 1.0]) == 1.0
    # Two that failed are equal, and failing is worse than anything.
    failed = signed_rank([np.inf, np.inf, 3.0, 4.0, 5.0], [np.inf, 1.0, 2.0, 2.0, 1.0])
    assert failed == by_all_signs([0.0, 9.0, 3.0, 4.0, 5.0], [0.0, 1.0, 2.0, 2.0, 1.0]) == 0.125


def test_friedmans_p_is_that_of_the_statistic():
    """χ² = 12 n/(k(k+1)) Σ (R − (k+1)/2)², with k − 1 degrees of freedom (Demšar 2006)."""
    runs = np.random.default_rng(1).normal(size=(4, 9)) + np.arange(4)[:, None]
    ranks = np.array(mean_ranks(runs.tolist()))
    statistic = 12 * 9 / (4 * 5) * np.sum((ranks - 2.5) ** 2)
    np.testing.assert_allclose(friedman(runs.tolist()), stats.chi2.sf(statistic, 3))
    assert friedman([[1.0, 2.0]] * 3) == 1.0


def test_holms_correction_by_hand():
    # 4 · 0.005, 3 · 0.01, 2 · 0.03; the last may not be less than the one before.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def summary(cells=10, **more):
    steady = np.arange(cells) / cells
    rows = [
        row("MetaMD", test_accuracy=0.9 + steady / 100, final_loss=0.1 + steady),
        row("SGD", test_accuracy=0.8 + steady / 100, final_loss=0.2 + steady),
        row("Adam", test_accuracy=0.7 + steady / 100, final_loss=0.1 + steady),
    ]
    return {"comparison": rows, "seeds": 5, "cells": {"0": {}, "45": {}}, **more}


def test_the_table_ranks_every_measure_in_its_own_direction():
    table = report.rank_table(summary())
    # Of ten cells all on one side: 2/2^10, times two comparisons for the least.
    p = f"{2 * 2 / 2**10:.3f}"
    assert texts(table, "test_accuracy") == ["1.00", f"2.00 ({p})", f"3.00 ({p})"]
    assert texts(table, "final_loss") == ["1.50", f"3.00 ({p})", "1.50"]
    notes = " ".join(table.notes)
    assert "Over 10 cells (2 tasks held out, 5 seeds)" in notes
    assert "cells that share images are not independent" in notes
    assert "The best is picked in the same cells" in notes
    assert "p of Friedman's test" in notes
    assert [[cell.best for cell in cells] for cells in table.rows] == [
        [False, True, True],
        [False, False, False],
        [False, False, True],
    ]


def test_equal_accuracies_of_older_results_are_ties():
    """0.1.0 summed shares in float32: 350 of 360 images gave several numbers."""
    shares = [0.97222215, 0.97222221, 0.97222227, 0.97222233]
    values = {"SGD": shares, "Adam": shares[::-1]}
    rows = [{"optimiser": n, "test_accuracy": {"values": v}} for n, v in values.items()]
    assert texts(report.rank_table({"comparison": rows}), "test_accuracy") == ["1.50", "1.50"]


def test_too_few_cells_for_any_significance_are_said_to_be():
    table = report.rank_table(summary(4))
    assert texts(table, "test_accuracy") == ["1.00", "2.00", "3.00"]
    assert "With 4 cells and 2 comparisons no p could be below 0.25" in table.notes[1]
    assert len(table.notes) == 2
    assert report.rank_table(summary(2)) is None
    assert report.rank_table({"comparison": summary()["comparison"][:1]}) is None


def test_a_target_never_reached_ranks_last_and_one_reached_by_nobody_has_no_column():
    def steps(easy, hard):
        found = {"0.3": easy, "0.1": hard}
        return {"steps_to": {target: {"values": values} for target, values in found.items()}}

    rows = [
        {"optimiser": "SGD", **steps([None, 40, None], [None] * 3)},
        {"optimiser": "Adam", **steps([30, 30, 50], [None] * 3)},
    ]
    table = report.rank_table({"comparison": rows})
    assert [column.label for column in table.columns] == ["Optimiser", "Steps to loss 0.3"]
    assert texts(table, "steps_to_loss_0.3") == ["2.00", "1.00"]


def test_runs_that_are_not_paired_are_not_ranked():
    found = summary()
    del found["comparison"][1]["final_loss"]["values"][3:]
    table = report.rank_table(found)
    assert [column.key for column in table.columns] == ["optimiser", "test_accuracy"]
    assert report.rank_table({"comparison": [{"optimiser": "a"}, {"optimiser": "b"}]}) is None


def timed(name, cost, **seconds):
    entries = {f"0.{key[1:]}": entry for key, entry in seconds.items()}
    return {"optimiser": name, "seconds_a_step": cost, "seconds_to": entries}


def test_seconds_have_a_table_of_their_own():
    def entry(mean, values):
        return {"mean": mean, "se": mean and mean / 10, "values": values}

    rows = [
        timed("SGD", 0.0005, t3=entry(0.05, [0.04, 0.06]), t1=entry(None, [None, None])),
        timed("Muon", 0.004, t3=entry(0.2, [0.2, 0.2]), t1=entry(0.4, [0.4, 0.4])),
    ]
    table = report.seconds_table({"comparison": rows})
    assert [column.label for column in table.columns] == [
        "Optimiser",
        "Milliseconds a step",
        "Seconds to loss 0.3",
        "Seconds to loss 0.1",
    ]
    assert texts(table, "milliseconds") == ["0.500", "4.000"]
    assert texts(table, "seconds_to_0.3") == ["0.0500 ± 0.0050", "0.2000 ± 0.0200"]
    assert texts(table, "seconds_to_0.1") == ["not reached", "0.400 ± 0.040"]
    # The error of a step's time is the same in all cells, so that ranks over cells say nothing.
    many = [dict(row, seconds_to={"0.3": entry(0.1, [0.1] * 6)}) for row in rows]
    assert report.rank_table({"comparison": many}) is None
    compared = report.comparison_table({"comparison": rows})
    assert [column.key for column in compared.columns] == ["optimiser"]


def test_tuning_says_how_many_trials_and_where_the_best_lies():
    def tuning(score, tuner="bayes", **within):
        known = {name: {"low": 0, "high": 1, "share": share} for name, share in within.items()}
        shared = {"criterion": "validation", "trials": 25, "failed": 4}
        return {"tuner": tuner, "score": score, "within": known, **shared}

    rows = [
        {"optimiser": "SGD", "tuning": tuning(0.031, learning_rate=0.5, weight_decay=0.0)},
        {"optimiser": "Adam", "tuning": tuning(None, learning_rate=1.0)},
    ]
    table = report.tuning_table({"comparison": rows})
    assert texts(table, "score") == ["3.10", "–"] and texts(table, "trials") == ["25", "25"]
    assert texts(table, "within") == ["learning rate 50%, weight decay 0%", "learning rate 100%"]
    rows[0]["tuning"] = tuning(0.1, tuner="grid")
    assert not any(cell.best for cells in table.rows for cell in cells), "scores are not alike"
    assert "within" not in [c.key for c in report.tuning_table({"comparison": rows[:1]}).columns]


def test_a_summary_from_before_has_the_comparison_and_its_ranks(run_folder):
    found = json.loads((run_folder / "summary.json").read_text())
    titles = [table.title.partition(",")[0] for table in report.summary_tables(found)]
    assert titles == ["Comparison of optimisers", "Mean ranks"]
    assert report.seconds_table(found) is None and report.tuning_table(found) is None


@pytest.mark.parametrize("key", ["seconds_to", "tuning"])
def test_a_file_that_holds_something_else_is_named(run_folder, edit, key):
    edit("summary", lambda found: found["comparison"][0].update({key: "a word"}))
    with pytest.raises(MirraxError, match=f"'{key}' of .* is not an object"):
        report.Run.read(run_folder)
