"""Learned maps along runs of few-shot tasks, whichever rule makes the runs."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mirrax.geometry import ConvexPotential
from mirrax.inner import MirrorDescent
from mirrax.methods import FEW_SHOT, Protocol
from mirrax.models._conv4 import blocks_then_head
from mirrax.study._certify_few_shot import _along_runs
from mirrax.tasks import Episodes

KEY = jax.random.key(3)
NETWORK = functools.partial(blocks_then_head, "single", (8, 8, 1), (3,), 3)
PROTOCOL = Protocol(NETWORK, optax.sgd(0.5), steps=2, rate=0.2, tasks=2)

ROUNDING = 5e-15
"""Of products of a few factors; found 1.4e-15."""

NEAR = 5e-3
"""How far above the smallest eigenvalue Lanczos' method ends; found 1.2e-3."""


def episodes():
    pixels = np.random.default_rng(0).integers(0, 255, size=(5, 4, 8, 8, 1), dtype=np.uint8)
    return Episodes(pixels, np.full(5, 4, np.int32), way=3, shot=1, query=2, scale=1 / 255)


def along(learner, prior):
    return _along_runs(learner, prior, episodes(), KEY)


@pytest.mark.parametrize("method", ["meta_sgd", "kronecker_metric"])
def test_a_quadratic_potential_has_its_own_bounds_at_every_point(method):
    """These make their steps on the parameters and keep no dual point."""
    learner, prior = FEW_SHOT[method](PROTOCOL, key=KEY)
    stretched = jax.tree.map(lambda raw: raw + 0.1 * jax.random.normal(KEY, raw.shape), prior)
    prior = eqx.tree_at(lambda prior: prior.geometry, prior, stretched.geometry)
    found, (lower, upper) = along(learner, prior), prior.geometry.jacobian_bounds()
    assert found.smallest.shape == (4, 3)  # tasks, points of a run
    # Lanczos' method ends at the largest, and comes near the smallest from inside.
    np.testing.assert_allclose(found.largest, jnp.full((4, 3), upper), rtol=ROUNDING)
    assert (found.smallest >= lower * (1 - ROUNDING)).all()
    assert (found.smallest <= lower * (1 + NEAR)).all()
    assert found.asymmetry.max() < ROUNDING


def test_a_run_may_have_a_rate_of_its_own_at_every_step():
    learner, prior = FEW_SHOT["convex_potential"](PROTOCOL, key=KEY)
    geometry = ConvexPotential.like(prior.start, learner.model.roles, units=2, key=KEY)
    prior = eqx.tree_at(lambda prior: prior.geometry, prior, geometry)
    scheduled = MirrorDescent(optax.constant_schedule(0.2))
    same = along(dataclasses.replace(learner, inner=scheduled), prior)
    # The same numbers in the same order.
    jax.tree.map(np.testing.assert_array_equal, same, along(learner, prior))
