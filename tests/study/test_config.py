"""Command-line words to configurations; recipes, reproductions and grids."""

import dataclasses
import itertools

import pytest

from mirrax._errors import ConfigError
from mirrax.models import build
from mirrax.study._baselines import BASELINES, find_baseline
from mirrax.study._config import from_record, override
from mirrax.study._exchangeable import exchangeable_axes
from mirrax.study._images import ImageStudy
from mirrax.study._quadratics import QuadraticStudy
from mirrax.study._recipes import RECIPES, find_recipe
from mirrax.study._reproduce import REPRODUCTIONS, find_reproduction
from mirrax.study._train import record_of

BUDGETS = ("smoke", "default", "paper")
IMAGES, QUADRATICS = ImageStudy(), QuadraticStudy()


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ([], {}),
        (["--rounds", "5"], {"rounds": 5}),
        (["--rate=1e-3", "--held-out", "75"], {"rate": 1e-3, "held_out": "75"}),
        (["--held_out", "15"], {"held_out": "15"}),
        (["--pool", "false", "--control=False"], {"pool": False, "control": False}),
        (["--baselines", "Adam"], {"baselines": ("Adam",)}),
        (["--baselines", "SGD", "AdamW", "--k", "2"], {"baselines": ("SGD", "AdamW"), "k": 2.0}),
        (["--rounds", "5", "--rounds", "7"], {"rounds": 7}),
        # Fields that are only right together, in either order.
        (["--steps", "10", "--stride", "5"], {"steps": 10, "stride": 5}),
        (["--stride", "3", "--steps", "9"], {"steps": 9, "stride": 3}),
        (
            ["--geometry", "max-of-diagonals", "--estimator", "direct"],
            {"geometry": "max-of-diagonals", "estimator": "direct"},
        ),
    ],
)
def test_override(words, changes, capsys):
    found = override(IMAGES, words)
    assert found == dataclasses.replace(IMAGES, **changes)
    for name in changes:
        assert type(getattr(found, name)) is type(getattr(IMAGES, name))
    assert capsys.readouterr() == ("", "")


def test_override_of_quadratics():
    found = override(QUADRATICS, ["--flatness", "3", "0.2", "0.1", "--law", "factor"])
    assert found.flatness == (3.0, 0.2, 0.1) and found.law == "factor"


@pytest.mark.parametrize(
    ("config", "words", "message"),
    [
        (IMAGES, ["--rouds", "3"], r"--rouds.*Did you mean 'rounds'"),
        (IMAGES, ["--heldout", "3"], r"Did you mean 'held-out'"),
        (IMAGES, ["--qqqq", "3"], r"no field --qqqq.*Known are --averaging, --baselines"),
        (IMAGES, ["--rounds"], r"--rounds: a value is missing"),
        (IMAGES, ["--rounds", "--steps", "5"], r"--rounds: a value is missing"),
        (IMAGES, ["five"], r"expected an option such as --rounds 5, got 'five'"),
        (IMAGES, ["--rounds", "5", "6"], r"--rounds: cannot read '5 6' as int"),
        (IMAGES, ["--rounds", "2.5"], r"--rounds: cannot read '2\.5' as int"),
        (IMAGES, ["--rate", "fast"], r"--rate: cannot read 'fast' as float"),
        (IMAGES, ["--pool", "maybe"], r"--pool: cannot read"),
        (IMAGES, ["--geometry", "diag"], r"one of diagonal, max-of-diagonals"),
        (IMAGES, ["--rate", "-0.1"], r"--rate: expected a positive number, got -0\.1"),
        (IMAGES, ["--rate", "0"], r"--rate: expected a positive number, got 0\.0"),
        (IMAGES, ["--rate", "nan"], r"--rate: expected a positive number, got nan"),
        (IMAGES, ["--rate", "inf"], r"--rate: expected a positive number, got inf"),
        (IMAGES, ["--outer-rate", "-1"], r"--outer-rate: expected a positive"),
        (IMAGES, ["--batch", "0"], r"--batch: expected a positive number, got 0"),
        (IMAGES, ["--seeds", "-2"], r"--seeds: expected a positive"),
        (IMAGES, ["--damping", "nan"], r"--damping: expected 0 to 100, got nan"),
        (IMAGES, ["--decay", "1"], r"--decay: expected 0 to 0\.999"),
        (IMAGES, ["--stride", "7"], r"--stride: expected a divisor of --steps"),
        (IMAGES, ["--window", "-3"], r"--window: expected a divisor of --steps"),
        (IMAGES, ["--estimator", "truncated", "--window", "7"], r"--window: .*divisor.*got 7"),
        (IMAGES, ["--objective", "eq10"], r"choose --estimator direct or reverse"),
        (IMAGES, ["--baselines", "Adma"], r"no baseline 'Adma'.*Did you mean 'Adam'"),
        (QUADRATICS, ["--decay", "1.5"], r"--decay: expected 0 to"),
        (QUADRATICS, ["--flatness", "5", "-1"], r"--flatness: expected positive numbers"),
        (QUADRATICS, ["--tolerance", "0"], r"--tolerance: expected a positive"),
        (QUADRATICS, ["--rates", "0"], r"--rates: expected 1 to 15, got 0"),
        (QUADRATICS, ["--rates", "16"], r"--rates: expected 1 to 15, got 16"),
    ],
)
def test_override_refuses_in_one_line_and_prints_nothing(config, words, message, capsys):
    with pytest.raises(ConfigError, match=message) as error:
        override(config, words)
    assert "\n" not in str(error.value)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("config", [IMAGES, QUADRATICS])
