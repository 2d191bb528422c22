"""The table and figures of online optimisers, and files of theirs that are damaged."""

import copy
import json

import numpy as np
import pytest

from mirrax import report
from mirrax._errors import MirraxError
from mirrax.report import Run
from mirrax.report._online_figures import _lowest, draw_online
from mirrax.report._run_figures import figures_of
from mirrax.report._style import drawing


def against(*ratios):
    never = all(value is not None and value <= 1 for value in ratios)
    return {"by_problem": list(ratios), "median": sorted(ratios)[1], "never_worse": never}


def make_row(name, baseline=None, speed=1.0):
    row = {
        "method": name,
        "baseline": baseline,
        "final": [0.1 / speed, None, 0.3 / speed],
        "loss": [[8.0, 2.0 / speed, 0.1], [8.0, None, None], [8.0, 3.0, 0.3]],
        "sensitivity": {"rates": [0.01, 1.0], "cumulative": [[90.0, 9.0], [80.0, None], [70, 7]]},
    }
    if baseline:
        row["to_baseline"] = against(0.5, 0.6, 0.9)
        row["to_baseline_at_low_rates"] = against(0.1, 0.2, 1.5)
        row["to_baseline_with_one"] = against(0.7, 0.9, 1.0)
        row["meta_sensitivity"] = {
            "rates": [0.1, 10.0],
            "cumulative": [[5.0, 4.0], [80.0, None], [70, 7]],
        }
    return row


@pytest.fixture
def online():
    """Three problems, of which one makes every run diverge. No number here is a measurement."""
    setting = {
        "minimiser": "at 0",
        "problems": [{"condition": c} for c in (10.0, 100.0, 1000.0)],
        "methods": [make_row("Momentum"), make_row("Meta-Momentum A", "Momentum", 2.0)],
    }
    other = copy.deepcopy(setting) | {"minimiser": "Moved, far"}
    other["methods"][1]["to_baseline"] = against(0.5, 0.6, 2.0)
    return {
        "recipe": "s002-fig2",
        "kind": "online",
        "configurations": 180,
        "low_rate": 0.1,
        "curve_steps": [0, 1, 10],
        "settings": [setting, other],
    }


@pytest.fixture
def written(online, tmp_path):
    """Writes a summary into a run folder."""

    def write(summary=online):
        config = {"recipe": "s002-fig2", "command": "mirrax reproduce s002-fig2"}
        for name, content in {"config": config, "summary": summary}.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return write


def test_the_table_says_who_is_never_worse_and_who_meets_the_goal(online):
    table = report.online_table(online)
    rows = [[cell.text for cell in row] for row in table.rows]
    assert rows[0] == ["Momentum, at 0", "–", "–", "", "–", "–", "–", "0.3"]
    assert rows[1][:7] == [
        *("Meta-Momentum A, at 0", "Momentum", "0.60", "0.50 0.60 0.90", "yes", "0.90", "0.20")
    ]
    assert rows[3][2:5] == ["0.60", "0.50 0.60 2.00", "no"]
    assert "on the median: Meta-Momentum A, at 0." in table.notes[1]
    assert "180 configurations" in table.notes[2] and "at most 0.1/L" in table.notes[3]


def test_the_goal_is_one_and_a_half_times(online):
    online["settings"][0]["methods"][1]["to_baseline"] = against(0.5, 0.67, 0.9)
    assert "on the median: none." in report.online_table(online).notes[1]


def test_most_runs_diverged(online):
    online["settings"][0]["methods"][0]["final"] = [None, None, 0.1]
    assert report.online_table(online).rows[0][-1].text == "diverged"


def test_a_run_is_read_and_its_figures_lie_in_its_folder(written):
    run = Run.read(written())
    assert run.notes == ()
    paths = report.write_figures(run)
    assert [path.name for path in paths if path.suffix == ".svg"] == [
        "minimiser-at-0.svg",
        "minimiser-moved-far.svg",
    ]
    first = [path.read_bytes() for path in paths]
    assert first == [path.read_bytes() for path in report.write_figures(run)]
    assert "minimiser Moved, far" in figures_of(run)[1].caption


def test_the_lines_are_the_record(online):
    with drawing():
        figure = draw_online(online, "at 0")
        figure.draw_without_rendering()
    assert len(figure.axes) == 9
    top, middle, bottom = figure.axes[::3]
    assert [line.get_ydata().tolist() for line in top.get_lines()] == [[8, 2, 0.1], [8, 1, 0.1]]
    assert [[9.0, 90.0] == sorted(line.get_ydata()) for line in middle.get_lines()[:2]] == [
        True
    ] * 2
    swept = middle.get_lines()[0]
    assert swept.get_xdata().tolist() == [0.01, 1.0] and swept.get_ydata().tolist() == [90.0, 9.0]
    learned, _ = bottom.get_lines()  # no meta rate for the baseline; the other marks the unit
    assert learned.get_xdata().tolist() == [0.1, 10.0] and learned.get_ydata().tolist() == [5, 4]
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == [
        f"Condition {c}" for c in ("10", "100", "1,000")
    ]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["Momentum", "Meta-Momentum A"]


def test_a_line_of_many_rates_keeps_its_narrow_minimum():
    values = np.where(np.arange(1000) == 333, 1.0, np.nan)
    rates, lowest = _lowest(np.arange(1000.0), values)
    assert len(rates) == 60 and np.nanmin(lowest) == 1.0 and rates[np.nanargmin(lowest)] == 333
    assert np.isnan(lowest).sum() == 59  # a group of runs that all diverged is a gap


def test_a_minimiser_that_is_not_there(online):
    with drawing(), pytest.raises(ValueError, match="draw_online: minimiser is 'elsewhere'"):
        draw_online(online, "elsewhere")


def test_the_page_shows_table_and_figures(written, tmp_path):
    page = report.html([Run.read(written())], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Rates learned online" in page and page.count("<svg") == 2


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("settings",), None, "'settings' is not a list of settings"),
        (("settings", 0, "minimiser"), 3, "entry 1 of 'settings' does not name its minimiser"),
        (("curve_steps",), [0, None, 2], "'curve_steps' is not a list of numbers"),
        (("settings", 0, "problems"), [1], "'problems' of a setting"),
        (("settings", 1, "methods"), {}, "'methods' is not a list of methods"),
        (("settings", 0, "methods", 1, "loss"), [[1.0]], "'loss' of Meta-Momentum A is not 3"),
        (("settings", 0, "methods", 0, "final"), [1.0], "'final' of Momentum is not a list of 3"),
        (("settings", 0, "methods", 0, "sensitivity"), None, "has no list of rates"),
        (
            ("settings", 0, "methods", 0, "sensitivity", "cumulative"),
            [[1.0], [1.0], [1.0]],
            "'sensitivity' of Momentum is not 3 lists of 2 numbers",
        ),
        (
            ("settings", 0, "methods", 1, "meta_sensitivity"),
            3,
            "'meta_sensitivity' of Meta-Momentum A has no list of rates",
        ),
    ],
)
def test_damaged_summaries_are_one_line(written, online, path, value, fault):
    place = online
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(MirraxError) as error:
        Run.read(written())
    text = str(error.value)
    assert fault in text and "--resume" in text and "\n" not in text
