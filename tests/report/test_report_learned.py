"""Figures of what was learned and what is guaranteed: what they draw is what the files say."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from mirrax import report
from mirrax._errors import MirraxError
from mirrax.certificate import regret_certificate
from mirrax.geometry import Euclidean
from mirrax.inner import Trajectory
from mirrax.report import Run
from mirrax.report._certificate_figure import draw_bounds
from mirrax.report._level_sets import draw_level_sets
from mirrax.report._run_figures import RunFigure, figures_of
from mirrax.report._spectrum_figure import draw_spectrum, spectrum_caption
from mirrax.report._style import BLUE, VERMILLION, drawing, new_figure, to_svg
from mirrax.report._verdicts import verdicts
from mirrax.study._certify import as_record


def drawn(draw, *data):
    with drawing():
        figure = draw(*data)
        figure.draw_without_rendering()
    return figure


def falling(count, low, high):
    return np.geomspace(high, low, count).tolist()


def test_the_spectrum_is_drawn_as_it_is_written():
    leaves = [
        {"name": "a/weight", "spectrum": falling(64, 0.01, 1.0)},
        {"name": "a/bias", "spectrum": [0.2]},
        {"name": "old"},  # written before spectra were
    ]
    (axes,) = drawn(draw_spectrum, {"leaves": leaves}).axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert len(lines) == 2 and axes.get_yscale() == "log"
    weight, bias = axes.get_lines()
    np.testing.assert_array_equal(weight.get_ydata(), leaves[0]["spectrum"])
    np.testing.assert_allclose(np.diff(weight.get_xdata()), 100 / 64)
    assert bias.get_xdata() == [50] and bias.get_marker() == "o"
    assert "at most 100 within an array (a/weight)" in spectrum_caption({"leaves": leaves})


def test_components_have_a_panel_each_and_an_array_one_colour():
    leaves = [
        {"name": f"{name} [component {k}]", "spectrum": falling(8, 0.1, 0.1 * k * i + 0.1)}
        for k in (1, 2, 3)
        for i, name in enumerate(("a", "b"), 1)
    ]
    panels = drawn(draw_spectrum, {"leaves": leaves}).axes
    assert [axes.get_title(loc="left")[-11:] for axes in panels] == [
        f"component {k}" for k in (1, 2, 3)
    ]
    for axes in panels:
        assert [line.get_color() for line in axes.get_lines()] == [VERMILLION, BLUE]


def test_of_many_arrays_those_with_the_largest_condition_are_shown_and_said():
    leaves = [{"name": f"w{i}", "spectrum": [1.0 + i, 1.0]} for i in range(20)]
    (axes,) = drawn(draw_spectrum, {"leaves": leaves}).axes
    assert axes.get_title(loc="left").endswith("(7 of 20 arrays)")
    legend = axes.get_legend()
    assert legend and [t.get_text() for t in legend.get_texts()] == [f"w{i}" for i in range(13, 20)]


def test_the_table_has_a_column_for_the_condition_where_it_is_known(run_folder):
    geometry = Run.read(run_folder).geometry
    table = report.inspect_table(geometry)
    column = [c.key for c in table.columns].index("condition")
    for row, leaf in zip(table.rows, geometry["leaves"], strict=True):
        assert row[column].value == leaf["spectrum"][0] / leaf["spectrum"][-1]
    old = {"leaves": [{"name": "w", "rate_low": 0.1}]}
    assert "condition" not in [c.key for c in report.inspect_table(old).columns]


def test_one_array_without_a_name_is_all_parameters():
    geometry = {"leaves": [{"name": "", "rate_low": 0.1, "rate_high": 0.2, "spectrum": [0.2, 0.1]}]}
    assert report.inspect_table(geometry).rows[0][0].text == "all parameters"
    assert "all parameters" in spectrum_caption(geometry)


def test_a_bound_that_holds_and_one_that_is_broken_differ_in_form_and_words():
    bounds = {"exact": 3.0, "too small": 1.0, "unknown": None}
    (axes,) = drawn(draw_bounds, {"regret": 2.0, "linearised_regret": 2.5, "bounds": bounds}).axes
    regret, linearised, *points = axes.get_lines()
    assert regret.get_xdata() == [2.0, 2.0] and linearised.get_xdata() == [2.5, 2.5]
    assert [point.get_xdata()[0] for point in points] == [3.0, 1.0]
    assert [point.get_marker() for point in points] == ["o", "X"]
    said = [text.get_text() for text in axes.texts]
    assert said == ["1.5 times the regret", "broken, 0.5 times the regret"]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(bounds)
    assert axes.get_xscale() == "log" and "log scale" in axes.get_xlabel()


@pytest.mark.parametrize(
    ("certificate", "holds"),
    [
        ({"regret": 1.0, "bounds": {"a": 1 - 1e-7}}, True),  # equal up to rounding
        ({"regret": 1.0, "bounds": {"a": 0.99}}, False),
        ({"regret": 1.0, "linearised_regret": 2.0, "bounds": {"a": 1.5}}, False),
        ({"regret": 2.0, "linearised_regret": 1.0, "bounds": {"a": 1.5}}, True),
        ({"regret": 1.0, "bounds": {"a": 0.9}, "satisfied": {"a": True}}, True),
        ({"regret": 1.0, "bounds": {"a": 1.1}, "satisfied": {"a": False}}, False),
    ],
)
def test_table_and_figure_repeat_the_verdict_of_the_certificate(certificate, holds):
    (axes,) = drawn(draw_bounds, certificate).axes
    assert axes.get_lines()[-1].get_marker() == ("o" if holds else "X")
    assert ("broken" in axes.texts[0].get_text()) is not holds
    row = report.certificate_table(certificate).rows[1]
    assert row[3].text == ("holds" if holds else "BROKEN")


def test_the_record_of_a_certificate_has_its_verdicts():
    run = Trajectory(jnp.array([1.0, 0.5]), jnp.array([1.0]), jnp.array([0.5]))
    found = regret_certificate(Euclidean(), run, jnp.zeros(1), jnp.array(0.0), 0.5)
    record = as_record(found, "t")
    assert record["satisfied"] == {bound.name: bound.satisfied for bound in found.bounds}
    assert verdicts(record) == record["satisfied"]


def test_words_beside_the_last_point_stay_within_the_axes():
    for bounds in ({"a": 2.0}, {"a": 200.0}, {"a": 2.0, "b": 2e6}):
        figure = drawn(draw_bounds, {"regret": 1.0, "bounds": bounds})
        (axes,) = figure.axes
        edges = [text.get_window_extent().x1 for text in axes.texts]
        assert max(edges) <= figure.bbox.x1


@pytest.mark.parametrize("regret", [0.0, -3.0, None, math.nan])
def test_a_regret_that_is_not_positive_has_a_plain_axis(regret):
    (axes,) = drawn(draw_bounds, {"regret": regret, "bounds": {"exact": 3.0, "b": 0.0}}).axes
    assert axes.get_xscale() == "linear" and "log" not in axes.get_xlabel()
    assert not any("times" in text.get_text() for text in axes.texts)


def test_level_sets_are_equally_far_and_enclose_equal_areas(paths):
    metric = np.array([[3.0, 1.0], [1.0, 2.0]])
    panels = drawn(draw_level_sets, {**paths, "metric": metric.tolist()}).axes
    start = np.array(paths["trajectories"]["SGD"][0])
    areas = []
    for axes, one in zip(panels, (metric, np.eye(2)), strict=True):
        lines = (line.get_xydata() for line in axes.get_lines())
        rings = [points - start for points in lines if len(points) > 1]
        assert len(rings) == 6
        for ring in rings:
            squares = np.einsum("ni,ij,nj->n", ring, one, ring)
            np.testing.assert_allclose(squares, squares[0], rtol=1e-12)
            x, y = ring.T
            areas.append(abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2)
    np.testing.assert_allclose(areas[:6], areas[6:], rtol=1e-12)


@pytest.mark.parametrize("metric", [[[1, 0], [0, -1]], [[-1, 0], [0, -1]], [[1, 0, 0], [0, 1, 0]]])
def test_a_metric_that_is_none_is_refused(paths, metric):
    with pytest.raises(ValueError, match="positive definite"):
        drawn(draw_level_sets, {**paths, "metric": metric})


def test_a_run_that_starts_at_the_minimum_is_drawn():
    data = {"matrix": [[0.5, 0.0], [0.0, 0.5]], "vector": [1.0, 2.0], "metric": [[1, 0], [0, 2]]}
    drawn(draw_level_sets, {**data, "trajectories": {"SGD": [[1.0, 2.0]]}})


def test_a_figure_that_cannot_be_drawn_is_a_note(tmp_path):
    certificate = {"regret": 1e-308, "bounds": {"a": 1e308}}
    run = Run(tmp_path, {"recipe": "r"}, summary={"certificate": certificate})
    assert report.write_figures(run) == []
    page = report.html([run], tmp_path / "x.html").read_text(encoding="utf-8")
    assert "The figure bounds is left out, summary.json cannot be drawn" in page
    assert "Bound, a" in page and "Traceback" not in page


def test_trajectories_without_a_metric_have_one_figure(two_runs):
    run = Run.read(two_runs[1])
    stems = [figure.stem for figure in figures_of(run)]
    assert {"trajectories", "divergence"} <= set(stems)
    del run.trajectories["metric"]
    stems = [figure.stem for figure in figures_of(run)]
    assert "trajectories" in stems and "divergence" not in stems


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(matrix=[[1.0]]), "'matrix' is not a 2 by 2"),
        (lambda c: c.update(metric=3), "'metric' is not a 2 by 2"),
        (lambda c: c.update(matrix=[[1.0, None], [0.0, 1.0]]), "'matrix' is not a 2 by 2"),
        (lambda c: c.update(matrix=[[1.0, 1.0], [1.0, 1.0]]), "positive definite"),
        (lambda c: c.update(metric=[[1.0, 0.0], [0.0, -1.0]]), "positive definite"),
        (lambda c: c.update(metric=None), "'metric' is not"),
        (lambda c: c.update(steps=[3]), "'steps' is not"),
        (lambda c: c["trajectories"]["SGD"].__setitem__(0, [1.0, None]), "no first point"),
        (lambda c: c.update(vector=[1.0, None]), "'vector' is not two"),
        (lambda c: c.update(vector=[1.0]), "'vector' is not two"),
        (lambda c: c.update(trajectories={}), "'trajectories' is not"),
        (lambda c: c.update(trajectories={"SGD": [[1.0]]}), "the path of SGD"),
    ],
)
def test_damaged_trajectories_are_named(run_folder, edit, paths, change, said):
    (run_folder / "trajectories.json").write_text("{}")
    edit("trajectories", lambda _: paths)
    edit("trajectories", change)
    with pytest.raises(MirraxError, match=said):
        Run.read(run_folder)


def test_a_spectrum_that_is_no_list_is_named(run_folder, edit):
    edit("geometry", lambda c: c["leaves"][0].update(spectrum="wide"))
    with pytest.raises(MirraxError, match="the spectrum of dense_0/weight"):
        Run.read(run_folder)


def test_every_axes_is_labelled(two_runs, summary):
    """With what stands beside it where axes are shared, or once for the whole figure."""
    figures = [f for folder in two_runs for f in figures_of(Run.read(folder))]
    few_shot = Run(two_runs[0], {"recipe": "few-shot-glyphs"}, summary=summary)
    for figure in [*figures, *figures_of(few_shot)]:
        with drawing():
            found = figure.draw()
        for axes in filter(lambda a: a.get_visible(), found.axes):
            for axis in "xy":
                whole = getattr(found, f"get_sup{axis}label")()
                shared = getattr(axes, f"get_shared_{axis}_axes")().get_siblings(axes)
                said = [getattr(one, f"get_{axis}label")() for one in shared]
                assert whole or any(said), (figure.stem, axis)


def test_a_figure_is_drawn_once_however_often_it_is_written(tmp_path):
    calls = []

    def draw():
        calls.append(1)
        figure = new_figure(1.0)
        figure.subplots()
        return figure

    figure = RunFigure("x", "A figure.", draw)
    run = Run(tmp_path, {"recipe": "r"})
    svg, png = report.write_figures(run, figures=[figure])
    report.html([run], tmp_path / "x.html", figures=[[figure]])
    assert len(calls) == 1
    assert svg.read_bytes() == figure.svg and png.read_bytes() == figure.png


def test_glyphs_keep_their_size():
    """Their outlines are in units of a 64th; a factor cut to hundredths would shrink them."""
    with drawing():
        figure = new_figure(1.0)
        figure.text(0.1, 0.5, "Rate")
        svg = to_svg(figure)
    assert b'scale(0.015625)"' in svg and b'scale(0.01)"' not in svg
