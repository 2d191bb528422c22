"""Figures of few-shot runs: what they show, what they say, and that nothing is covered."""

import json

import pytest

from mirrax import report
from mirrax.report import Run
from mirrax.report._few_shot_figures import draw_adaptation, draw_training, running_mean
from mirrax.report._run_figures import figures_of
from mirrax.report._style import drawing, strokes


def test_a_run_is_read_and_its_figures_lie_in_its_folder(folder):
    run = Run.read(folder)
    assert run.notes == ()
    written = report.write_figures(run)
    assert [path.name for path in written] == [
        "adaptation.svg",
        "adaptation.png",
        "training.svg",
        "training.png",
    ]
    captions = [figure.caption for figure in figures_of(run)]
    assert "95% intervals" in captions[0] and "mean of the last 12 records" in captions[1]
    first = [path.read_bytes() for path in written]
    assert first == [path.read_bytes() for path in report.write_figures(run)]
    assert max(map(len, first)) < 600_000


def test_methods_that_traced_nothing_make_no_figure(folder, summary):
    for row in summary["methods"]:
        del row["adaptation"]
        row["training"] = {"steps": [], "loss": []}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    assert figures_of(Run.read(folder)) == []


def drawn(figure):
    figure.draw_without_rendering()
    return figure


def test_nothing_in_the_figure_lies_over_anything_else(summary):
    with drawing():
        figure = drawn(draw_adaptation(summary))
        top, bottom = figure.axes
        legend = top.get_legend().get_window_extent()
        assert legend.y0 >= top.get_window_extent().y1 - 1 and legend.x1 <= figure.bbox.x1
        title = top._left_title.get_window_extent()
        assert title.y0 >= legend.y1 - 1 and title.y1 <= figure.bbox.y1
        labels = [axes.yaxis.label.get_window_extent() for axes in (top, bottom)]
        assert labels[0].y0 > labels[1].y1 and labels[1].y0 > 0 and labels[0].y1 < title.y0
        assert len(top.get_legend().get_texts()) == len(summary["methods"])
        assert bottom.get_legend() is None


def test_the_curves_are_the_record(summary):
    with drawing():
        top, bottom = draw_adaptation(summary).axes
    for axes, key in ((top, "support_loss"), (bottom, "gradient_norm")):
        lines = [line for line in axes.get_lines() if len(line.get_xdata()) == 11]
        found = sorted(tuple(line.get_ydata()) for line in lines)
        assert found == sorted(tuple(row["adaptation"][key]) for row in summary["methods"])
        assert len(axes.collections) == 1, "of so many lines the one in front has a band"
        assert axes.get_yscale() == "log" and "log scale" in axes.get_ylabel()
        (mark,) = [line for line in axes.get_lines() if len(line.get_xdata()) == 2]
        assert list(mark.get_xdata()) == [5, 5]
    assert "the 5 steps of meta-training" in bottom.get_xlabel()


def test_every_one_of_a_few_lines_has_a_band(summary):
    with drawing():
        few = draw_adaptation({**summary, "methods": summary["methods"][:5]})
    assert [len(axes.collections) for axes in few.axes] == [5, 5]


def test_short_ranges_keep_a_linear_axis_from_zero():
    trace = {"steps": [0, 1, 2], "support_loss": [1.0, 0.8, 0.7], "gradient_norm": [1.0, None, 0.5]}
    with drawing():
        top, bottom = draw_adaptation({"methods": [{"method": "a", "adaptation": trace}]}).axes
    assert top.get_yscale() == bottom.get_yscale() == "linear"
    assert top.get_ylim()[0] == 0 and "log" not in top.get_ylabel()
    assert "meta-training" not in bottom.get_xlabel()  # no protocol: nothing to mark


def test_divergence_and_vanishing_do_not_spoil_the_axis(summary):
    wild, gone = summary["methods"][0]["adaptation"], summary["methods"][1]["adaptation"]
    wild["support_loss"] = [1.6 * 50.0**k for k in range(10)] + [None]
    gone["support_loss"] = [1.6, 1e-30, *[0.0] * 9]
    with drawing():
        top = drawn(draw_adaptation(summary)).axes[0]
    low, high = top.get_ylim()
    assert 2 < high < 40 and 1e-6 < low < 1e-4


def test_smoothing_is_said_and_is_a_mean_of_records():
    import numpy as np

    values = np.array([4.0, 2.0, np.nan, 2.0, 6.0, 1.0])
    expected = [4.0, 3.0, np.nan, np.nan, 4.0, 3.5]
    np.testing.assert_array_equal(running_mean(values, 2), expected)  # sums of few small integers
    assert running_mean(values, 1) is values
    rows = [{"method": "maml", "training": {"steps": [1, 2, 3], "loss": [3.0, 1.0, 2.0]}}]
    with drawing():
        raw = draw_training({"methods": rows}).axes[0]
        mean = draw_training({"methods": rows}, 2).axes[0]
        with pytest.raises(ValueError, match="window is 0"):
            draw_training({"methods": rows}, 0)
    assert list(raw.get_lines()[0].get_ydata()) == [3.0, 1.0, 2.0]
    assert list(mean.get_lines()[0].get_ydata()) == [3.0, 2.0, 1.5]
    assert raw.get_xlabel() == "Meta-step"
    assert mean.get_xlabel() == "Meta-step (mean of the last 2 records)"


def test_every_method_can_be_told_apart_without_colour(summary):
    names = [row[0].text for row in report.few_shot_table(summary).rows]
    found = strokes([*names, "one of my own", "another"])
    assert len({(stroke.marker, str(stroke.dashes)) for stroke in found.values()}) == len(found)
    assert len({(stroke.colour, str(stroke.dashes)) for stroke in found.values()}) == len(found)
    assert found["convex potential"].width == max(stroke.width for stroke in found.values())
