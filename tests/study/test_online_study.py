"""S002's Fig. 2: grids of one size, the recursions behind it, what is chosen, and the command."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax import cli, report
from mirrax.study._online import (
    _row,
    _short,
    follow_all,
    ratios,
    select,
    select_one,
    sensitivity,
)
from mirrax.study._online_methods import LOW, PER_RATE, STARTS, Learner, learners, units_of
from mirrax.tasks import QuadraticTask, sample_ill_conditioned

METHODS = {method.name: method for method in learners(1)}
START = jnp.array([4.0, 4.0])
INF = float("inf")


def problem(data):
    """The quadratic of a golden file."""
    matrix, shift = jnp.asarray(data["Q"]), jnp.asarray(data["shift"])
    return QuadraticTask(matrix, 2 * matrix @ shift)


# grids


@pytest.mark.parametrize("rates", [1, 2, 40])
def test_every_method_has_as_many_configurations(rates):
    methods = learners(rates)
    assert {len(method.grid) for method in methods} == {PER_RATE * rates}
    for method in methods:
        assert len({tuple(row.items()) for row in method.grid}) == PER_RATE * rates


def test_baselines_try_every_first_rate_of_those_that_learn():
    assert {1e-3, 1e-2, LOW} < set(STARTS)  # those of the spec, and higher ones
    methods = {method.name: method for method in learners(40)}
    for name in ("GD", "Momentum", "AdaGrad"):
        rates = sorted({row["rate"] for row in methods[name].grid})
        assert set(STARTS) < set(rates) and rates[0] == 1e-3
        np.testing.assert_allclose(rates[-1], 8)
        np.testing.assert_array_less(np.diff(np.log(rates)), np.log(8000) / len(rates) * 1.1)
    for name, method in methods.items():
        if method.baseline:
            assert {row["start"] for row in method.grid} == set(STARTS)
            assert methods[method.baseline].baseline is None
        if "Momentum" in name and "B" not in name:
            assert {row["decay"] for row in method.grid} == {0, 0.5, 0.9, 0.95, 0.99}


# recursions


def test_momentum_is_the_recursion_written_by_hand():
    task = jax.tree.map(lambda a: a[0], sample_ill_conditioned(jax.random.key(1), 1, shift=1.0))
    matrix, shift = np.asarray(task.matrix), np.asarray(task.optimum)
    found = METHODS["Momentum"].follow({"rate": 0.6, "decay": 0.9}, task, START, 30)
    x = before = np.array([4.0, 4.0])
    expected = [x]
    for _ in range(30):  # L = 2, because the largest curvature is 1
        x, before = x + 0.9 * (x - before) - 0.3 * 2 * matrix @ (x - shift), x
        expected.append(x)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


def test_adagrad_begins_with_the_relative_rate_along_the_steepest_coordinate():
    task = jax.tree.map(lambda a: a[0], sample_ill_conditioned(jax.random.key(1), 1))
    units, gradient = units_of(task, START), np.asarray(task.gradient(START))
    np.testing.assert_allclose(units.smoothness, 2, rtol=1e-12)
    values = {"rate": 0.2, "accumulator": 0.0}
    step = START - METHODS["AdaGrad"].follow(values, task, START, 1)[1]
    steepest = np.argmax(np.abs(gradient))
    np.testing.assert_allclose(step[steepest], 0.1 * gradient[steepest], rtol=1e-6)


def test_meta_momentum_a_is_the_golden_run(golden):
    data = golden("c08_online_quadratic_a")
    task, start = problem(data), jnp.asarray(data["x0"])
    units = units_of(task, start)
    first = float(data["mom_w0"][0])
    values = {
        "start": first * float(data["L"]),
        "decay": float(data["mom_decay"]),
        "meta_rate": float(data["c1_beta"]) * float(units.slope) ** 2 / first,
    }
    points = METHODS["Meta-Momentum A"].follow(values, task, start, 100)
    np.testing.assert_allclose(points, data["mom_x"], rtol=1e-9, atol=1e-12)


def test_meta_adagrad_is_the_golden_run(golden):
    data = golden("c08_online_quadratic_a")
    task, start = problem(data), jnp.asarray(data["x0"])
    first = float(data["adagrad_w0"][0])
    unit = 2 * first**2.5 / float(units_of(task, start).slope) ** 2
    values = {"start": float(data["L"]) / first**0.5}
    values["meta_rate"] = float(data["adagrad_beta"]) / unit
    points = METHODS["Meta-AdaGrad"].follow(values, task, start, 100)
    np.testing.assert_allclose(points, data["adagrad_x"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_meta_adagrad_can_begin_with_adagrad_s_step(shift):
    task = jax.tree.map(lambda a: a[0], sample_ill_conditioned(jax.random.key(1), 1, shift=shift))
    values = {"rate": 0.7, "start": 0.7, "accumulator": 0.0, "meta_rate": 1.0}
    methods = (METHODS["AdaGrad"], METHODS["Meta-AdaGrad, AdaGrad's start"])
    theirs, ours = (method.follow(values, task, START, 2) for method in methods)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-6)  # optax adds 1e-7 to the accumulator
    assert np.abs(ours[2] - theirs[2]).max() > 1e-3


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.baseline])
def test_without_learning_a_method_is_its_baseline(name):
    """A meta rate that is as good as zero. After its first step B's average goes its own way."""
    task = jax.tree.map(lambda a: a[0], sample_ill_conditioned(jax.random.key(1), 1, shift=1.0))
    method = METHODS[name]
    still = {"start": 0.7, "meta_rate": 1e-12, "decay": 0.5, "power": 0.0}
    steps = 1 if " B " in name else 10
    found = method.follow(still, task, START, steps)
    plain = "GD" if name == "Meta-AdaGrad" else method.baseline
    if plain == "AdaGrad":
        gradient = task.gradient(START)
        expected = jax.vmap(lambda x: task.gradient(x) / jnp.abs(gradient))(found[:-1])
        unit = 0.7 * jnp.max(jnp.abs(gradient)) / 2  # L = 2
        np.testing.assert_allclose(np.diff(found, axis=0), -unit * expected, rtol=1e-9)
    else:
        expected = METHODS[plain].follow({"rate": 0.7, "decay": 0.5}, task, START, steps)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("algorithm", [2, 4])
