"""Figures: written for every kind of data, the same to the byte, and robust to what runs do."""

import json
import math
import re
from xml.etree import ElementTree

import pytest

from mirrax import report
from mirrax._errors import MirraxError
from mirrax.report import Run
from mirrax.report._run_figures import figures_of
from mirrax.report._style import drawing, strokes
from mirrax.study._baselines import BASELINES


def write_each(run: Run, paths, folder):
    """Every public figure once."""
    by_step = run.summary["certificate"]["by_step"]
    return [
        *report.learning_curves(run.curves, folder / "curves"),
        *report.meta_progress(run.rounds, folder / "progress"),
        *report.geometry_rates(run.geometry, folder / "rates"),
        *report.activation_by_round(run.rounds, folder / "rounds"),
        *report.activation_by_step(run.activation_by_step, folder / "steps"),
        *report.trajectories(paths, folder / "paths"),
        *report.regret_bounds(by_step, folder / "bounds"),
    ]


def test_every_figure_is_written(run_folder, paths, tmp_path):
    folder = tmp_path / "a" / "deep"
    written = write_each(Run.read(run_folder), paths, folder)
    assert len(written) == 14 and set(written) == set(folder.iterdir())
    for path in written:
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG" if path.suffix == ".png" else b"<?xml")
        assert len(data) < 500_000
        if path.suffix == ".svg":
            ElementTree.fromstring(data)
            assert not re.search(rb"<dc:date>|matplotlib v|\d{4}-\d\d-\d\dT", data, re.IGNORECASE)


def test_the_same_data_give_the_same_bytes(run_folder, tmp_path):
    run = Run.read(run_folder)
    for write, data in (
        (report.learning_curves, run.curves),
        (report.geometry_rates, run.geometry),
    ):
        first, again = (write(data, tmp_path / name / "x") for name in "ab")
        assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]


def test_the_figures_of_a_run_lie_in_its_folder(run_folder):
    written = report.write_figures(Run.read(run_folder))
    stems = {path.stem for path in written}
    assert stems == {
        "curves",
        "rates",
        "spectrum",
        "progress",
        "activation-rounds",
        "activation-steps",
        "bounds",
        "certificate",
    }
    assert all(path.parent == run_folder / "figures" and path.exists() for path in written)


def by_task(run_folder, change=None):
    """The run's curves as those of two tasks, each held out in turn."""
    path = run_folder / "curves.json"
    curves = json.loads(path.read_text())
    named = curves.pop("curves")
    tasks = {"0": named, "Fashion MNIST": {"SGD": named["SGD"]}} if change is None else change
    path.write_text(json.dumps({**curves, "tasks": tasks}))
    return run_folder


def test_tasks_held_out_in_turn_have_a_figure_each(run_folder):
    run = Run.read(by_task(run_folder))
    figures = [figure for figure in figures_of(run) if figure.stem.startswith("curves")]
    assert [figure.stem for figure in figures] == ["curves", "curves-0", "curves-fashion-mnist"]
    assert (
        "all 2 tasks in turn (mean)" in figures[0].caption and "Fashion MNIST" in figures[2].caption
    )
    with drawing():
        drawn = [figure.draw().axes[0] for figure in figures]
    mean, both, alone = (len(axes.get_lines()) for axes in drawn)
    assert both > alone == 1 and mean == 1, "the mean of what both have"
    titles = [axes.get_title(loc="left") for axes in drawn]
    assert titles[0] == "Training loss on all 2 tasks in turn (mean), held out"
    assert titles[2] == "Training loss on Fashion MNIST, held out"


@pytest.mark.parametrize(
    ("tasks", "fault"),
    [
        (3, "'tasks' is not an object of curves, task by task"),
        ({"0": []}, "'curves' is not an object of one curve an optimiser"),
        ({"0": {"SGD": {"low": []}}}, "the curve of SGD has no 'mean'"),
    ],
)
def test_damaged_curves_of_tasks_are_named(run_folder, tasks, fault):
    with pytest.raises(MirraxError, match=fault):
        Run.read(by_task(run_folder, tasks))


