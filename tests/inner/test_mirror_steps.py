"""Inner rules against closed forms and independent trajectories."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import (
    AbstractMirrorMap,
    Blockwise,
    Diagonal,
    Euclidean,
    Factors,
    Kronecker,
    MaxOfDiagonals,
    NegativeEntropy,
    PNorm,
    Scaled,
    Transformed,
    log_cholesky,
)
from mirrax.inner import (
    DualDescent,
    MirrorDescent,
    PreconditionedDescent,
    Prior,
    Problem,
    Repeat,
    mirror_step,
    unroll,
)

KEY = jax.random.key(0)


@functools.partial(jax.jit, static_argnames=("steps", "loss"))
def run(inner, prior, data, steps, loss):
    return unroll(inner, prior, Problem(loss, Repeat(data)), steps, key=KEY)


def quadratic(x, shared, data):
    del shared
    hessian, target = data
    return (x - target) @ hessian @ (x - target) / 2


def separable(x, shared, data):
    del shared
    curvature, target = data
    return jnp.sum(curvature * (x - target) ** 2) / 2


def least_squares(x, shared, data):
    """`½ mean (Ax − b)²`."""
    del shared
    matrix, values = data
    return jnp.mean((matrix @ x - values) ** 2) / 2


@pytest.mark.parametrize("rule", [MirrorDescent, PreconditionedDescent])
@pytest.mark.parametrize("steps", [1, 7, 60])
def test_diagonal_quadratic_has_its_closed_form(rule, steps):
    rng = np.random.default_rng(3)
    curvature, target, start = rng.uniform(0.2, 4, 6), rng.normal(size=6), rng.normal(size=6)
    m, rate = rng.uniform(0.9, 2, 6), 0.3
    prior = Prior(Diagonal(jnp.log(m)), start=jnp.asarray(start))
    trajectory = run(rule(rate), prior, (curvature, target), steps, separable)
    powers = (1 - rate * curvature / m**2) ** np.arange(steps + 1)[:, None]
    np.testing.assert_allclose(trajectory.primal, target + powers * (start - target), rtol=1e-10)
    reached = np.asarray(trajectory.primal[:-1])
    np.testing.assert_allclose(trajectory.gradients, curvature * (reached - target), rtol=1e-10)
    expected = (curvature * (reached - target) ** 2).sum(1) / 2
    np.testing.assert_allclose(trajectory.losses, expected, rtol=1e-10)
    np.testing.assert_array_equal(trajectory.first, start)
    np.testing.assert_array_equal(trajectory.last, trajectory.primal[-1])


def test_many_tasks_and_steps_of_the_diagonal_goldens(golden):
    c06 = golden("c06_metamd_diag")
    prior = Prior(Diagonal(jnp.log(c06["m"])), start=jnp.asarray(c06["theta1"]))
    for row, steps in enumerate(c06["T"]):
        for task in range(3):
            data = (c06["H"][task], c06["target"][task])
            last = run(MirrorDescent(float(c06["eta"])), prior, data, int(steps), quadratic).last
            np.testing.assert_allclose(last, c06["theta_T"][row, task], rtol=1e-10)
        data = (c06["diag_curvature"], c06["diag_target"])
        last = run(MirrorDescent(float(c06["eta"])), prior, data, int(steps), separable).last
        np.testing.assert_allclose(last, c06["diag_theta_T"][row], rtol=1e-10)


@pytest.mark.parametrize("count", ["N2", "N3"])
def test_max_of_diagonals_reproduces_exact_and_printed_trajectories(golden, count):
    c06 = golden("c06_metamd_max_traj")
    geometry = MaxOfDiagonals(jnp.log(c06[f"{count}__M"]))
    prior = Prior(geometry, start=jnp.asarray(c06[f"{count}__theta1"]))
    data, rate = (c06[f"{count}__H"], c06[f"{count}__target"]), float(c06[f"{count}__eta"])
    exact = run(MirrorDescent(rate), prior, data, 20, quadratic)
    np.testing.assert_allclose(exact.primal, c06[f"{count}__exact_theta"], rtol=1e-9, atol=1e-10)
    duals = c06[f"{count}__exact_p"][0] - rate * np.cumsum(np.asarray(exact.gradients), axis=0)
    np.testing.assert_allclose(duals, c06[f"{count}__exact_p"][1:], rtol=1e-9, atol=1e-10)
    printed = run(PreconditionedDescent(rate), prior, data, 20, quadratic)
    np.testing.assert_allclose(
        printed.primal, c06[f"{count}__printed_theta"], rtol=1e-9, atol=1e-10
    )
    active = jax.vmap(geometry.active)(printed.primal[:-1])
    np.testing.assert_array_equal(active, c06[f"{count}__printed_j"])
    assert np.abs(np.asarray(exact.last - printed.last)).max() > 1e-3, "the two must differ here"


def test_the_printed_step_across_a_kink_misses_the_minimum():
    """S000 eq. 7–8 by hand: the largest component changes during the step."""
    geometry = MaxOfDiagonals(jnp.log(jnp.array([[1.0, 4.0], [4.0, 1.0]])) / 2)
    start, gradient = jnp.array([1.0, 0.9]), jnp.array([0.8, 0.0])

    def step(rule):
        return run(rule(1.0), Prior(geometry, start), gradient, 1, linear).last

    def worth(x):
        return gradient @ x + geometry.divergence(x, start)

    # The dual (4, 0.9) − (0.8, 0) ends where both components are equal: 5 a = 3.2 + 0.9.
    exact, printed = step(MirrorDescent), step(PreconditionedDescent)
    np.testing.assert_allclose(exact, [0.82, 0.82], rtol=4e-16)
    np.testing.assert_allclose(printed, [0.8, 0.9], rtol=4e-16)
    assert int(geometry.active(start)) == 1 and int(geometry.active(printed)) == 0
    # −1.681 and −1.43, and the value 2.405 that both leave out.
    np.testing.assert_allclose([worth(exact), worth(printed)], [0.724, 0.975], rtol=1e-14)


def linear(x, shared, gradient):
    del shared
    return gradient @ x


@pytest.mark.parametrize(
    ("halves", "doubled", "rate"),
    [(1, 1.0, 0.1), (2, 1.0, 0.2), (2, 2.0, 0.1)],
    ids=["A.1", "eq. 1 with half a square", "eq. 1 and 6"],
)
def test_conventions_of_s000_for_the_factor_of_two(halves, doubled, rate):
    """`argmin ⟨g, θ⟩ + D(θ‖θ_t)/(halves·η)`, `η = 0.1`, is the step of mirror descent at `rate`.

    With `½θᵀM²θ`, eq. 1's `1/(2η)` means twice the step of appendix A.1; with eq. 6's `θᵀM²θ`, the
    same one.
    """
    diagonal = Diagonal(jnp.log(jnp.array([1.0, 2.0])))
    potential = Scaled(diagonal, jnp.log(doubled))
    start, gradient = jnp.array([1.0, 1.0]), jnp.array([1.0, 1.0])
    reached = run(MirrorDescent(rate), Prior(diagonal, start), gradient, 1, linear).last
    np.testing.assert_allclose(reached, 1 - rate * np.array([1.0, 0.25]), rtol=1e-15)
    slope = jax.grad(lambda x: gradient @ x + potential.divergence(x, start) / (halves * 0.1))
    # A rounding of the point, over a rate of a tenth. Found: 9e-16.
    np.testing.assert_allclose(slope(reached), [0.0, 0.0], rtol=0, atol=3e-15)


def test_the_loss_as_its_own_geometry_is_minimised_by_a_rate_of_one_only():
    """S004 §3.1: `h = ℓ` leaves `1 − α` of the distance, not nothing."""
    m, target, start = jnp.array([0.5, 3.0]), jnp.array([1.0, -2.0]), jnp.array([4.0, 4.0])
    prior = Prior(Diagonal(jnp.log(m)), start)
    for rate in (1.0, 0.01):
        last = run(MirrorDescent(rate), prior, (m**2, target), 1, separable).last
        np.testing.assert_allclose(last, target + (1 - rate) * (start - target), rtol=1e-14)


def test_eq_5_with_the_loss_as_potential_is_the_loss_at_a_rate_of_one():
    """`lin ℓ + (ℓ − lin ℓ)/α` from 2, on two wells: least at the minimiser only for `α = 1`."""

    def loss(x):
        return (x**2 - 1) ** 2 + x / 4

    grid = np.linspace(-2, 3, 5001)
    tangent = loss(2.0) + (4 * 2.0 * (2.0**2 - 1) + 0.25) * (grid - 2.0)

    def least(rate):
        return grid[np.argmin(tangent + (loss(grid) - tangent) / rate)]

    assert least(1.0) == grid[np.argmin(loss(grid))] < -1
    assert least(0.5) > 1


@pytest.mark.parametrize("row", [0, 1])
def test_entropy_is_exponentiated_gradient(golden, row):
    c09 = golden("c09_entropy_simplex")
    prior = Prior(NegativeEntropy(), start=jnp.asarray(c09["x1"]))
    rate = float(c09["eta"][row])
    trajectory = run(MirrorDescent(rate), prior, (c09["A"], c09["b"]), 20, least_squares)
    np.testing.assert_allclose(trajectory.primal, c09["eg_x"][row], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(trajectory.losses, c09["eg_f"][row, :-1], rtol=1e-9)


def test_unnormalised_entropy(golden):
    c09 = golden("c09_entropy_simplex")
    prior = Prior(NegativeEntropy("orthant"), start=jnp.asarray(c09["eg_unnorm_x1"]))
    rate = float(c09["eg_unnorm_eta"])
    trajectory = run(MirrorDescent(rate), prior, (c09["A"], c09["b"]), 20, least_squares)
    np.testing.assert_allclose(trajectory.primal, c09["eg_unnorm_x"], rtol=1e-9, atol=1e-12)


def geometries(start) -> dict[str, AbstractMirrorMap]:
    return {
        "Euclidean": Euclidean(),
        "Diagonal": Diagonal.like(start, 1.3),
        "Scaled": Scaled(Diagonal.like(start, 0.8), jnp.log(2.0)),
        "MaxOfDiagonals": MaxOfDiagonals.like(start, key=jax.random.key(4), spread=0.3),
        "PNorm": PNorm(1.5),
    }


@pytest.mark.parametrize("name", list(geometries(jnp.zeros(1))))
def test_dual_descent_is_mirror_descent_from_the_dual_start(name):
    rng = np.random.default_rng(1)
    start = jnp.asarray(rng.normal(size=4))
    geometry = geometries(start)[name]
    root = rng.normal(size=(4, 4))
    data = (root @ root.T, rng.normal(size=4))
    mirror = run(MirrorDescent(0.05), Prior(geometry, start), data, 25, quadratic)
    dual_start = geometry.to_dual(start)
    dual = run(DualDescent(0.05), Prior(geometry, dual_start), data, 25, quadratic)
    np.testing.assert_allclose(mirror.primal, dual.primal, rtol=1e-9, atol=1e-11)


def test_blockwise_mixes_geometries_by_parameter():
    prior = Prior(
        Blockwise({"mixture": NegativeEntropy(), "weight": Diagonal.like(jnp.zeros(2), 2.0)}),
        start={"mixture": jnp.full(3, 1 / 3), "weight": jnp.array([1.0, -1.0])},
    )

    def loss(x, shared, data):
        del shared
        return x["mixture"] @ data + jnp.sum(x["weight"] ** 2) / 2

    data = np.array([0.3, -0.2, 1.0])
    last = run(MirrorDescent(0.5), prior, data, 10, loss).last
    weights = np.exp(-0.5 * 10 * data)
    np.testing.assert_allclose(last["mixture"], weights / weights.sum(), rtol=1e-12)
    np.testing.assert_allclose(last["weight"], (1 - 0.125) ** 10 * np.array([1, -1]), rtol=1e-12)


def test_a_mirror_map_without_potential_steps_but_cannot_be_preconditioned():
    class Cubic(AbstractMirrorMap):
        def to_dual(self, primal):
            return jnp.sign(primal) * jnp.abs(primal) ** (1 / 3)

        def to_primal(self, dual):
            return dual**3

    prior = Prior(Cubic(), start=jnp.array([1.0, -8.0]))
    trajectory = run(DualDescent(0.1), prior, (np.eye(2), np.zeros(2)), 1, quadratic)
    np.testing.assert_allclose(trajectory.first, [1.0, -512.0])
    with pytest.raises(ValueError, match="PreconditionedDescent: prior.geometry.*Cubic"):
        PreconditionedDescent(0.1).init(prior)


def test_a_geometry_without_inverse_hessian_is_refused_by_name():
    prior = Prior(PNorm(1.5), start=jnp.ones(2))
    with pytest.raises(ValueError, match=r"PNorm.inverse_hessian.*MirrorDescent"):
        run(PreconditionedDescent(0.1), prior, (np.eye(2), np.zeros(2)), 1, quadratic)


def test_parameters_in_float32_stay_float32():
    start = jnp.array([1.0, 2.0], jnp.float32)
    for rule in (MirrorDescent(0.1), PreconditionedDescent(0.1), DualDescent(np.float64(0.1))):
        prior = Prior(Diagonal.like(start), start)
        data = (np.ones(2, np.float32), np.zeros(2, np.float32))
        trajectory = run(rule, prior, data, 3, separable)
        assert {leaf.dtype for leaf in jax.tree.leaves(trajectory)} == {jnp.dtype("float32")}


LIKE = {"w": jnp.zeros((2, 3))}


@pytest.mark.parametrize(
    ("geometry", "rule"),
    [
        (Euclidean(), MirrorDescent),
        (Diagonal.like(LIKE), MirrorDescent),
        (NegativeEntropy(), MirrorDescent),
        (MaxOfDiagonals({"w": jnp.zeros((2, 2, 3))}), MirrorDescent),
        (Blockwise({"w": PNorm(1.5)}), MirrorDescent),
        (Transformed.like(PNorm(1.5), LIKE, {"w": ("in", "out")}), MirrorDescent),
        (Kronecker.like(LIKE), PreconditionedDescent),
        (Scaled(Kronecker.like(LIKE), jnp.zeros(())), PreconditionedDescent),
        (Blockwise({"w": Kronecker.like(LIKE["w"])}), PreconditionedDescent),
        (Transformed.like(Diagonal.like(LIKE), LIKE, {"w": ("in", "out")}), PreconditionedDescent),
    ],
)
def test_a_matrix_that_couples_parameters_is_stepped_with_on_the_parameters(geometry, rule):
    chosen = mirror_step(geometry, 0.3)
    assert type(chosen) is rule and chosen.rate == 0.3


def test_single_precision_keeps_its_digits_under_an_ill_conditioned_matrix():
    """Through the dual a run loses those of the condition number, here a million."""
    rng = np.random.default_rng(0)

    def factor(size):
        vectors = np.linalg.qr(rng.normal(size=(size, size)))[0]
        return log_cholesky(jnp.asarray((vectors * np.geomspace(1, 1e3, size)) @ vectors.T))

    geometry = Kronecker(Factors(factor(4), factor(3), (4, 3)))
    start, goal = (jnp.asarray(rng.normal(size=(4, 3))) for _ in "ab")

    def half_square(x, shared, target):
        del shared
        return jnp.sum((x - target) ** 2) / 2

    def last(rule, dtype):
        prior, data = jax.tree.map(lambda leaf: leaf.astype(dtype), (Prior(geometry, start), goal))
        return np.asarray(run(rule, prior, data, 20, half_square).primal[-1], float)

    rates = jnp.float64(0.5), jnp.float32(0.5)
    exact = last(MirrorDescent(rates[0]), jnp.float64)

    def error(rule):
        return np.abs(last(rule, jnp.float32) - exact).max() / np.abs(exact).max()

    # Found: 6e-8, and 8e-4 through the dual.
    assert error(mirror_step(geometry, rates[1])) < 1e-6
    assert error(MirrorDescent(rates[1])) > 1e-4
