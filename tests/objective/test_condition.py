"""The condition penalty of ECML: closed spectra, scale, null eigenvalues, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import Euclidean
from mirrax.inner import Minibatch, MirrorDescent, Prior, Problem, Repeat, evaluate
from mirrax.objective import ConditionPenalty, ValidationLoss, WeightedSum, log_spread
from mirrax.objective._condition import contrasts

KEY = jax.random.key(0)


def orthogonal(rows, columns):
    return np.linalg.qr(np.random.default_rng(rows).normal(size=(columns, rows)))[0].T


def test_orthogonal_rows_of_equal_norm_cost_nothing():
    assert float(log_spread(jnp.asarray(3 * orthogonal(4, 9)))) < 1e-28


def test_two_values_in_equal_halves():
    """`P = (log₁₀(a/b))²/4` for eigenvalues `a` and `b`."""
    rows = np.sqrt([[7.0], [7.0], [0.2], [0.2]]) * orthogonal(4, 9)
    expected = np.log10(7 / 0.2) ** 2 / 4
    np.testing.assert_allclose(log_spread(jnp.asarray(rows)), expected, rtol=1e-12)


def test_scale_does_not_matter():
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(4, 9)))
    np.testing.assert_allclose(log_spread(rows), log_spread(1e3 * rows), rtol=1e-10)


def test_null_eigenvalues_are_left_out():
    rows = np.sqrt([[7.0], [7.0], [0.2], [0.2]]) * orthogonal(4, 9)
    with_null = np.vstack([rows, rows[0]])  # rank 4: the first direction has eigenvalue 14
    expected = np.var(np.log10([14, 7, 0.2, 0.2]))
    np.testing.assert_allclose(log_spread(jnp.asarray(with_null)), expected, rtol=1e-9)


def test_contrasts_are_orthonormal_and_sum_to_zero():
    basis = contrasts(5)
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), rtol=0, atol=1e-15)
    np.testing.assert_allclose(basis.sum(axis=0), np.zeros(4), rtol=0, atol=1e-15)


def loss(params, shared, batch):
    del shared
    x, y = batch
    return jnp.mean((x @ params["head"]["w"] - y) ** 2) + 0 * params["body"]["v"]


def residual(params, shared, batch):
    del shared
    x, y = batch
    away = jnp.tanh(x @ params["head"]["w"]) - y
    return away - away.mean(axis=1, keepdims=True) + 0 * params["body"]["v"]


def setting():
    rng = np.random.default_rng(2)
    batch = (jnp.asarray(rng.normal(size=(3, 6))), jnp.asarray(rng.normal(size=(3, 4))))
    start = {
        "head": {"w": jnp.asarray(0.3 * rng.normal(size=(6, 4)))},
        "body": {"v": jnp.zeros(())},
    }
    return Prior(Euclidean(), start), Problem(loss, Repeat(batch), query=batch), batch


def test_the_penalty_is_the_mean_over_the_points_left():
    prior, problem, batch = setting()
    steps, rate = 3, 0.2
    penalty = ConditionPenalty(residual, steps, among=lambda name: name.startswith("head"))
    value, _ = evaluate(penalty, MirrorDescent(rate), prior, problem, steps, key=KEY)
    point, spreads = prior.start, []
    for _ in range(steps):
        slopes = jax.jacobian(lambda w: residual({**point, "head": {"w": w}}, None, batch))  # noqa: B023
        jacobian = np.asarray(slopes(point["head"]["w"])).reshape(3, 4, -1)
        rows = np.einsum("nop,oc->ncp", jacobian, contrasts(4)).reshape(9, -1)
        spreads.append(np.var(np.log10(np.linalg.svd(rows, compute_uv=False) ** 2)))
        moved = jax.grad(loss)(point, None, batch)
        point = jax.tree.map(lambda x, g: x - rate * g, point, moved)
    np.testing.assert_allclose(value, np.mean(spreads), rtol=1e-9)


def test_its_derivative_is_that_of_differences():
    prior, problem, _ = setting()
    objective = WeightedSum(((1.0, ValidationLoss()), (0.1, ConditionPenalty(residual, 2))))

    def worth(w):
        here = Prior(prior.geometry, {**prior.start, "head": {"w": w}})
        return evaluate(objective, MirrorDescent(0.2), here, problem, 2, key=KEY)[0]

    w = prior.start["head"]["w"]
    direction = jnp.asarray(np.random.default_rng(3).normal(size=w.shape))
    slope = jnp.vdot(jax.grad(worth)(w), direction)
    step = 1e-5
    differences = (worth(w + step * direction) - worth(w - step * direction)) / (2 * step)
    np.testing.assert_allclose(slope, differences, rtol=1e-7)


def test_what_cannot_be():
    prior, problem, batch = setting()
    with pytest.raises(ValueError, match=r"ConditionPenalty.steps: expected at least 1, got 0"):
        ConditionPenalty(residual, 0)
    random = Problem(loss, Minibatch(batch, 2))
    with pytest.raises(
        ValueError, match="ConditionPenalty: problem.batches must be Repeat, got Minibatch"
    ):
        evaluate(ConditionPenalty(residual, 1), MirrorDescent(0.1), prior, random, 1, key=KEY)
    with pytest.raises(ValueError, match=r"problem.query is None"):
        evaluate(ValidationLoss(), MirrorDescent(0.1), prior, random, 1, key=KEY)
    with pytest.raises(ValueError, match="at least one objective"):
        WeightedSum(())
