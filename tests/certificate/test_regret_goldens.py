"""The certificate against independent values of regret and bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.certificate import certify_run, losses_at, regret_certificate
from mirrax.geometry import Diagonal, MaxOfDiagonals, NegativeEntropy
from mirrax.inner import MirrorDescent, Prior, Problem, Stream, Trajectory, unroll

KEY = jax.random.key(0)


def quadratic(x, shared, row):
    hessian, centre = row
    return (x - centre) @ hessian @ (x - centre) / 2


def logistic(x, shared, row):
    features, sign = row
    return jnp.logaddexp(0.0, -sign * (features @ x))


def absolute(x, shared, row):
    features, value = row
    return jnp.abs(features @ x - value)


def linear(x, shared, row):
    return row[0] @ x


def problem_of(values, number, steps):
    loss = [quadratic, quadratic, logistic, absolute, linear][number]
    names = [("H", "c"), ("H", "c"), ("a", "y"), ("a", "y"), ("c",)][number]
    rows = tuple(values[name] for name in names)
    if number == 0:
        rows = tuple(np.broadcast_to(row, (steps, *row.shape)) for row in rows)
    return Problem(loss, Stream(tuple(jnp.asarray(row) for row in rows)), values["comparator"])


def geometry_of(name, values):
    if name == "entropy":
        return NegativeEntropy()
    log_m = jnp.log(values["M"])
    return Diagonal(log_m[0]) if name == "diag" else MaxOfDiagonals(log_m)


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("name", ["diag", "maxdiag", "entropy"])
def test_both_ways_of_certifying_reproduce_the_goldens(golden, name, number):
    c10 = golden(f"c10_regret_{name}")
    prefix, steps = f"p{number}__", int(c10["T"])
    values = {k.removeprefix(prefix): v for k, v in c10.items() if k.startswith(prefix)}
    geometry, rate = geometry_of(name, values), float(values["eta"])
    problem = problem_of(values, number, steps)
    prior, inner = Prior(geometry, jnp.asarray(values["x1"])), MirrorDescent(rate)

    streamed = certify_run(inner, prior, problem, steps, key=KEY, convex=True)
    run = Trajectory(
        jnp.asarray(values["iterates"]), jnp.asarray(values["grads"]), losses_of(values, problem)
    )
    comparator = jnp.asarray(values["comparator"])
    losses = jax.jit(lambda: losses_at(problem, comparator, steps, key=KEY))()
    stored = regret_certificate(geometry, run, losses, comparator, rate, convex=True)
    reached = jax.jit(lambda: unroll(inner, prior, problem, steps, key=KEY).primal)()
    np.testing.assert_allclose(reached, values["iterates"], rtol=1e-9, atol=1e-10)

    for certificate in (streamed, stored):
        assert certificate.steps == steps and certificate.rate == pytest.approx(rate)
        found = {
            "regret": certificate.regret,
            "linearised_regret": certificate.linearised_regret,
            "bound_exact_bregman": certificate.bound("exact").value,
            "bound_local_dual_norm": certificate.bound("local norm").value,
            "bound_sum_sq_grad": certificate.bound("Theorem 3.1").value,
            "bound_lipschitz": certificate.bound("eq. 9").value,
        }
        for key, number_found in found.items():
            np.testing.assert_allclose(number_found, values[key], rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(certificate.unclaimed * rate, values["bregman_end"], rtol=1e-8)
        exact = certificate.bound("exact").value - certificate.unclaimed
        np.testing.assert_allclose(exact, certificate.linearised_regret, rtol=1e-9, atol=1e-9)
        assert all(bound.satisfied for bound in certificate.bounds)
        assert [a.name for a in certificate.assumptions if not a.holds] == []
    assert streamed.status == "guaranteed", "the rule is known to make mirror steps"
    assert streamed.bound("eq. 9").status == "holds on this run", "L was only measured"
    assert stored.status == "holds on this run", "that the steps are mirror steps was measured"


def losses_of(values, problem):
    def one(count, x):
        return problem.loss(x, None, problem.batches.draw(count, key=KEY))

    points = jnp.asarray(values["iterates"][:-1])
    return jax.jit(jax.vmap(one))(jnp.arange(len(points)), points)
