"""Exact estimators agree with each other to 1e-9 and with central differences to 1e-6."""

import itertools

import jax
import jax.numpy as jnp
import pytest
from registry import COVERING, EVERYTHING, STEPS, assert_close, assert_exact, make_case

from mirrax.hypergradient import AbstractHypergradient, Direct, Forward, Reverse, Truncated
from repeats import slow

REVERSE = Reverse(STEPS, wrt=EVERYTHING)
OTHERS = {
    "checkpointed": Reverse(STEPS, checkpoint=True, wrt=EVERYTHING),
    "forward": Forward(STEPS, wrt=EVERYTHING),
    "one window": Truncated(STEPS, window=STEPS, wrt=EVERYTHING),
}
# Compilation is what these tests cost: each case is paired with one of the others so that every
# geometry, objective, kind of batch and problem meets each of them. The whole product is marked
# slow, and all but one of the pairs of the geometries that take longest to compile.
PAIRED = [(key, list(OTHERS)[(index // 3 + 2 * index) % 3]) for index, key in enumerate(COVERING)]
COSTLY = [
    pair
    for geometry in ("MaxOfDiagonals", "PNorm in Blockwise", "Scaled")
    for pair in [pair for pair in PAIRED if pair[0][0] == geometry][1:]
]
REST = [(key, name) for key in COVERING for name in OTHERS if (key, name) not in PAIRED]


def test_every_pair_of_entries_occurs():
    rows = [(*key, other) for key, other in PAIRED]
    for first, second in itertools.combinations(range(5), 2):
        seen = {(row[first], row[second]) for row in rows}
        assert len(seen) == len({row[first] for row in rows}) * len({row[second] for row in rows})


@pytest.mark.parametrize(
    ("key", "other"), [slow(*pair) if pair in COSTLY else pair for pair in PAIRED], ids=str
)
def test_exact_estimators_agree(key, other):
    assert_close(assert_exact(OTHERS[other], key), assert_exact(REVERSE, key), 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("key", "other"), REST, ids=str)
def test_exact_estimators_agree_everywhere(key, other):
    assert_close(assert_exact(OTHERS[other], key), assert_exact(REVERSE, key), 1e-9)


class Altered(AbstractHypergradient):
    """A deliberately wrong estimator: what `alter` makes of the exact derivative."""

    alter: str
    steps: int = STEPS
    wrt: tuple = EVERYTHING

    def estimate(self, objective, inner, prior, problem, state, *, key):
        exact = Reverse(self.steps, wrt=self.wrt)
        value, slope, after = exact.estimate(objective, inner, prior, problem, state, key=key)
        if self.alter == "sign":
            slope = jax.tree.map(jnp.negative, slope)
        elif self.alter == "a millionth":
            slope = jax.tree.map(lambda leaf: leaf * (1 + 3e-6), slope)
        elif self.alter == "one entry":
            first, *rest = jax.tree.leaves(slope)
            slope = jax.tree.unflatten(jax.tree.structure(slope), [first * 0, *rest])
        elif self.alter == "another key":
            _, slope, _ = exact.estimate(
                objective, inner, prior, problem, state, key=jax.random.key(99)
            )
        return value, slope, after


MUTANTS = {
    "sign": Altered("sign"),
    "a millionth": Altered("a millionth"),
    "one entry": Altered("one entry"),
    "another key": Altered("another key"),
    "one step short": Reverse(STEPS - 1, wrt=EVERYTHING),
    "half a run": Truncated(STEPS, window=STEPS // 2, wrt=EVERYTHING),
    "trajectory held": Direct(STEPS, wrt=("geometry", "shared")),
}


@pytest.mark.parametrize("name", list(MUTANTS))
def test_wrong_estimators_are_caught(name):
    key = next(key for key in COVERING if key[0] == "Diagonal" and key[2] == "minibatch")
    assert make_case(*key).name
    with pytest.raises(AssertionError):
        assert_exact(MUTANTS[name], key)
