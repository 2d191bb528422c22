"""Conv4 against goldens of other codes, a plain second writing, and laws of batch statistics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.models import Model, build, conv4, cross_entropy
from mirrax.models._conv4 import blocks_then_head
from repeats import slow

KEY = jax.random.key(0)

# One float64 rounding is 1e-16; two independent codes differed by 5e-14 of the largest entry over
# five steps (the goldens' README). 1e-9 leaves room for another order of sums.
RTOL = 1e-9


def assert_close(result, expected, rtol=RTOL):
    """Leaf by leaf on one common scale: the gradient of a bias that cancels is rounding alone."""
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=rtol * scale), result, expected
    )


# A second writing: everything in the printed order, at full resolution, biases added.


def plainly(params, images, reference=None):
    hidden = images
    for i in range(sum(layer.startswith("conv_") for layer in params)):
        hidden = _conv(hidden, params[f"conv_{i}"]["weight"]) + params[f"conv_{i}"]["bias"]
        if f"warp_{i}" in params:
            hidden = _conv(hidden, params[f"warp_{i}"]["weight"])
        few, norm = hidden[:reference], params[f"norm_{i}"]
        mean, variance = jnp.mean(few, (0, 1, 2)), jnp.var(few, (0, 1, 2))
        hidden = (hidden - mean) / jnp.sqrt(variance + 1e-5) * norm["gain"] + norm["bias"]
        hidden = jax.nn.relu(hidden)
        hidden = jax.lax.reduce_window(
            hidden, -np.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
        )
    head = params["dense_0"]
    logits = hidden.reshape(len(hidden), -1) @ head["weight"] + head["bias"]
    return logits @ params["head_warp"]["weight"] if "head_warp" in params else logits


def _conv(images, kernel):
    pads = [(side // 2, side // 2) for side in kernel.shape[:2]]
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def disturbed(model, seed=0):
    """Parameters all of which matter: gains of both signs, warps that mix."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + jnp.asarray(rng.standard_normal(leaf.shape)) * 0.3,
        model.init(KEY),
    ) | {
        layer: jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), leaves)
        for layer, leaves in model.shapes.items()
        if layer.startswith("norm_")
    }


def drawn(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape))


CASES = [
    slow((28, 28, 1), None, None),
    slow((19, 30, 3), "pointwise", 2),
    slow((32, 32, 3), "spatial", None),
    slow((84, 84, 3), None, 2),
    ((16, 17, 1), "spatial", 2),
]
PLAIN = slow(None)
"""The network without warps, of which the one with them has all parts."""


@pytest.mark.parametrize(("shape", "warp", "reference"), CASES)
def test_equals_the_printed_order(shape, warp, reference):
    model = conv4(shape, 3, filters=5, warp=warp, head_warp=warp is not None)
    params, images = disturbed(model), drawn(4, *shape)
    assert any(np.any(params[f"norm_{i}"]["gain"] < 0) for i in range(4))
    logits = jax.jit(model.apply, static_argnames="reference")(params, images, reference=reference)
    expected = jax.jit(plainly, static_argnames="reference")(params, images, reference=reference)
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("warp", "reference"), [slow("spatial", 3), slow(None, None), slow("pointwise", 3)]
)
def test_second_derivatives_equal_those_of_the_printed_order(warp, reference):
    """The gradient of a gradient step's loss, gains of both signs included."""
    model = blocks_then_head("two", (9, 8, 2), (4, 5), 3, warp)
    params, images, labels = disturbed(model), drawn(5, 9, 8, 2), jnp.arange(5) % 3

    def energy(apply, params):
        def single(params):
            return cross_entropy(apply(params, images, reference=reference), labels)

        grads = jax.grad(single)(params)
        return single(jax.tree.map(lambda x, g: x - 0.5 * g, params, grads))

    ours, plain = (
        jax.jit(jax.grad(functools.partial(energy, apply)))(params)
        for apply in (model.apply, plainly)
    )
    assert_close(ours, plain)


