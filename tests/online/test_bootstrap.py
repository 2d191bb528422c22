"""Bootstrapped meta-gradients: goldens, the ordinary meta-gradient, and Theorem 3 both ways."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import Cubic, near, quadratic, soft_maximum

from mirrax.geometry import Diagonal, NegativeEntropy
from mirrax.online import FTRL, Bootstrapped, ConvexMeta, FromHint, FromTarget, GradientStep

GOLDENS = ["c08_online_quadratic_a", "c08_online_quadratic_b"]


def along_gradient(loss):
    return lambda x, w: x - w * jax.grad(loss)(x)


def made_by(method, loss, start, meta, steps):
    return jax.jit(lambda x, w: method.run(loss, method.init(x, w), steps))(start, meta)


@pytest.mark.parametrize("name", GOLDENS)
@pytest.mark.parametrize("divergence", ["euclid", "f"])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_goldens(golden, name, divergence, length):
    """In all of the space, and in the orthant."""
    c08 = golden(name)
    loss, key = quadratic(c08), f"bmg_{divergence}_L{length}"
    steps = len(c08[f"{key}_z"])

    @jax.jit
    def run(lower):  # one program for both sets
        method = Bootstrapped(
            along_gradient(loss),
            float(c08[f"bmg_{divergence}_beta"]),
            to_dual=jax.grad(loss) if divergence == "f" else lambda x: x,
            target=GradientStep(float(c08["bmg_zeta"])),
            ahead=length - 1,
            project=lambda w: optax.projections.projection_box(w, lower, jnp.inf),
        )
        return method.run(loss, method.init(c08["x0"], c08["bmg_w1"]), steps)

    for region, lower in (("", -jnp.inf), ("_pos", 0.0)):
        state, made = run(lower)
        near(made.point, c08[f"{key}{region}_x"][1:])
        near(made.target, c08[f"{key}{region}_z"])
        near(np.vstack([made.meta, state.meta]), c08[f"{key}{region}_w"])


@pytest.mark.parametrize("steps", [1, 3])
def test_a_gradient_step_as_target_is_the_ordinary_meta_gradient(steps):
    """With `μ = ½‖·‖²` and no further steps, `ζ` times `∇_w f(x_t)`, on a soft maximum."""
    loss, _ = soft_maximum()
    rule = along_gradient(loss)
    start, meta = jnp.array([1.0, -1.0, 2.0, 0.5]), jnp.array([0.02, 0.05, 0.01, 0.03])
    method = Bootstrapped(rule, 0.1, target=GradientStep(0.37), steps=steps, ahead=0)

    def reached(w):
        point = start
        for _ in range(steps):
            point = rule(point, w)
        return loss(point)

    state, _ = method.step(loss, method.init(start, meta))
    near(meta - state.meta, 0.1 * 0.37 * jax.grad(reached)(meta))


@pytest.mark.parametrize(
    "geometry", [Diagonal(jnp.array([0.3, -0.5, 0.1, 0.2])), NegativeEntropy()], ids=["d", "e"]
)
def test_the_update_is_the_gradient_of_a_geometry_s_divergence(geometry):
    loss, _ = soft_maximum()
    rule = along_gradient(lambda x: loss(x) / 20)
    start, meta = jnp.array([1.0, 1.0, 2.0, 0.5]), jnp.full(4, 0.1)
    goal = jnp.array([0.8, 1.1, 1.5, 0.4])
    method = Bootstrapped(rule, 0.1, to_dual=geometry.to_dual, target=lambda seen: goal)
    state, _ = method.step(loss, method.init(start, meta))
    slope = jax.grad(lambda w: geometry.divergence(rule(start, w), goal))(meta)
    near(meta - state.meta, 0.1 * slope)


def test_a_target_that_is_reached_changes_nothing():
    loss, _ = soft_maximum()
    method = Bootstrapped(along_gradient(loss), 0.1, target=lambda seen: seen.point)
    meta = jnp.full(4, 0.01)
    state, _ = method.step(loss, method.init(jnp.ones(4), meta))
    assert np.array_equal(state.meta, meta)


def test_going_on_from_the_further_steps():
    loss, _ = soft_maximum()
    rule, start, meta = along_gradient(loss), jnp.ones(4), jnp.full(4, 0.01)
    method = Bootstrapped(rule, 0.1, ahead=2, keep_ahead=True)
    state, made = method.step(loss, method.init(start, meta))
    near(made.point, rule(start, meta))
    near(state.point, rule(rule(made.point, meta), meta))


# --- Theorem 3 and Corollary 3 ----------------------------------------------------------------


@pytest.fixture
def theorem(golden):
    c08 = golden("c08_theorem3")
    matrix, slopes, base = (jnp.asarray(c08[name]) for name in ("Q", "K", "D0"))

    def shift(x, w):
        jacobian = base + jnp.einsum("imk,k->im", slopes, jnp.tanh(x))
        return -0.1 * jnp.tanh(x) + jacobian @ w

    return c08, lambda x: x @ matrix @ x / 2, shift


def linear(count, before):
    del before
    return count


def test_targets_as_hints(theorem):
    """Eq. 11 against its golden, and the steps it makes against those of Algorithm 3."""
    c08, loss, shift = theorem
    rates, noise = jnp.asarray(c08["beta"]), jnp.asarray(c08["i_target_noise"])
    to_dual, steps = Cubic().to_dual, int(c08["T"])

    def target(seen):
        return seen.average - 0.1 * jax.grad(loss)(seen.average) + noise[seen.count - 1]

    leader = FTRL(lambda count: rates[count - 1], linear)
    method = ConvexMeta(shift, leader, FromTarget(target, to_dual))
    state, made = made_by(method, loss, c08["i_x0"], jnp.zeros(4), steps)
    near(made.average, c08["i_xbar"])
    points = jnp.vstack([made.point, state.leader.point])
    near(points[1:], c08["i_w"])
    near(made.hint[1:], c08["i_hint"][:-1])

    # The corrected step: β_t/β_{t−1} w_t − β_t Dᵀ(∇μ(x̄_t) − ∇μ(z_t)), with β_0 = β_1.
    before = jnp.concatenate([rates[:1], rates[: steps - 1]])
    apart = to_dual(made.average) - to_dual(jnp.asarray(c08["i_z"]))
    for t in range(steps):
        jacobian = jax.jacobian(shift, 1)(made.before[t], points[t])
        step = rates[t] / before[t] * points[t] - rates[t] * jacobian.T @ apart[t]
        near(points[t + 1], step)


def test_hints_as_targets(theorem):
    c08, loss, shift = theorem
    guesses = jnp.asarray(c08["ii_ytilde"])
    target = FromHint(lambda seen: guesses[seen.count - 1], lambda count: count, Cubic())
    method = Bootstrapped(
        lambda x, w: x + shift(x, w), float(c08["ii_beta"]), to_dual=Cubic().to_dual, target=target
    )
    state, made = made_by(method, loss, c08["ii_x0"], jnp.zeros(4), int(c08["T"]))
    near(made.point, c08["ii_x"])
    near(made.target, c08["ii_z"])
    near(np.vstack([made.meta[1:], state.meta]), c08["ii_w"])

    # Algorithm 4's step with the hints that add up.
    rate, hint, points = float(c08["ii_beta"]), jnp.zeros(4), made.meta
    starts = jnp.vstack([c08["ii_x0"], made.point])
    after = jnp.vstack([points, state.meta])
    for t in range(1, len(points) + 1):
        jacobian = jax.jacobian(shift, 1)(starts[t - 1], points[t - 1])
        following = (t + 1) * jacobian.T @ guesses[t - 1] + t * hint
        pulled = jacobian.T @ jax.grad(loss)(made.point[t - 1])
        step = points[t - 1] - rate * (following + t * (pulled - hint))
        near(after[t], step)
        hint = following / (t + 1)


def test_gradients_at_the_target_as_hints(theorem):
    """Corollary 3: the hint is `Dᵀ∇f(z_t)`, and the step has an error term of the last one."""
    c08, loss, shift = theorem
    rates, slope = jnp.asarray(c08["beta"]), jax.grad(loss)

    def ahead(x):
        return slope(x - 0.1 * slope(x))

    leader = FTRL(lambda count: rates[count - 1], linear)
    method = ConvexMeta(shift, leader, lambda seen: seen.pull(ahead(seen.average)))
    steps = int(c08["T"])
    state, made = made_by(method, loss, c08["iii_x0"], jnp.zeros(4), steps)
    near(made.average, c08["iii_xbar"])
    points = jnp.vstack([made.point, state.leader.point])
    near(points[1:], c08["iii_w"])
    before = jnp.concatenate([rates[:1], rates[: steps - 1]])
    for t in range(1, steps + 1):
        jacobian = jax.jacobian(shift, 1)(made.before[t - 1], points[t - 1])
        at = made.average[t - 1]
        pulled = jacobian.T @ ((t + 1) * ahead(at) + t * slope(at))
        rate, error = rates[t - 1], t * made.hint[t - 1]
        step = rate / before[t - 1] * points[t - 1] - rate * (pulled - error)
        near(points[t], step)


# --- bad input --------------------------------------------------------------------------------


def test_a_target_that_is_not_finite_changes_nothing():
    loss, _ = soft_maximum()
    method = Bootstrapped(along_gradient(loss), 0.1, target=lambda seen: seen.point / 0)
    begin = method.init(jnp.ones(4), jnp.full(4, 0.01))
    state, _ = method.step(loss, begin)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), state, begin))


def test_what_cannot_be_is_refused():
    def rule(x, w):
        return x - w

    for value in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match=r"Bootstrapped.rate: expected a positive finite"):
            Bootstrapped(rule, value)
    with pytest.raises(ValueError, match=r"Bootstrapped.steps: expected at least 1, got 0"):
        Bootstrapped(rule, 0.1, steps=0)
    with pytest.raises(ValueError, match=r"Bootstrapped.ahead: expected at least 0, got -1"):
        Bootstrapped(rule, 0.1, ahead=-1)
    with pytest.raises(ValueError, match=r"Bootstrapped.rule: expected the shapes \(1,\), got"):
        Bootstrapped(rule, 0.1).init(jnp.ones(1), jnp.ones(2))
    sinking = Bootstrapped(rule, lambda count: 0.5 - count.astype(float))
    with pytest.raises(ValueError, match=r"Bootstrapped.rate: a rate is not positive"):
        sinking.step(lambda x: x @ x, sinking.init(jnp.ones(1), jnp.ones(1)))
