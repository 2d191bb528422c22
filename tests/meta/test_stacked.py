"""Tasks of one's own arrays: padded to one shape, drawn from within their own count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.meta import stacked


def loss(params, shared, batch):
    return params


def test_padding_is_never_drawn():
    tasks = [{"x": np.full((n, 2), n), "y": np.full(n, -n)} for n in (3, 7, 5)]
    problem = stacked(tasks, loss, batch=4)
    draw = jax.vmap(lambda task, key: task.batches.draw(jnp.array(0), key=key))
    for seed in range(20):
        found = draw(problem, jax.random.split(jax.random.key(seed), 3))
        for row, n in enumerate((3, 7, 5)):
            np.testing.assert_array_equal(found["x"][row], n)
            np.testing.assert_array_equal(found["y"][row], -n)


@pytest.mark.parametrize(
    "tasks",
    [
        [],
        [(np.ones((3, 2)), np.ones(4))],
        [(np.ones((3, 2)),), (np.ones((3, 1)),)],
        [(np.ones(3),), (np.ones(3, np.float32),)],
        [(np.ones(3),), np.ones(3)],
        [(np.ones(5),), (np.ones(0),)],
        [(np.ones(()),)],
    ],
)
def test_tasks_of_other_arrays_are_refused(tasks):
    with pytest.raises(ValueError, match="stacked.tasks: expected at least one task, all of the"):
        stacked(tasks, loss, batch=2)


def test_tasks_of_other_structures_are_told_apart():
    with pytest.raises(ValueError, match=r"PyTreeDef\(\(\*,\)\) of .*PyTreeDef\(\*\) of"):
        stacked([(np.ones(3),), np.ones(3)], loss, batch=2)