def test_records_are_read_back(config):
    record = record_of(config, recipe="r", seed=0, budget="smoke", command="mirrax")
    assert from_record(type(config), record["fields"]) == config
    with pytest.raises(ConfigError, match="'new_field'.*does not know"):
        from_record(type(config), {**record["fields"], "new_field": 1})
    with pytest.raises(ConfigError, match="criterion is 'accuracy', expected one of validation"):
        from_record(ImageStudy, {"criterion": "accuracy"})


FAMILIES = {
    "rotated-digits": ((8, 8, 1), 10, {"0", "15", "30", "45", "60", "75"}),
    "rotated-mnist": ((28, 28, 1), 10, {"0", "15", "30", "45", "60", "75"}),
    "cifar-10": ((32, 32, 3), 10, {"1", "2", "3", "4", "rest"}),
    "diverse-digits": ((28, 28, 1), 10, {"mnist", "fashion-mnist", "usps", "kmnist", "svhn"}),
}


@pytest.mark.parametrize(("name", "budget"), list(itertools.product(RECIPES, BUDGETS)))
def test_every_recipe_constructs_at_every_budget(name, budget):
    recipe = find_recipe(name)
    config = recipe.at(budget)
    assert recipe.about and "\n" not in recipe.about
    if isinstance(config, ImageStudy):
        shape, classes, tasks = FAMILIES[config.family]
        assert build(config.model, shape, classes).count > 0
        assert config.held_out in tasks
        assert all(find_baseline(baseline).name == baseline for baseline in config.baselines)
        assert config.baselines
        assert bool(recipe.needs) == (config.family != "rotated-digits")


def test_budgets_and_names_that_do_not_exist():
    with pytest.raises(ConfigError, match="--budget.*Did you mean 'smoke'"):
        find_recipe("rotated-digits").at("smok")
    with pytest.raises(ConfigError, match="no recipe 'rotated-digts'. Did you mean"):
        find_recipe("rotated-digts")
    with pytest.raises(ConfigError, match="no reproduction 's000-table3'. Did you mean"):
        find_reproduction("s000-table3")


def test_reproductions_are_those_of_the_design():
    figures = {f"s000-fig{number}" for number in range(1, 8)} | {"s000-fig2-resnet"}
    tables = {"s000-table1-mlp", "s000-table1-lenet", "s000-table2", "s004-table1"}
    others = {"s002-fig1", "s002-fig1-resnet", "s002-fig1-imagenet", "s002-fig2", "s002-bounds"}
    assert figures | tables | others | {"s004-fig1"} <= set(REPRODUCTIONS)
    assert all(r.about and "\n" not in r.about for r in REPRODUCTIONS.values())


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_every_reproduction_heeds_every_budget(name):
    found = {budget: REPRODUCTIONS[name].configure(budget) for budget in BUDGETS}
    assert len({type(config) for config in found.values()}) == 1
    smoke, default, paper = (dataclasses.asdict(config) for config in found.values())
    assert smoke != default
    # Whatever makes a run longer is no smaller at a larger budget.
    for length in ("steps", "meta_steps", "rounds", "seeds", "problems", "limit", "test_tasks"):
        if length in smoke:
            assert smoke[length] <= default[length] <= paper[length], length
    with pytest.raises(ConfigError, match="--budget: expected smoke, default or paper"):
        REPRODUCTIONS[name].configure("papr")


