"""What a certificate refuses, what it flags, and what it never claims."""

import json
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mirrax.certificate import certify_run, losses_at, measure_run, regret_certificate
from mirrax.certificate._certificate import _status
from mirrax.certificate._records import Assumption
from mirrax.geometry import (
    AbstractMirrorMap,
    Diagonal,
    Euclidean,
    MaxOfDiagonals,
    NegativeEntropy,
    PNorm,
)
from mirrax.inner import (
    AbstractInner,
    Minibatch,
    MirrorDescent,
    PreconditionedDescent,
    Prior,
    Problem,
    Repeat,
    Trajectory,
    unroll,
    with_reference,
)

KEY = jax.random.key(4)
TARGET = jnp.array([1.0, -1.0])


def bowl(x, shared, data):
    del shared, data
    return jnp.sum(jnp.array([1.0, 8.0]) * (x - TARGET) ** 2) / 2


def saddle(x, shared, data):
    del shared, data
    return (x[0] ** 2 - 1) ** 2 / 4 + x[1] ** 2 / 2


BOWL = Problem(bowl, Repeat(None), TARGET)
PRIOR = Prior(Diagonal.like(TARGET, 1.5), jnp.array([0.2, 0.4]))
KINK = Prior(
    MaxOfDiagonals(jnp.log(jnp.array([[1.0, 2.0], [2.0, 1.0]]))), start=jnp.array([1.9, -2.0])
)


def certify(inner, prior=PRIOR, problem=BOWL, steps=20, **options):
    return certify_run(inner, prior, problem, steps, key=KEY, **options)


def failed(certificate):
    return [a.name for a in certificate.assumptions if not a.holds]


def test_a_convex_task_with_everything_known_is_guaranteed():
    certificate = certify(MirrorDescent(0.1), convex=True, lipschitz=20.0, source="closed form")
    assert {bound.status for bound in certificate.bounds} == {"guaranteed"}
    assert failed(certificate) == []
    assert certificate.assumption("comparator").detail == "closed form"
    assert certificate.assumption("bounded gradients").how == "declared"
    assert [bound.name for bound in certificate.bounds] == [
        "exact",
        "local norm",
        "Theorem 3.1",
        "eq. 9",
    ]
    values = np.array([bound.value for bound in certificate.bounds])
    assert np.all(np.diff(values) >= -1e-12 * values[:-1])
    for bound in certificate.bounds:
        assert bound.tightness == pytest.approx(certificate.regret / bound.value)
    eq9 = certificate.bound("eq. 9").value
    start = 2.25 * (0.8**2 + 1.4**2) / 2 / 0.1
    assert eq9 == pytest.approx(start + 0.1 / 2 / 2.25 * 20 * 400)


def test_convexity_that_is_only_checked_is_not_claimed_beyond_the_run():
    certificate = certify(MirrorDescent(0.1))
    assert certificate.status == "holds on this run"
    assert certificate.assumption("convex losses").how == "measured"
    assert "this run only" in certificate.assumption("convex losses").detail


@pytest.mark.parametrize("convex", [True, False])
def test_a_loss_that_is_not_convex_is_caught_whatever_is_declared(convex):
    problem = Problem(saddle, Repeat(None), jnp.array([-1.0, 0.0]))
    certificate = certify(
        MirrorDescent(0.1), Prior(Euclidean(), jnp.array([0.05, 1.0])), problem, convex=convex
    )
    assert failed(certificate) == ["convex losses"]
    assert {bound.status for bound in certificate.bounds} == {"not claimed"}
    assert "steps (worst gap" in certificate.assumption("convex losses").detail


def test_theorem_3_1_is_false_without_convexity():
    """`(θ² − 1)²` from 0, where it is stationary: the regret is `T`, the bound stays `1/(2η)`."""
    problem = Problem(lambda x, *_: (x[0] ** 2 - 1) ** 2, Repeat(None), jnp.ones(1))
    certificate = certify(MirrorDescent(0.5), Prior(Euclidean(), jnp.zeros(1)), problem)
    assert float(certificate.regret) == 20
    assert float(certificate.bound("Theorem 3.1").value) == 1
    assert {bound.status for bound in certificate.bounds} == {"not claimed"}


