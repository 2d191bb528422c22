"""Counting steps on quadratics, and the geometry of eq. 10."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mirrax.geometry import Diagonal
from mirrax.study._baselines import columns
from mirrax.study._compare import learned_method
from mirrax.study._quadratics import count_steps, isotropic_geometry
from mirrax.tasks import sample_quadratics

TASKS = sample_quadratics(jax.random.key(2), 3)
LIMIT = 60


def plain_count(optimiser, number, tolerance):
    task = jax.tree.map(lambda leaf: leaf[number], TASKS)
    matrix, vector = np.asarray(task.matrix), np.asarray(task.vector)
    point = jnp.zeros(2)
    state = optimiser.init(point)
    for count in range(LIMIT):
        gradient = (matrix + matrix.T) @ np.asarray(point) - vector
        if np.linalg.norm(gradient) < tolerance:
            return count
        if not np.linalg.norm(gradient) < 1e100:
            return LIMIT
        updates, state = optimiser.update(jnp.asarray(gradient), state, point)
        point = point + updates
    return LIMIT


def test_counts_are_those_of_a_plain_loop():
    grid = [{"learning_rate": rate} for rate in (0.001, 0.06, 0.1, 1e60)]

    def make(values, context):
        del context
        return optax.sgd(values["learning_rate"])

    found = np.asarray(count_steps(make, None, columns(grid), TASKS, 0.5, LIMIT))
    expected = [
        [plain_count(optax.sgd(row["learning_rate"]), i, 0.5) for i in range(3)] for row in grid
    ]
    np.testing.assert_array_equal(found, expected)
    assert np.all(found[-1] == LIMIT) and np.any(found < LIMIT)


def test_a_geometry_with_the_exact_curvature_needs_few_steps():
    diagonal = jax.vmap(jnp.diag)(TASKS.matrix).mean(0)
    geometry = Diagonal(jnp.log(2 * diagonal) / 2)
    method = learned_method(geometry, 1.0)
    grid = [{"rate_scale": 0.8, "momentum": 0.0}]
    found = np.asarray(count_steps(method.make, method.context, columns(grid), TASKS, 0.5, LIMIT))
    assert found.shape == (1, 3) and np.median(found) < 20


def test_eq_10_asks_for_one_rate():
    rate, steps = 0.01, 50
    geometry = isotropic_geometry(TASKS, rate, steps)
    lipschitz = max(np.linalg.norm(v) for v in np.asarray(TASKS.vector))
    optima = [
        np.linalg.solve(2 * q, v)
        for q, v in zip(np.asarray(TASKS.matrix), np.asarray(TASKS.vector), strict=True)
    ]
    distance = np.mean([x @ x for x in optima])
    k = rate**2 * steps * lipschitz**2 / 2
    np.testing.assert_allclose(
        geometry.curvature, np.sqrt(2 * k / distance), rtol=1e-14
    )  # one quotient

    def eq10(m2):  # mean ½ m²‖Δ‖² + k / m²
        return m2 * distance / 2 + k / m2

    best = float(geometry.curvature[0])
    assert eq10(best) < min(eq10(best * 1.01), eq10(best * 0.99))
