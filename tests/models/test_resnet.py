"""ResNets against numpy, by published counts, in bfloat16, and by laws of batch statistics."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.geometry import Kronecker, ModeProducts
from mirrax.models import build, cross_entropy, resnet18, resnet50
from mirrax.models._normalise import image_moments, moments
from mirrax.models._residual import residual
from mirrax.models._resnet import RESNET18, RESNET50
from repeats import slow

KEY = jax.random.key(0)
SHAPE = (9, 8, 3)
"""A height that strides of two do not divide."""


@functools.cache
def start(model):
    return jax.tree.map(np.asarray, jax.jit(model.init)(KEY))


def disturbed(model, seed=0):
    """Parameters all of which matter: no gain is one, no bias zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape), start(model))


def drawn(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape))


def few(layout, *stages):
    return dataclasses.replace(layout, name="tiny", stages=stages, smallest=8)


@functools.cache
def tiny(precision="full", layout=RESNET18):
    """Every kind of block: without and with a shortcut, behind one with a shortcut."""
    return residual(few(layout, 1, 2), SHAPE, 4, 3, precision)


def tiny50():
    return tiny(layout=RESNET50)


# The same network in numpy: channels first, one output pixel at a time.


def np_conv(images, kernel, stride):
    kernel = kernel.transpose(3, 2, 0, 1)
    side = kernel.shape[-1]
    border = side // 2
    images = np.pad(images, ((0, 0), (0, 0), (border, border), (border, border)))
    rows = range(0, images.shape[2] - side + 1, stride)
    columns = range(0, images.shape[3] - side + 1, stride)
    out = np.zeros((len(images), len(kernel), len(rows), len(columns)))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            window = images[:, :, row : row + side, column : column + side]
            out[:, :, i, j] = np.tensordot(window, kernel, ([1, 2, 3], [1, 2, 3]))
    return out


def np_norm(images, layer, reference):
    few = images[:reference]
    mean, deviation = (f(few, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.var))
    gain, bias = (layer[name][:, None, None] for name in ("gain", "bias"))
    return gain * (images - mean) / np.sqrt(deviation + 1e-5) + bias


