"""The pages of results and README's figures: made of the committed files, never typed."""

import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKE = ROOT / "docs" / "make"
pytestmark = pytest.mark.skipif(not MAKE.exists(), reason="needs the repository")


@pytest.fixture(scope="module")
def page():
    """The module that makes the page."""
    sys.path.insert(0, str(MAKE))
    try:
        yield importlib.import_module("results")
    finally:
        sys.path.remove(str(MAKE))


def test_the_pages_are_what_the_results_make(page):
    for path, template in page.PAGES.items():
        found, made = path.read_text(encoding="utf-8"), page.make(template)
        assert found == made, f"{path.name} differs; run python docs/make/results.py"


def test_every_result_is_told_of(page):
    """On this page, or on those that name it."""
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    for path in sorted(page.RESULTS.iterdir()):
        assert any(f"results/{path.name}" in text for text in pages), path.name


# no number is typed

NAMES = re.compile(
    r"S00\d|(Table|Fig\.|Theorem|Corollary|Algorithm|Alg\.|eq\.) \d+|CIFAR-10|ResNet-\d+|LeNet-5"
    r"|Conv4|95%|\d-layer|1/L|45°|float\d\d|\[0-9\]|flatness \([\d., ]+\)|at 0"
    r"|\d threads?|K = \d+|seed \d|width \d+"
)
"""Names, quotations and conventions with digits in them that measure nothing."""
CODE = re.compile(r"```.*?```|`[^`\n]*`|\]\([^)]*\)", re.DOTALL)
COMMAND = re.compile(r"(mirrax|python|reproduce|--)\b")


def typed_numbers(environment, source):
    """Numbers in prose, in strings that are prose, and literals that are printed."""
    found, before = [], []
    tokens = [token for token in environment.lex(source) if token[1] != "whitespace"]
    # Code may hold expressions, so it is taken out with their places marked.
    prose = "".join(text if kind == "data" else "\0" for _, kind, text in tokens)
    found += re.findall(r"[^\n\0]*\d[^\n\0]*", NAMES.sub("", CODE.sub("", prose)))
    for _, kind, text in tokens:
        words = text.strip("\"'")
        if kind == "string" and " " in words and not COMMAND.match(words):
            found += [words] if re.search(r"\d", NAMES.sub("", words)) else []
        if before[-1:] == ["variable_begin"] and kind in ("integer", "float"):
            found.append(text)
        before.append(kind)
    return found


def test_no_measured_number_is_typed(page):
    environment = page.environment()
    for path in sorted(page.TEMPLATES.glob("*.jinja")):
        assert not typed_numbers(environment, path.read_text(encoding="utf-8")), path.name


@pytest.mark.parametrize(
    "source",
    [
        "It gains 0.4 points.",
        "It takes 26 steps, `code` and {{ row(r, 'a') | num }} more.",
        '{{ claim("first by 3 points", true) }}',
        "{{ 97.3 }}",
        "{{ 12 | num }} steps",
        "{% if a %}in 10%{% endif %}",
    ],
)
def test_typed_numbers_are_found(page, source):
    assert typed_numbers(page.environment(), source)


@pytest.mark.parametrize(
    "source",
    [
        "S000 Table 1 and `--seeds 10`, {{ (100 * a) | num(2) }} at 95%",
        "```sh\nmirrax train x --seeds 3\n```\n[data](results/s002-fig2-20.json)",
        '{{ command(r, "mirrax reproduce x --seeds 10") }}{{ setting(r, "steps", 400) }}',
    ],
)
def test_names_and_settings_are_not_taken_for_measured_numbers(page, source):
    assert not typed_numbers(page.environment(), source)


# what the page says with


def test_a_claim_that_is_not_true_fails(page):
    assert page.claim("faster", True) == "faster"
    with pytest.raises(page.Untrue, match="no longer true: 'faster'"):
        page.claim("faster", False)
    with pytest.raises(page.Untrue):
        page.num(None)


def test_commands_and_settings_are_those_of_the_record(page):
    old, made = {}, {"command": "mirrax reproduce a --data /x --out runs/b", "fields": {"steps": 4}}
    new = {"record": {**made, "made_by": []}}
    assert page.command(old, "mirrax train a") == "mirrax train a"
    assert page.command(new, "mirrax reproduce a --data DIR") == "mirrax reproduce a --data DIR"
    assert page.setting(old, "steps", 5) == 5 and page.setting(new, "steps", 4) == 4
    made["command"] = "mirrax reproduce a --json --seeds 10 --data='/my dir/x' --out=y --debug"
    assert page.command({"record": made}) == "mirrax reproduce a --seeds 10 --data DIR"
    with pytest.raises(page.Untrue, match="the record"):
        page.command(new, "mirrax train a")
    with pytest.raises(page.Untrue, match="the record"):
        page.setting(new, "steps", 5)


