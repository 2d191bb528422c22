"""Algorithms 2 and 4 against goldens, and their classical special cases against recursions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import near, quadratic, soft_maximum

from mirrax.online import (
    FTRL,
    Accelerated,
    AcceleratedWeights,
    ConvexMeta,
    heavy_ball,
    is_affine,
    last_gradient,
    linear_weights,
    nesterov,
    nesterov_momentum,
    no_hint,
    same_weight,
)

GOLDENS = ["c08_online_quadratic_a", "c08_online_quadratic_b"]
ONES = 1.0


@pytest.fixture(params=GOLDENS)
def c08(request, golden):
    return golden(request.param)


def play(average, point):
    del average
    return point


def rounds_of(method, loss, start, point, steps):
    return jax.jit(lambda x, w: method.run(loss, method.init(x, w), steps))(start, point)


CLASSICAL = {
    "alg2_w": (no_hint, linear_weights),
    "n1": (last_gradient, linear_weights),
    "n2": (same_weight, linear_weights),
    "n3": (Accelerated(2.0), AcceleratedWeights(2.0)),
}


@pytest.mark.parametrize("name", CLASSICAL)
def test_goldens_where_w_is_the_next_point(c08, name):
    hint, weights = CLASSICAL[name]
    method = ConvexMeta(play, FTRL(float(c08[f"{name}_beta"]), weights), hint)
    loss, steps = quadratic(c08), int(c08["T"])
    state, made = rounds_of(method, loss, c08["x0"], c08["w1"], steps)
    near(made.average, c08[f"{name}_xbar"][1:])
    near(made.point, c08[f"{name}_w"][:-1])
    near(state.leader.point, c08[f"{name}_w"][-1])


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (heavy_ball, "heavy_ball_x"),
        (nesterov, "n2_linear_coupling_x"),
        (nesterov_momentum, "n3_classical_momentum_x"),
    ],
)
def test_goldens_of_the_classical_methods(c08, method, name):
    method = method(float(c08["L"]))
    _, made = rounds_of(method, quadratic(c08), c08["x0"], c08["w1"], int(c08["T"]))
    near(made.average, c08[name][1:])


@pytest.mark.parametrize("algorithm", ["alg2", "alg4"])
@pytest.mark.parametrize("weights", ["alpha1", "alphat"])
def test_goldens_of_a_rule_that_steps_along_the_gradient(c08, algorithm, weights):
    """In all of the space, and in a box that is reached."""
    key, loss = f"{algorithm}_grad_{weights}", quadratic(c08)
    hint = no_hint if algorithm == "alg2" else last_gradient

    @functools.partial(jax.jit, static_argnums=0)
    def run(steps, lower, upper):  # one program for both sets
        project = functools.partial(optax.projections.projection_box, lower=lower, upper=upper)
        growth = ONES if weights == "alpha1" else linear_weights
        leader = FTRL(float(c08[f"{key}_beta"]), growth, project)
        method = ConvexMeta(lambda x, w: x - w * jax.grad(loss)(x), leader, hint, debug=True)
        return method.run(loss, method.init(c08["x0"], c08["grad_phi_w1"]), steps)

    box = jnp.asarray(c08["grad_phi_box"])
    for region, bounds in (("", jnp.array([-jnp.inf, jnp.inf])), ("_box", box)):
        steps = len(c08[f"{key}{region}_x"])
        state, made = run(steps, *bounds)
        for field, name in (("average", "xbar"), ("play", "x"), ("gradient", "g")):
            near(getattr(made, field), c08[f"{key}{region}_{name}"][-steps:])
        near(np.vstack([made.point, state.leader.point]), c08[f"{key}{region}_w"])
    assert np.any(made.point == box[1]) or np.any(made.point == 0)


def test_golden_of_a_rate_that_changes(c08):
    rates = jnp.asarray(c08["alg4_varbeta_beta"])
    loss = quadratic(c08)
    leader = FTRL(lambda count: rates[count - 1])
    method = ConvexMeta(lambda x, w: x - w * jax.grad(loss)(x), leader)
    _, made = rounds_of(method, loss, c08["x0"], c08["grad_phi_w1"], len(rates))
    near(made.average, c08["alg4_varbeta_xbar"][1:])
    near(made.point, c08["alg4_varbeta_w"][:-1])


@pytest.mark.parametrize("name", ["synthetic_binary", "breast_cancer"])
@pytest.mark.parametrize(("method", "key"), [(heavy_ball, "alg2_w"), (nesterov, "n2")])
def test_goldens_of_logistic_regression(golden, name, method, key):
    c08 = golden(f"c08_online_logistic_{name}")
    rows, regulariser = jnp.asarray(c08["y"][:, None] * c08["X"]), float(c08["reg"])

    def loss(x):
        return jnp.mean(jax.nn.softplus(-rows @ x)) + regulariser / 2 * x @ x

    steps = len(c08[f"{key}_f"]) - 1
    _, made = rounds_of(method(float(c08["L"])), loss, c08["x0"], c08["x0"], steps)
    near(made.average, c08[f"{key}_xbar"][1:])
    near(made.loss, c08[f"{key}_f"][1:])


# --- identities on a loss that is not quadratic ------------------------------------------------


def polyak(slope, smoothness, start, steps):
    points = [start]
    for t in range(2, steps + 1):
        past = points[-2] if t > 2 else points[-1]
        momentum = (t - 2) / (t + 1) * (points[-1] - past)
        points.append(points[-1] + momentum - (t - 1) / ((t + 1) * smoothness) * slope(points[-1]))
    return points


def coupling(slope, smoothness, start, steps):
    points, z = [start], start
    for t in range(1, steps):
        gradient, share = slope(points[-1]), 2 / (t + 2)
        z = z - t / (2 * smoothness) * gradient
        points.append((1 - share) * (points[-1] - gradient / smoothness) + share * z)
    return points


def classical(slope, smoothness, start, steps):
    weights, total = [], 0.0
    for _ in range(steps + 1):
        weights.append(1 + np.sqrt(1 + 2 * total))  # α² = 2 α_{1:t}
        total += weights[-1]
    shares = np.array(weights) / np.cumsum(weights)
    points, before = [start], None
    for t in range(steps - 1):
        y = points[-1] - slope(points[-1]) / smoothness
        momentum = shares[t + 1] * (1 - shares[t]) / shares[t]
        points.append(y if before is None else y + momentum * (y - before))
        before = y
    return points


@pytest.mark.parametrize(
    ("method", "recursion"),
    [(heavy_ball, polyak), (nesterov, coupling), (nesterov_momentum, classical)],
)
def test_classical_methods_on_a_soft_maximum(method, recursion):
    loss, smoothness = soft_maximum()
    start, steps = jnp.array([1.0, -2.0, 0.5, 3.0]), 60
    _, made = rounds_of(method(smoothness), loss, start + 5, start, steps)
    near(made.average, np.stack(recursion(jax.jit(jax.grad(loss)), smoothness, start, steps)))


def test_the_printed_hint_is_nesterov_s_up_to_a_factor_only():
    """S002 §5: the gradient step is `2βt/(t+1)`, which changes with `t`; Nesterov's is `1/L`."""
    loss, smoothness = soft_maximum()
    start, beta = jnp.array([1.0, -2.0, 0.5, 3.0]), 0.5 / smoothness
    method = ConvexMeta(play, FTRL(beta, linear_weights), last_gradient)
    _, made = rounds_of(method, loss, start, start, 20)
    count = np.arange(1, 21)[:, None]
    sums = np.cumsum(count * np.asarray(made.slope), axis=0)
    share, step = 2 / (count[1:] + 1), 2 * beta * count[1:] / (count[1:] + 1)
    coupled = (1 - share) * made.average[:-1] + share * (start - beta * sums[:-1])
    near(made.average[1:], coupled - step * made.slope[:-1])


