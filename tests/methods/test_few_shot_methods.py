"""Every few-shot method as composed: MAML at its start, and every part it learns is moved."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden_networks import compiled

from mirrax._errors import ConfigError
from mirrax._tree import join, leaf_names
from mirrax.inner import unroll
from mirrax.meta import episode_problem
from mirrax.methods import FEW_SHOT, Protocol, find_method, options_of
from mirrax.methods._few_shot import scaled
from mirrax.models._conv4 import blocks_then_head
from mirrax.tasks import Episodes
from repeats import slow

KEY = jax.random.key(2)
NETWORK = functools.partial(blocks_then_head, "tiny", (8, 8, 1), (4, 3), 3)

ROUNDING = 1e-13
"""Numbers of about one, a few dozen roundings apart."""


def protocol(network=NETWORK):
    # Strict promotion refuses Adam's powers of its count; plain descent shows what has a gradient.
    return Protocol(network, optax.sgd(0.5), steps=2, rate=0.2, tasks=2)


def episodes():
    pixels = np.random.default_rng(0).integers(0, 255, size=(5, 4, 8, 8, 1), dtype=np.uint8)
    return Episodes(pixels, np.full(5, 4, np.int32), way=3, shot=1, query=2, scale=1 / 255)


def adapted(name, steps):
    """The network's parameters after some steps of a method at its start."""
    learner, prior = FEW_SHOT[name](protocol(), key=KEY)
    problem = episode_problem(episodes().draw(key=KEY), learner.model)
    path = compiled(lambda: unroll(learner.inner, prior, problem, steps, key=KEY))()
    return join(path.last, prior.shared or {})


CONTAIN_MAML = (
    *("meta_sgd", "warp_maml", "warpgrad", "meta_curvature", "ecml"),
    *("block_iaf", "block_iaf_official", "convex_potential", "kronecker_metric"),
)


@pytest.mark.parametrize("name", [*CONTAIN_MAML, "meta_kfo"])
def test_at_its_start_a_method_is_maml(name):
    # MetaKFO's update network adapts too, from the second step on.
    steps = 1 if name == "meta_kfo" else 3
    found, expected = adapted(name, steps), adapted("maml", steps)
    for layer, arrays in expected.items():
        for leaf, array in arrays.items():
            np.testing.assert_allclose(found[layer][leaf], array, rtol=0, atol=ROUNDING)


def test_t_net_at_its_start_is_maml_without_norms():
    """Frozen norms change the second step; in the first, what both adapt moves alike."""
    found, expected, begin = adapted("t_net", 1), adapted("maml", 1), adapted("maml", 0)
    for layer, arrays in expected.items():
        kept = begin if layer.startswith("norm_") else expected
        for leaf in arrays:
            np.testing.assert_allclose(found[layer][leaf], kept[layer][leaf], rtol=0, atol=ROUNDING)


STILL = ("conv_0/bias",)
"""A bias in front of batch statistics has no gradient."""

SINGLE = functools.partial(blocks_then_head, "single", (8, 8, 1), (3,), 3)

VARIANTS = ("anil", "t_net", "warp_maml", "block_iaf_official", "kronecker_metric")
"""Methods all parts of which another method has too."""

DEAR = ("block_iaf", "convex_potential")
"""Methods that take longest to compile."""


@pytest.mark.parametrize(
    "name",
    [slow(name) if name in (*VARIANTS, *DEAR) else name for name in FEW_SHOT],
)
def test_every_part_that_is_learned_is_moved(name):
    learner, prior = FEW_SHOT[name](protocol(SINGLE), key=KEY)
    problem = episode_problem(episodes().draw(key=KEY), learner.model)

    @compiled
    def hypergradient():
        estimator = learner.estimator
        begin = estimator.init(learner.inner, prior)
        parts = (learner.objective, learner.inner, prior, problem, begin)
        return estimator.estimate(*parts, key=KEY)[:2]

    value, grad = hypergradient()
    assert jnp.isfinite(value)
    for part in learner.estimator.wrt:
        slopes = getattr(grad, part)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
        moved = {
            leaf
            for leaf, slope in zip(leaf_names(slopes), jax.tree.leaves(slopes), strict=True)
            if (slope != 0).any()
        }
        assert moved, (part, name)
        if part != "geometry":
            expected = {leaf for leaf in leaf_names(slopes) if leaf not in STILL}
            assert moved >= expected, (part, name)


def test_scaled_slows_the_part_it_names_and_nothing_else():
    _, prior = FEW_SHOT["convex_potential"](protocol(SINGLE), key=KEY)
    optimiser = scaled(optax.sgd(1.0), "geometry.geometry", 0.25)
    ones = jax.tree.map(jnp.ones_like, prior)
    updates, _ = optimiser.update(ones, optimiser.init(prior))
    expected = jax.tree.map(lambda leaf: -jnp.ones_like(leaf), prior)
    slower = jax.tree.map(lambda leaf: leaf / 4, expected.geometry.geometry)
    expected = eqx.tree_at(lambda prior: prior.geometry.geometry, expected, slower)
    jax.tree.map(np.testing.assert_array_equal, updates, expected)
    same = protocol().optimiser
    assert scaled(same, "geometry", 0.5) is scaled(same, "geometry", 0.5)


def test_options_and_names():
    assert options_of(FEW_SHOT["ecml"]) == ("penalty",)
    assert options_of(FEW_SHOT["warpgrad"]) == ("warp", "first_order")
    with pytest.raises(ConfigError, match="no few-shot method 'meta_sdg'. Did you mean 'meta_sgd'"):
        find_method("meta_sdg")
    with pytest.raises(ConfigError, match="No module named 'nowhere'; is its folder in PYTHONPATH"):
        find_method("nowhere:rule")
    with pytest.raises(ConfigError, match=r"'math:pi' is no function"):
        find_method("math:pi")
    assert find_method("mirrax.methods:maml") is FEW_SHOT["maml"]
