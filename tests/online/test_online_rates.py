"""Online rates: goldens, the telescoped sum, the derivative itself, groups, bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trajectories import (
    as_params,
    assert_near,
    flat,
    gradients,
    logistic,
    make_loss,
    make_params,
    quadratic,
    rates_like,
    run,
)

from mirrax.online import online_adagrad, online_sgd

QUADRATICS = [f"c08_online_quadratic_{name}" for name in "ab"]
LOGISTIC = [f"c08_online_logistic_{name}" for name in ("synthetic_binary", "breast_cancer")]
VARIANTS = {
    "c1": {},
    "c1_unclipped": {"lower": -jnp.inf},
    "c2": {"optimistic": True},
    "c2_unclipped": {"optimistic": True, "lower": -jnp.inf},
    "c2_ftrl": {"optimistic": True, "clipping": "lazy"},
    "c2_first_hint_zero": {"optimistic": True, "first_hint": "zero"},
}
CLIPPED = {
    "c1_clip": {},
    "c2_clip": {"optimistic": True},
    "c2_clip_ftrl": {"optimistic": True, "clipping": "lazy"},
}


def compare(found, data, key, lower=0.0):
    """Row t of the goldens' rates is what step t + 1 uses; the last one is never read."""
    points, rates, _ = found
    assert_near(points, data[f"{key}_x"])
    assert_near(jnp.clip(rates, lower), data[f"{key}_w"][:-1])


@pytest.mark.parametrize("file", QUADRATICS)
@pytest.mark.parametrize("key", VARIANTS)
def test_goldens_on_quadratics(golden, file, key):
    data, options = golden(file), VARIANTS[key]
    optimiser = online_sgd(jnp.asarray(data["c1_w0"]), float(data["c1_beta"]), **options)
    found = run(optimiser, jnp.asarray(data["x0"]), quadratic(data), 100)
    compare(found, data, key, options.get("lower", 0.0))


@pytest.mark.parametrize("file", QUADRATICS)
@pytest.mark.parametrize("key", CLIPPED)
def test_goldens_where_rates_are_clipped(golden, file, key):
    data = golden(file)
    assert np.any(data[f"{key}_w"] == 0)
    optimiser = online_sgd(jnp.asarray(data["clip_w0"]), float(data["clip_beta"]), **CLIPPED[key])
    compare(run(optimiser, jnp.asarray(data["clip_x0"]), quadratic(data), 60), data, key)


@pytest.mark.parametrize("file", LOGISTIC)
@pytest.mark.parametrize("key", ["c1", "c2"])
def test_goldens_on_logistic_regression(golden, file, key):
    data = golden(file)
    optimiser = online_sgd(jnp.asarray(data["w0"]), float(data["beta"]), **VARIANTS[key])
    compare(run(optimiser, jnp.asarray(data["x0"]), logistic(data), 100), data, key)


@pytest.mark.parametrize("file", QUADRATICS)
def test_momentum_goldens_are_a_chain_with_trace(golden, file):
    data = golden(file)
    optimiser = optax.chain(
        online_sgd(jnp.asarray(data["mom_w0"]), float(data["c1_beta"])),
        optax.trace(float(data["mom_decay"])),
    )
    compare(run(optimiser, jnp.asarray(data["x0"]), quadratic(data), 100), data, "mom")


@pytest.mark.parametrize("file", QUADRATICS)
def test_adagrad_goldens(golden, file):
    data = golden(file)
    beta, floor = float(data["adagrad_beta"]), float(data["adagrad_floor"])
    optimiser = online_adagrad(jnp.asarray(data["adagrad_w0"]), beta, floor=floor)
    compare(run(optimiser, jnp.asarray(data["x0"]), quadratic(data), 100), data, "adagrad")


def test_adagrad_stops_at_its_floor():
    """Two aligned gradients push `w` down by 50 at once."""
    optimiser = online_adagrad(1.0, 100.0, floor=0.25)
    params = grads = jnp.ones(1)
    state = optimiser.init(params)
    for _ in range(2):
        updates, state = optimiser.update(grads, state, params)
    assert state.rates.tolist() == [0.25] and updates.tolist() == [-2.0]


# the two identities


@pytest.mark.parametrize("kind", ["quadratic", "convex"])
def test_the_optimistic_sum_telescopes(golden, kind):
    """`w_t = w_1 + β [Σ_{s<t} G_s ⊙ G_{s+1} + G_t ⊙ G_t − G_1 ⊙ G_1]`, whatever the loss."""
    data = golden(QUADRATICS[1])
    loss = quadratic(data) if kind == "quadratic" else lambda x: make_loss()(as_params(x))
    start = jnp.asarray(data["x0"]) if kind == "quadratic" else flat(make_params())
    beta = float(data["c1_beta"])
    optimiser = online_sgd(0.05, beta, optimistic=True, lower=-jnp.inf)
    points, rates, _ = run(optimiser, start, loss, 60)
    g = np.asarray(gradients(loss, points))[:-1]
    sums = np.concatenate([np.zeros_like(g[:1]), np.cumsum(g[:-1] * g[1:], axis=0)])
    assert_near(rates, 0.05 + beta * (sums + g**2 - g[0] ** 2))
    assert np.max(np.abs(rates - 0.05)) > 1e-3  # the rates did move
    if kind == "quadratic":
        assert_near(data["c2_telescoped_w"][:60], rates)


