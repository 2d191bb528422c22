"""Approximations that leave curvature out, against formulas written by hand in numpy.

On a quadratic with diagonal mirror descent, `x_{t+1} = x_t − η g_t/m²` and `g_t = H(x_t − a)`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import Diagonal
from mirrax.hypergradient import Direct, Pathwise, Reverse, Truncated
from mirrax.inner import AbstractObjective, MirrorDescent, Prior, Problem, Repeat
from mirrax.objective import ValidationLoss

RATE, LENGTH, KEY = 0.1, 12, jax.random.key(0)


class Bolza(AbstractObjective):
    """`Σ_t (⟨c, x_t⟩² + ⟨d, g_t⟩²)/2 + ⟨b, m² x_{T+1}²⟩/2`."""

    c: jax.Array
    d: jax.Array
    b: jax.Array

    def stage(self, prior, problem, step):
        return ((self.c @ step.primal) ** 2 + (self.d @ step.gradient) ** 2) / 2

    def terminal(self, prior, problem, first, last):
        return jnp.sum(self.b * prior.geometry.curvature * last**2) / 2


def quadratic(x, shared, data):
    hessian, target = data
    return (x - target) @ hessian @ (x - target) / 2


def make():
    rng = np.random.default_rng(21)
    root = rng.normal(size=(3, 3))
    hessian, target, start = root @ root.T + np.eye(3), rng.normal(size=3), rng.normal(size=3)
    c, d, b, log_m = *rng.normal(size=(3, 3)), rng.uniform(0.2, 0.7, 3)
    return hessian, target, start, c, d, b, log_m


HESSIAN, TARGET, START, C, D, B, LOG_M = make()


def run_by_hand():
    points = [START]
    for _ in range(LENGTH):
        points.append(points[-1] - RATE * HESSIAN @ (points[-1] - TARGET) / np.exp(2 * LOG_M))
    return points, [HESSIAN @ (x - TARGET) for x in points[:-1]]


@functools.partial(jax.jit, static_argnums=0)
def summed(estimator):
    prior = Prior(Diagonal(jnp.asarray(LOG_M)), jnp.asarray(START))
    problem = Problem(quadratic, Repeat((jnp.asarray(HESSIAN), jnp.asarray(TARGET))))
    objective, inner = Bolza(*map(jnp.asarray, (C, D, B))), MirrorDescent(RATE)

    _, slope, _ = estimator.over_a_run(objective, inner, prior, problem, key=KEY)
    return slope.geometry.log_diagonal, jnp.zeros(3) if slope.start is None else slope.start


@pytest.mark.parametrize("checkpoint", [False, True])
def test_first_order_is_the_adjoint_without_curvature(checkpoint):
    """`a ← a + c⟨c, x_t⟩` backwards, without the term `H a/m²` and without `d`."""
    points, slopes = run_by_hand()
    curvature = np.exp(2 * LOG_M)
    adjoint, geometry = B * curvature * points[-1], B * curvature * points[-1] ** 2
    for point, slope in zip(reversed(points[:-1]), reversed(slopes), strict=True):
        geometry = geometry + 2 * RATE * slope * adjoint / curvature
        adjoint = adjoint + C * (C @ point)
    wrt = ("geometry", "start")
    found = summed(Reverse(LENGTH, checkpoint=checkpoint, wrt=wrt, first_order=True))
    np.testing.assert_allclose(found[0], geometry, rtol=1e-12)
    np.testing.assert_allclose(found[1], adjoint, rtol=1e-12)
    exact = summed(Reverse(LENGTH, checkpoint=checkpoint, wrt=wrt))
    assert np.abs(exact[0] - geometry).max() > 1e-2


def test_windows_of_one_step_differentiate_the_last_step_alone():
    """Costs on the way depend on a held point; the end on the geometry through one step."""
    points, slopes = run_by_hand()
    curvature, last = np.exp(2 * LOG_M), points[-1]
    expected = B * curvature * last**2 + 2 * RATE * slopes[-1] * B * last
    found, _ = summed(Truncated(LENGTH, 1))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_direct_leaves_the_run_out():
    points, _ = run_by_hand()
    found, _ = summed(Direct(LENGTH))
    np.testing.assert_allclose(found, B * np.exp(2 * LOG_M) * points[-1] ** 2, rtol=1e-12)


@pytest.mark.parametrize("make", [Reverse, Pathwise])
def test_what_is_shared_may_hold_integers(make):
    """They count for a constant, in the value and in the derivative of the rest."""

    def loss(x, shared, data):
        scale, power = shared
        return scale * quadratic(x, None, data) ** power

    found = []
    for power in (jnp.array(2), 2.0):
        prior = Prior(Diagonal(jnp.asarray(LOG_M)), jnp.asarray(START), (jnp.array(0.1), power))
        problem = Problem(loss, Repeat((HESSIAN, TARGET)), query=(HESSIAN, TARGET))
        estimator = make(LENGTH, wrt=("geometry", "shared"), first_order=True)
        value, grad, _ = estimator.over_a_run(
            ValidationLoss(), MirrorDescent(RATE / 100), prior, problem, key=KEY
        )
        found.append((value, grad.geometry.log_diagonal, grad.shared[0]))
        assert all(np.all(np.isfinite(part)) & np.all(part != 0) for part in found[-1])
    for one, other in zip(*found, strict=True):
        # Nothing but how a square is rounded may differ; found: nothing.
        np.testing.assert_allclose(one, other, rtol=5e-16)