def test_what_is_not_known_of_a_result_is_said(page):
    part = {"started": "2026-01-31T12:00:00Z", "commit": 40 * "a", "seconds": 61.0, "cores": 2}
    part |= {"processor": "Abacus"}
    told = page.made({"record": {"made_by": [part]}})
    assert told == "2026-01-31; `aaaaaaaaaa`; Abacus, 2 cores; 1 min 1 s"
    assert page.made({}) == "date, commit, machine and time not recorded"
    old = {"wall_seconds": 5.0, "hardware": {"device": "cpu"}}
    assert page.made(old) == "cpu; 5 s; date and commit not recorded"


def test_a_changed_tree_is_no_clean_commit(page):
    part = {"commit": "0123456789abcdef+", "started": "2026-01-31T12:00:00Z", "seconds": 1.0}
    assert "`0123456789+`" in page.made({"record": {"made_by": [part]}})


def test_gains_are_paired(page):
    def rows(*values, **of):
        return {"test_accuracy": {"values": list(values), **of}}

    found = page.gain(rows(0.5, 0.7, 0.9), rows(0.4, 0.5, 0.6))
    assert (found["mean"], found["se"]) == pytest.approx((0.2, 0.1 / 3**0.5))
    assert found["values"] == pytest.approx([0.1, 0.2, 0.3])
    of_two = page.gain(rows(0.5, 0.7, 0.9, 0.9, tasks=2), rows(0.4, 0.5, 0.6, 0.8))
    assert (of_two["mean"], of_two["se"]) == pytest.approx((0.175, 0.025))
    assert page.points(found) == "20.00 ± 5.77" and not page.alike(found)


def cell(accuracies, steps):
    reached = {"mean": steps}
    return {"test_accuracy": {"values": accuracies}, "steps_to": {"0.1": reached}}


def test_who_is_first_or_sooner_is_said_task_by_task(page):
    ours = cell([0.5, 0.7], 20.0)
    cells = {
        "behind": {"ours": ours, "a": cell([0.6, 0.8], 30.0), "b": cell([0.1, 0.1], None)},
        "alike": {"ours": ours, "a": cell([0.4, 0.9], 20.0), "b": cell([0.5, 0.7], 90.0)},
        "never": {"ours": cell([0.9, 0.9], None), "a": cell([0.5, 0.5], None), "b": ours},
    }
    result = {"cells": cells}
    assert page.first_or_alike(result, "ours") == ["alike", "never"]
    assert page.sooner(result, "ours", ["a", "b"]) == ["behind"]
    assert page.sooner(result, "ours", ["a"]) == ["behind", "never"]


def online(*ratios, decays=(0.0, 0.9, 0.0), start=1.0):
    """A result of S002 Fig. 2 on three problems, in which all methods have the same ratios."""
    own = {"to_baseline": {"by_problem": list(ratios), "median": sorted(ratios)[1]}}
    own |= {"hyperparameters": [{"start": start, "meta_rate": 10.0 * start}] * 3}
    from facts import EXTEND

    rows = [{"method": name, "cumulative": [2.0, 9.0, 8.0], **own} for name in EXTEND]
    rows.append({"method": "GD", "cumulative": [4.0, 3.0, 8.0]})
    rows.append({"method": "Momentum", "hyperparameters": [{"decay": decay} for decay in decays]})
    return {"settings": [{"minimiser": "at 0", "methods": rows}]}


def test_facts_of_online_rates_are_counted(page):
    facts = page.environment().globals
    two, name = [online(0.5, 2.0, 1.5), online(0.5, 3.0, 1.00001, start=0.5)], "Online SGD"
    assert facts["medians"](two, name) == [1.5, 1.00001]
    assert facts["all_medians"](two, [name, name], "best") == [1.5, 1.00001] * 2
    assert facts["ratios"](two, name) == [0.5, 2.0, 1.5, 0.5, 3.0, 1.00001]
    assert facts["worse"](two, name) == 3 and facts["worse"](two, name, 0.6) == 2
    assert facts["first_rates"](two) == {"inside": 18, "of": 36}
    assert facts["meta_rates"](two) == [5.0] * 18 + [10.0] * 18
    assert facts["to_descent"](two[0], name) == [1.0]
    found = facts["by_decay"](two, name)
    assert found == {"lost": 3, "with_decay": 2, "worst": 3.0, "plain": 4, "won_plain": 3}


# README


