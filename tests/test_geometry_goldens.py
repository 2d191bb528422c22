"""Geometries against independent reference values (`tests/goldens/README.md` names each source)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import Diagonal, MaxOfDiagonals, NegativeEntropy, PNorm
from mirrax.inner import MirrorDescent, Prior, Problem, Repeat, unroll

EXACT_TIE = 1e-12
"""Closer than this, rounding decides which component is the largest."""

ROUNDING = 1e-14
"""numpy and XLA add up in different orders; the values here differ by less than 1e-15."""

DERIVED = 1e-13
"""Derivatives are differences of such sums and lose a digit."""

RUN = 1e-12
"""Runs carry roundings on from step to step, up to 20,000 of them; they reach 1e-13."""


def of_matrix(m):
    return MaxOfDiagonals(jnp.log(m))


@jax.jit
@jax.vmap
def invert(m, dual):
    """The point, the conjugate and the weights at a dual point."""
    geometry = of_matrix(m)
    return geometry.to_primal(dual), geometry.conjugate(dual), geometry.weights(dual)


@functools.partial(jax.jit, static_argnames=("loss", "steps"))
def run(prior, data, rate, loss, steps=20):
    return unroll(
        MirrorDescent(rate), prior, Problem(loss, Repeat(data)), steps, key=jax.random.key(0)
    )


def least_squares(x, shared, data):
    """`½ mean (Ax − b)²`."""
    del shared
    matrix, values = data
    return jnp.mean((matrix @ x - values) ** 2) / 2


# --- one step of the maximum of diagonals -----------------------------------------------------


@pytest.fixture(params=["N2", "N3"])
def step(request, golden):
    c06 = golden("c06_metamd_max_step")
    prefix = f"{request.param}__"
    return {k.removeprefix(prefix): v for k, v in c06.items() if k.startswith(prefix)}


def test_exact_step(step):
    """All kinds of cases: generic, near ties of 1e-9 and 1e-4, exact ties, three active at once."""
    assert set(step["kind"]) >= {0, 1, 2, 3, 4}
    primal, conjugate, _ = invert(step["M"], step["p_new"])
    error = np.abs(primal - step["theta_exact"]).max(1)
    # 7e-16 (N = 2) and 4e-14 (N = 3) measured: near ties lose two digits in the weights.
    assert np.all(error <= 1e-12 * np.abs(step["theta_exact"]).max(1))
    np.testing.assert_allclose(conjugate, step["phi_conj"], rtol=4e-15)


def test_exact_step_starts_from_the_stored_dual(step):
    moved = step["p"] - step["eta"][:, None] * step["g"]
    np.testing.assert_allclose(moved, step["p_new"], rtol=1e-14, atol=1e-15)
    back, _, _ = invert(step["M"], step["p"])
    scale = np.abs(step["theta"]).max(1, keepdims=True)
    assert np.all(np.abs(back - step["theta"]) <= 1e-12 * scale)


def test_weights(step):
    """The components of these cases differ and no dual entry is zero: weights are determined."""
    _, _, weights = invert(step["M"], step["p_new"])
    # Where `f` is flat along a weight, its rounding moves the minimiser by 1e-13.
    np.testing.assert_allclose(weights, step["w_exact"], rtol=0, atol=1e-12)
    np.testing.assert_array_equal((np.asarray(weights) > 1e-9).sum(1), step["n_active"])


def test_potential_and_active_component(step):
    geometry_of = functools.partial(jax.vmap, in_axes=(0, 0))
    values = geometry_of(lambda m, x: of_matrix(m).component_potentials(x))(
        step["M"], step["theta"]
    )
    np.testing.assert_allclose(np.max(values, 1), step["phi_theta"], rtol=ROUNDING)
    new = geometry_of(lambda m, x: of_matrix(m).potential(x))(step["M"], step["theta_exact"])
    np.testing.assert_allclose(new, step["phi_new_exact"], rtol=ROUNDING)
    active = geometry_of(lambda m, x: of_matrix(m).active(x))(step["M"], step["theta"])
    ordered = np.sort(np.asarray(values), axis=1)
    decided = ordered[:, -2] < (1 - EXACT_TIE) * ordered[:, -1]
    assert decided.sum() > 30
    np.testing.assert_array_equal(np.asarray(active)[decided], step["jstar"][decided])


def test_printed_step(step):
    """S000 eq. 7–8, through `inverse_hessian`; on exact ties, the step of a tied component."""

    def printed(m, x, g, rate):
        return x - rate * of_matrix(m).inverse_hessian(x, g)

    got = np.asarray(jax.vmap(printed)(step["M"], step["theta"], step["g"], step["eta"]))
    potentials = np.einsum("njd,nd->nj", step["M"] ** 2, step["theta"] ** 2)
    tied = potentials >= (1 - EXACT_TIE) * potentials.max(1, keepdims=True)
    # Every component's step, and those of the tied ones among which the largest is arbitrary.
    moves = step["eta"][:, None, None] * step["g"][:, None] / step["M"] ** 2
    options = step["theta"][:, None] - moves
    distance = np.where(tied, np.abs(options - got[:, None]).max(2), np.inf).min(1)
    assert np.all(distance <= 1e-14 * np.abs(options).max((1, 2)))
    decided = tied.sum(1) == 1
    np.testing.assert_allclose(got[decided], step["theta_printed"][decided], rtol=1e-13, atol=1e-15)
    assert np.abs(got - step["theta_exact"]).max() > 1e-2, "the two steps must differ somewhere"


# --- Bregman divergences ----------------------------------------------------------------------


@pytest.mark.parametrize("count", ["N2", "N3"])
def test_bregman_divergence_and_its_gradient(golden, count):
    c06 = golden("c06_metamd_max_traj")

    def divergence(m, a, b):
        return of_matrix(m).divergence(a, b)

    compare = jax.jit(jax.vmap(jax.value_and_grad(divergence), in_axes=(None, 0, 0)))
    ends = c06[f"{count}__breg_a"], c06[f"{count}__breg_b"]
    values, gradients = compare(c06[f"{count}__M"], *ends)
    np.testing.assert_allclose(values, c06[f"{count}__breg_value"], rtol=ROUNDING)
    np.testing.assert_allclose(gradients, c06[f"{count}__breg_grad_m"], rtol=DERIVED, atol=DERIVED)


def test_diagonal_divergence(golden):
    c06 = golden("c06_metamd_diag")
    geometry, start = Diagonal(jnp.log(c06["m"])), jnp.asarray(c06["theta1"])
    flat = c06["theta_T"].reshape(-1, 5)
    values = jax.vmap(lambda x: geometry.divergence(x, start))(flat)
    np.testing.assert_allclose(values, c06["bregman"].reshape(-1), rtol=ROUNDING)


def test_entropy_divergence(golden):
    c09 = golden("c09_entropy_simplex")
    values = jax.vmap(NegativeEntropy().divergence)(c09["kl_p"], c09["kl_q"])
    np.testing.assert_allclose(values, c09["kl_values"], rtol=ROUNDING)
    # The stored generalised divergences are those of 2p from q/2.
    orthant = NegativeEntropy("orthant")
    values = jax.vmap(orthant.divergence)(2 * c09["kl_p"], c09["kl_q"] / 2)
    np.testing.assert_allclose(values, c09["kl_unnorm_values"], rtol=ROUNDING)
    start = NegativeEntropy().divergence(jnp.asarray(c09["x_star"]), jnp.asarray(c09["x1"]))
    np.testing.assert_allclose(start, c09["kl_star_x1"], rtol=ROUNDING)


@pytest.mark.parametrize("row", range(4))
def test_pnorm_divergence_and_map(golden, row):
    c09 = golden("c09_pnorm")
    geometry = PNorm(float(c09["p"][row]))
    values = jax.vmap(geometry.divergence)(c09["breg_u"], c09["breg_v"])
    np.testing.assert_allclose(values, c09["breg"][row], rtol=ROUNDING)
    duals = jax.vmap(geometry.to_dual)(c09["breg_v"])
    np.testing.assert_allclose(duals, c09["grad_phi_v"][row], rtol=ROUNDING)


# --- trajectories -----------------------------------------------------------------------------


def test_exponentiated_gradient_minimises(golden):
    """Twenty thousand steps of exponentiated gradient reach the optimum found by enumeration."""
    c09 = golden("c09_entropy_simplex")
    prior = Prior(NegativeEntropy(), start=jnp.asarray(c09["x1"]))
    data = (c09["A"], c09["b"])
    last = run(prior, data, c09["eta"][1], least_squares, steps=20_000).last
    np.testing.assert_allclose(least_squares(last, None, data), c09["eg_f_after_20000"], rtol=RUN)


@pytest.mark.parametrize("row", range(4))
def test_pnorm_trajectory(golden, row):
    c09 = golden("c09_pnorm")
    prior = Prior(PNorm(float(c09["p"][row])), start=jnp.asarray(c09["x1"]))
    found = run(prior, (c09["A"], c09["b"]), c09["eta"], least_squares)
    np.testing.assert_allclose(found.primal, c09["x"][row], rtol=RUN, atol=ROUNDING)
    np.testing.assert_allclose(found.losses, c09["f"][row, :-1], rtol=RUN)


@pytest.mark.parametrize("row", range(2))
def test_separable_pnorm_trajectory(golden, row):
    c09 = golden("c09_pnorm")
    geometry = PNorm(float(c09["power_p"][row]), separable=True)
    prior = Prior(geometry, start=jnp.asarray(c09["x1"]))
    found = run(prior, (c09["A"], c09["b"]), c09["power_eta"], least_squares)
    np.testing.assert_allclose(found.primal, c09["power_x"][row], rtol=RUN, atol=ROUNDING)


def svm_dual(beta, shared, data):
    """`‖Xᵀ(Y − β)‖²_F/(2λ) − Σ (1 − Y) ⊙ β`, rows of `β` on the simplex."""
    del shared
    features, targets, regularisation = data
    residual = features.T @ (targets - beta)
    return jnp.sum(residual**2) / (2 * regularisation) - jnp.sum((1 - targets) * beta)


def test_dual_of_a_support_vector_machine(golden):
    c09 = golden("c09_svm_dual")
    data = tuple(jnp.asarray(c09[name]).astype(float) for name in ("X", "Y", "lam"))
    start = jnp.asarray(c09["beta0"])
    value, gradient = jax.value_and_grad(svm_dual)(start, None, data)
    np.testing.assert_allclose(value, c09["f_beta0"], rtol=ROUNDING)
    np.testing.assert_allclose(gradient, c09["grad_beta0"], rtol=DERIVED, atol=DERIVED)
    found = run(Prior(NegativeEntropy(), start=start), data, c09["eta"], svm_dual)
    np.testing.assert_allclose(found.primal, c09["trajectory"], rtol=RUN, atol=ROUNDING)
    np.testing.assert_allclose(found.losses, c09["f_trajectory"][:-1], rtol=RUN)
