"""The command that sets bounds beside what they bound, and the ratios it counts."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax import cli, report
from mirrax._errors import MirraxError
from mirrax.study._online_bounds import DIM, LOSSES, _ratios, draw_problem

WORDS = ["reproduce", "s002-bounds", "--budget", "smoke", "--json"]
BOUNDS = {"Theorem 1": 1, "Corollary 1": 1, "Theorem 2": 4, "eq. 5": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("bounds") / "run"
    assert cli.main([*WORDS, "--out", str(path)]) == 0
    return path


@pytest.mark.slow
def test_every_bound_is_reported_for_every_kind(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert (summary["problems"], summary["rounds"]) == (4, 10)
    for bound, cases in BOUNDS.items():
        rows = [row for row in summary["bounds"] if row["bound"] == bound]
        assert [row["kind"] for row in rows] == cases * list(LOSSES)
        for row in rows:
            assert row["violated"] == 0 and row["count"] == 4
            assert 0 < row["median"] <= row["largest"] <= 1
    assert len(summary["bounds"]) == sum(BOUNDS.values()) * len(LOSSES)


@pytest.mark.slow
def test_a_report_and_a_second_call_show_the_run(finished, tmp_path, capsys):
    run = report.Run.read(finished)
    assert run.notes == ()
    page = report.html([run], tmp_path / "report.html").read_text()
    assert "Gap beside bound on random convex problems" in page and "Violated: 0 of 96" in page
    before = (finished / "summary.json").read_bytes()
    capsys.readouterr()
    assert cli.main([*WORDS, "--out", str(finished), "--resume"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "online-bounds"
    assert (finished / "summary.json").read_bytes() == before


def test_losses_are_as_smooth_as_said_and_minimised():
    """Bounds and rates rest on both."""

    def measure(kind, key):
        problem = draw_problem(kind, key)
        points = problem.optimum + 0.5 * jax.random.normal(jax.random.key(9), (50, DIM))
        curvature = jnp.linalg.eigvalsh(jax.vmap(jax.hessian(problem.loss))(points))
        slope = jnp.linalg.norm(jax.grad(problem.loss)(problem.optimum))
        return problem.smoothness, curvature.min(), curvature.max(), slope

    with jax.enable_x64(True):
        kinds, keys = jnp.arange(len(LOSSES)), jax.vmap(jax.random.key)(jnp.arange(5))
        every = jax.jit(jax.vmap(jax.vmap(measure, (None, 0)), (0, None)))
        smoothness, least, most, slope = map(np.asarray, every(kinds, keys))
    assert smoothness.shape == (len(LOSSES), 5)
    assert np.all(0.05 * smoothness < most) and np.all(most <= smoothness * (1 + 1e-12))
    assert np.all(least > 0)
    assert np.all(slope < 1e-12 * smoothness)


def test_violations_are_counted():
    """Also of bounds that are negative, where a larger ratio is no violation."""
    found = _ratios(np.array([-3.0, -1.0]), np.full(2, -2.0))
    assert found["violated"] == 1
    found = _ratios(np.array([1.0, 2.0 + 1e-13, 2.1, np.nan]), np.array([4.0, 2.0, 2.0, 1.0]))
    assert found["count"] == 4 and found["violated"] == 2  # the third, and what is no number
    found = _ratios(np.array([1.0, 3.0, 2.0]), np.full(3, 4.0))
    assert found == {"count": 3, "median": 0.5, "largest": 0.75, "violated": 0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("bounds", None, "'bounds' is not a list of bounds"),
        ("median", "low", "an entry of 'bounds', Theorem 1, lacks one of its four numbers"),
        ("kind", 3, "an entry of 'bounds', Theorem 1, does not say of what it is"),
    ],
)
def test_a_damaged_summary_is_named(finished, tmp_path, key, value, fault):
    summary = json.loads((finished / "summary.json").read_text())
    row = next(row for row in summary["bounds"] if row["bound"] == "Theorem 1")
    (summary if key == "bounds" else row)[key] = value
    (tmp_path / "config.json").write_bytes((finished / "config.json").read_bytes())
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(MirraxError, match=fault):
        report.Run.read(tmp_path)


@pytest.mark.parametrize("field", ["problems", "rounds"])
def test_numbers_are_positive(field, tmp_path, capsys):
    assert cli.main([*WORDS, f"--{field}", "0", "--out", str(tmp_path / "run")]) == 2
    assert f"--{field}: expected a positive number, got 0." in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