def test_an_unfinished_run_has_the_figures_it_can_have(run_folder):
    for name in ("summary.json", "curves.json", "geometry.json"):
        (run_folder / name).unlink()
    written = report.write_figures(Run.read(run_folder))
    assert {path.stem for path in written} == {"progress", "activation-rounds", "activation-steps"}


def test_the_users_settings_and_state_are_left_alone(run_folder, tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    report.learning_curves(Run.read(run_folder).curves, tmp_path / "c")
    assert dict(matplotlib.rcParams) == before


def test_divergence_and_gaps_do_not_spoil_the_axis(tmp_path):
    from mirrax.report._figures import draw_learning_curves

    good = [2.0 * 0.9**t for t in range(30)]
    wild = [2.0 * 10**t if t < 20 else None for t in range(30)]
    data = {
        "steps": list(range(30)),
        "curves": {
            "SGD": {"mean": wild, "low": wild, "high": wild},
            "MetaMD": {"mean": good, "low": [v - 1 for v in good], "high": good},
            "Adam": {"mean": [None] * 30},
        },
    }
    with drawing():
        low, high = draw_learning_curves(data).axes[0].get_ylim()
    assert 0.01 < low < good[-1] and 2.0 < high < 20
    report.learning_curves(data, tmp_path / "curves")


@pytest.mark.parametrize(
    "curves",
    [{}, {"SGD": {"mean": [None]}}, {"SGD": {"mean": [0.0]}}, {"SGD": {"mean": [math.nan]}}],
)
def test_nothing_to_draw_is_drawn_empty(tmp_path, curves):
    assert len(report.learning_curves({"steps": [0], "curves": curves}, tmp_path / "c")) == 2


@pytest.mark.parametrize(
    "rounds",
    [
        [{"round": 0, "value": 1.0, "first_loss": 2.0, "last_loss": 1.0}],
        [{"round": 3, "value": -1.0}, {"round": 4, "value": None}],
        [{"round": 0, "value": 1e9}, {"round": 1, "value": 1e-9}],
    ],
)
def test_short_and_odd_progress(tmp_path, rounds):
    assert len(report.meta_progress(rounds, tmp_path / "p")) == 2


def test_long_runs_give_small_files(tmp_path):
    steps = list(range(50_000))
    data = {"steps": steps, "curves": {"SGD": {"mean": [1 / (t + 1) for t in steps]}}}
    svg, _ = report.learning_curves(data, tmp_path / "long")
    assert svg.stat().st_size < 200_000


def test_names_are_words_not_formulas_and_never_hidden(tmp_path):
    names = ["$\\frac{", "_private", "a" * 300, "日本", "<b>&", "--><script>"]
    data = {"steps": [0, 1], "curves": {name: {"mean": [2.0, 1.0]} for name in names}}
    svg, _ = report.learning_curves(data, tmp_path / "names")
    text = svg.read_text(encoding="utf-8")
    assert "<script>" not in text
    ElementTree.fromstring(text)
    leaves = [{"name": name, "rate_median": 0.1, "rate_low": 0.1} for name in names]
    report.geometry_rates({"leaves": leaves}, tmp_path / "leaves")


def test_every_series_can_be_told_apart_without_colour():
    names = ["SGD", "SGD-M", "Nesterov", "Adam", "AdamW", "RMSprop", "MetaMD"]
    found = strokes(names)
    assert len({stroke.colour for stroke in found.values()}) == len(names)
    assert len({str(stroke.dashes) for stroke in found.values()}) == len(names)
    assert found["MetaMD"].width > found["SGD"].width
    assert strokes(["MetaMD", "SGD"])["SGD"] == found["SGD"]


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_looks_the_same_in_whatever_company(name):
    alone = strokes([name])[name]
    assert strokes(["one of my own", name])[name] == alone
    assert alone.colour != strokes(["MetaMD"])["MetaMD"].colour


def test_every_method_of_a_study_can_be_told_apart():
    """All at once: baselines, the control, and three geometries with and without averaging."""
    learned = ["MetaMD", "MetaMD, max of 3", "MetaMD, Kronecker", "Euclidean"]
    names = [*BASELINES, *learned, *(f"{name}, averaged" for name in learned)]
    found = strokes(names).values()
    assert len({(stroke.colour, str(stroke.dashes)) for stroke in found}) == len(names)


def test_the_legend_fits_above_the_axes():
    from mirrax.report._figures import draw_learning_curves

    for count, size in ((2, 5), (5, 8), (7, 20), (3, 44)):
        names = {f"{i}" + "m" * (size - 1): {"mean": [2.0, 1.0]} for i in range(count)}
        with drawing():
            figure = draw_learning_curves({"steps": [0, 1], "curves": names})
            figure.draw_without_rendering()
            box = figure.axes[0].get_legend().get_window_extent()
            title = figure.axes[0]._left_title.get_window_extent()  # type: ignore[attr-defined]
        assert box.x0 > 0 and box.x1 <= figure.bbox.x1
        assert title.y0 >= box.y1 - 1 and title.y1 <= figure.bbox.y1


def test_many_leaves_are_cut_and_said_to_be(tmp_path):
    from mirrax.report._geometry_figures import draw_geometry_rates

    leaves = [{"name": f"block_{i}/weight", "rate_median": 0.1 + i} for i in range(60)]
    with drawing():
        figure = draw_geometry_rates({"leaves": leaves})
    assert "first 40 of 60" in figure.axes[0].get_title(loc="left")
    assert len(figure.axes[0].get_yticks()) == 40


def test_leaves_of_components_say_which(tmp_path):
    from mirrax.report._geometry_figures import draw_geometry_rates

    leaf = {"name": "a_long_block_name/dense_0/weight [component 2]", "shape": [64, 128]}
    with drawing():
        axes = draw_geometry_rates({"leaves": [leaf | {"rate_median": 0.1}]}).axes[0]
    text = axes.get_yticklabels()[0].get_text()
    assert text.endswith("dense_0/weight\n64 × 128, component 2") and text.startswith("…")


def test_rows_of_means_stand_at_their_steps(run_folder, edit):
    from mirrax.report._run_figures import figures_of

    edit("config", lambda c: c["fields"].update(steps=4000))
    drawn = {figure.stem: figure for figure in figures_of(Run.read(run_folder))}
    with drawing():
        line = drawn["activation-steps"].draw().axes[0].get_lines()[0]
    assert line.get_xdata()[0] == 5.5 and line.get_xdata()[-1] == 3995.5


def test_shares_must_have_one_entry_a_component(tmp_path):
    with pytest.raises(ValueError, match="one row a step"):
        report.activation_by_step([[1.0, 0.0], [1.0]], tmp_path / "x")
    with pytest.raises(ValueError, match="one row a step"):
        report.activation_by_step([], tmp_path / "x")


def test_a_path_that_diverges_does_not_hide_the_others(paths):
    from mirrax.report._trajectories import draw_trajectories

    wild = [[-2.5 * 3**t, 4.0 * 3**t] for t in range(600)]
    paths["trajectories"]["RMSprop"] = [*wild, [math.inf, math.nan]]
    paths["steps"]["RMSprop"] = None
    with drawing():
        figure = draw_trajectories(paths)
        figure.draw_without_rendering()
    low, high = figure.axes[0].get_xlim()
    assert high - low < 40


def test_a_quadratic_of_another_size_is_refused(paths, tmp_path):
    paths["matrix"] = [[1.0]]
    with pytest.raises(ValueError, match="2 by 2"):
        report.trajectories(paths, tmp_path / "x")


def test_a_folder_that_cannot_be_made_is_one_line(run_folder, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(MirraxError) as caught:
        report.learning_curves(Run.read(run_folder).curves, tmp_path / "file" / "sub" / "c")
    assert "\n" not in str(caught.value)
