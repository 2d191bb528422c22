"""Every model by the same laws: shapes, counts, roles, initial values, pure functions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax._errors import ConfigError
from mirrax._tree import leaf_names
from mirrax.models import NAMES, build, lenet5, linear, mlp
from repeats import slow

SHAPE = (28, 28, 1)
COUNTS = {
    "linear": 7850,
    "mlp-128-64": 109386,
    "mlp-256-128": 235146,
    "lenet5": 61706,
    "conv4-32": 28650,
    "conv4-64": 112586,
    "conv4-128": 446346,
    "resnet18": 11172810,
    "resnet18-bf16": 11172810,
    "resnet50": 23522250,
    "resnet50-bf16": 23522250,
}
SMALL = [*(name for name in NAMES if not name.startswith("resnet")), "resnet18-2"]
"""Models that are quickly drawn and compiled."""
HE = [name for name in NAMES if not name.startswith(("conv4", "resnet"))]
"""Models with He's initial values and without batch statistics; test_conv4.py and test_resnet.py
have the others."""
KEY = jax.random.key(0)


@functools.cache
def drawn(name, shape=SHAPE):
    model = build(name, shape, 10)
    return model, jax.jit(model.init)(KEY)


def test_every_name_has_a_count():
    assert set(NAMES) == set(COUNTS)


@pytest.mark.parametrize("name", NAMES)
def test_name_and_count(name):
    model = build(name, SHAPE, 10)
    assert model.name == name
    assert model.count == COUNTS[name]


@pytest.mark.parametrize("name", [*SMALL, slow("resnet50-2")])
class TestEveryModel:
    def test_all_that_is_drawn_is_counted(self, name):
        model, params = drawn(name)
        assert model.count == sum(leaf.size for leaf in jax.tree.leaves(params))

    def test_roles_follow_the_parameters(self, name):
        model, params = drawn(name)
        assert {layer: set(leaves) for layer, leaves in model.roles.items()} == {
            layer: set(leaves) for layer, leaves in params.items()
        }
        for layer, leaves in params.items():
            for leaf, array in leaves.items():
                assert len(model.roles[layer][leaf]) == array.ndim
                assert model.roles[layer][leaf][-1] == "out"

    def test_shapes_are_those_drawn(self, name):
        model, params = drawn(name)
        drawn_shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
        assert model.leaf_shapes == dict(zip(leaf_names(params), drawn_shapes, strict=True))
        model.check(params)

    def test_keys_decide_and_layers_differ(self, name):
        model, params = drawn(name)
        same, other = jax.jit(model.init)(KEY), jax.jit(model.init)(jax.random.key(1))
        for one, again, different in zip(*map(jax.tree.leaves, (params, same, other)), strict=True):
            np.testing.assert_array_equal(one, again)
            assert one.ndim == 1 or not np.array_equal(one, different)

    @pytest.mark.parametrize("dtype", [np.float32, slow(np.float64)])
    def test_logits_have_the_parameters_type(self, name, dtype):
        model, params = drawn(name)
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        images = np.random.default_rng(0).uniform(size=(3, *SHAPE)).astype(np.float32)
        logits = jax.jit(model.apply)(params, jnp.asarray(images))
        assert logits.shape == (3, 10)
        assert logits.dtype == dtype
        assert np.isfinite(logits).all()

    def test_bytes_are_refused(self, name):
        model, params = drawn(name)
        with pytest.raises(ValueError, match="multiply the raw pixels by the task's scale"):
            model.apply(params, jnp.zeros((1, *SHAPE), np.uint8))

    def test_images_of_another_shape_are_refused(self, name):
        model, params = drawn(name)
        with pytest.raises(ValueError, match=r"\(batch, 28, 28, 1\), got \(2, 8, 8, 1\)"):
            model.apply(params, jnp.zeros((2, 8, 8, 1)))


@pytest.mark.parametrize("name", HE)
class TestHeModels:
    def test_initial_values_keep_the_size_of_signals(self, name):
        """`U(-√(6/fan_in), √(6/fan_in))` of variance `2/fan_in`; biases at zero."""
        for layer in drawn(name)[1].values():
            bound = (6 / np.prod(layer["weight"].shape[:-1])) ** 0.5
            assert 0.95 * bound < np.abs(layer["weight"]).max() <= bound
            assert abs(float(np.var(layer["weight"])) / (bound**2 / 3) - 1) < 0.25
            assert not np.any(layer["bias"])

    def test_examples_do_not_see_each_other(self, name):
        model, params = drawn(name)
        images = jnp.asarray(np.random.default_rng(0).uniform(size=(3, *SHAPE)))
        apply = jax.jit(model.apply)
        single = jnp.concatenate([apply(params, image[None]) for image in images])
        np.testing.assert_allclose(apply(params, images), single, rtol=0, atol=1e-12)


def test_a_linear_model_is_a_product():
    model = linear((2, 3, 1), 4)
    params = model.init(KEY)
    images = jnp.arange(12.0).reshape(2, 2, 3, 1)
    expected = images.reshape(2, 6) @ params["dense_0"]["weight"] + params["dense_0"]["bias"]
    np.testing.assert_array_equal(model.apply(params, images), expected)


def test_an_mlp_in_numpy():
    model = mlp((2, 2, 2), (5, 3), 4)
    params = model.init(KEY)
    hidden = np.random.default_rng(0).standard_normal((6, 8))
    images = jnp.asarray(hidden.reshape(6, 2, 2, 2))
    for i in range(3):
        layer = params[f"dense_{i}"]
        hidden = hidden @ np.asarray(layer["weight"]) + np.asarray(layer["bias"])
        hidden = np.maximum(hidden, 0) if i < 2 else hidden
    np.testing.assert_allclose(model.apply(params, images), hidden, rtol=0, atol=1e-14)


def test_lenet_by_lax():
    """LeNet-5 written a second time with lax's convolution and pooling, the ReLU first."""
    model, params = drawn("lenet5")
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, *SHAPE)))
    hidden = images
    for name, padding in (("conv_0", [(2, 2), (2, 2)]), ("conv_1", "VALID")):
        hidden = jax.lax.conv_general_dilated(
            hidden,
            params[name]["weight"],
            (1, 1),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        hidden = jax.nn.relu(hidden + params[name]["bias"])
        hidden = jax.lax.reduce_window(
            hidden, -np.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
        )
    assert hidden.shape == (2, 5, 5, 16)
    hidden = hidden.reshape(2, -1)
    for name in ("dense_0", "dense_1", "dense_2"):
        hidden = hidden @ params[name]["weight"] + params[name]["bias"]
        hidden = hidden if name == "dense_2" else jax.nn.relu(hidden)
    np.testing.assert_allclose(model.apply(params, images), hidden, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(12, 12, 1), (13, 15, 2), (32, 32, 3)])
