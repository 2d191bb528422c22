"""Negative entropy where weights are zero: by a start that has some, or by underflow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import NegativeEntropy, Scaled
from mirrax.hypergradient import Evolution, Reverse, Truncated
from mirrax.inner import MirrorDescent, Prior, Problem, Repeat
from mirrax.objective import ValidationLoss

KEY = jax.random.key(0)
COST = jnp.array([0.0, 1.0, 2.0])
PROBLEM = Problem(lambda x, shared, cost: jnp.sum(cost * x), Repeat(COST), query=COST)


def prior(start, domain="simplex"):
    return Prior(Scaled(NegativeEntropy(domain), jnp.array(0.0)), jnp.asarray(start))


def over(estimator, rate, prior):
    value, grad, _ = jax.jit(
        lambda: estimator.over_a_run(ValidationLoss(), MirrorDescent(rate), prior, PROBLEM, key=KEY)
    )()
    return value, grad


@pytest.mark.parametrize(("rate", "start"), [(400.0, [1 / 3] * 3), (0.1, [0.0, 0.5, 0.5])])
def test_windows_are_the_whole_run(rate, start):
    """Softmax underflows with the first rate; `log 0 − log 0` poisoned the windows that follow."""
    whole, _ = over(Reverse(4), rate, prior(start))
    for estimator in (Truncated(4, 2), Evolution(4, 2, 0.01, window=2)):
        value, grad = over(estimator, rate, prior(start))
        assert jnp.isfinite(grad.geometry.log_scale)
        if isinstance(estimator, Truncated):
            np.testing.assert_allclose(value, whole, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("domain", ["simplex", "orthant"])
def test_a_weight_of_zero_is_the_limit_of_small_ones(domain):
    zero, grad = over(Reverse(3), 0.1, prior([0.0, 0.5, 0.5], domain))
    small, expected = over(Reverse(3), 0.1, prior([1e-30, 0.5, 0.5], domain))
    np.testing.assert_allclose(zero, small, rtol=1e-14)
    np.testing.assert_allclose(grad.geometry.log_scale, expected.geometry.log_scale, rtol=1e-14)


@pytest.mark.parametrize("domain", ["simplex", "orthant"])
def test_a_weight_of_zero_stays_zero_without_derivative(domain):
    geometry = NegativeEntropy(domain)
    at = jnp.array([0.0, 0.25, 0.75])
    there = lambda x: geometry.to_primal(geometry.to_dual(x) + 1e6)  # noqa: E731
    assert there(at)[0] == 0
    np.testing.assert_array_equal(jax.jacobian(geometry.to_dual)(at)[0], 0)
    assert np.isfinite(jax.jacobian(lambda x: geometry.to_primal(geometry.to_dual(x)))(at)).all()
    assert jnp.isnan(geometry.to_dual(jnp.array([-0.1, 1.1]))[0])
