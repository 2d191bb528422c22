"""Theorems 1 and 2 and Corollary 1 of S002, corrected, on random convex problems."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp
from numpy.testing import assert_allclose

from mirrax.certificate import gap_certificate, rate_with_hints, rate_without_hints
from mirrax.online import FTRL, ConvexMeta, last_gradient, linear_weights, no_hint

DIM, ROWS, ROUNDS, PROBLEMS = 4, 12, 40, 80


def quadratic(rows, shift, x):
    return jnp.sum((rows @ x - shift) ** 2) / 2


def logistic(rows, shift, x):
    return jnp.sum(jax.nn.softplus(rows @ x + shift)) + jnp.sum(x**2) / 2


def soft_maximum(rows, shift, x):
    return logsumexp(rows @ x + shift) + jnp.sum(x**2) / 2


def largest(rows):
    return jnp.linalg.eigvalsh(rows.T @ rows)[-1]


# With a constant no less than that of Lipschitz gradients.
LOSSES = {
    "quadratic": (quadratic, largest),
    "logistic": (logistic, lambda rows: largest(rows) / 4 + 1),
    "soft maximum": (soft_maximum, lambda rows: jnp.max(jnp.sum(rows**2, axis=1)) + 1),
}


def newton(loss):
    """The minimiser, by damped Newton steps."""
    slope, hessian = jax.grad(loss), jax.hessian(loss)

    def step(_, x):
        direction = jnp.linalg.solve(hessian(x), slope(x))
        sizes = 0.5 ** jnp.arange(20.0)
        return x - sizes[jnp.argmin(jax.vmap(lambda s: loss(x - s * direction))(sizes))] * direction

    return jax.lax.fori_loop(0, 40, step, jnp.zeros(DIM))


def constant_rule(matrix):
    """`Φ(x, w) = M w`, for which `λ = λ̃ = ‖M‖²` and regret is preserved by `w* = M⁻¹ x*`."""
    return lambda x, w: matrix @ w


def certify(kind, key):
    """One random problem: certificates and promised rates, without and with hints; `‖M‖²`."""
    rows_key, shift_key, matrix_key, start_key = jax.random.split(key, 4)
    rows = jax.random.normal(rows_key, (ROWS, DIM)) * jnp.geomspace(0.1, 1, DIM)
    shift = jax.random.normal(shift_key, (ROWS,))
    loss = functools.partial(LOSSES[kind][0], rows, shift)
    smoothness, optimum = LOSSES[kind][1](rows), newton(loss)
    matrix = jnp.eye(DIM) + 0.3 * jax.random.normal(matrix_key, (DIM, DIM))
    bound = largest(matrix)
    comparator, start = jnp.linalg.solve(matrix, optimum), jax.random.normal(start_key, (DIM,))
    distance = jnp.linalg.norm(comparator - start)

    def found(leader, hint):
        method = ConvexMeta(constant_rule(matrix), leader, hint)
        state, rounds = method.run(loss, method.init(jnp.zeros(DIM), start), ROUNDS)
        known = {"optimum": optimum, "comparator": comparator, "smoothness": smoothness}
        return gap_certificate(method, state, rounds, loss, **known)

    plain = found(FTRL(1 / (bound * smoothness)), no_hint)
    hinted = found(FTRL(1 / (4 * bound * smoothness), linear_weights), last_gradient)
    rates = [
        promised(bound, smoothness, distance, ROUNDS)
        for promised in (rate_without_hints, rate_with_hints)
    ]
    return [plain, hinted], rates, bound, jnp.linalg.norm(jax.grad(loss)(optimum))


@pytest.mark.parametrize("kind", LOSSES)
def test_rates_hold_on_random_problems(kind):
    """Theorem 1 and Corollary 1."""
    keys = jax.random.split(jax.random.key(len(kind)), PROBLEMS)
    both, rates, bound, slope = jax.jit(jax.vmap(functools.partial(certify, kind)))(keys)
    assert np.all(slope < 1e-10)
    for found, rate in zip(both, rates, strict=True):
        slack = 1e-12 * np.abs(rate)
        assert np.all(found.gap >= -slack) and np.all(found.gap <= found.bound + slack)
        assert np.all(found.bound <= rate + slack)
        assert np.all(found.regret <= found.regret_bound)
        # Regret is preserved with equality, to rounding.
        assert np.all(np.abs(found.capacity) <= 1e-10 * found.regret_bound)
        assert np.all(found.rule_smoothness <= bound * (1 + 1e-12))
        assert np.median(found.ratio) > 1e-4  # the bound is about the gap, not far above it
    # Rounding of 1e-16 in small differences of gradients is seen in the quotient.
    assert np.all(both[1].hint_smoothness <= bound * (1 + 1e-6))


@pytest.mark.parametrize("kind", LOSSES)
def test_theorem_2_holds_for_a_rule_that_uses_gradients(kind):
    """`Φ(x, w) = x − w ⊙ ∇f(x)`: the capacity is whatever it was, for several comparators."""

    def certified(key):
        rows_key, shift_key = jax.random.split(key)
        rows = jax.random.normal(rows_key, (ROWS, DIM))
        shift = jax.random.normal(shift_key, (ROWS,))
        loss = functools.partial(LOSSES[kind][0], rows, shift)
        smoothness, optimum = LOSSES[kind][1](rows), newton(loss)
        rate = 0.01 / (smoothness * jnp.sum(jax.grad(loss)(jnp.ones(DIM)) ** 2))
        start = jnp.full(DIM, 1 / smoothness)

        def found(hint):
            leader = FTRL(rate, linear_weights)
            method = ConvexMeta(lambda x, w: x - w * jax.grad(loss)(x), leader, hint)
            state, rounds = method.run(loss, method.init(jnp.ones(DIM), start), ROUNDS)

            def against(comparator):
                known = {"optimum": optimum, "comparator": comparator, "smoothness": smoothness}
                return gap_certificate(method, state, rounds, loss, **known)

            return jax.vmap(against)(jnp.array([0.0, 1.0, 2.0])[:, None] * start)

        return [found(no_hint), found(last_gradient)]

    keys = jax.random.split(jax.random.key(1), PROBLEMS)
    for found in jax.jit(jax.vmap(certified))(keys):
        assert np.all(np.isfinite(found.gap)) and np.all(found.gap <= found.bound * (1 + 1e-12))
        assert np.all(found.regret <= found.regret_bound)
        # Not moving at all (w* = 0) cannot preserve regret here.
        assert not np.any(found.preserves_regret[:, 0])


def test_the_parts_by_hand():
    """Two rounds of `Φ(x, w) = w` on `x²`, all sums written out."""

    def loss(x):
        return jnp.sum(x**2)

    method = ConvexMeta(lambda x, w: w, FTRL(0.125, linear_weights), last_gradient)
    state, rounds = method.run(loss, method.init(jnp.zeros(1), jnp.array([4.0])), 2)
    # x̄_1 = 4, g_1 = 8, w_2 = 4 − (2·8 + 8)/8 = 1, x̄_2 = 4/3 + 2/3 = 2, g_2 = 4.
    assert rounds.average[:, 0].tolist() == [4.0, 2.0]
    found = gap_certificate(
        method,
        *(state, rounds, loss),
        optimum=jnp.zeros(1),
        comparator=jnp.array([1.0]),
        smoothness=2.0,
    )
    regret = 1 * 8 * (4 - 1) + 2 * 4 * (1 - 1)
    regret_bound = (1 - 4) ** 2 / (2 * 0.125) + 0.125 / 2 * (8**2 + (2 * 4 - 2 * 8) ** 2)
    capacity = 1 * 8 * 1 + 2 * 4 * 1
    credit = (1 * 8**2 + 2 * 4**2) / 4 + 1 * (8 - 4) ** 2 / 4
    expected = (4, (regret_bound + capacity - credit) / 3, regret, regret_bound, capacity, credit)
    names = ("gap", "bound", "regret", "regret_bound", "capacity", "credit")
    assert_allclose([getattr(found, name) for name in names], expected, rtol=1e-15)
    assert not found.preserves_regret
    assert_allclose([found.rule_smoothness, found.hint_smoothness], [1, 1], rtol=1e-15)
    assert_allclose(found.ratio, 4 / expected[1], rtol=1e-15)