@pytest.mark.parametrize("optimum", [0.0, 1.0])
def test_a_rule_without_the_point_itself_lands_on_zero(optimum):
    """S002 §2 and §7 together, `Φ(x, w) = w ⊙ ∇f(x)`: with `w_1 = 0` it need not look at `f`."""

    def loss(x):
        return jnp.sum((x - optimum) ** 2)

    def first_average(rule):
        state = ConvexMeta(rule, FTRL(0.1)).init(jnp.full(2, 4.0), jnp.zeros(2))
        return ConvexMeta(rule, FTRL(0.1)).step(loss, state)[1].average.tolist()

    assert first_average(lambda x, w: w * jax.grad(loss)(x)) == [0, 0]
    assert first_average(lambda x, w: x - w * jax.grad(loss)(x)) == [4, 4]


def lessard(x):
    """A function on which momentum without optimism oscillates (Lessard et al. 2016), `L = 25`."""
    x = x[0]
    inner = jnp.where(x < 1, 12.5 * x**2, 0.5 * x**2 + 24 * x - 12)
    return jnp.where(x < 2, inner, 12.5 * x**2 - 24 * x + 36)


def test_optimism_separates_nesterov_from_heavy_ball():
    """Spec C4: 5e-4 against 7e-18 after 50 rounds."""
    losses = []
    for make in (heavy_ball, nesterov):
        point = jnp.array([3.07])
        losses.append(rounds_of(make(25.0), lessard, jnp.zeros(1), point, 50)[1].loss[-1])
    assert 1e-4 < losses[0] < 1e-3 and losses[1] < 1e-16


