"""The certificate against independent values of regret and bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.certificate import certify_run, losses_at, regret_certificate
from mirrax.geometry import Diagonal, MaxOfDiagonals, NegativeEntropy
from mirrax.inner import MirrorDescent, Prior, Problem, Stream, Trajectory, unroll

KEY = jax.random.key(0)


def any_loss(x, shared, row):
    """The five losses of the goldens, so that one compilation serves them all."""
    del shared
    hessian, centre, features, outcome, kind = row
    answer = features @ x
    return jnp.stack(
        [
            (x - centre) @ hessian @ (x - centre) / 2,
            jnp.logaddexp(0.0, -outcome * answer),
            jnp.abs(answer - outcome),
            answer,
        ]
    )[kind]


def rows_of(values, number, steps):
    blank = {"H": np.zeros((4, 4)), "c": np.zeros(4), "a": np.zeros(4), "y": np.zeros(())}
    if number == 4:
        blank["a"] = values["c"]
    elif number >= 2:
        blank |= {"a": values["a"], "y": values["y"]}
    else:
        blank |= {"H": values["H"], "c": values["c"]}
    ranks = {"H": 2, "c": 1, "a": 1, "y": 0}
    rows = [
        np.broadcast_to(blank[name], (steps, *np.shape(blank[name])[np.ndim(blank[name]) - rank :]))
        for name, rank in ranks.items()
    ]
    kind = [0, 0, 1, 2, 3][number]
    return tuple(jnp.asarray(row, float) for row in rows) + (jnp.full(steps, kind),)


def geometry_of(name, values):
    if name == "entropy":
        return NegativeEntropy()
    log_m = jnp.log(values["M"])
    return Diagonal(log_m[0]) if name == "diag" else MaxOfDiagonals(log_m)


@pytest.mark.parametrize("name", ["diag", "maxdiag", "entropy"])
def test_both_ways_of_certifying_reproduce_the_goldens(golden, name):
    c10 = golden(f"c10_regret_{name}")
    steps = int(c10["T"])

    @jax.jit
    def follow(inner, prior, problem, points, comparator):
        def loss_of(count, x):
            return problem.loss(x, None, problem.batches.draw(count, key=KEY))

        reached = unroll(inner, prior, problem, steps, key=KEY).primal
        losses = jax.vmap(loss_of)(jnp.arange(steps), points)
        return reached, losses, losses_at(problem, comparator, steps, key=KEY)

    for number in range(5):
        prefix = f"p{number}__"
        values = {k.removeprefix(prefix): v for k, v in c10.items() if k.startswith(prefix)}
        geometry, rate = geometry_of(name, values), float(values["eta"])
        comparator = jnp.asarray(values["comparator"])
        problem = Problem(any_loss, Stream(rows_of(values, number, steps)), comparator)
        prior, inner = Prior(geometry, jnp.asarray(values["x1"])), MirrorDescent(rate)
        points = jnp.asarray(values["iterates"])

        reached, losses, comparator_losses = follow(inner, prior, problem, points[:-1], comparator)
        np.testing.assert_allclose(reached, points, rtol=1e-9, atol=1e-10)
        streamed = certify_run(inner, prior, problem, steps, key=KEY, convex=True)
        run = Trajectory(points, jnp.asarray(values["grads"]), losses)
        stored = regret_certificate(geometry, run, comparator_losses, comparator, rate, convex=True)
        check(streamed, values, steps, rate)
        check(stored, values, steps, rate)
        assert streamed.status == "guaranteed", "the rule is known to make mirror steps"
        assert streamed.bound("eq. 9").status == "holds on this run", "L was only measured"
        assert stored.status == "holds on this run", "its mirror steps were only measured"


def check(certificate, values, steps, rate):
    assert certificate.steps == steps and certificate.rate == pytest.approx(rate)
    found = {
        "regret": certificate.regret,
        "linearised_regret": certificate.linearised_regret,
        "bound_exact_bregman": certificate.bound("exact").value,
        "bound_local_dual_norm": certificate.bound("local norm").value,
        "bound_sum_sq_grad": certificate.bound("Theorem 3.1").value,
        "bound_lipschitz": certificate.bound("eq. 9").value,
    }
    for key, number in found.items():
        np.testing.assert_allclose(number, values[key], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(certificate.unclaimed * rate, values["bregman_end"], rtol=1e-8)
    exact = certificate.bound("exact").value - certificate.unclaimed
    np.testing.assert_allclose(exact, certificate.linearised_regret, rtol=1e-9, atol=1e-9)
    assert all(bound.satisfied for bound in certificate.bounds)
    assert [a.name for a in certificate.assumptions if not a.holds] == []
