"""Quadratics: gradient zero at the closed-form optimum, and the law they are drawn from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mirrax.tasks import QuadraticTask, sample_ill_conditioned, sample_quadratics

SETTINGS = [(5.0, 0.5), (20.0, 0.02), (0.3,), (5.0, 2.0, 0.5, 0.1, 1.0)]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("flatness", SETTINGS, ids=str)
def test_optimum(flatness):
    tasks = sample_quadratics(jax.random.key(0), 64, flatness=flatness)
    at_optimum = tasks.optimum
    assert tasks.vector.dtype == np.float64
    by_autodiff = jax.vmap(lambda task, theta: jax.grad(task.loss)(theta))(tasks, at_optimum)
    scale = jnp.linalg.norm(tasks.matrix, axis=(1, 2)) * (1 + jnp.linalg.norm(at_optimum, axis=1))
    assert float(jnp.max(jnp.abs(by_autodiff) / scale[:, None])) < 1e-13
    np.testing.assert_allclose(tasks.minimum, tasks.loss(at_optimum), rtol=1e-7, atol=1e-9)
    nearby = at_optimum + 1e-2 * jax.random.normal(jax.random.key(1), at_optimum.shape)
    assert bool(jnp.all(tasks.loss(nearby) > tasks.loss(at_optimum)))


def test_gradient_is_that_of_the_loss_and_stacks_equal_vmap():
    tasks = sample_quadratics(jax.random.key(2), 8, flatness=(5.0, 0.5, 1.0))
    theta = jax.random.normal(jax.random.key(3), (8, 3))
    losses = jax.vmap(QuadraticTask.loss)(tasks, theta)
    by_hand = [
        float(t @ q @ t - b @ t) for q, b, t in zip(tasks.matrix, tasks.vector, theta, strict=True)
    ]
    np.testing.assert_allclose(losses, by_hand, rtol=1e-12)
    np.testing.assert_allclose(tasks.loss(theta), losses, rtol=1e-13)
    autodiff = jax.vmap(lambda task, x: jax.grad(task.loss)(x))(tasks, theta)
    np.testing.assert_allclose(tasks.gradient(theta), autodiff, rtol=1e-12)


def test_matrices_are_symmetric_and_positive():
    tasks = sample_quadratics(jax.random.key(4), 100, flatness=(20.0, 0.02))
    np.testing.assert_array_equal(tasks.matrix, jnp.swapaxes(tasks.matrix, 1, 2))
    assert float(jnp.linalg.eigvalsh(tasks.matrix).min()) > 0


def test_law():
    """Means within five standard errors; `|N(μ, .3)|` has mean μ where μ is ten deviations off."""
    count = 4000
    tasks = sample_quadratics(jax.random.key(5), count, flatness=(5.0, 3.0), law="factor")
    factor = np.asarray(jnp.linalg.cholesky(tasks.matrix))
    error = 5 / np.sqrt(count)
    np.testing.assert_allclose(factor[:, 0, 0].mean(), 5.1, rtol=0, atol=0.3 * error)
    np.testing.assert_allclose(factor[:, 1, 1].mean(), 3.1, rtol=0, atol=0.3 * error)
    np.testing.assert_allclose(factor[:, 0, 0].std(), 0.3, rtol=0, atol=0.3 * error)
    np.testing.assert_allclose(factor[:, 1, 0].mean(), 0.0, rtol=0, atol=error)
    np.testing.assert_allclose(factor[:, 1, 0].std(), 1.0, rtol=0, atol=error)
    np.testing.assert_allclose(np.mean(tasks.vector, axis=0), 1.0, rtol=0, atol=error)
    np.testing.assert_allclose(np.std(tasks.vector, axis=0), 1.0, rtol=0, atol=error)
    flat = sample_quadratics(jax.random.key(6), count, flatness=(0.0,), law="factor")
    assert float(flat.matrix.min()) >= 0.1**2


@pytest.mark.parametrize(("flatness", "least"), [((5.0, 0.5), 200), ((20.0, 0.02), 450)])
def test_what_no_diagonal_can_undo(flatness, least):
    """With the means of `C` (spec B6) no diagonal geometry is fast; with those of `Q` one can be.

    The best diagonal of a 2 × 2 matrix, chosen for each task with its own best rate, leaves the
    condition number `(1 + |ρ|)/(1 − |ρ|)` of its correlation `ρ`, so the gradient shrinks by `|ρ|`
    a step and needs `ln 10⁶ / ln(1/|ρ|)` steps to lose six digits.
    """

    def steps(law):
        matrix = np.asarray(
            sample_quadratics(jax.random.key(0), 4096, flatness=flatness, law=law).matrix
        )
        roots = np.sqrt(matrix[:, 0, 0] * matrix[:, 1, 1])
        return matrix, np.mean(np.log(1e6) / -np.log(np.abs(matrix[:, 0, 1]) / roots))

    matrix, needed = steps("factor")
    assert matrix[:, 1, 1].mean() > 1 and needed > least
    matrix, needed = steps("curvature")
    # Five standard errors of the mean of 4,096 draws.
    np.testing.assert_allclose(matrix[:, [0, 1], [0, 1]].mean(0), flatness, rtol=0.045)
    assert needed < 20


def test_keys():
    first, again, other = (sample_quadratics(jax.random.key(k), 3).matrix for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.any(np.asarray(first) == np.asarray(other))


def test_transformations():
    jitted = jax.jit(lambda key: sample_quadratics(key, 4).optimum)(jax.random.key(0))
    np.testing.assert_allclose(jitted, sample_quadratics(jax.random.key(0), 4).optimum, rtol=1e-10)
    with jax.numpy_dtype_promotion("strict"):
        tasks = sample_quadratics(jax.random.key(0), 4)
        tasks.loss(tasks.optimum), tasks.minimum, tasks.gradient(tasks.optimum)


@pytest.mark.parametrize(
    ("count", "flatness", "message"),
    [
        (0, (1.0,), "count is 0"),
        (3, (), r"flatness is \(\)"),
        (3, (1.0, float("nan")), "flatness"),
        (3, (1.0, float("inf")), "flatness"),
    ],
)
def test_misuse(count, flatness, message):
    with pytest.raises(ValueError, match=f"sample_quadratics: {message}"):
        sample_quadratics(jax.random.key(0), count, flatness=flatness)


@pytest.mark.parametrize("shapes", [((2, 3), (2,)), ((2, 2), (3,)), ((4, 2, 2), (2,)), ((), ())])
def test_shapes(shapes):
    # Where the suite checks annotations at run time, jaxtyping refuses them first.
    with pytest.raises((ValueError, TypeCheckError), match="QuadraticTask"):
        QuadraticTask(jnp.zeros(shapes[0]), jnp.zeros(shapes[1]))


# the ill-conditioned ones of S002


@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_ill_conditioned_law(shift):
    """Means and shares within five standard errors."""
    count = 4000
    tasks = sample_ill_conditioned(jax.random.key(3), count, condition=(10, 1000), shift=shift)
    assert tasks.matrix.dtype == np.float64
    np.testing.assert_array_equal(tasks.matrix, jnp.swapaxes(tasks.matrix, 1, 2))
    values, vectors = np.linalg.eigh(np.asarray(tasks.matrix))
    np.testing.assert_allclose(values[:, 1], 1, rtol=1e-13)
    condition = 1 / values[:, 0]
    assert condition.min() >= 10 * (1 - 1e-9) and condition.max() <= 1000 * (1 + 1e-9)
    error = 5 / np.sqrt(count)
    logs = np.log10(condition)  # uniform on (1, 3)
    np.testing.assert_allclose(logs.mean(), 2, rtol=0, atol=error * 2 / np.sqrt(12))
    np.testing.assert_allclose(
        [(logs < q).mean() for q in (1.5, 2.5)], [0.25, 0.75], rtol=0, atol=error
    )
    double = np.arctan2(vectors[:, 1, 1], vectors[:, 0, 1]) * 2  # an axis, so twice its angle
    np.testing.assert_allclose(np.abs(np.exp(1j * double).mean()), 0, rtol=0, atol=error)
    np.testing.assert_allclose(np.abs(np.exp(2j * double).mean()), 0, rtol=0, atol=error)
    minimiser = np.asarray(tasks.optimum)
    np.testing.assert_allclose(minimiser.mean(axis=0), 0, rtol=0, atol=shift * error)
    np.testing.assert_allclose(minimiser.std(axis=0), shift, rtol=0, atol=shift * error)


def test_the_shift_moves_the_minimiser_only():
    key = jax.random.key(1)
    plain, moved = (sample_ill_conditioned(key, 4, shift=shift) for shift in (0.0, 2.0))
    np.testing.assert_array_equal(plain.matrix, moved.matrix)
    assert not np.any(plain.vector) and np.all(moved.vector != 0)
    other = sample_ill_conditioned(jax.random.key(2), 4)
    assert not np.any(np.asarray(other.matrix) == np.asarray(plain.matrix))


def test_the_excess_is_the_loss_above_its_minimum():
    tasks = sample_ill_conditioned(jax.random.key(4), 6, shift=1.0)
    theta = jax.random.normal(jax.random.key(5), (6, 2))
    np.testing.assert_allclose(tasks.excess(theta), tasks.loss(theta) - tasks.minimum, rtol=1e-12)
    near = tasks.optimum + 1e-12
    steep = jnp.einsum("ni,nij,nj->n", near - tasks.optimum, tasks.matrix, near - tasks.optimum)
    np.testing.assert_allclose(tasks.excess(near), steep, rtol=1e-9)  # the difference would be 0


@pytest.mark.parametrize(
    ("count", "condition", "shift", "message"),
    [
        (0, (10, 1000), 0.0, "count is 0"),
        (2, (0.5, 10), 0.0, "condition"),
        (2, (100, 10), 0.0, "condition"),
        (2, (10, float("inf")), 0.0, "condition"),
        (2, (10, float("nan")), 0.0, "condition"),
        (2, (10, 1000), -1.0, "shift is -1.0"),
        (2, (10, 1000), float("nan"), "shift"),
    ],
)
def test_ill_conditioned_misuse(count, condition, shift, message):
    with pytest.raises(ValueError, match=f"sample_ill_conditioned: {message}"):
        sample_ill_conditioned(jax.random.key(0), count, condition=condition, shift=shift)
