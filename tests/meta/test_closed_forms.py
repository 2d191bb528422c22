"""How factors are moved and pooled by the alternation, and where it ends."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import Factors, Kronecker, log_cholesky
from mirrax.inner import PreconditionedDescent, Prior, Problem, Repeat
from mirrax.meta import Alternating, ManyShot, Runs, _closed_forms
from mirrax.meta._closed_forms import KRONECKER, LARGEST_CHANGE, Move
from mirrax.objective import FactorMoments, Moments, Side, factor_path_moments, tight_side

KEY = jax.random.key(0)
RATE = 0.1

ROUNDING = 1e-12
"""Logarithms and powers of matrices with condition numbers up to a hundred; they agree to 2e-14."""


def spd(rng, size, condition=10.0):
    vectors = np.linalg.qr(rng.normal(size=(size, size)))[0]
    return jnp.asarray((vectors * np.geomspace(1, condition, size)) @ vectors.T)


def case(seed=0):
    """Factors of a 3 × 2 matrix and one vector, and moments."""
    rng = np.random.default_rng(seed)
    factors = {
        "bias": jnp.asarray(rng.normal(size=2)),
        "weight": Factors(log_cholesky(spd(rng, 3)), log_cholesky(spd(rng, 2)), (3, 2)),
    }
    side = lambda size: Side(0.02 * spd(rng, size), spd(rng, size))  # noqa: E731
    entries = Moments(*(jnp.asarray(rng.uniform(0.1, 1, 2)) for _ in range(2)))
    return Kronecker(factors), {"bias": entries, "weight": FactorMoments(side(3), side(2))}


def move(geometry, moments, share=1.0, gain=1.0, descended=True):
    return (
        KRONECKER.moved(
            geometry, moments, Move(RATE, 0.0, share, jnp.asarray(gain), jnp.asarray(descended))
        )
        .factors["weight"]
        .matrices
    )


def power(matrix, exponent):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * values**exponent) @ vectors.T


def between(first, last, share):
    """The point of the geodesic from one matrix to another."""
    root, back = power(first, 0.5), power(first, -0.5)
    return root @ power(back @ last @ back, share) @ root


def gauged(a, b):
    scale = np.trace(b) / len(b)
    return a * scale, b / scale


@pytest.mark.parametrize(("share", "gain"), [(1.0, 1.0), (0.5, 1.0), (0.5, 0.5)])
def test_a_move_goes_a_share_of_the_geodesic(share, gain, monkeypatch):
    monkeypatch.setattr(_closed_forms, "LARGEST_CHANGE", 1e3)
    geometry, moments = case()
    found = move(geometry, moments, share, gain)
    now, seen = geometry.factors["weight"].matrices, moments["weight"]
    aims = [tight_side(side, RATE) for side in (seen.rows, seen.columns)]
    expected = []
    for a, b in zip(now, aims, strict=True):
        scale = np.linalg.slogdet(np.linalg.solve(a, b))[1] / len(a)
        # Of the scale, which either factor would make up for alone, each goes half the way.
        expected.append(between(a, np.exp(-scale / 2) * b, share * gain))
    for one, other in zip(found, gauged(*expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=ROUNDING)


def test_no_rate_changes_more_than_fourfold():
    geometry, moments = case()
    now = geometry.factors["weight"].matrices
    ends = [
        np.log(np.linalg.eigvals(np.linalg.solve(np.kron(*now), np.kron(*other))).real)
        for other in (move(geometry, moments), move(geometry, moments, descended=False))
    ]
    assert np.abs(ends[0]).max() <= LARGEST_CHANGE + ROUNDING
    assert np.abs(ends[0]).max() > 0.9 * LARGEST_CHANGE  # some change is limited
    # After a run that diverged rates are lowered, by no more than half.
    assert -ROUNDING <= ends[1].min() and 0.1 < ends[1].max() <= np.log(2) + ROUNDING


def test_a_whole_move_of_the_scale_ends_at_its_minimiser():
    """One number, with factors `A` and `B`: a move makes `A B = η √(G/D)`, not its square."""
    moved, sloped = 0.3, 0.8
    geometry = Kronecker(Factors(jnp.zeros((1, 1)), jnp.zeros((1, 1)), (1, 1)))
    side = Side(jnp.full((1, 1), moved), jnp.full((1, 1), sloped))
    aim = RATE * np.sqrt(sloped / moved)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_closed_forms, "LARGEST_CHANGE", 1e3)
        step = Move(RATE, 0.0, 1.0, jnp.ones(()), jnp.asarray(True))
        found = KRONECKER.moved(geometry, FactorMoments(side, side), step).factors.matrices
    np.testing.assert_allclose(np.kron(*found), [[aim]], rtol=ROUNDING)


def test_what_blew_up_is_what_is_cut():
    """Two matrices and a bias, of which one matrix has nearly all of the bound's gradient term."""
    geometry, moments = case()
    calm = jax.tree.map(lambda leaf: 1e-6 * leaf, moments)
    both = Kronecker({"calm": geometry.factors, "wild": geometry.factors})
    step = Move(RATE, 0.0, 1.0, jnp.ones(()), jnp.asarray(False))
    found = KRONECKER.moved(both, {"calm": calm, "wild": moments}, step).factors
    kept = found["calm"]["weight"].matrices
    now = geometry.fixed_gauge().factors["weight"].matrices
    for one, other in zip(kept, now, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    np.testing.assert_allclose(found["calm"]["bias"], geometry.factors["bias"], rtol=0, atol=1e-5)
    grown = np.kron(*found["wild"]["weight"].matrices)
    change = np.linalg.eigvals(np.linalg.solve(np.kron(*now), grown)).real
    assert 1.2 < change.max() <= 2 * (1 + ROUNDING)


def test_a_minimiser_that_does_not_exist_is_seen():
    """No displacement and no damping: Riccati's equation has no solution."""
    geometry, moments = case()
    still = jax.tree.map(jnp.zeros_like, moments["weight"].rows.displacement)
    side = Side(still, moments["weight"].rows.gradient)
    moments["weight"] = FactorMoments(side, moments["weight"].columns)
    found = move(geometry, moments)
    assert not np.isfinite(np.kron(*found)).all()


@pytest.mark.parametrize("hurt", [jnp.nan, jnp.inf])
def test_moments_that_are_not_finite_lower_every_rate_by_half(hurt):
    geometry, moments = case()
    hurt = jax.tree.map(lambda leaf: jnp.full_like(leaf, hurt), moments)
    now, then = geometry.factors["weight"].matrices, move(geometry, hurt, descended=False)
    np.testing.assert_allclose(np.kron(*then), 2 * np.kron(*now), rtol=ROUNDING)


@pytest.mark.parametrize("axes", [(), (0,), (1,), (2,), (0, 1), (0, 2), (0, 1, 2)])
def test_pooling_is_the_mean_over_all_permutations(axes):
    """Of hidden units that number rows, by one or two of their axes, and columns."""
    rng, shape = np.random.default_rng(3), (2, 3, 2)
    like = Kronecker.like(jnp.zeros(shape))
    draw = lambda size: Side(jnp.asarray(rng.normal(size=(size, size))), spd(rng, size))  # noqa: E731
    moments = FactorMoments(draw(6), draw(2))
    found = KRONECKER.pooled(moments, (axes,), like)

    def permuted(matrix, sizes, pooled):
        orders = [itertools.permutations(range(n)) if i in pooled else [range(n)] for i, n in sizes]
        means = []
        for chosen in itertools.product(*map(list, orders)):
            numbers = np.arange(len(matrix)).reshape([n for _, n in sizes])
            for place, order in enumerate(chosen):
                numbers = np.take(numbers, list(order), axis=place)
            means.append(np.asarray(matrix)[np.ix_(numbers.ravel(), numbers.ravel())])
        return np.mean(means, axis=0)

    for name, sizes in (("rows", [(0, 2), (1, 3)]), ("columns", [(2, 2)])):
        for one, other in zip(getattr(found, name), getattr(moments, name), strict=True):
            np.testing.assert_allclose(one, permuted(other, sizes, axes), rtol=1e-12, atol=1e-14)


def least_squares(weights, shared, rows):
    features, values = rows
    return jnp.mean(jnp.sum((features @ weights - values) ** 2, axis=-1)) / 2


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_alternation_ends_at_the_minimiser_of_its_own_runs(decay):
    rng = np.random.default_rng(4)
    # Inputs of very different sizes: what one rate for all cannot learn in ten steps.
    scales = np.array([1.0, 0.3, 0.1])
    features = jnp.asarray(rng.normal(size=(4, 30, 3)) * scales)
    solutions = jnp.asarray(rng.normal(size=(4, 3, 2)))
    data = (features, features @ solutions)
    starts = jnp.zeros((4, 1, 3, 2))
    runs = Runs(
        Problem(least_squares, Repeat(data), solutions), starts, jax.random.split(KEY, (4, 1))
    )
    rule, outer = PreconditionedDescent(RATE), Alternating(RATE, 10, damping=0.0, decay=decay)
    geometry = Kronecker.like(starts[0, 0])
    update = jax.jit(lambda g, s: outer.update(rule, g, s, runs))
    state, losses, values = outer.init(geometry), [], []
    for _ in range(100):
        geometry, state, outcome = update(geometry, state)
        losses.append(float(jnp.mean(outcome.summary.last_loss)))
        values.append(float(outcome.value))
    assert losses[-1] < losses[0] / 20 and values[-1] < values[0] / 2

    def moments(problem, start):
        return factor_path_moments(
            rule, Prior(geometry, start[0]), problem, 10, comparator="solution", key=KEY
        )[0]

    where = (runs.problems, starts)
    mean = jax.tree.map(lambda leaf: leaf.mean(0), jax.jit(jax.vmap(moments))(*where))
    for side, matrix in zip((mean.rows, mean.columns), geometry.factors.matrices, strict=True):
        aim = tight_side(side, RATE)
        # A hundred rounds leave 9e-7 of the way.
        np.testing.assert_allclose(aim, matrix, atol=1e-5 * np.abs(aim).max(), rtol=0)


def test_the_bound_is_the_one_that_is_minimised():
    geometry, moments = case()
    (a, b), seen = geometry.factors["weight"].matrices, moments["weight"]
    del b
    matrix = jnp.trace(a @ seen.rows.displacement) / RATE
    matrix += RATE * jnp.trace(jnp.linalg.solve(a, seen.rows.gradient))
    square = jnp.exp(2 * geometry.factors["bias"])
    entries = moments["bias"].displacement * square / RATE
    entries += RATE * moments["bias"].gradient / square
    expected = (matrix + jnp.sum(entries)) / 2
    np.testing.assert_allclose(KRONECKER.bound(geometry, moments, RATE), expected, rtol=1e-13)


@pytest.mark.slow
def test_a_matrix_that_no_task_uses_keeps_its_rate():
    """Its moments are zero: what has no minimiser stopped the round, or grew with every one."""
    params = {"idle": jnp.ones((2, 2)), "used": jnp.ones((3, 2))}
    data = jax.random.normal(KEY, (1, 6, 3))
    tasks = Problem(lambda x, shared, b: jnp.mean((b @ x["used"] - 1) ** 2), Repeat(data))
    learner = ManyShot(
        PreconditionedDescent(RATE),
        Alternating(RATE, 5, comparator="last"),
        lambda key: {"idle": params["idle"], "used": jax.random.normal(key, (3, 2))},
    )
    state, _ = learner.round(learner.init(Kronecker.like(params), key=KEY), tasks)
    assert int(state.round) == 1
    np.testing.assert_allclose(state.geometry.rates["idle"], 1.0, rtol=5e-15)  # found 0


def test_axes_of_a_pool_may_be_counted_from_the_end():
    geometry, moments = case()
    pooled = lambda *axes: KRONECKER.pooled(moments, ((0,), axes), geometry)  # noqa: E731
    for one, other in (((1,), (-1,)), ((0,), (-2,)), ((0, 1), (-1, 0))):
        jax.tree.map(np.testing.assert_array_equal, pooled(*one), pooled(*other))