def np_pool(images):
    """The largest of what a window of 3×3 covers, every second row and column."""
    _, _, height, width = images.shape
    out = np.zeros((*images.shape[:2], (height + 1) // 2, (width + 1) // 2))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            rows, columns = (slice(max(2 * k - 1, 0), 2 * k + 2) for k in (i, j))
            out[:, :, i, j] = images[:, :, rows, columns].max(axis=(2, 3))
    return out


def np_resnet(params, images, stages, reference=None, bottleneck=False):
    params = jax.tree.map(np.asarray, params)

    def layer(number, x, stride=1, kind=""):
        kernel = params[f"{kind or 'conv'}_{number}"]["weight"]
        norm = params[f"{kind}_norm_{number}" if kind else f"norm_{number}"]
        return np_norm(np_conv(x, kernel, stride), norm, reference)

    x = np.asarray(images).transpose(0, 3, 1, 2)
    x = np_pool(np.maximum(layer(0, x, 2), 0)) if bottleneck else np.maximum(layer(0, x), 0)
    number = 1
    for stage, blocks in enumerate(stages):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            if bottleneck:
                y = np.maximum(layer(number, x), 0)
                y = np.maximum(layer(number + 1, y, stride), 0)
                number += 2
            else:
                y = np.maximum(layer(number, x, stride), 0)
                number += 1
            changes = block == 0 and (stage > 0 or bottleneck)
            x = layer(number, x, stride, "shortcut") if changes else x
            x = np.maximum(layer(number, y) + x, 0)
            number += 1
    return x.mean(axis=(2, 3)) @ params["dense_0"]["weight"] + params["dense_0"]["bias"]


@pytest.mark.parametrize("reference", [None, 2])
@pytest.mark.parametrize("layout", [RESNET18, RESNET50], ids=lambda layout: layout.name)
def test_small_network_in_numpy(layout, reference):
    model, images = tiny(layout=layout), drawn(5, *SHAPE)
    params = disturbed(model)
    logits = jax.jit(model.apply, static_argnames="reference")(params, images, reference=reference)
    expected = np_resnet(params, images, (1, 2), reference, layout is RESNET50)
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("reference", [3, None])
@pytest.mark.parametrize(
    ("name", "stages"), [("resnet18-2", (2, 2, 2, 2)), ("resnet50-1", (3, 4, 6, 3))]
)
def test_whole_network_in_numpy(name, stages, reference):
    shape = (33, 40, 1)
    model = build(name, shape, 3)
    params, images = disturbed(model), drawn(4, *shape)
    logits = jax.jit(model.apply, static_argnames="reference")(params, images, reference=reference)
    expected = np_resnet(params, images, stages, reference, name.startswith("resnet50"))
    np.testing.assert_allclose(logits, expected, rtol=1e-8, atol=1e-10)


def test_the_published_network():
    """11,173,962 parameters for CIFAR-10; 20 convolutions, their sizes, no bias behind any."""
    model = resnet18((32, 32, 3), 10)
    assert (model.name, model.count) == ("resnet18", 11_173_962)
    shapes = model.leaf_shapes
    kernels = {name: shape for name, shape in shapes.items() if len(shape) == 4}
    assert len(kernels) == 20 and not any(f"{name[:-7]}/bias" in shapes for name in kernels)
    assert shapes["conv_0/weight"] == (3, 3, 3, 64)
    assert shapes["conv_4/weight"] == (3, 3, 64, 64)
    assert shapes["conv_5/weight"] == (3, 3, 64, 128)
    assert shapes["conv_16/weight"] == (3, 3, 512, 512)
    assert {name for name in kernels if "shortcut" in name} == {
        f"shortcut_{number}/weight" for number in (6, 10, 14)
    }
    assert shapes["shortcut_14/weight"] == (1, 1, 256, 512)
    assert shapes["shortcut_norm_14/gain"] == (512,)
    assert shapes["dense_0/weight"] == (512, 10)


def test_the_published_network_for_photographs():
    """25,557,032 parameters for ImageNet; 53 convolutions, a bottleneck's stride in its 3×3."""
    model = resnet50((224, 224, 3), 1000)
    assert (model.name, model.count) == ("resnet50", 25_557_032)
    shapes = model.leaf_shapes
    kernels = {name: shape for name, shape in shapes.items() if len(shape) == 4}
    assert len(kernels) == 53 and not any(f"{name[:-7]}/bias" in shapes for name in kernels)
    assert shapes["conv_0/weight"] == (7, 7, 3, 64)
    assert [shapes[f"conv_{i}/weight"] for i in (46, 47, 48)] == [
        *((1, 1, 2048, 512), (3, 3, 512, 512), (1, 1, 512, 2048)),
    ]
    assert {name: shape for name, shape in kernels.items() if "shortcut" in name} == {
        "shortcut_3/weight": (1, 1, 64, 256),
        "shortcut_12/weight": (1, 1, 256, 512),
        "shortcut_24/weight": (1, 1, 512, 1024),
        "shortcut_42/weight": (1, 1, 1024, 2048),
    }
    assert shapes["dense_0/weight"] == (2048, 1000)


@pytest.mark.parametrize("make", [tiny, slow(tiny50)])
def test_gradient_by_central_differences(make):
    """Of a whole training loss along a random direction; rounding is 1e-16/1e-6."""
    model, labels = make(), jnp.arange(5) % 4
    params, direction, images = disturbed(model), disturbed(model, 2), drawn(5, *SHAPE)

    @jax.jit
    def both(params):
        return jax.value_and_grad(lambda p: cross_entropy(model.apply(p, images), labels))(params)

    def moved(by):
        return both(jax.tree.map(lambda x, d: x + by * d, params, direction))[0]

    gradient = both(params)[1]
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    along = sum(map(jnp.vdot, *map(jax.tree.leaves, (gradient, direction))))
    np.testing.assert_allclose((moved(1e-6) - moved(-1e-6)) / 2e-6, along, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18-4", "resnet18-4-bf16", "resnet50-4-bf16"])
def test_gradient_of_the_whole_network_is_finite_in_float32(name):
    model = build(name, (32, 32, 3), 10)
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), start(model))
    images, labels = drawn(8, 32, 32, 3).astype(np.float32), jnp.arange(8)
    loss = jax.jit(jax.grad(lambda p: cross_entropy(model.apply(p, images), labels)))
    for leaf in jax.tree.leaves(loss(params)):
        assert leaf.dtype == np.float32 and np.isfinite(leaf).all() and np.any(leaf)


# bfloat16


def test_bfloat16_keeps_parameters_logits_and_gradients_exact_in_type():
    """Logits within a few of its eight-bit roundings, a gradient that points the same way."""
    labels, images = jnp.arange(5) % 4, drawn(5, *SHAPE).astype(np.float32)
    models = [residual(few(RESNET18, 1, 1), SHAPE, 4, 3, kind) for kind in ("full", "bf16")]
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), disturbed(models[0]))

    def run(model):
        def loss(p):
            logits = model.apply(p, images)
            return cross_entropy(logits, labels), logits

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    (exact, logits), (rounded, near) = map(run, models)
    assert near.dtype == np.float32
    assert 0 < np.abs(near - logits).max() < 0.05 * np.abs(logits).max()
    assert {leaf.dtype for leaf in jax.tree.leaves(rounded)} == {np.dtype(np.float32)}
    one, other = (np.concatenate([*map(np.ravel, jax.tree.leaves(g))]) for g in (exact, rounded))
    assert one @ other > 0.99 * np.linalg.norm(one) * np.linalg.norm(other)


