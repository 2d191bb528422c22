"""The parts of few-shot studies one by one: pooling, rates, methods, the outer loop, judging."""

import json
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax._errors import ConfigError
from mirrax.geometry import Diagonal, Euclidean
from mirrax.inner import Prior
from mirrax.methods import FEW_SHOT
from mirrax.study import _few_shot_learn, _few_shot_rates
from mirrax.study._few_shot import FewShotSetting, FewShotStudy, outer_optimiser
from mirrax.study._few_shot_pool import compared, interval
from mirrax.study._folder import RunFolder

SINGLE = 1e-6  # a few roundings of single precision, of 1.2e-7 each


TASKS = np.linspace(0.2, 1.0, 50)


def a_run(accuracies, seconds=1.0):
    mean = {"mean": float(np.mean(accuracies)), "sd": 0.2, "tasks": 50}
    return {
        "test_accuracies": accuracies.tolist(),
        **dict.fromkeys(("test_accuracy", "query_loss", "train_loss"), mean),
        "validation_accuracy": {"mean": 0.5},
        "adaptation": {"steps": [0], "support_loss": [mean], "gradient_norm": [mean]},
        "training": {"steps": [1], "loss": [1.0]},
        "seconds_per_step": seconds,
        **dict.fromkeys(("learned", "best_step"), 1),
    }


def test_differences_are_taken_task_by_task():
    """Two methods a point apart on every task differ by that point, however hard the tasks are."""
    runs = {"one": [a_run(TASKS - 0.01)], "two": [a_run(TASKS)]}
    one, two = compared(runs, dict.fromkeys(runs, {"rate": 0.1, "pilots": []}))
    assert "behind" not in two
    assert one["behind"]["mean"] == pytest.approx(0.01)
    # Rounding alone is left of the spread of 0.2.
    assert one["behind"]["ci95"] < 1e-12 and one["test_accuracy"]["ci95"] > 0.05


def test_a_seed_that_shared_the_machine_does_not_make_a_method_slow():
    runs = {"one": [a_run(TASKS, seconds) for seconds in (1.0, 9.0, 1.5)]}
    (row,) = compared(runs, {"one": {"rate": 0.1, "pilots": []}})
    assert row["seconds_per_step"] == 1.5


def test_intervals_widen_with_the_spread_between_seeds():
    """`t √(s²/n + v/m)`: seeds see the same tasks, so they do not narrow the first term."""
    one = [{"mean": 0.8, "sd": 0.1, "tasks": 100}]
    # Student's quantile of 97.5% with 99 degrees of freedom, and with one, from printed tables.
    assert math.isclose(interval(one)["ci95"], 1.9842 * 0.01, rel_tol=1e-4)
    two = [{"mean": m, "sd": 0.0, "tasks": 100} for m in (0.78, 0.82)]
    assert math.isclose(interval(two)["ci95"], 12.706 * math.sqrt(0.0008 / 2), rel_tol=1e-4)
    assert interval(two)["mean"] == pytest.approx(0.8)
    # Satterthwaite: 0.0005² / (0.0001²/99 + 0.0004²/1) = 1.5624 degrees of freedom.
    both = [{"mean": m, "sd": 0.1, "tasks": 100} for m in (0.78, 0.82)]
    # Simpson's rule over the density up to 5.6957 gives 0.475.
    assert math.isclose(interval(both)["ci95"], 5.6957 * math.sqrt(0.0005), rel_tol=1e-4)


@pytest.mark.parametrize(
    "pilot",
    [
        {},
        {"rate": 0.1, "validation_accuracy": 50, "notes": []},
        {"rate": "0.1", "validation_accuracy": None, "notes": []},
        {"rate": 0.1, "validation_accuracy": None, "notes": "none"},
    ],
    ids=str,
)
def test_what_is_not_what_a_rate_came_to_is_damaged(tmp_path, pilot):
    (tmp_path / "pilot.json").write_text(json.dumps(pilot))
    with pytest.raises(ConfigError, match=r"pilot.json is damaged; delete it"):
        RunFolder(tmp_path).read_json("pilot.json", _few_shot_rates._check)


