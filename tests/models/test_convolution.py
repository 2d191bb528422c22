"""Patches, lax and a plain numpy sum are one convolution, to every order of derivative."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrax.models import convolve

METHODS = ("patches", "lax")
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}


def make(seed, batch, height, width, kernel_height, kernel_width, inputs, outputs, dtype):
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((batch, height, width, inputs))
    kernel = rng.standard_normal((kernel_height, kernel_width, inputs, outputs))
    return jnp.asarray(images, dtype), jnp.asarray(kernel, dtype)


def by_lax(images, kernel, padding):
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def by_hand(images, kernel, pads, stride=1):
    """The defining sum, one output pixel at a time, in numpy."""
    images = np.pad(np.asarray(images), ((0, 0), *pads, (0, 0)))
    kernel = np.asarray(kernel)
    height = (images.shape[1] - kernel.shape[0]) // stride + 1
    width = (images.shape[2] - kernel.shape[1]) // stride + 1
    out = np.zeros((len(images), height, width, kernel.shape[3]))
    for i, j in np.ndindex(height, width):
        top, left = stride * i, stride * j
        window = images[:, top : top + kernel.shape[0], left : left + kernel.shape[1]]
        out[:, i, j] = np.einsum("nabc,abco->no", window, kernel)
    return out


def assert_close(actual, expected, dtype=np.float64):
    """Entrywise, relative to the largest entry: sums of different order differ by that much."""
    tolerance = TOLERANCE[dtype]
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        scale = max(1.0, float(np.max(np.abs(other), initial=0.0)))
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)


sizes = st.integers(1, 5)
geometry = st.tuples(
    st.integers(0, 99), sizes, st.integers(5, 9), st.integers(5, 9), sizes, sizes, sizes, sizes
)
paddings = st.one_of(
    st.sampled_from(["same", "valid"]),
    st.integers(0, 3),
    st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2),
)


@settings(max_examples=12, deadline=None)
@given(geometry, paddings, st.sampled_from([np.float32, np.float64]))
def test_methods_equal_lax(shape, padding, dtype):
    images, kernel = make(*shape, dtype)

    @jax.jit  # one compilation for each example, not one for each operation
    def run(images, kernel):
        ours = [convolve(images, kernel, padding=padding, method=method) for method in METHODS]
        return by_lax(images, kernel, explicit(padding)), ours

    expected, ours = run(images, kernel)
    for actual in ours:
        assert_close(actual, expected, dtype)


def explicit(padding):
    """Padding as lax understands it."""
    if isinstance(padding, str):
        return padding.upper()
    return ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding


@settings(max_examples=6, deadline=None)
@given(geometry, st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2))
def test_patches_equal_the_defining_sum(shape, pads):
    images, kernel = make(*shape, np.float64)
    run = jax.jit(functools.partial(convolve, padding=pads, method="patches"))
    actual = run(images, kernel)
    assert_close(actual, jnp.asarray(by_hand(images, kernel, pads)))


# Patches of one row and of the whole kernel, sizes that the stride divides and that it does not.
@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize(
    "shape", [(2, 8, 7, 3, 3, 6, 2), (2, 9, 8, 3, 3, 1, 4), (3, 6, 7, 1, 1, 5, 3)]
)
def test_strides_equal_the_defining_sum(shape, stride):
    images, kernel = make(0, *shape, np.float64)
    expected = by_hand(images, kernel, ((1, 1), (1, 1)), stride)
    weights = jnp.asarray(np.random.default_rng(1).standard_normal(expected.shape))

    @functools.partial(jax.jit, static_argnums=0)
    def run(method, images, kernel):
        options = {"padding": 1, "stride": stride, "method": method}
        result, pull = jax.vjp(functools.partial(convolve, **options), images, kernel)
        return result, pull(weights)

    patches, lax = (run(method, images, kernel) for method in METHODS)
    assert_close(patches[0], jnp.asarray(expected))
    assert_close(patches, lax)


@pytest.mark.parametrize("shape", [(1, 5, 4, 2, 3), (3, 7, 3, 1, 4)])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_gradients_and_second_order_agree(shape, padding):
    inputs, size, kernel_size, batch, outputs = shape
    images, kernel = make(0, batch, size, size, kernel_size, kernel_size, inputs, outputs, float)
    tangent = jax.tree.map(lambda x: jnp.cos(3 * x), (images, kernel))

    def energy(method, arguments):
        return jnp.sum(jnp.tanh(convolve(*arguments, padding=padding, method=method)) ** 3)

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(method):
        slope = jax.grad(functools.partial(energy, method))
        # Both orders of second derivative are used: reverse over reverse by hypergradients,
        # forward over reverse by Hessian-vector products.
        forward = jax.jvp(slope, ((images, kernel),), (tangent,))
        reverse = jax.vjp(slope, (images, kernel))[1](tangent)
        return forward, reverse

    assert_close(derivatives("patches"), derivatives("lax"))


@pytest.mark.parametrize("axes", [(0, 0), (None, 0), (0, None)])
def test_vectorised_over_kernels_and_images(axes):
    pairs = [make(seed, 2, 6, 5, 3, 2, 2, 3, float) for seed in range(3)]
    arguments = [
        jnp.stack([pair[i] for pair in pairs]) if axis == 0 else pairs[0][i]
        for i, axis in enumerate(axes)
    ]
    single = [
        [a if axis is None else a[n] for a, axis in zip(arguments, axes, strict=True)]
        for n in range(3)
    ]
    expected = jnp.stack([by_lax(*pair, "SAME") for pair in single])
    for method in METHODS:
        run = functools.partial(convolve, padding="same", method=method)
        assert_close(jax.jit(jax.vmap(run, axes))(*arguments), expected)


def test_vectorised_gradient_over_kernels():
    """What meta-training runs: one kernel and one batch for each task."""
    stacked = [make(seed, 2, 6, 6, 3, 3, 2, 3, float) for seed in range(3)]
    images, kernels = (jnp.stack(arrays) for arrays in zip(*stacked, strict=True))

    def loss(method, kernel, images):
        return jnp.sum(convolve(images, kernel, padding="same", method=method) ** 2)

    patches, lax = (
        jax.jit(jax.vmap(jax.grad(functools.partial(loss, method))))(kernels, images)
        for method in METHODS
    )
    assert_close(patches, lax)


def test_a_cpu_gets_patches_by_default():
    images, kernel = make(0, 1, 4, 4, 3, 3, 1, 2, float)
    with jax.default_device(jax.devices("cpu")[0]):
        program = str(jax.make_jaxpr(functools.partial(convolve, padding="same"))(images, kernel))
    assert "dot_general" in program
    assert "conv_general_dilated" not in program


def test_an_accelerator_gets_lax_by_default(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    images, kernel = make(0, 1, 4, 4, 3, 3, 1, 2, float)
    program = str(jax.make_jaxpr(functools.partial(convolve, padding="same"))(images, kernel))
    assert "conv_general_dilated" in program


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "full"}, "convolve.padding: expected 'same', 'valid'.*got 'full'"),
        ({"padding": -1}, "convolve.padding: .*got"),
        ({"padding": ((1, -1), (0, 0))}, "convolve.padding: .*none negative"),
        ({"padding": (1, 1, 1)}, "convolve.padding: .*got"),
        ({"stride": 0}, "convolve.stride: expected a positive whole number, got 0"),
        ({"stride": True}, "convolve.stride: .*got True"),
        ({"method": "winograd"}, "convolve.method: .*got 'winograd'"),
    ],
)
def test_unknown_options_are_named(options, message):
    images, kernel = make(0, 1, 4, 4, 3, 3, 1, 2, float)
    with pytest.raises(ValueError, match=message):
        convolve(images, kernel, **options)


def test_shapes_and_types_that_do_not_fit_are_named():
    images, kernel = make(0, 1, 4, 4, 3, 3, 2, 2, float)
    with pytest.raises(ValueError, match=r"same number of inputs, got \(1, 4, 4, 1\) and"):
        convolve(images[..., :1], kernel)
    with pytest.raises(ValueError, match="got"):
        convolve(images[0], kernel)
    with pytest.raises(ValueError, match="type float32 and the kernel float64"):
        convolve(images.astype(np.float32), kernel)
    with pytest.raises(ValueError, match="its height must be from 1 to the padded images' 2"):
        convolve(images[:, :2], kernel)


@pytest.mark.parametrize("method", ["patches", "lax"])
@pytest.mark.parametrize("inputs", [1, 8])  # patches of all rows together, and row by row
def test_no_images_stay_none(method, inputs):
    images, kernel = jnp.zeros((0, 6, 5, inputs)), jnp.zeros((3, 3, inputs, 2))
    assert convolve(images, kernel, method=method, stride=2).shape == (0, 2, 2, 2)