@pytest.mark.slow
def test_the_printed_step_across_a_kink_is_flagged():
    exact = certify(MirrorDescent(0.2), KINK, convex=True)
    printed = certify(PreconditionedDescent(0.2), KINK, convex=True)
    assert exact.status == "guaranteed"
    assert failed(printed) == ["mirror step"]
    assert {bound.status for bound in printed.bounds} == {"not claimed"}
    assert "not mirror steps" in printed.assumption("mirror step").detail


def test_preconditioned_descent_is_a_mirror_step_where_the_potential_is_quadratic():
    certificate = certify(PreconditionedDescent(0.1), convex=True)
    assert certificate.status == "guaranteed"
    assert certificate.assumption("mirror step").how == "construction"


def test_preconditioned_descent_is_else_only_measured():
    inside = eqx.tree_at(lambda prior: prior.start, KINK, jnp.array([1.0, -2.0]))
    certificate = certify(PreconditionedDescent(0.01), inside, convex=True)
    assert certificate.status == "holds on this run"
    assert certificate.assumption("mirror step").how == "measured"


@pytest.mark.parametrize("rule", [MirrorDescent, PreconditionedDescent])
def test_schedules_are_refused(rule):
    schedule = optax.linear_schedule(0.2, 0.1, 10)
    with pytest.raises(ValueError, match=r"inner\.rate is a schedule; Theorem 3\.1"):
        certify(rule(schedule))


@eqx.filter_jit
def trajectory_of(inner):
    return unroll(inner, PRIOR, BOWL, 20, key=KEY)


def test_a_trajectory_made_with_a_schedule_is_flagged():
    run = trajectory_of(MirrorDescent(optax.linear_schedule(0.1, 0.05, 10)))
    certificate = regret_certificate(PRIOR.geometry, run, jnp.zeros(20), TARGET, 0.1, convex=True)
    assert failed(certificate) == ["mirror step"] and certificate.status == "not claimed"


def test_a_trajectory_certified_with_the_wrong_rate_is_flagged():
    run = trajectory_of(MirrorDescent(0.1))
    for rate, expected in ((0.1, []), (0.1001, ["mirror step"])):
        certificate = regret_certificate(PRIOR.geometry, run, jnp.zeros(20), TARGET, rate)
        assert failed(certificate) == expected


def test_a_declared_constant_that_the_run_exceeds_costs_eq_9_only():
    certificate = certify(MirrorDescent(0.1), convex=True, lipschitz=1.0)
    assert failed(certificate) == ["bounded gradients"]
    assert certificate.bound("eq. 9").status == "not claimed"
    assert certificate.status == "guaranteed"


@pytest.mark.parametrize("geometry", [NegativeEntropy("orthant"), PNorm(3.0)])
def test_without_strong_convexity_only_the_exact_bound_remains(geometry):
    def loss(x, shared, data):
        return bowl(x, shared, data) / 20

    problem = Problem(loss, Repeat(None), jnp.array([1.0, 0.5]))
    certificate = certify(
        MirrorDescent(0.1), Prior(geometry, jnp.array([0.5, 0.7])), problem, convex=True
    )
    assert failed(certificate) == ["strong convexity"]
    assert certificate.bound("exact").status == "guaranteed"
    for name in ("local norm", "Theorem 3.1", "eq. 9"):
        assert certificate.bound(name).status == "not claimed"
        assert certificate.bound(name).value == math.inf


def test_a_comparator_outside_the_domain_is_flagged():
    prior = Prior(NegativeEntropy(), jnp.array([0.5, 0.5]))
    problem = Problem(bowl, Repeat(None), jnp.array([0.7, 0.7]))
    certificate = certify(MirrorDescent(0.05), prior, problem, convex=True)
    assert "comparator" in failed(certificate) and certificate.status == "not claimed"
    corner = Problem(bowl, Repeat(None), jnp.array([1.0, 0.0]))
    assert certify(MirrorDescent(0.05), prior, corner, convex=True).status == "guaranteed"


def test_a_start_outside_the_domain_is_flagged():
    prior = Prior(NegativeEntropy(), jnp.array([0.5, 0.9]))
    corner = Problem(bowl, Repeat(None), jnp.array([1.0, 0.0]))
    assert "mirror step" in failed(certify(MirrorDescent(0.05), prior, corner, convex=True))