@pytest.mark.parametrize("power", [0, 1])
def test_meta_momentum_b_is_the_golden_run(golden, algorithm, power):
    """The golden values are of all of the space, where the rates never become negative."""
    data = golden("c08_online_quadratic_a")
    key = f"alg{algorithm}_grad_alpha{'t' if power else 1}"
    beta = float(data["alg2_grad_alpha1_beta"]) / (20 if power else 1) / (algorithm // 2)
    task, start = problem(data), jnp.asarray(data["x0"])
    first, slope = float(data["grad_phi_w1"][0]), float(units_of(task, start).slope)
    values = {
        "start": first * float(data["L"]),
        "meta_rate": beta * slope**2 / first,
        "power": float(power),
    }
    points = METHODS[f"Meta-Momentum B (Alg. {algorithm})"].follow(values, task, start, 60)
    np.testing.assert_allclose(points, data[f"{key}_xbar"], rtol=1e-9, atol=1e-12)


def test_losses_are_above_the_minimum_and_divergence_is_infinite():
    tasks = sample_ill_conditioned(jax.random.key(1), 2, shift=1.0)
    grid = tuple({"rate": rate} for rate in (1.0, 30.0))
    losses = follow_all(Learner("GD", METHODS["GD"].follow, grid), tasks, 40)
    assert losses.shape == (2, 2, 41)
    np.testing.assert_allclose(losses[0, :, 0], tasks.loss(START[None]) - tasks.minimum, rtol=1e-10)
    assert np.all(losses[0, :, -1] < losses[0, :, 0]) and np.all(losses[0] > 0)
    assert np.all(losses[1] == INF)


# choosing

TABLE = np.array([[3.0, INF, INF], [1.0, 2.0, INF], [1.0, 9.0, INF], [INF, 0.5, INF]])
GRID = tuple({"rate": r, "decay": d} for r in (0.1, 1.0) for d in (0.0, 0.9))
LEARNED = tuple({"start": r, "meta_rate": m} for r in (0.1, 1.0) for m in (2.0, 3.0))


def test_the_best_of_each_problem_is_chosen():
    assert select(TABLE).tolist() == [1, 3, 0]  # the first of two equal ones


def test_one_for_all_problems_is_judged_by_ratios():
    """The geometric mean weighs problems of any size alike; what diverges anywhere is last."""
    assert select_one(np.array([[1.0, 900.0], [4.0, 300.0], [2.0, 400.0]])) == 2
    assert select_one(TABLE) == 0  # all diverge somewhere
    assert select_one(np.array([[0.0, INF], [5.0, 5.0]])) == 1


def test_sensitivity_is_the_best_over_the_rest():
    rates, best = sensitivity(TABLE, GRID, "rate")
    assert rates.tolist() == [0.1, 1.0]
    assert best.tolist() == [[1.0, 2.0, INF], [1.0, 0.5, INF]]


def test_ratios_with_runs_that_diverged():
    found = ratios([1.0, INF, INF], [2.0, 2.0, INF])
    assert found["by_problem"][:2] == [0.5, INF] and np.isnan(found["by_problem"][2])
    assert found["never_worse"] is False
    assert ratios([1.0, 2.0], [2.0, 2.0])["never_worse"] is True


def test_the_row_of_a_method_counts_from_the_first_step_on():
    losses = np.zeros((4, 1, 3)) + np.array([[8.0, 4.0, 2.0]])
    losses[1, 0] = [8.0, 1.0, 2.5]
    losses[3] = INF
    baseline = _row(Learner("Base", METHODS["GD"].follow, GRID), losses * 2, [])
    low = baseline["cumulative_at_low_rates"]
    assert baseline["cumulative"] == low == [7.0] and baseline["diverged"] == [1]
    learned = Learner("Ours", METHODS["GD"].follow, LEARNED, baseline="Base")
    row = _row(learned, losses, [baseline])
    assert row["cumulative"] == [3.5] and row["final"] == [2.5] and row["loss"] == [[8.0, 1.0, 2.5]]
    assert row["hyperparameters"] == [LEARNED[1]]
    assert row["to_baseline"] == {"by_problem": [0.5], "median": 0.5, "never_worse": True}


def test_both_sides_are_confined_to_low_first_rates():
    losses = np.stack([np.full((1, 2), float(value)) for value in (6, 5, 1, 2)])
    base = _row(Learner("Base", METHODS["GD"].follow, GRID), losses, [])
    assert base["cumulative"] == [1.0] and base["cumulative_at_low_rates"] == [5.0]
    row = _row(Learner("Ours", METHODS["GD"].follow, LEARNED, "Base"), losses[::-1] * 3, [base])
    assert row["cumulative_at_low_rates"] == [3.0]
    assert row["to_baseline_at_low_rates"]["by_problem"] == [0.6]


def test_one_configuration_is_compared_with_one():
    losses = np.array([[6.0, 4.0], [1.0, 90.0], [5.0, 5.0], [7.0, 7.0]])[..., None].repeat(2, -1)
    base = _row(Learner("Base", METHODS["GD"].follow, GRID), losses, [])
    assert base["one"] == GRID[0] and base["cumulative_with_one"] == [6.0, 4.0]
    row = _row(Learner("Ours", METHODS["GD"].follow, LEARNED, "Base"), losses[[3, 2, 1, 1]], [base])
    assert row["one"] == LEARNED[1] and row["cumulative_with_one"] == [5.0, 5.0]
    assert row["to_baseline_with_one"] == {
        "by_problem": [0.83333, 1.25],
        "median": 1.0417,
        "never_worse": False,
    }


def test_a_method_that_learns_is_swept_over_both_its_rates():
    losses = np.stack([np.full((1, 2), float(value)) for value in (6, 5, 1, 2)])
    base = _row(Learner("Base", METHODS["GD"].follow, GRID), losses, [])
    assert base["sensitivity"] == {"rates": [0.1, 1.0], "cumulative": [[5.0, 1.0]]}
    assert "meta_sensitivity" not in base
    row = _row(Learner("Ours", METHODS["GD"].follow, LEARNED, "Base"), losses, [base])
    assert row["sensitivity"] == {"rates": [0.1, 1.0], "cumulative": [[5.0, 1.0]]}
    assert row["meta_sensitivity"] == {"rates": [2.0, 3.0], "cumulative": [[1.0, 2.0]]}


def test_numbers_are_short():
    assert _short(np.array([1.23456789, INF])) == [1.2346, INF]


# the command


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("online") / "run"
    words = ["reproduce", "s002-fig2", "--budget", "smoke", "--seed", "3", "--out", str(path)]
    assert cli.main(words) == 0
    return path


def test_the_command_leaves_summary_and_figures(made):
    summary = json.loads((made / "summary.json").read_text())
    assert [s["minimiser"] for s in summary["settings"]] == ["at 0", "shifted"]
    assert summary["configurations"] == 60 and summary["steps"] == 20
    plain, moved = summary["settings"]
    for one, other in zip(plain["problems"], moved["problems"], strict=True):
        assert one["matrix"] == other["matrix"] and one["minimiser"] == [0.0, 0.0]
        assert any(other["minimiser"]) and 10 <= one["condition"] <= 1000
    for setting in summary["settings"]:
        assert [row["method"] for row in setting["methods"]] == list(METHODS)
        assert all(row["configurations"] == 60 for row in setting["methods"])
        assert all(len(row["cumulative"]) == 2 for row in setting["methods"])
    names = {path.name for path in (made / "figures").iterdir()}
    assert names == {f"minimiser-{m}.{e}" for m in ("at-0", "shifted") for e in ("svg", "png")}
    assert report.Run.read(made).notes == ()


def test_the_same_seed_gives_the_same_bytes(made, tmp_path):
    words = ["reproduce", "s002-fig2", "--budget", "smoke", "--json", "--seed", "3"]
    assert cli.main([*words, "--out", str(tmp_path / "again")]) == 0
    for name in ("summary.json", "figures/minimiser-shifted.svg"):
        assert (tmp_path / "again" / name).read_bytes() == (made / name).read_bytes()


def test_the_seed_draws_the_problems(made):
    found = json.loads((made / "summary.json").read_text())["settings"][1]["problems"]
    tasks = sample_ill_conditioned(jax.random.key(3), 2, shift=1.0)
    for row, matrix, minimiser in zip(found, tasks.matrix, tasks.optimum, strict=True):
        np.testing.assert_allclose(row["matrix"], matrix, rtol=1e-4)
        np.testing.assert_allclose(row["minimiser"], minimiser, rtol=1e-4)


def test_resuming_reads_what_was_made(made, capsys):
    before = (made / "summary.json").stat().st_mtime_ns
    words = ["reproduce", "s002-fig2", "--budget", "smoke", "--seed", "3", "--out", str(made)]
    assert cli.main([*words, "--resume", "--json"]) == 0
    assert (made / "summary.json").stat().st_mtime_ns == before
    assert json.loads(capsys.readouterr().out)["kind"] == "online"
    assert cli.main(words) == 2 and "exists already" in capsys.readouterr().err
    assert cli.main([*words, "--resume", "--problems", "3"]) == 2
    assert re.search("--problems: .* was made with [0-9]+, not 3; ", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--problems", "0"], "--problems: expected 1 to 20, got 0"),
        (["--problems", "21"], "--problems: expected 1 to 20, got 21"),
        (["--steps", "-5"], "--steps: expected a positive number, got -5"),
        (["--rates", "0"], "--rates: expected 1 to 100, got 0"),
        (["--rates", "many"], "--rates: cannot read 'many' as int"),
        (["--step", "5"], "no field --step.*Did you mean 'steps'"),
        (["--budget", "smal"], "--budget: expected smoke.*'smal'"),
    ],
)
def test_bad_options(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["reproduce", "s002-fig2", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(message, error), error
    assert list(tmp_path.iterdir()) == []