def test_lenet_takes_other_images(shape):
    model = lenet5(shape, 10)
    assert jax.eval_shape(model.apply, model.shapes, jnp.zeros((2, *shape))).shape == (2, 10)


@pytest.mark.parametrize("name", ["linear", "mlp-3", "lenet5"])
@pytest.mark.parametrize("shape", [(12, 12, 1), (13, 15, 2)])
def test_no_images_have_no_logits(name, shape):
    """As a batch of what is left over may be."""
    model = build(name, shape, 4)
    images = jnp.zeros((0, *shape))
    assert jax.eval_shape(model.apply, model.shapes, images).shape == (0, 4)


@pytest.mark.parametrize("name", ["conv4-2", "resnet18-2"])
def test_no_images_have_no_batch_statistics(name):
    model = build(name, (16, 16, 1), 4)
    with pytest.raises(ValueError, match=f"{name}.apply: batch statistics need images, and there"):
        jax.eval_shape(model.apply, model.shapes, jnp.zeros((0, 16, 16, 1)))


def test_lenet_refuses_small_images():
    with pytest.raises(ValueError, match="lenet5.input_shape: needs images of at least 12 by 12"):
        lenet5((8, 8, 1), 10)


def test_any_widths_by_name():
    model = build("mlp-7-5-3", (4, 4, 1), 2)
    assert model.leaf_shapes["dense_1/weight"] == (7, 5)
    assert [*model.roles] == ["dense_0", "dense_1", "dense_2", "dense_3"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("lenet", "'lenet5'"),
        ("LINEAR", "'linear'"),
        ("mlp-128-64-", "'mlp-128-64'"),
        ("mlp-0", "any other widths as mlp-W1-W2"),
        ("mlp", "any other widths as mlp-W1-W2"),
        ("resnet-18", "'resnet18'"),
        ("resnet18-0", "'resnet18'"),
        ("resnet50-0", "'resnet50'"),
        ("resnet34", "'resnet50'"),
    ],
)
def test_unknown_names_get_the_nearest(name, near):
    with pytest.raises(ConfigError, match=f"unknown model '{name}'.*{near}") as raised:
        build(name, SHAPE, 10)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: linear((28, 28), 10), r"linear.input_shape: .*got \(28, 28\)"),
        (lambda: linear((28, 0, 1), 10), "linear.input_shape: .*got 0"),
        (lambda: mlp(SHAPE, (10, -3), 10), "mlp-10--3.widths: .*got -3"),
        (lambda: mlp(SHAPE, (2.5,), 10), "widths: .*got 2.5"),
        (lambda: mlp(SHAPE, (), True), "classes: .*got True"),
        (lambda: lenet5(SHAPE, 0), "lenet5.classes: .*got 0"),
    ],
)
def test_impossible_sizes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_check_names_the_leaf():
    model, params = drawn("mlp-128-64")
    layer = params["dense_0"]

    def with_first(**leaves):
        return {**params, "dense_0": leaves}

    for wrong, message in (
        (with_first(weight=layer["weight"]), "dense_0/bias is missing, expected shape"),
        (with_first(**layer, scale=jnp.ones(3)), "dense_0/scale of shape .* does not belong"),
        (
            with_first(weight=layer["weight"].T, bias=layer["bias"]),
            r"dense_0/weight has shape \(128, 784\), expected \(784, 128\)",
        ),
        (
            with_first(weight=layer["weight"], bias=jnp.zeros(128, int)),
            "dense_0/bias has type int64, expected floating-point",
        ),
    ):
        with pytest.raises(ValueError, match=f"mlp-128-64: leaf {message}"):
            model.check(wrong)


def test_a_model_is_frozen_and_a_static_argument():
    model, params = drawn("linear")
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.name = "other"
    images = jnp.zeros((1, *SHAPE))
    run = jax.jit(lambda model, params, images: model.apply(params, images), static_argnums=0)
    assert run(model, params, images).shape == (1, 10)


def test_the_order_of_layers_survives_ten():
    """Trees sort their keys, `dense_10` before `dense_2`; layers are looked up by name."""
    model = mlp((1, 1, 2), (3,) * 10, 2)
    params = jax.tree.map(lambda leaf: leaf, model.init(KEY))
    hidden = np.ones((1, 2))
    for i in range(11):
        layer = params[f"dense_{i}"]
        hidden = hidden @ np.asarray(layer["weight"]) + np.asarray(layer["bias"])
        hidden = np.maximum(hidden, 0) if i < 10 else hidden
    np.testing.assert_allclose(
        model.apply(params, jnp.ones((1, 1, 1, 2))), hidden, rtol=0, atol=1e-14
    )
