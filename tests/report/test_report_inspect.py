"""The text of `mirrax inspect`."""

import math

from mirrax import report
from mirrax.report import Run
from mirrax.report._inspect import rate_range, sparkline


def test_every_leaf_is_listed_with_shape_and_roles(run_folder):
    geometry = Run.read(run_folder).geometry
    text = report.inspect_text(geometry)
    for leaf in geometry["leaves"]:
        line = next(line for line in text.splitlines() if line.startswith(leaf["name"]))
        assert " × ".join(map(str, leaf["shape"])) in line
        assert " × ".join(leaf["roles"]) in line
        assert any(bar in line for bar in "▁▂▃▄▅▆▇█")
    assert "17,226 rates in 6 arrays." in text
    assert "Lowest rate" in text and "ratio" in text


def test_bars_of_all_leaves_share_one_scale(run_folder):
    table = report.inspect_table(Run.read(run_folder).geometry)
    bars = [cells[-1].text for cells in table.rows]
    assert {len(bar) for bar in bars} == {18}
    assert any(bar[1] == " " for bar in bars) and any(bar[1] != " " for bar in bars)


def test_mass_is_kept_when_bins_are_merged():
    leaf = {"histogram": {"edges": [1, 10, 100, 1000, 10000], "counts": [8, 0, 4, 0]}}
    assert sparkline(leaf, 1, 10000, width=4) == "█ ▄ "
    assert sparkline(leaf, 1, 10000, width=2) == "█▄"


def test_one_rate_for_all_is_one_bar():
    leaf = {"name": "w", "rate_median": 0.1, "histogram": {"edges": [0.1, 0.1], "counts": [5]}}
    assert rate_range({"leaves": [leaf]}) == (0.1, 0.1)
    assert sparkline(leaf, 0.1, 0.1, width=5) == "  █  "


def test_a_leaf_without_histogram_or_shape():
    text = report.inspect_text({"geometry": "Scaled", "leaves": [{"name": "w"}]})
    assert "Scaled" in text and "scalar" in text and "nan" not in text


def test_rates_that_are_not_positive_or_finite_do_not_stretch_the_scale():
    leaf = {"name": "w", "rate_low": 0.0, "rate_median": 0.2, "rate_high": math.inf}
    assert rate_range({"leaves": [leaf]}) == (0.2, 0.2)
    assert rate_range({"leaves": []}) is None


def test_active_components_are_counted():
    text = report.inspect_text({"leaves": [], "activation": [0.996, 0.004, 0.0]})
    assert "Active components: 2 of 3 (1: 100 %, 2: 0.4 %, 3: never active)." in text