def test_divergence_is_flagged_and_still_makes_valid_json():
    certificate = certify(MirrorDescent(1e30), convex=True, steps=60)
    assert "finite run" in failed(certificate) and certificate.status == "not claimed"
    text = json.dumps(certificate.to_dict(), allow_nan=False)
    assert json.loads(text)["status"] == "not claimed"


def test_a_certificate_becomes_plain_data():
    certificate = certify(MirrorDescent(0.1), convex=True)
    data = json.loads(json.dumps(certificate.to_dict(), allow_nan=False))
    assert data["regret"] == certificate.regret and data["status"] == "guaranteed"
    assert [bound["name"] for bound in data["bounds"]] == [b.name for b in certificate.bounds]
    assert data["assumptions"][0]["holds"] is True
    with pytest.raises(ValueError, match="expected one of .*'exact'.* got 'tight'"):
        certificate.bound("tight")


def regression(x, shared, batch):
    features, values = batch
    return shared * jnp.mean((features @ x["w"] + x["b"] - values) ** 2) / 2


@pytest.mark.parametrize("comparator", ["solution", "last"])
def test_minibatches_are_those_of_the_run(comparator):
    """The streamed certificate redraws each batch for the comparator; compare with both stored."""
    rng = np.random.default_rng(1)
    rows = (jnp.asarray(rng.normal(size=(30, 2))), jnp.asarray(rng.normal(size=30)))
    start = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.3)}
    prior = Prior(Diagonal.like(start, 1.2), start, shared=jnp.array(1.5))
    inner = MirrorDescent(0.1)

    @jax.jit
    def prepare():
        problem = Problem(regression, Minibatch(rows, 5))
        problem = with_reference(problem, inner, prior, 300, key=jax.random.key(9))
        run = unroll(inner, prior, problem, 25, key=KEY)
        point = problem.solution if comparator == "solution" else run.last
        losses = losses_at(problem, point, 25, key=KEY, shared=prior.shared)
        return problem.solution, run, point, losses

    solution, run, point, losses = prepare()
    problem = Problem(regression, Minibatch(rows, 5), solution)
    streamed = certify(inner, prior, problem, 25, comparator=comparator, source="reference run")
    stored = regret_certificate(prior.geometry, run, losses, point, 0.1)
    assert streamed.regret == pytest.approx(float(jnp.sum(run.losses - losses)), rel=1e-10)
    for one, other in zip(streamed.bounds, stored.bounds, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-10)
    assert streamed.linearised_regret == pytest.approx(stored.linearised_regret, rel=1e-10)
    assert streamed.status == stored.status == "holds on this run"


def test_a_network_in_float32_is_certified_without_a_claim():
    rng = np.random.default_rng(2)
    rows = (
        jnp.asarray(rng.normal(size=(40, 3)), jnp.float32),
        jnp.asarray(rng.normal(size=40), jnp.float32),
    )

    def network(x, shared, batch):
        return jnp.mean((jnp.tanh(batch[0] @ x["hidden"]) @ x["out"] - batch[1]) ** 2)

    start = {
        "hidden": jnp.asarray(rng.normal(size=(3, 5)), jnp.float32),
        "out": jnp.asarray(rng.normal(size=5), jnp.float32),
    }
    certificate = certify(
        MirrorDescent(0.3),
        Prior(Diagonal.like(start), start),
        Problem(network, Repeat(rows)),
        steps=200,
        comparator="last",
    )
    assert certificate.status == "not claimed"
    assert failed(certificate) == ["convex losses"]
    left = certificate.bound("exact").value - certificate.unclaimed
    assert left == pytest.approx(certificate.linearised_regret, rel=1e-3)


def test_memory_does_not_grow_with_the_run():
    start = jnp.zeros(64)
    problem = Problem(lambda x, shared, data: jnp.sum((x - 1) ** 2), Repeat(None), start)

    def peak(steps):
        def measure(x):
            prior = Prior(Diagonal.like(x), x)
            return measure_run(MirrorDescent(0.1), prior, problem, steps, key=KEY)

        return jax.jit(measure).lower(start).compile().memory_analysis().temp_size_in_bytes

    assert peak(10_000) <= 1.1 * peak(10)