# --- what a round does ------------------------------------------------------------------------


def test_jacobian_products_are_those_of_the_dense_jacobian():
    loss, _ = soft_maximum(dim=3)
    matrix = jnp.asarray(np.random.default_rng(1).normal(size=(3, 5)))

    def rule(x, w):
        return jnp.tanh(x) + (jnp.outer(jnp.cos(x), jnp.ones(5)) * matrix) @ w

    method = ConvexMeta(rule, FTRL(0.1), no_hint)
    state = method.init(jnp.ones(3), jnp.full(5, 0.1))
    state, _ = method.step(loss, state)
    before = state
    _, made = method.step(loss, state)
    dense = jax.jacobian(rule, 1)(before.average, before.leader.point)
    near(made.gradient, dense.T @ jax.grad(loss)(made.average))


def test_pytrees():
    """Points and meta-parameters of any structure, here of different ones."""

    def loss(x):
        return jnp.sum((x["a"] - 1) ** 2) + (x["b"] + 2) ** 2

    def rule(x, w):
        return {"a": x["a"] + w[0], "b": x["b"] + w[1]}

    method = ConvexMeta(rule, FTRL(0.05, linear_weights))
    start = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    state, made = rounds_of(method, loss, start, (jnp.zeros(2), jnp.zeros(())), 200)
    assert made.loss[-1] < 1e-3 < made.loss[0]
    assert state.average["a"].shape == (2,)


def test_a_round_that_is_not_finite_changes_nothing():
    def loss(x):
        return jnp.where(x[0] < 0.5, jnp.log(x[0] - 0.5), x[0] ** 2)

    method = ConvexMeta(play, FTRL(1.0))
    state, made = rounds_of(method, loss, jnp.ones(1), jnp.ones(1), 5)
    assert np.isfinite(made.loss[0]) and not np.isfinite(made.loss[-1])
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
    assert int(state.leader.count) < 5


# --- bad input --------------------------------------------------------------------------------


def test_rules_that_are_not_affine_are_found_out():
    key, x, w = jax.random.key(0), jnp.ones(3), jnp.ones(3)
    assert is_affine(lambda x, w: jnp.sin(x) * w + x, x, w, key=key)
    assert not is_affine(lambda x, w: x - jnp.exp(w), x, w, key=key)
    method = ConvexMeta(lambda x, w: x - w**2, FTRL(0.1), debug=True)
    with pytest.raises(ValueError, match=r"ConvexMeta.rule: not affine in w"):
        method.step(lambda x: x @ x, method.init(x, w))
    with pytest.raises(Exception, match=r"ConvexMeta.rule: not affine in w"):
        rounds_of(method, lambda x: x @ x, x, w, 3)


def test_rules_that_change_shapes_are_refused():
    method = ConvexMeta(lambda x, w: w, FTRL(0.1))
    with pytest.raises(
        ValueError, match=r"ConvexMeta.rule: expected the shapes \(2,\), got \(3,\)"
    ):
        method.init(jnp.zeros(2), jnp.zeros(3))
