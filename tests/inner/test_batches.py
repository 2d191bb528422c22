"""Batches: draws stay within bounds, depend on step and key only, and end visibly."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import Euclidean
from mirrax.hypergradient import Truncated
from mirrax.inner import (
    Minibatch,
    MirrorDescent,
    Prior,
    Problem,
    Repeat,
    RunSummary,
    Stream,
    evaluate,
    fold,
    unroll,
)
from mirrax.objective import RegretBound

KEY = jax.random.key(7)


@jax.jit
def draws(batches, keys):
    return jax.vmap(lambda key: batches.draw(jnp.array(0), key=key))(keys)


def test_minibatch_draws_rows_that_belong_together_and_within_count():
    rows = {"x": jnp.arange(20.0).reshape(10, 2), "y": jnp.arange(10)}
    batches = Minibatch(rows, size=16, count=7)
    drawn = draws(batches, jax.random.split(KEY, 50))
    assert drawn["x"].shape == (50, 16, 2) and drawn["y"].shape == (50, 16)
    np.testing.assert_array_equal(drawn["x"][..., 0], 2 * drawn["y"])
    assert set(np.unique(drawn["y"])) == set(range(7)), "every row of the first 7, none beyond"


def test_minibatch_is_uniform():
    drawn = draws(Minibatch(jnp.arange(8), size=64), jax.random.split(KEY, 500))
    counts = np.bincount(np.asarray(drawn).ravel(), minlength=8)
    expected = drawn.size / 8
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 29.9, "7 degrees of freedom, one in 10,000"


def test_a_draw_depends_on_its_key_only():
    batches = Minibatch(jnp.arange(1000), size=8)
    one, two = jax.random.split(KEY)
    np.testing.assert_array_equal(draws(batches, one[None]), draws(batches, one[None]))
    assert (draws(batches, one[None]) != draws(batches, two[None])).any()


def test_padded_data_sets_of_different_sizes_vectorise():
    data = jnp.stack([jnp.arange(10), 100 + jnp.arange(10)])
    counts = jnp.array([3, 10])

    @jax.jit
    def draw(key):
        return jax.vmap(
            lambda rows, count: Minibatch(rows, 200, count).draw(jnp.array(0), key=key)
        )(data, counts)

    first, second = np.asarray(draw(KEY))
    assert set(first) == {0, 1, 2} and set(second) == set(range(100, 110))


@pytest.mark.parametrize(
    ("data", "size", "count", "message"),
    [
        (jnp.zeros(3), 0, None, "Minibatch.size: expected at least 1, got 0"),
        (jnp.zeros(3), -1, None, "Minibatch.size: .*got -1"),
        ((jnp.zeros(3), jnp.zeros(4)), 2, None, r"lengths \[3, 4\]"),
        (jnp.zeros((0, 2)), 2, None, r"lengths \[0\]"),
        ((jnp.zeros(3), jnp.zeros(())), 2, None, r"lengths \[0, 3\]"),
        (jnp.zeros(3), 2.5, None, "Minibatch.size: expected a whole number, got 2.5"),
        (jnp.zeros(3), 2, 0, "Minibatch.count.*got 0"),
        (jnp.zeros(3), 2, 4, "Minibatch.count.*3 rows.*got 4"),
        (jnp.zeros(3), 2, np.int64(4), "Minibatch.count.*3 rows.*got 4"),
        (jnp.zeros(3), 2, jnp.array(-1), "Minibatch.count.*3 rows.*got -1"),
        (jnp.zeros(3), 2, 2.5, "Minibatch.count.*whole numbers.*got 2.5"),
        (
            jnp.zeros((4, 3)),
            2,
            jnp.array([3, 3, 4, 1]),
            r"Minibatch.count.*3 rows.*got \[3 3 4 1\]",
        ),
    ],
)
def test_bad_minibatches_are_refused(data, size, count, message):
    with pytest.raises(ValueError, match=message):
        Minibatch(data, size, count)


@pytest.mark.parametrize("count", [0, 4])
def test_a_count_within_a_program_is_refused_there(count):
    draw = eqx.filter_jit(lambda n: Minibatch(jnp.zeros(3), 2, n).draw(jnp.array(0), key=KEY))
    assert draw(jnp.array(3)).shape == (2,)
    with pytest.raises(eqx.EquinoxRuntimeError, match="Minibatch.count: .* 3 rows of data"):
        draw(jnp.array(count))


def test_repeat_gives_anything_back():
    assert Repeat({"a": 3}).draw(jnp.array(9), key=KEY) == {"a": 3}


def shifted(x, shared, batch):
    del shared
    return jnp.sum((x - batch) ** 2) / 2


@jax.jit
def stream_run(data):
    prior = Prior(Euclidean(), jnp.zeros(()))
    return unroll(MirrorDescent(0.5), prior, Problem(shifted, Stream(data)), 3, key=KEY)


def test_stream_gives_slice_t_at_step_t():
    trajectory = stream_run(jnp.array([4.0, -2.0, 8.0]))
    np.testing.assert_allclose(trajectory.primal, [0.0, 2.0, 0.0, 4.0])


def test_a_run_longer_than_its_stream_is_refused_and_one_that_goes_on_ends_in_nan():
    prior = Prior(Euclidean(), jnp.zeros(()))
    problem = Problem(shifted, Stream(jnp.array([4.0, -2.0])))
    rule = MirrorDescent(0.5)
    message = "Stream.data: a run of 3 steps needs as many slices, got 2"
    for run in (
        lambda: unroll(rule, prior, problem, 3, key=KEY),
        lambda: evaluate(RegretBound(0.5), rule, prior, problem, 2, key=KEY, first=1),
        lambda: Truncated(3, 1, wrt=("start",)).over_a_run(
            RegretBound(0.5), rule, prior, problem, key=KEY
        ),
    ):
        with pytest.raises(ValueError, match=message):
            run()

    @jax.jit
    def summary():
        def observe(seen, step, count):
            return seen.observe(step.loss, count, 5)

        seen = RunSummary.empty(jnp.zeros(1))
        begin = rule.init(prior)
        return fold(rule, prior, problem, 5, observe, seen, key=KEY, state=begin)[1]

    assert int(summary().finite_steps) == 2


def test_rows_of_numpy_arrays_are_drawn():
    data = np.arange(10.0).reshape(5, 2)
    draw = lambda data: Minibatch(data, 3).draw(jnp.array(0), key=KEY)  # noqa: E731
    np.testing.assert_array_equal(jax.jit(lambda: draw(data))(), draw(jnp.asarray(data)))