class Sheared(AbstractMirrorMap):
    def to_dual(self, primal):
        return primal

    def to_primal(self, dual):
        return dual + jnp.roll(dual, 1) * jnp.array([0.0, 0.5])


class Unknown(AbstractInner):
    def init(self, prior):
        raise AssertionError

    def step(self, prior, problem, state, *, key):
        raise AssertionError

    def hold(self, prior, state):
        raise AssertionError


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: certify(MirrorDescent(0.1), Prior(Sheared(), TARGET)), "got Sheared, a mirror"),
        (lambda: certify(Unknown()), "inner must be MirrorDescent.*got Unknown"),
        (lambda: certify(MirrorDescent(0.1), lipschitz=-1.0), r"certify_run\.lipschitz.*-1"),
        (lambda: certify(MirrorDescent(0.1), steps=0), r"certify_run\.steps.*got 0"),
        (lambda: certify(MirrorDescent(0.1), comparator="end"), "comparator: .*got 'end'"),
        (
            lambda: certify(MirrorDescent(0.1), problem=Problem(bowl, Repeat(None))),
            "problem.solution, which is None",
        ),
        (
            lambda: regret_certificate(
                Euclidean(), trajectory_of(MirrorDescent(0.1)), jnp.zeros(20), TARGET, -0.1
            ),
            r"regret_certificate\.rate: .*got -0\.1",
        ),
    ],
)
def test_misuse_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def claimed(start, steps, comparator, gradient, rate=0.125):
    """The certificate of a run `x_t = start + t · step` in single precision, of a linear loss."""
    count = 6
    points = (start + np.arange(count + 1.0)[:, None] * steps).astype(np.float32)
    gradients = jnp.tile(jnp.asarray(gradient, jnp.float32), (count, 1))
    losses = jnp.asarray(points[:-1]) @ gradients[0]
    trajectory = Trajectory(jnp.asarray(points), gradients, losses)
    u = jnp.asarray(comparator, jnp.float32)
    return regret_certificate(
        Euclidean(), trajectory, jnp.full(count, u @ gradients[0]), u, np.float32(rate)
    )


@pytest.mark.parametrize("offset", [0.0, 20.0, 1e4])
def test_steps_are_judged_by_how_far_they_lead_not_by_where_they_are(offset):
    """What is far from the origin moves by a small part of its length, whatever it does."""
    start, gradient = np.full(2, offset), np.array([1.0, -1.0])
    goal = start - gradient
    with jax.numpy_dtype_promotion("standard"):
        true = claimed(start, -0.125 * gradient, goal, gradient)
        still = claimed(start, 0 * gradient, goal, gradient)
        upwards = claimed(start, 0.125 * gradient, goal, gradient)
    assert true.status == "holds on this run" and not failed(true)
    for wrong in (still, upwards):
        assert wrong.status == "not claimed" and failed(wrong) == ["mirror step"]
        # Nothing is claimed of a bound that the run itself exceeds.
        assert all(bound.status == "not claimed" for bound in wrong.bounds)


@pytest.mark.parametrize("rule", [MirrorDescent, PreconditionedDescent])
@pytest.mark.parametrize("steps", [20, 300])
def test_a_run_that_ends_at_the_origin_makes_the_steps_it_makes(rule, steps):
    """There a rounding of its first points is a large part of its last."""
    prior = Prior(Diagonal(jnp.array([0.1, -0.2])), jnp.array([1.0, 0.7]))

    def bowl_at_zero(x, shared, data):
        del shared, data
        return jnp.sum(jnp.array([1.0, 0.8]) * x**2) / 2

    problem = Problem(bowl_at_zero, Repeat(None), jnp.zeros(2))
    assert certify(rule(0.3), prior, problem, steps, convex=True).status == "guaranteed"


def test_a_bound_that_is_exceeded_is_not_claimed():
    """Even where nothing else was seen to fail."""
    needed = [Assumption("convex losses", True, "declared", "")]
    assert _status(needed, satisfied=True) == "guaranteed"
    assert _status(needed, satisfied=False) == "not claimed"