def readme_figures(page):
    """What README says with numbers, each fragment with the numbers that the results give it."""
    num, points, gain, row = page.num, page.points, page.gain, page.row
    digits, mnist = page.load("rotated-digits"), page.load("s000-table1-mlp")
    standing = digits["against_best_baseline"]["MetaMD"]
    best = mnist["against_best_baseline"]["MetaMD"]["accuracy"]["rival"]
    accuracy = standing["accuracy"]
    more = points({"mean": accuracy["gain"], "se": accuracy["paired_se"]})
    yield (
        f"ends at {num(standing['final_loss']['ratio'], 2)} of the best baseline's training loss, "
        f"reaches a loss of 0.1 in {num(standing['steps_to']['0.1']['ratio'], 2)} of its steps, "
        f"and is as accurate ({more} points more)"
    )
    ours = row(mnist, "MetaMD")
    yield (
        f"it is {points(gain(ours, row(mnist, best)))} points more accurate than the best baseline "
        f"and {points(gain(ours, row(mnist, 'Euclidean')))} more than the control"
    )
    laws = page.load("s000-fig1")["settings"]
    stated = [laws[name]["to_best_other"] for name in ("flatness (5, 0.5)", "flatness (20, 0.02)")]
    parts = {5: "a fifth", 6: "a sixth", 7: "a seventh"}
    yield f"quadratics in {parts[round(2 / sum(stated))]} of the best baseline's steps"
    found = page.load("rotated-mnist-kronecker")
    step = page.load("kronecker-step")["network"]["sides"]
    first, names = row(found, "MetaMD, averaged"), ("SGD-M", "AdamW, schedule-free")
    ratios = [
        first["steps_to"]["0.1"]["mean"] / row(found, name)["steps_to"]["0.1"]["mean"]
        for name in names
    ]
    gains = [points(gain(first, row(found, name))) for name in names]
    price = step["Kronecker, averaged"]["median"]
    costs = [price / step[name]["median"] for name in names]
    slower = [num(ratio * cost, 1) for ratio, cost in zip(ratios, costs, strict=True)]
    numbers = {5: "five", 6: "six", 7: "seven"}
    yield (
        f"to a loss of 0.1 in {num(ratios[0], 2)} of the steps of SGD with momentum and "
        f"{num(ratios[1], 2)} of those of schedule-free AdamW, and is {gains[0]} and {gains[1]} "
        f"points more accurate; in seconds it takes {slower[0]} and {slower[1]} times as long, "
        f"since a step costs {numbers[round(price / step['SGD']['median'])]} of SGD's"
    )
    lenet = page.load("s000-table1-lenet")
    best, momentum = row(lenet, "MetaMD, Kronecker, averaged"), row(lenet, "SGD-M")
    yield (
        f"{points(gain(best, momentum))} points more accurate than SGD with momentum and "
        f"{points(gain(best, row(lenet, 'Euclidean, averaged')))} more than the averaged control, "
        f"with steps that cost {num(best['seconds_a_step'] / momentum['seconds_a_step'], 2)} "
        "of the former's"
    )
    recipe, small = page.load("omniglot-recipe"), page.load("omniglot")
    order = ("warped convex potential", "Warp-MAML", "convex potential", "MAML")
    assert [name for name in page.ranked(recipe) if name in order] == list(order)
    compared = [row(recipe, name) for name in order]
    ours, warp, plain, maml = (num(100 * found["test_accuracy"]["mean"], 1) for found in compared)
    yield (
        f"the learned convex potential of a network with warp layers has {ours}% of the query "
        f"images of new characters right, {points(compared[1]['behind'])} points more than "
        f"Warp-MAML, whose network is the same ({warp}%). Without warps, with half the layers, it "
        f"has {plain}%, and MAML {maml}%, over three seeds"
    )
    places = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")
    one = page.load("omniglot-one-seed")
    assert (len(one["methods"]), page.ranked(one)[0]) == (14, order[0])
    place = places[page.ranked(one).index("convex potential")]
    yield f"it is first of fourteen methods from one seed, and without warps {place}"
    place = places[page.ranked(small).index("convex potential")]
    assert len(small["methods"]) == 14 and page.ranked(small)[0] == "Warp-MAML"
    behind = page.pm(row(small, "convex potential")["behind"], 1, 100)
    yield f"it is {place} without warps, {behind} points behind Warp-MAML over three seeds"


def test_readme_says_what_the_results_say(page):
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for fragment in readme_figures(page):
        assert fragment in text, fragment
    measured = text[text.index("Measured with") : text.index("See [the results]")]
    for fragment in readme_figures(page):
        measured = measured.replace(fragment, "")
    known = {"10", "10,000", "0.1"}  # seeds of the command, images of the data set
    assert set(re.findall(r"\d[\d.,]*\d|\d", measured)) <= known, "borne out by no result"