DIGITS = {"steps": 500, "seeds": 3, "family": "diverse-digits", "model": "lenet5"}
FEW_SHOT = {"meta_steps": 60_000, "model": "conv4-64", "steps": 5, "tasks": 4, "rate": (0.01,)}
FEW_SHOT |= {"way": 5, "shot": 1, "decay": "none", "protocol": "official", "test_tasks": 1000}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("s000-fig1", {"flatness": (5.0, 0.5)}),
        ("s000-table1-mlp", {"family": "rotated-mnist", "model": "mlp-256-128"}),
        ("s000-table2", {"family": "rotated-mnist", "model": "linear", "steps": 1000}),
        ("s000-table1-lenet", DIGITS),
        ("s000-fig3", DIGITS),
        ("s000-fig7", DIGITS),
        ("s000-fig6", {"model": "linear", "steps": 1000}),
        ("s000-fig4", {"model": "resnet18", "seeds": 3, "family": "cifar-10"}),
        ("s000-fig5", {"geometry": "max-of-diagonals"}),
        ("s002-fig1-imagenet", {"model": "resnet50", "side": 224, "seeds": 3}),
        ("s002-fig2", {"problems": 5, "steps": 100}),
        ("s004-table1", {**FEW_SHOT, "seeds": 3}),
        ("s004-fig1", {**FEW_SHOT, "curve_steps": 10}),
    ],
)
def test_the_paper_budget_is_what_the_papers_say(name, fields):
    config = REPRODUCTIONS[name].configure("paper")
    assert {field: getattr(config, field) for field in fields} == fields


RATES, ADAM_RATES = {0.1, 0.05, 0.01, 0.005, 0.001}, {0.3, 0.2, 0.1, 0.01, 0.001}


@pytest.mark.parametrize(
    ("name", "rates"),
    [("SGD", RATES), ("SGD-M", RATES), ("RMSprop", RATES), ("Adam", ADAM_RATES)],
)
def test_grids_are_those_of_s000(name, rates):
    grid = BASELINES[name].grid
    assert len(grid) == 15
    pairs = {(row["learning_rate"], row["weight_decay"]) for row in grid}
    assert pairs == set(itertools.product(rates, (1e-3, 5e-4, 1e-4)))
    wide = {(row["learning_rate"], row["weight_decay"]) for row in BASELINES[name].wide}
    assert wide and not wide & pairs


@pytest.mark.parametrize(
    ("name", "shape", "axes"),
    [
        ("linear", (8, 8, 1), {"weight": (), "bias": ()}),
        ("mlp-7-5", (8, 8, 1), None),
        ("lenet5", (28, 28, 1), None),
    ],
)
def test_exchangeable_axes_are_hidden_units_only(name, shape, axes):
    model = build(name, shape, 10)
    found = exchangeable_axes(model)
    layers = list(model.roles)
    expected = []
    for layer in sorted(layers):
        for leaf in sorted(model.roles[layer]):
            roles = model.roles[layer][leaf]
            hidden = []
            for axis, role in enumerate(roles):
                if role == "in" and layer != layers[0]:
                    hidden.append(axis)
                if role == "out" and layer != layers[-1]:
                    hidden.append(axis)
            expected.append(tuple(hidden))
    assert found == tuple(expected)
    if axes is not None:
        assert all(axis == () for axis in found)
    if name == "mlp-7-5":
        assert found == ((0,), (1,), (0,), (0, 1), (), (0,))
    if name == "lenet5":
        by_name = dict(zip(model.leaf_shapes, found, strict=True))
        # Height and width of a kernel are places, and keep their own rates.
        kernels = [axes for leaf, axes in by_name.items() if len(model.leaf_shapes[leaf]) == 4]
        assert kernels[0] == (3,) and kernels[1:] == [(2, 3)] * (len(kernels) - 1)
        last = [axes for leaf, axes in by_name.items() if leaf.startswith(layers[-1])]
        assert last == [(), (0,)]
