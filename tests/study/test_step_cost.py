"""Seconds a step: the steps that are timed are training steps, and the clock is read right."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import MODEL, TASKS

from mirrax import _clock
from mirrax.meta import classification
from mirrax.study import _step_cost
from mirrax.study._baselines import BASELINES
from mirrax.study._step_cost import seconds_a_step, training_steps
from mirrax.study._trials import arena


def test_timed_steps_are_steps_of_the_optimiser():
    matrix, start = jnp.diag(jnp.array([1.0, 3.0])), jnp.array([2.0, -1.0])
    optimiser = optax.sgd(0.1, momentum=0.5)
    run = training_steps(optimiser, lambda p, number, data: data @ p + number, start, matrix)
    params, speed = np.asarray(start), np.zeros(2)
    for number in range(4):
        speed = 0.5 * speed + np.diag([1.0, 3.0]) @ params + number
        params = params - 0.1 * speed
    np.testing.assert_allclose(run(4)[0], params, rtol=1e-12)
    np.testing.assert_array_equal(run(0)[0], start)


@pytest.fixture
def now(monkeypatch):
    """A clock that stands unless moved; two processors are busy."""
    now = [0.0]
    monkeypatch.setattr(_clock.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(_clock.time, "process_time", lambda: 2 * now[0])
    return now


def test_sides_take_turns_and_medians_are_of_the_clock(now):
    calls = []

    def side(name, lasts):
        def run():
            calls.append(name)
            now[0] += lasts[sum(call == name for call in calls) - 1]

        return run

    sides = {"a": side("a", [9, 1, 5, 2]), "b": side("b", [7, 4, 4, 4])}
    found = _clock.interleave(sides, 3, pause=0)
    assert "".join(calls) == "ab" * 4
    assert found["a"] == {"median": 2, "fastest": 1, "median_cpu": 4, "first": 9}
    assert found["b"] == {"median": 4, "fastest": 4, "median_cpu": 8, "first": 7}


def test_short_runs_are_repeated_until_their_turn_is_over(now):
    calls = []

    def run():
        calls.append(now[0])
        now[0] += 0.25

    found = _clock.interleave({"short": run}, 2, pause=0, turn=0.7)
    assert len(calls) == 1 + 2 * 3
    assert found["short"] == {"median": 0.25, "fastest": 0.25, "median_cpu": 0.5, "first": 0.25}


@pytest.mark.usefixtures("as_in_life")
def test_seconds_are_those_of_a_run_by_its_steps(monkeypatch):
    """A machine on which a step of SGD takes 2 ms, and one of Adam 3 ms."""
    costs, now = {"SGD": 0.002, "Adam": 0.003}, [0.0]
    built = iter(costs.values())

    def steps(*_):
        cost = next(built)

        def run(number):
            now[0] += number * cost

        return run

    monkeypatch.setattr(_step_cost, "training_steps", steps)
    monkeypatch.setattr(_clock.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(_clock.time, "sleep", lambda seconds: None)
    place = arena(TASKS, classification(TASKS, MODEL, 5), MODEL, 12)
    values = {"learning_rate": 0.1, "weight_decay": 0.0}
    methods = [BASELINES[name] for name in costs]
    found = seconds_a_step(methods, [values, values], place)
    np.testing.assert_allclose([found[name] for name in costs], list(costs.values()))


@pytest.mark.slow
def test_a_real_step_takes_time(as_in_life):
    place = arena(TASKS, classification(TASKS, MODEL, 5), MODEL, 12)
    found = seconds_a_step([BASELINES["SGD"]], [{"learning_rate": 0.1, "weight_decay": 0.0}], place)
    assert 0 < found["SGD"] < 1