def test_bfloat16_is_what_convolutions_compute_in(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    model = tiny("bf16")
    program = jax.make_jaxpr(model.apply)(start(model), drawn(2, *SHAPE))
    lines = [line for line in str(program).splitlines() if "conv_general_dilated" in line]
    assert len(lines) == 8 and all(":bf16[" in line for line in lines)


# Batch statistics


def test_with_reference_every_query_is_judged_alone():
    params, support, query = disturbed(tiny()), drawn(3, *SHAPE), drawn(4, *SHAPE, seed=2)
    apply = jax.jit(functools.partial(tiny().apply, reference=3))
    together = apply(params, jnp.concatenate([support, query]))
    alone = [apply(params, jnp.concatenate([support, one[None]]))[3:] for one in query]
    np.testing.assert_allclose(jnp.concatenate(alone), together[3:], rtol=0, atol=1e-11)
    np.testing.assert_allclose(
        jax.jit(tiny().apply)(params, support), together[:3], rtol=0, atol=1e-11
    )


# The start, roles, misuse


def test_the_start():
    """`U(−√(6/fan_in), √(6/fan_in))`, gains of one, biases of zero."""
    params = start(build("resnet18-8", (32, 32, 3), 10))
    for layer, leaves in params.items():
        if "gain" in leaves:
            np.testing.assert_array_equal(leaves["gain"], np.ones_like(leaves["gain"]))
            np.testing.assert_array_equal(leaves["bias"], np.zeros_like(leaves["bias"]))
            continue
        weight = np.asarray(leaves["weight"])
        bound = (6 / np.prod(weight.shape[:-1])) ** 0.5
        assert 0.95 * bound < np.abs(weight).max() <= bound, layer
        # The variance of n uniform numbers is known to 0.9/√n; the least n is 128.
        assert abs(weight.var() / (bound**2 / 3) - 1) < 0.25, layer


def test_learned_geometries_take_its_parameters():
    """Four times the Euclidean metric, and the identity."""
    model = tiny()
    gradient = disturbed(model, 3)
    metric = jax.eval_shape(Kronecker.like, start(model))
    assert metric.factors["shortcut_4"]["weight"].rows.shape == (3, 3)
    assert metric.factors["conv_4"]["weight"].rows.shape == (54, 54)
    products = ModeProducts.identity(start(model), model.roles)
    assert [f.shape for f in products.factors["shortcut_4/weight"]] == [(6, 6), (3, 3), (1, 1)]

    @jax.jit
    def steps(gradient):
        metric = Kronecker.like(gradient, diagonal=2.0)
        return metric.to_primal(gradient), products.apply(gradient)

    for found, factor in zip(steps(gradient), (0.25, 1), strict=True):
        jax.tree.map(
            lambda one, other, c=factor: np.testing.assert_allclose(one, c * other, rtol=1e-12),
            found,
            gradient,
        )


def test_blocks_name_every_leaf_in_the_order_of_computation():
    model = tiny()
    assert {leaf for block in model.blocks for leaf in block} == set(model.leaf_shapes)
    assert [block[0].partition("/")[0] for block in model.blocks] == [
        *("conv_0", "conv_1", "conv_2", "conv_3", "conv_4", "shortcut_4", "conv_5", "conv_6"),
        "dense_0",
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: resnet18((32, 7, 3), 10), "resnet18.input_shape: needs .* 8 by 8 .* 32 by 7"),
        (lambda: resnet18((32, 32), 10), "resnet18.input_shape: expected"),
        (lambda: resnet18((32, 32, 3), 0), "resnet18.classes: .*got 0"),
        (lambda: resnet50((16, 32, 3), 10), "resnet50.input_shape: needs .* 17 by 17 .* 16 by 32"),
        (lambda: resnet18((32, 32, 3), 10, width=0), "resnet18.width: .*got 0"),
        (lambda: resnet18((32, 32, 3), 10, precision="half"), "resnet18.precision: .*got 'half'"),
        (
            lambda: tiny().apply(tiny().init(KEY), drawn(2, *SHAPE), reference=3),
            "tiny-3.apply.reference: .*1 to 2.*got 3",
        ),
    ],
)
def test_impossible_requests_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("reference", [None, 1])
def test_one_pixel_of_one_image_has_no_statistics(reference):
    """Less its mean it is zero, so that every image would have the same logits, or huge ones."""
    count = 1 if reference is None else 3

    def shape(side, count):
        model = resnet18((side, side, 1), 2, width=2)
        apply = functools.partial(model.apply, reference=reference)
        return jax.eval_shape(apply, model.shapes, jnp.zeros((count, side, side, 1))).shape

    with pytest.raises(ValueError, match="one pixel of one image have no variance; pass more"):
        shape(8, count)
    assert shape(9, count) == (count, 2)
    assert reference or shape(8, 2) == (2, 2)


def test_moments_of_one_value_are_refused():
    with pytest.raises(ValueError, match="have no variance"):
        image_moments(jnp.ones((2, 1, 1, 3)), reference=1)
    with pytest.raises(ValueError, match="have no variance"):
        moments(jnp.ones((4, 1, 1, 1, 3)), (1, 1))