def test_printed_signs_climb_until_nothing_moves():
    """S002 §7: `x + w ⊙ G` and `w − β G ⊙ G⁺` on `θ²` from 4, beside `online_sgd` on the same."""
    x, w, losses = 4.0, 0.01, []
    for _ in range(60):
        losses.append(x**2)
        ahead = x + w * 2 * x
        x, w = ahead, max(w - 1e-4 * (2 * x) * (2 * ahead), 0.0)
    assert w == 0 and np.all(np.diff(losses) >= 0)
    assert losses[:2] == pytest.approx([16, 16.6464]) and losses[2] == losses[-1] > 16.8
    ours = run(online_sgd(0.01, 1e-4), jnp.array([4.0]), lambda x: jnp.sum(x**2), 60)[0]
    assert np.all(np.diff(ours[:, 0] ** 2) < 0) and ours[-1, 0] ** 2 < 1e-2


def test_a_rate_without_beta_on_every_product_is_lost_at_once():
    """S002 §7.2, the printed parenthesis: `G ⊙ G` is taken off unscaled, 64 of 0.01."""
    g, ahead = 8.0, 2 * 4.0 * (1 - 0.02)
    assert max(0.01 + 1e-4 * ahead * (g + ahead) - g * g, 0.0) == 0
    ours = online_sgd(0.01, 1e-4, optimistic=True)
    rates = run(ours, jnp.array([4.0]), lambda x: jnp.sum(x**2), 2)[1]
    expected = 0.01 + 1e-4 * (ahead * (g + ahead) - g * g)
    np.testing.assert_allclose(rates[1], [expected], rtol=1e-14)


@pytest.mark.parametrize("make", [online_sgd, online_adagrad])
@pytest.mark.parametrize("per", ["element", "leaf", "all"])
def test_the_increment_is_the_derivative_along_the_rates(make, per):
    """`w_t − w_{t−1} = −β ∇_w f(x_{t−1} − r(w) ⊙ ∇f(x_{t−1}))`, by automatic differentiation."""
    params, loss, beta = make_params(), make_loss(), 1e-3
    start = rates_like(per, params)
    factor = (lambda w: w) if make is online_sgd else (lambda w: w**-0.5)

    def value(rates):
        full = jax.tree.map(lambda _: rates, params) if per == "all" else rates
        step = jax.tree.map(lambda x, w, g: x - factor(w) * g, params, full, jax.grad(loss)(params))
        return loss(step)

    points, _, state = run(make(start, beta, per=per), params, loss, 2)
    expected = jax.tree.map(lambda w, d: w - beta * d, start, jax.grad(value)(start))
    jax.tree.map(assert_near, state.rates, expected)
    moved = flat(jax.tree.map(lambda a, b: jnp.ravel(a - b), state.rates, start))
    assert np.max(np.abs(moved)) > 1e-5


@pytest.mark.parametrize("per", ["leaf", "all"])
def test_groups_sum_the_optimistic_products(per):
    params, loss, beta = make_params(), make_loss(), 1e-3
    points, rates, _ = run(online_sgd(0.1, beta, optimistic=True, per=per), params, loss, 3)
    g = gradients(loss, points)
    increments = jax.tree.map(lambda g: jnp.sum(g[1] * (g[0] + g[1]) - g[0] ** 2), g)
    if per == "all":
        increments = sum(jax.tree.leaves(increments))
    jax.tree.map(lambda w, i: assert_near(w[1], 0.1 + beta * i), rates, increments)


@pytest.mark.parametrize("optimistic", [False, True])
def test_a_schedule_counts_the_steps_made(optimistic):
    """`β_t` stands before `G_t ⊙ G_{t+1}`; the schedule's infinite value at zero is not used."""
    params, loss = make_params(), make_loss()

    def schedule(count):
        return 1e-3 / count.astype(jnp.float64)

    points, rates, _ = run(online_sgd(0.1, schedule, optimistic=optimistic), params, loss, 4)

    def increment(g, t):
        return g[t] * (g[t - 1] + g[t]) - g[t - 1] ** 2 if optimistic else g[t] * g[t - 1]

    for leaf, g in zip(
        jax.tree.leaves(rates), jax.tree.leaves(gradients(loss, points)), strict=True
    ):
        assert np.all(leaf[0] == 0.1)
        for t in (1, 2, 3):
            assert_near(leaf[t], leaf[t - 1] + 1e-3 / t * increment(g, t))


@pytest.mark.parametrize("clipping", ["greedy", "lazy"])
def test_bounds_hold_rates(golden, clipping):
    data = golden(QUADRATICS[1])
    loss, bounds = quadratic(data), (0.48, 0.52)
    optimiser = online_sgd(
        0.5, float(data["clip_beta"]), clipping=clipping, lower=bounds[0], upper=bounds[1]
    )
    points, rates, _ = run(optimiser, jnp.asarray(data["clip_x0"]), loss, 60)
    used = np.clip(rates, *bounds)
    assert (used.min(), used.max()) == bounds
    assert np.any(used != rates) == (clipping == "lazy")
    assert_near(np.diff(points, axis=0), -used * np.asarray(gradients(loss, points))[:-1])