@pytest.mark.slow
def test_gradients_by_finite_differences():
    """Central differences of a step of 1e-8: rounding 1e-16/1e-8, kinks unlikely inside."""
    model = blocks_then_head("two", (8, 8, 1), (3, 3), 2, "spatial")
    params, images, labels = disturbed(model), drawn(4, 8, 8, 1), jnp.arange(4) % 2

    @jax.jit
    def energy(params):
        grads = jax.grad(lambda p: cross_entropy(model.apply(p, images), labels))(params)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(grads))

    direction = disturbed(model, seed=2)
    moved = [
        energy(jax.tree.map(lambda x, d, h=h: x + h * d, params, direction)) for h in (1e-6, -1e-6)
    ]
    grads = jax.jit(jax.grad(energy))(params)
    exact = sum(
        jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (grads, direction)), strict=True)
    )
    np.testing.assert_allclose((moved[0] - moved[1]) / 2e-6, exact, rtol=1e-6)


@pytest.mark.parametrize("warp", [PLAIN, "pointwise"])
def test_a_bias_in_front_of_batch_statistics_has_gradient_zero(warp):
    model = conv4((16, 16, 1), 2, filters=3, warp=warp)
    params, images = disturbed(model), drawn(4, 16, 16, 1)
    grads = jax.jit(jax.grad(lambda p: jnp.sum(model.apply(p, images) ** 2)))(params)
    for i in range(4):
        assert not np.any(grads[f"conv_{i}"]["bias"])
        assert np.any(grads[f"conv_{i}"]["weight"])


def test_a_bias_under_a_spatial_warp_matters():
    """Zeros around the image are not the bias, so a spatial warp sees its edge."""
    model = conv4((16, 16, 1), 2, filters=3, warp="spatial")
    params, images = disturbed(model), drawn(4, 16, 16, 1)
    grads = jax.jit(jax.grad(lambda p: jnp.sum(model.apply(p, images) ** 2)))(params)
    assert all(np.any(grads[f"conv_{i}"]["bias"]) for i in range(4))


def test_a_gain_of_zero_has_the_slope_from_above():
    """There pooling before and after agree on no single derivative; the right one is taken."""
    model = blocks_then_head("one", (8, 8, 1), (2,), 2)
    params, images = disturbed(model), drawn(4, 8, 8, 1)
    params["norm_0"]["bias"] = jnp.ones(2)

    @jax.jit
    def energy(gain):
        norm = {"gain": gain, "bias": params["norm_0"]["bias"]}
        return jnp.sum(model.apply(params | {"norm_0": norm}, images) ** 2)

    gain = jnp.array([0.0, -1.0])
    forward = (energy(gain.at[0].set(1e-7)) - energy(gain)) / 1e-7
    np.testing.assert_allclose(jax.jit(jax.grad(energy))(gain)[0], forward, rtol=1e-4)


# Batch statistics


@pytest.mark.parametrize("warp", [PLAIN, "spatial"])
def test_the_whole_batch_is_judged_together(warp):
    """Transduction: query images change each other's logits; their order changes nothing."""
    model = conv4((16, 16, 1), 5, filters=4, warp=warp)
    params, images = disturbed(model), drawn(12, 16, 16, 1)
    apply = jax.jit(model.apply)
    together = apply(params, images)
    apart = jnp.concatenate([apply(params, images[:6]), apply(params, images[6:])])
    assert np.abs(together - apart).max() > 1e-2
    order = np.random.default_rng(0).permutation(12)
    np.testing.assert_allclose(apply(params, images[order]), together[order], rtol=0, atol=1e-11)


@pytest.mark.parametrize("warp", [PLAIN, "spatial"])
def test_with_reference_every_query_is_judged_alone(warp):
    model = conv4((16, 16, 1), 5, filters=4, warp=warp)
    params, support, query = disturbed(model), drawn(5, 16, 16, 1), drawn(6, 16, 16, 1, seed=2)
    apply = jax.jit(functools.partial(model.apply, reference=5))
    together = apply(params, jnp.concatenate([support, query]))[5:]
    halves = [
        apply(params, jnp.concatenate([support, part]))[5:] for part in (query[:3], query[3:])
    ]
    np.testing.assert_allclose(jnp.concatenate(halves), together, rtol=0, atol=1e-11)
    assert np.abs(apply(params, jnp.concatenate([query[:5], query]))[5:] - together).max() > 1e-2


def test_other_models_ignore_the_reference():
    for name in ("linear", "mlp-7", "lenet5"):
        model = build(name, (28, 28, 1), 3)
        params, images = model.init(KEY), drawn(2, 28, 28, 1)
        apply = jax.jit(model.apply, static_argnames="reference")
        np.testing.assert_array_equal(apply(params, images, reference=1), apply(params, images))


