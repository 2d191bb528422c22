"""The page in a browser: nothing goes out, nothing is amiss, everything can be read and used.

Needs Chromium, found as `chromium`, `chromium-browser` or `google-chrome`, or where MIRRAX_CHROMIUM
says.
"""

import os
import shutil

import pytest

BROWSER = os.environ.get("MIRRAX_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PHONE = {"width": 390, "height": 844}
LAPTOP = {"width": 1280, "height": 900}

if BROWSER is None:
    pytest.skip(
        "no browser: install Chromium (Debian: apt-get install chromium), or set MIRRAX_CHROMIUM",
        allow_module_level=True,
    )
sync_playwright = pytest.importorskip(
    "playwright.sync_api", reason="pip install 'mirrax[dev]' brings playwright"
).sync_playwright

# The contrast of every piece of text with the nearest ground behind it, by WCAG 2.
CONTRASTS = """() => {
  const rgba = (colour) => [...colour.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const light = (c) => c.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const e = node.parentElement;
    if (!node.textContent.trim() || e.closest("script, style, svg")) continue;
    const [a, b] = [light(rgba(getComputedStyle(e).color)), light(ground(e))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.textContent.trim()]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, page_of_two):
    """Opens the page, and afterwards looks whether anything was amiss."""
    address = page_of_two.as_uri()
    contexts, asked, complaints = [], [], []

    def open_page(viewport=LAPTOP, **settings):
        context = browser.new_context(viewport=viewport, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert asked == [address] * len(contexts)


@pytest.fixture
def page(opened):
    return opened()


def column(page, table, index):
    """The texts of a column, from top to bottom."""
    cells = page.locator(f"{table} tbody tr > :nth-child({index})")
    return [text.removesuffix(", best") for text in cells.all_inner_texts()]


COMPARISON = "#run-1-comparison + .caption + .scroll table"


def test_it_opens_without_complaint_and_asks_for_nothing(page):
    assert page.title().startswith("mirrax report: ")
    assert page.locator("main article").count() == 2


@pytest.mark.parametrize("viewport", [PHONE, LAPTOP], ids=["phone", "laptop"])
def test_no_page_is_wider_than_its_window(opened, viewport):
    page = opened(viewport)
    page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    beyond = page.evaluate(
        """(width) => [...document.querySelectorAll("body *")]
            .filter((e) => !e.closest(".scroll > *, .contents > *, svg *"))
            .filter((e) => e.getBoundingClientRect().right > width + 1)
            .map((e) => e.outerHTML.slice(0, 80))""",
        viewport["width"],
    )
    assert beyond == []


def test_a_click_sorts_by_number_and_back(page):
    head = page.locator(f"{COMPARISON} thead th").nth(2)
    before = column(page, COMPARISON, 3)
    numbers = [float(text.split(" ")[0]) for text in before]
    assert numbers != sorted(numbers)
    for order, reverse in (("ascending", False), ("descending", True), ("ascending", False)):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == order
        found = [float(text.split(" ")[0]) for text in column(page, COMPARISON, 3)]
        assert found == sorted(numbers, reverse=reverse)
    page.locator(f"{COMPARISON} thead button").first.click()
    assert page.locator(f"{COMPARISON} [aria-sort]").count() == 1
    names = column(page, COMPARISON, 1)
    assert names == sorted(names, key=str.casefold)


def test_what_is_missing_comes_last_either_way(page):
    index = page.locator(f"{COMPARISON} thead th").count()
    button = page.locator(f"{COMPARISON} thead th").last.get_by_role("button")
    texts = column(page, COMPARISON, index)
    missing = texts.count("not reached")
    assert 0 < missing < len(texts)
    for _ in range(2):
        button.click()
        assert column(page, COMPARISON, index)[-missing:] == ["not reached"] * missing


def test_equal_cells_keep_their_order(page):
    table = "#run-1-certificate ~ .scroll >> nth=1"
    verdicts = page.locator(table).locator("tbody tr > :nth-child(2)")
    names = page.locator(table).locator("tbody tr > :nth-child(1)")
    before = dict(zip(names.all_inner_texts(), verdicts.all_inner_texts(), strict=True))
    page.locator(table).locator("thead button").nth(1).click()
    assert names.all_inner_texts() == sorted(before, key=before.__getitem__)


@pytest.mark.parametrize("key", ["Enter", " "])
def test_the_keyboard_sorts_too(page, key):
    head = page.locator(f"{COMPARISON} thead th").first
    head.get_by_role("button").focus()
    outline = head.get_by_role("button").evaluate("e => getComputedStyle(e).outlineStyle")
    before = column(page, COMPARISON, 1)
    page.keyboard.press(key)
    page.keyboard.press(key)
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, COMPARISON, 1) == sorted(before, key=str.casefold, reverse=True)
    assert outline != "none"


def test_every_table_sorts(page):
    tables = page.locator("table")
    heads = page.locator("table thead th")
    assert tables.count() > 8
    assert page.locator("table thead th > button").count() == heads.count()


def test_without_scripts_the_tables_are_complete(opened):
    page = opened(java_script_enabled=False)
    assert page.locator("table").first.is_visible()
    heads = page.locator(f"{COMPARISON} thead th").all_inner_texts()
    assert heads[:2] == ["Optimiser", "Hyper-parameters"]
    assert page.locator("button").count() == 0


def test_the_command_is_copied(opened):
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    command = page.locator("#run-2 >> xpath=ancestor::article >> .command")
    command.get_by_role("button").click()
    command.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == command.locator("code").inner_text()


def test_where_the_clipboard_is_closed_the_command_is_selected(page):
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error()); }")
    command = page.locator(".command").first
    command.get_by_role("button").click()
    command.get_by_role("button", name="Copied").or_(
        command.get_by_role("button", name="Selected")
    ).wait_for()
    assert page.evaluate("String(getSelection())") == command.locator("code").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(opened, scheme):
    page = opened(color_scheme=scheme)
    page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    page.locator("thead button").first.click()
    found = page.evaluate(CONTRASTS)
    assert len(found) > 200
    assert [text for ratio, text in found if ratio < 4.5] == []


def test_dark_is_dark(opened):
    grounds = [
        opened(color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    sums = [sum(map(int, ground.removeprefix("rgb(").rstrip(")").split(","))) for ground in grounds]
    assert sums[0] > 600 and sums[1] < 120


def test_figures_have_names_and_ids_are_unique(page):
    figures = page.locator("svg, img")
    assert figures.count() == 18
    for name in figures.evaluate_all(
        "all => all.map((e) => (e.role === 'img' && e.ariaLabel) || e.alt)"
    ):
        assert name and len(name) > 10
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


def test_headings_descend_one_step_at_a_time(page):
    headings = page.locator("h1, h2, h3, h4, h5, h6")
    levels = headings.evaluate_all("all => all.map((e) => Number(e.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1 and max(levels) == 3
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    for landmark in ("header.top", "nav[aria-label]", "main"):
        assert page.locator(landmark).count() == 1


def test_the_first_key_skips_to_the_content(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_contents_stay_in_sight_and_lead_to_every_part(page):
    links = page.locator("nav a").evaluate_all("all => all.map((e) => e.getAttribute('href'))")
    assert len(links) > 8
    for link in links:
        assert page.locator(link).count() == 1
    page.emulate_media(reduced_motion="reduce")
    page.locator(f"nav a[href='{links[-1]}']").click()
    assert 0 <= page.locator(links[-1]).bounding_box()["y"] < LAPTOP["height"]
    assert page.locator("nav").bounding_box()["y"] >= 0
    behaviour = "getComputedStyle(document.documentElement).scrollBehavior"
    assert page.evaluate(behaviour) == "auto"
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(behaviour) == "smooth"


def test_paper_shows_no_buttons(page):
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.locator("nav").is_visible()
    assert not page.locator(".command button").first.is_visible()
    ground = "getComputedStyle(document.querySelector('article')).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
