"""The HTML page: complete in itself, escaped, and well formed."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mirrax import report
from mirrax._errors import MirraxError
from mirrax.report import Run
from mirrax.report._page import page as make_page

VOID = {"meta", "img", "br", "link", "input", "hr"}
HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}"


class Reader(HTMLParser):
    """Collects tags and ids, and checks that tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag


def parse(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def page(page_of_two) -> str:
    """The page of two runs and one further table."""
    return page_of_two.read_text(encoding="utf-8")


def test_nothing_is_loaded_from_anywhere(page):
    assert not re.search(r"https?://|//www|@import|<link|<iframe|srcset", page)
    reader = parse(page)
    for tag, attributes in reader.tags:
        for name in ("src", "href", "xlink:href", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/")), (tag, value)
    policy = next(a for t, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")


def test_it_holds_tables_figures_command_certificate_and_notes(page):
    reader = parse(page)
    drawn = [a for t, a in reader.tags if t == "svg"]
    assert len(drawn) == 18 and all(a["role"] == "img" and a["aria-label"] for a in drawn)
    for words in (
        "mirrax train rotated-digits --seed 0 --out run",
        "Comparison of optimisers",
        "Certificate: bound beside measured regret",
        "Assumptions of the theorem",
        "Learned geometry: MaxOfDiagonals",
        "Baselines were tuned by grid search",
        "S000, Table 2",
        "Active components: 3 of 3",
        "2 min 21 s",
        "Known by",
        "Files in ",
    ):
        assert words in page
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page
    assert page.count("<td") > 100 and "not reached" in page


def test_ids_are_unique_and_references_resolve(page):
    reader = parse(page)
    ids = [a["id"] for _, a in reader.tags if "id" in a]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", page)) | set(re.findall(r'href="#([^"]+)"', page))
    assert used <= set(ids)


def test_figures_follow_the_style_of_the_page(page):
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    defined = set(re.findall(r"(--[a-z]+):", page))
    assert set(re.findall(r"var\((--[a-z]+)\)", page)) <= defined
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawings)) == set()


def test_cells_can_be_sorted_by_number(page):
    assert re.search(r'class="number best" data-value="9\d\.\d+"', page)
    assert re.search(r'class="number" data-value="">not reached', page)


def test_every_word_of_a_file_is_escaped(run_folder, edit, tmp_path):
    def spoil(content):
        return json.loads(
            re.sub(
                r'"(SGD|45 degrees|Baselines[^"]*|dense_0/bias|cpu|convexity|Lipschitz)"',
                lambda _: json.dumps(HOSTILE),
                json.dumps(content),
            )
        )

    for name in ("summary", "curves", "geometry"):
        edit(name, spoil)
    edit("config", lambda c: c.update(recipe=HOSTILE, command=HOSTILE, fields={HOSTILE: HOSTILE}))
    figures = run_folder / "figures"
    figures.mkdir()
    (figures / "a<b>&.svg").write_text(f'<svg xmlns="http://www.w3.org/2000/svg">{HOSTILE}</svg>')
    page = report.html([Run.read(run_folder)], tmp_path / "x.html").read_text(encoding="utf-8")
    reader = parse(page)
    assert sum(tag == "script" for tag, _ in reader.tags) == 1
    images = [a for tag, a in reader.tags if tag == "img"]
    assert len(images) == 1 and images[0]["src"].startswith("data:image/svg+xml;base64,")
    assert not any("onerror" in a for _, a in reader.tags)
    assert "{{ 7*7 }}" in page and "&lt;script&gt;" in page


def test_the_same_runs_give_the_same_page(run_folder, tmp_path):
    (run_folder / "metrics.jsonl").unlink()
    one = report.html([Run.read(run_folder)], tmp_path / "1.html").read_bytes()
    assert one == report.html([Run.read(run_folder)], tmp_path / "2.html").read_bytes()


def test_a_run_that_has_only_begun(run_folder, tmp_path):
    for name in ("summary.json", "curves.json", "geometry.json", "metrics.jsonl"):
        (run_folder / name).unlink()
    page = report.html([Run.read(run_folder)], tmp_path / "x.html").read_text(encoding="utf-8")
    parse(page)
    assert "No meta-round is finished yet." in page
    assert "<svg" not in page and "Comparison of optimisers" not in page


def text_of(folder, path, figures=((),)):
    """The page of one run; without its figures, which take seconds, unless they matter."""
    text = report.html([Run.read(folder)], path, figures=figures).read_text(encoding="utf-8")
    parse(text)
    return text


def test_what_is_missing_is_said(run_folder, tmp_path):
    (run_folder / "geometry.json").unlink()
    page = text_of(run_folder, tmp_path / "x.html")
    assert "There is no geometry.json yet" in page and "Comparison of optimisers" in page


def test_a_geometry_written_before_spectra_were_is_shown(run_folder, edit, tmp_path):
    edit("geometry", lambda c: [leaf.pop("spectrum") for leaf in c["leaves"]] and None)
    page = text_of(run_folder, tmp_path / "x.html")
    assert "Learned geometry: MaxOfDiagonals" in page and "eigenvalue" not in page


def test_a_kind_of_a_later_version_is_named(run_folder, edit, tmp_path):
    edit("summary", lambda c: c.update(kind="tomorrow <b>"))
    page = text_of(run_folder, tmp_path / "x.html")
    assert "This version has no tables for runs of kind tomorrow &lt;b&gt;." in page


def test_a_leave_one_out_run_says_where_its_geometries_are(run_folder, edit, tmp_path):
    for name in ("geometry.json", "metrics.jsonl"):
        (run_folder / name).unlink()
    edit("summary", lambda c: c.update(cells={"0": {}, "15": {}}))
    page = text_of(run_folder, tmp_path / "x.html")
    assert f"report on {run_folder}/0, or any of the 2, to see" in page
    assert "No meta-round" not in page and "geometry.json yet" not in page


def test_numbers_that_are_none_are_left_out(run_folder, edit, tmp_path):
    def spoil(content):
        content["curves"]["SGD"]["mean"][5:7] = [None, -1.0]
        content["curves"]["SGD"]["low"] = [None] * 400

    edit("curves", spoil)
    edit("summary", lambda c: c["comparison"][0].update(final_loss={"mean": None, "se": None}))
    page = text_of(run_folder, tmp_path / "x.html", figures=None)
    assert not re.search(r"\b(nan|inf|NaN|Infinity|null|None)\b", page.split("<script>")[0])


def test_the_files_of_a_run_are_listed_with_their_sizes(run_folder, tmp_path):
    (run_folder / "checkpoints").mkdir()
    for name, size in (("a", 1500), ("b", 500)):
        (run_folder / "checkpoints" / name).write_bytes(bytes(size))
    page = text_of(run_folder, tmp_path / "x.html")
    row = r'checkpoints/</th>\s*<td class="number" data-value="2.0">2</td>'
    assert re.search(row + r'\s*<td class="number" data-value="2000.0">2 kB</td>', page)
    assert page.count("metrics.jsonl</th>") == 1


def test_further_figures_have_so_much_room_and_the_rest_is_named(tmp_path, monkeypatch):
    (tmp_path / "figures").mkdir()
    for name in "abcd":
        (tmp_path / "figures" / f"{name}.svg").write_bytes(b"<svg/>" + bytes(50))
    monkeypatch.setattr("mirrax.report._page._ROOM", 2 * 120)  # for two runs
    run, other = Run(tmp_path, {"recipe": "r"}), Run(tmp_path / "b", {"recipe": "r"})
    page = report.html([run, other], tmp_path / "x.html").read_text(encoding="utf-8")
    assert page.count("data:image/svg+xml") == 2
    assert f"Too large for this page, see {tmp_path}/figures: c.svg, d.svg." in page


def test_a_file_that_vanishes_while_they_are_listed_is_passed_over(
    run_folder, tmp_path, monkeypatch
):
    (run_folder / "figures").mkdir()
    (run_folder / "figures" / "gone.svg").write_text("<svg/>")
    stat = Path.stat

    def vanish(path, **known):
        found = stat(path, **known)
        if path.name in ("curves.json", "gone.svg") and known.get("follow_symlinks", True):
            path.unlink()
        return found

    monkeypatch.setattr(Path, "stat", vanish)
    run = Run(run_folder, {"recipe": "r"})
    content = report.html([run], tmp_path / "x.html").read_text(encoding="utf-8")
    assert "gone" not in content and "metrics.jsonl</th>" in content


def test_runs_of_one_problem_are_ranked_and_others_are_not(two_runs, run_folder, edit):
    edit("summary", lambda c: c["comparison"][4].update(test_accuracy={"mean": 0.99, "se": 0.001}))
    table = report.overview_table([Run.read(two_runs[0]), Run.read(run_folder)])
    column = [c.key for c in table.columns].index("test_accuracy")
    assert [row[column].best for row in table.rows] == [False, True]
    assert table.rows[1][column].text == "99.00 ± 0.10 (MetaMD)"
    assert table.notes == ("All of rotated-digits, held out: 45 degrees.",)
    assert "recipe" not in [c.key for c in table.columns]
    other = report.overview_table([Run.read(folder) for folder in two_runs])
    assert not any(cell.best for row in other.rows for cell in row)
    assert "not ranked; these differ in recipe." in other.notes[0]


def test_a_method_alone_has_its_accuracy_in_the_overview(two_runs, run_folder, edit):
    def alone(summary):
        del summary["comparison"][1:]

    edit("summary", alone)
    runs = [Run.read(run_folder), Run.read(two_runs[0])]
    table = report.overview_table(runs)
    column = [c.key for c in table.columns].index("test_accuracy")
    name = runs[0].summary["comparison"][0]["optimiser"]
    assert table.rows[0][column].text.endswith(f"({name})")


def test_runs_of_another_budget_or_model_are_not_ranked_and_the_note_says_why(two_runs, run_folder):
    run, other = Run.read(two_runs[0]), Run.read(run_folder)
    other.config["budget"] = "smoke"
    other.config["fields"] |= {"model": "lenet-5", "steps": 100, "components": 7}
    table = report.overview_table([run, other])
    assert not any(cell.best for row in table.rows for cell in row)
    assert table.notes[0].endswith("differ in budget, steps, model.")
    other.config.update(budget="default", fields={**run.config["fields"], "components": 7})
    assert report.overview_table([run, other]).notes[0].startswith("All of rotated-digits")


def test_a_page_of_no_runs(tmp_path):
    page = report.html([], tmp_path / "x.html").read_text(encoding="utf-8")
    parse(page)
    assert "There are no runs" in page


def test_a_page_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(MirraxError) as caught:
        report.html([], tmp_path / "nowhere" / "x.html")
    assert "\n" not in str(caught.value)


def test_the_page_says_what_every_session_was(run_folder):
    parts = [
        {"started": f"2026-0{i}-01T00:00:00Z", "command": f"mirrax train x --{i}", "seconds": 60.0}
        | {"cores": 2, "versions": {"mirrax": f"0.{i}"}, "commit": None, "sessions": 1}
        for i in (1, 2)
    ]
    record = {"command": parts[0]["command"], "seed": 3, "budget": "smoke", "made_by": parts}
    (run_folder / "record.json").write_text(json.dumps(record))
    text = make_page([Run.read(run_folder)])
    assert "<dt>Version</dt><dd>0.1, 0.2</dd>" in text and "What made it</summary>" in text
    for part in parts:
        assert part["command"] in text and part["started"] in text
    assert "Wall time, part 2" in text and "2 min 0 s" in text
