"""Every few-shot method as composed: MAML at its start, and every part it learns is moved."""

import dataclasses
import functools
import re

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
    "warped_potential",
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


BIAS = "conv_0/bias"
"""In front of batch statistics it has no gradient."""

HEADS = r"(scale|shift)/factors"
STILL = {
    "anil/shared": BIAS,
    "meta_sgd/geometry": f"log_diagonal/{BIAS}",
    "meta_curvature/geometry": f"factors/{BIAS}/0",
    "meta_kfo/geometry": f"factors/{BIAS}/[01]",
    # While amplitudes are zero, nothing inside the ridges counts.
    "convex_potential/geometry": rf"geometry/(encoders/.*|directions|offsets|raw_rates/{BIAS})",
    # While the last factor of a head is zero, nothing in front of it counts.
    "block_iaf/geometry": r"(encoders|autoregressors)/.*|decoders/\d/stacked/hidden/.*"
    rf"|decoders/0/stacked/{HEADS}/0|(raw_scale|shift)/{BIAS}",
    # In the authors' code all of its factors are, for ever.
    "block_iaf_official/geometry": r"(encoders|autoregressors)/.*|decoders/\d/stacked/hidden/.*"
    rf"|decoders/\d/stacked/{HEADS}/\d|(raw_scale|shift)/{BIAS}",
    "t_net/shared": "",
    "mt_net/geometry": "",
    "mt_net/shared": "",
    "warp_maml/start": "",  # the bias is behind a warp of its own
    "warp_maml/shared": "",
    "warped_potential/geometry": r"geometry/(encoders/.*|directions|offsets)",
    "warped_potential/start": "",
    "warped_potential/shared": "",
    "warpgrad/start": "",  # Leap's direction, not a derivative
    "warpgrad/shared": "",
    "anil/start": "",  # the head
    "kronecker_metric/geometry": "",  # no factors for vectors
}
"""What has no derivative at the start of a method, by its part; elsewhere the bias alone."""

SINGLE = functools.partial(blocks_then_head, "single", (8, 8, 1), (3,), 3)

VARIANTS = ("anil", "t_net", "warp_maml", "block_iaf_official", "kronecker_metric")
VARIANTS += ("warped_potential",)
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
        named = dict(zip(leaf_names(slopes), jax.tree.leaves(slopes), strict=True))
        still = {leaf for leaf, slope in named.items() if not slope.any()}
        expected = STILL.get(f"{name}/{part}", BIAS)
        assert still == {leaf for leaf in named if re.fullmatch(expected, leaf)}


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


@pytest.mark.parametrize("optimiser", [optax.sgd(0.1, momentum=0.9), optax.adam(0.1)])
def test_meta_sgd_moves_the_logarithms_of_its_rates(optimiser):
    """As an outer optimiser of `l = log α − 2 log m` itself, whatever it makes of a derivative."""
    clipped = optax.chain(optax.clip_by_global_norm(0.5), optimiser)
    shared = dataclasses.replace(protocol(SINGLE), optimiser=clipped)
    learner, prior = FEW_SHOT["meta_sgd"](shared, key=KEY)
    slopes = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape), prior)
    found, expected = learner.optimiser.init(prior), clipped.init(prior)
    of_rates = functools.partial(eqx.tree_at, lambda prior: prior.geometry)
    for _ in range(2):
        with jax.numpy_dtype_promotion("standard"):  # for Adam
            ours, found = learner.optimiser.update(slopes, found)
            halved = of_rates(slopes, replace_fn=lambda part: jax.tree.map(lambda s: -s / 2, part))
            theirs, expected = clipped.update(halved, expected)
        ours = of_rates(ours, replace_fn=lambda part: jax.tree.map(lambda s: -2 * s, part))
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


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