# The start, the names, misuse


@pytest.mark.parametrize("filters", [32, 64])
def test_the_start_is_pytorchs(filters):
    """`U(−1/√fan_in, 1/√fan_in)` for weights and biases: extent and variance."""
    params = jax.jit(conv4((28, 28, 1), 5, filters=filters).init)(KEY)
    for i in range(4):
        np.testing.assert_array_equal(params[f"norm_{i}"]["gain"], np.ones(filters))
        np.testing.assert_array_equal(params[f"norm_{i}"]["bias"], np.zeros(filters))
    for layer in (*(f"conv_{i}" for i in range(4)), "dense_0"):
        weight, bias = params[layer]["weight"], params[layer]["bias"]
        bound = np.prod(weight.shape[:-1]) ** -0.5
        assert 0.95 * bound < np.abs(weight).max() <= bound
        # 288 to 36,864 uniform numbers: the variance is known to 0.9/√288 = 5% (one deviation).
        assert abs(np.var(weight) / (bound**2 / 3) - 1) < 0.2
        # Five biases at the least: one draw in 243 has all of them below a third of the bound.
        assert bound / 3 < np.abs(bias).max() <= bound
        assert np.unique(bias).size == bias.size


def test_warps_start_as_the_identity():
    images, plain = drawn(3, 16, 16, 2), conv4((16, 16, 2), 3, filters=4)
    expected = jax.jit(plain.apply)(plain.init(KEY), images)
    for warp in ("pointwise", "spatial"):
        model = conv4((16, 16, 2), 3, filters=4, warp=warp, head_warp=True)
        logits = jax.jit(model.apply)(model.init(KEY), images)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-12)


def test_the_models_of_the_papers():
    """121,093 parameters on mini-imagenet (counted in the official code), 64 outputs on 28×28."""
    assert conv4((84, 84, 3), 5).count == 121093
    assert build("conv4-64", (28, 28, 1), 5).leaf_shapes["dense_0/weight"] == (64, 5)
    assert isinstance(build("conv4-32", (32, 32, 3), 5), Model)


def test_blocks_name_every_leaf_but_the_warps():
    model = conv4((16, 16, 1), 5, warp="spatial", head_warp=True)
    assert model.blocks[1] == ("conv_1/weight", "conv_1/bias", "norm_1/gain", "norm_1/bias")
    assert model.blocks[4:] == (("dense_0/weight", "dense_0/bias"),)
    named = {leaf for block in model.blocks for leaf in block}
    warps = {*(f"warp_{i}/weight" for i in range(4)), "head_warp/weight"}
    assert set(model.leaf_shapes) == named | warps
    assert model.roles["norm_0"] == {"gain": ("out",), "bias": ("out",)}
    assert model.roles["warp_0"] == {"weight": ("height", "width", "in", "out")}
    assert model.roles["head_warp"] == {"weight": ("in", "out")}


def test_one_block_a_layer_elsewhere():
    assert build("mlp-7", (4, 4, 1), 3).blocks == (
        ("dense_0/weight", "dense_0/bias"),
        ("dense_1/weight", "dense_1/bias"),
    )
    firsts = [block[0] for block in build("lenet5", (28, 28, 1), 3).blocks]
    layers = ("conv_0", "conv_1", "dense_0", "dense_1", "dense_2")
    assert firsts == [f"{layer}/weight" for layer in layers]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: conv4((15, 28, 1), 5),
            "conv4.input_shape: needs .* at least 16 by 16 .* 15 by 28",
        ),
        (lambda: conv4((28, 28), 5), "conv4.input_shape: expected"),
        (lambda: conv4((28, 28, 1), 0), "conv4.classes: .*got 0"),
        (lambda: conv4((28, 28, 1), 5, filters=-1), "conv4.filters: .*got -1"),
        (lambda: conv4((28, 28, 1), 5, warp="1x1"), "conv4.warp: .*got '1x1'"),
    ],
)
def test_impossible_networks_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("reference", [0, 4, -1])
def test_a_reference_outside_the_batch_is_named(reference):
    model = conv4((16, 16, 1), 2, filters=2)
    with pytest.raises(ValueError, match=f"conv4-2.apply.reference: .*1 to 3.*got {reference}"):
        model.apply(model.init(KEY), drawn(3, 16, 16, 1), reference=reference)