def test_a_method_of_ones_own_keeps_its_keywords(monkeypatch):
    """All but the options that methods share: a study has fields of many names."""

    seen = []

    def mine(protocol, *, rate=7.0, clip=1.0, steps=2, penalty=0.5, key):
        seen.append((rate, clip, steps, penalty, protocol.rate))
        return FEW_SHOT["maml"](protocol, key=key)

    monkeypatch.setitem(FEW_SHOT, "mine", mine)
    monkeypatch.setitem(FEW_SHOT, "alone", lambda protocol, *, key: mine(protocol, key=key)[1])
    study = FewShotStudy(method="mine", baselines=(), model="mlp-8", penalty=0.25)
    images = types.SimpleNamespace(image_shape=(4, 4, 1))
    setting = FewShotSetting(study, types.SimpleNamespace(train=images))
    setting.compose("mine", 0, 0.3)
    assert seen == [(7.0, 1.0, 2, 0.25, 0.3)]
    with pytest.raises(ConfigError, match=r"'alone' returned Prior; return \(learner, prior\)"):
        setting.compose("alone", 0, 0.3)


def test_a_rate_that_falls_fixes_the_number_of_steps():
    assert "meta_steps" in FewShotStudy().changeable
    assert "meta_steps" not in FewShotStudy(decay="cosine").changeable


def test_rates_of_the_outer_loop_fall_as_they_are_told(as_in_life):
    """Descent by a gradient of one, clipped to half; in float32, to ten of its roundings."""
    for decay, expected in (
        ("none", [1.0, 1.0, 1.0]),
        ("cosine", [1.0, 0.5, 0.5 - math.sqrt(3) / 4]),
        ("step", [1.0, 0.1, 0.01]),
    ):
        steps = {"meta_steps": 6, "validate_every": 2, "stride": 2}
        config = FewShotStudy(optimiser="nesterov", decay=decay, clip=0.5, outer_rate=0.2, **steps)
        optimiser = outer_optimiser(config)
        prior = Prior(Euclidean(), jnp.zeros(1))
        state, found = optimiser.init(prior), []
        for _ in range(6):
            updates, state = optimiser.update(Prior(Euclidean(), jnp.ones(1)), state, prior)
            # Momentum is put back to zero, so that every step is a first one.
            state = jax.tree.map(
                lambda leaf: leaf if jnp.issubdtype(leaf.dtype, jnp.integer) else 0 * leaf, state
            )
            found.append(-float(updates.start[0]))
        # Nesterov's first step is 1 + 0.9 of a gradient.
        np.testing.assert_allclose(
            [found[i] for i in (0, 3, 5)], 0.2 * 0.5 * 1.9 * np.array(expected), rtol=SINGLE
        )


@pytest.mark.parametrize("count", [1, 7, 20, 45])
def test_every_task_is_judged_once_and_always_as_many_together(count):
    """Tasks that fill up the last call are left out of what is returned."""
    calls = []

    def evaluate(prior, episodes, numbers, *, further, key):
        calls.append(numbers)
        return {"number": np.asarray(numbers)}

    learner = types.SimpleNamespace(evaluate=evaluate)
    found = _few_shot_learn.judge(learner, None, None, count, further=0, key=None)
    assert found["number"].tolist() == list(range(count))
    assert len({call.shape for call in calls}) == 1


def test_weights_of_the_network_decay_and_those_of_a_geometry_do_not(as_in_life):
    optimiser = outer_optimiser(FewShotStudy(optimiser="nesterov", outer_rate=0.1))
    prior = Prior(Diagonal(jnp.ones(2)), jnp.ones(2), {"w": jnp.ones(2)})
    updates, _ = optimiser.update(jax.tree.map(jnp.zeros_like, prior), optimiser.init(prior), prior)
    assert not np.any(updates.geometry.log_diagonal)
    for part in (updates.start, updates.shared["w"]):
        np.testing.assert_allclose(part, -0.1 * 1.9 * 1e-4, rtol=SINGLE)


# --- the figure and the table of the paper ----------------------------------------------------
