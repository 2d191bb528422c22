"""The composition of MetaMD from names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import Diagonal, Kronecker, MaxOfDiagonals
from mirrax.hypergradient import Direct, Evolution, Reverse, Truncated
from mirrax.inner import MirrorDescent, PreconditionedDescent, Problem, Repeat
from mirrax.meta import Alternating, Descent
from mirrax.methods import meta_md
from mirrax.objective import LipschitzRegretBound, RegretBound

KEY = jax.random.key(0)


def draw(key):
    return {"w": jax.random.normal(key, (3,)), "b": jnp.zeros(())}


def test_the_default_is_the_closed_form_from_the_identity():
    learner, geometry = meta_md(draw, steps=10, rate=0.1, key=KEY)
    assert isinstance(geometry, Diagonal) and isinstance(learner.outer, Alternating)
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(geometry))
    assert jax.tree.map(jnp.shape, geometry.log_diagonal) == {"w": (3,), "b": ()}
    assert learner.outer.rate == 0.1 and learner.outer.steps == learner.steps == 10
    assert isinstance(learner.inner, MirrorDescent)


def test_factors_are_learned_by_the_closed_form():
    """On one quadratic `½‖P(W − C)Q‖²`, always from the same weights."""
    rng = np.random.default_rng(2)
    goal = jnp.asarray(rng.normal(size=(3, 2)))
    row, column = jnp.array([3.0, 1.0, 0.3]), jnp.array([2.0, 0.5])

    def start(key):
        del key
        return {"w": jnp.zeros((3, 2)), "b": jnp.ones(2)}

    def loss(params, shared, data):
        del shared, data
        moved = row[:, None] * (params["w"] - goal) * column
        return (jnp.sum(moved**2) + jnp.sum(params["b"] ** 2)) / 2

    learner, geometry = meta_md(
        start, steps=8, rate=0.02, geometry="kronecker", comparator="solution", key=KEY
    )
    assert isinstance(learner.outer, Alternating) and learner.outer.comparator == "solution"
    assert type(learner.inner) is PreconditionedDescent
    assert isinstance(geometry, Kronecker)
    for found in (*geometry.factors["w"].matrices, jnp.diag(geometry.factors["b"] + 1)):
        np.testing.assert_array_equal(found, np.eye(len(found)))
    solution = {"w": goal[None], "b": jnp.zeros((1, 2))}
    problems, records = Problem(loss, Repeat(jnp.zeros(1)), solution), []
    state = learner.init(geometry, key=KEY)
    for _ in range(6):
        state, record = learner.round(state, problems)
        assert not record.failed
        records.append(record)
    # Runs end lower, and the bound that they are learned from falls.
    assert records[-1].value < 0.1 * records[0].value
    assert records[-1].summary.last_loss.max() < 0.1 * records[0].summary.last_loss.max()
    first, last = (node.factors["w"].matrices for node in (geometry, state.geometry))
    for before, after in zip(first, last, strict=True):
        # Steeper directions have more curvature.
        assert np.all(np.diff(np.diag(before)) == 0) and np.all(np.diff(np.diag(after)) < 0)


def test_the_papers_composition():
    learner, geometry = meta_md(
        draw,
        steps=10,
        rate=0.1,
        geometry="max-of-diagonals",
        components=4,
        objective="eq10",
        comparator="last",
        k=2.5,
        estimator="reverse",
        step="printed",
        key=KEY,
    )
    assert isinstance(geometry, MaxOfDiagonals) and geometry.components == 4
    assert isinstance(learner.outer, Descent) and isinstance(learner.inner, PreconditionedDescent)
    assert isinstance(learner.outer.objective, LipschitzRegretBound)
    assert float(learner.outer.objective.k) == 2.5


@pytest.mark.parametrize(
    ("name", "kind", "detail"),
    [
        ("direct", Direct, {}),
        ("reverse", Reverse, {"checkpoint": False}),
        ("checkpointed", Reverse, {"checkpoint": True}),
        ("mixed", Reverse, {"mixed": True, "first_order": False}),
        ("first-order", Reverse, {"mixed": False, "first_order": True}),
        ("truncated", Truncated, {"window": 5}),
        ("evolution", Evolution, {"window": 5, "pairs": 3, "spread": 0.1}),
    ],
)
def test_estimators_by_name(name, kind, detail):
    options = {"estimator": name, "window": 5, "pairs": 3, "spread": 0.1}
    learner, _ = meta_md(draw, steps=10, rate=0.1, **options, key=KEY)
    assert isinstance(learner.outer.estimator, kind) and learner.outer.estimator.steps == 10
    assert {field: getattr(learner.outer.estimator, field) for field in detail} == detail
    assert isinstance(learner.outer.objective, RegretBound)


@pytest.mark.parametrize("wrong", [{"objective": "eq10"}, {"geometry": "max-of-diagonals"}])
def test_the_closed_form_is_refused_where_there_is_none(wrong):
    with pytest.raises(ValueError, match="closed-form.*choose 'direct'"):
        meta_md(draw, steps=10, rate=0.1, key=KEY, **wrong)


def test_components_start_apart_and_depend_on_the_key():
    first, again, other = (
        meta_md(
            draw,
            steps=4,
            rate=0.1,
            geometry="max-of-diagonals",
            estimator="direct",
            key=jax.random.key(seed),
        )[1].log_diagonals["w"]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other) and not np.array_equal(first[0], first[1])
