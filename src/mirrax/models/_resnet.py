r"""ResNet-18 for small images: residual blocks of two convolutions, `y = relu(F(x) + S(x))`.

`F = BN(conv(relu(BN(conv(x)))))` with kernels 3×3, and `S` the identity, or where the size or the
number of channels changes `BN(conv(x))` with a kernel 1×1. For images of about 32×32 the first
convolution is 3×3 without a stride and without pooling behind it.

Batch normalisation knows the statistics of one batch only, see `_normalise`: there are no running
averages, so the network stays a pure function of its parameters. In training that is the batch of
the step. Whoever judges it passes a fixed batch of training images in front and its length as
`reference`, so that every test image is judged alone and by statistics of training images.
Source: He et al., 2016, "Deep Residual Learning for Image Recognition", eq. 1 and 2, §4.2.
"""

import itertools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._checks import image_shape, images_like, positive
from ._convolution import convolve
from ._layers import CONV_ROLES, DENSE_ROLES, dense, init_layers
from ._model import Model, Parameters
from ._normalise import check_reference, image_moments, normalise

Precision = Literal["full", "bf16"]
"""`full`, the type of the parameters, or `bf16`, bfloat16 between normalisations."""

RESNET18 = (2, 2, 2, 2)
"""Blocks of each stage."""

_PRECISIONS = ("full", "bf16")
_SMALLEST = 8
"""The least height and width that leave a pixel after three strides of two."""


class _Block(NamedTuple):
    """The layers of one block by number: `conv_first`, `conv_first+1`, perhaps a shortcut."""

    first: int
    stride: int
    projects: bool


def resnet18(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    width: int = 64,
    precision: Precision = "full",
) -> Model:
    r"""ResNet-18 with a 3×3 stem: 17 convolutions of 3×3 in four stages, and a dense head.

    `x ← relu(BN(conv_0(x)))`, then eight blocks `x ← relu(F(x) + S(x))`, two a stage of `width`,
    `2 width`, `4 width` and `8 width` channels, the first of every later stage with stride 2; then
    `logits = mean(x) W + b`, the mean over rows and columns. Convolutions have no bias, BN has a
    gain and a bias and uses batch statistics, always (`ε = 1e-5`). Weights start as
    `U(−√(6/fan_in), √(6/fan_in))` (He et al., 2015), gains at one, biases at zero.

    **Arguments:**

    - `input_shape`: `(height, width, channels)` of one image, at least 8 by 8.
    - `classes`: number of logits.
    - `width`: channels of the first stage.
    - `precision`: `"full"`, or `"bf16"` for convolutions and what passes between layers in
      bfloat16; parameters, statistics, the head and logits keep the parameters' type.

    **Returns:**

    A `Model` named `resnet18`, with `-WIDTH` and `-bf16` behind it where they are not the defaults,
    with `conv_i`, `norm_i` (`gain`, `bias`), `dense_0`, and `shortcut_i`, `shortcut_norm_i`, which
    are added to what `norm_i` gives.

    **Raises:**

    - `ValueError`: if the images are too small, a size is not a positive whole number, or the
      precision is unknown.

    Source: He et al., 2016, §3.3 and Table 1, with the stem of §4.2; S000 §5.3.

    >>> resnet18((32, 32, 3), 10).count
    11173962
    >>> resnet18((32, 32, 3), 10, width=16, precision="bf16").name
    'resnet18-16-bf16'
    """
    if precision not in _PRECISIONS:
        raise ValueError(f"resnet18.precision: expected one of {_PRECISIONS}, got {precision!r}.")
    width = positive("resnet18", "width", width)
    name = "resnet18" + (f"-{width}" if width != 64 else "")
    name += "-bf16" if precision == "bf16" else ""
    return residual(name, input_shape, RESNET18, width, classes, precision)


def residual(
    name: str,
    input_shape: tuple[int, ...],
    stages: tuple[int, ...],
    width: int,
    classes: int,
    precision: Precision = "full",
) -> Model:
    """As `resnet18`, under any name and with that many blocks in each stage."""
    height, breadth, channels = shape = image_shape("resnet18", input_shape)
    if min(height, breadth) < _SMALLEST:
        raise ValueError(
            f"resnet18.input_shape: needs images of at least {_SMALLEST} by {_SMALLEST} pixels, "
            f"got {height} by {breadth}; use an mlp, or resample the images."
        )
    shapes, plan = _layout(channels, stages, width)
    head = {"dense_0": (width * 2 ** (len(stages) - 1), positive("resnet18", "classes", classes))}

    def init(key: PRNGKeyArray) -> Parameters:
        drawn = init_layers(key, shapes | head)
        params: Parameters = {"dense_0": drawn["dense_0"]}
        for layer, kernel in shapes.items():
            weight = drawn[layer]["weight"]
            ones, zeros = (make(kernel[-1], weight.dtype) for make in (jnp.ones, jnp.zeros))
            params |= {layer: {"weight": weight}, _norm(layer): {"gain": ones, "bias": zeros}}
        return params

    def apply(
        params: Parameters,
        images: Float[Array, "batch height width channels"],
        *,
        reference: int | None = None,
    ) -> Float[Array, "batch classes"]:
        hidden = images_like(name, shape, images, params["conv_0"]["weight"])
        check_reference(f"{name}.apply", reference, hidden)
        exact = hidden.dtype
        if precision == "bf16":
            hidden = hidden.astype(jnp.bfloat16)

        def layer(name: str, images: Array, stride: int = 1) -> Array:
            return _layer(params[name]["weight"], params[_norm(name)], images, stride, reference)

        hidden = jax.nn.relu(layer("conv_0", hidden))
        for first, stride, projects in plan:
            inner = jax.nn.relu(layer(f"conv_{first}", hidden, stride))
            beside = layer(f"shortcut_{first + 1}", hidden, stride) if projects else hidden
            hidden = jax.nn.relu(layer(f"conv_{first + 1}", inner) + beside)
        return dense(params["dense_0"], jnp.mean(hidden.astype(exact), axis=(1, 2)))

    roles = {layer: {"weight": CONV_ROLES["weight"]} for layer in shapes}
    norms = {_norm(layer): {"gain": ("out",), "bias": ("out",)} for layer in shapes}
    blocks = (
        *((f"{n}/weight", f"{_norm(n)}/gain", f"{_norm(n)}/bias") for n in shapes),
        ("dense_0/weight", "dense_0/bias"),
    )
    roles |= norms | {"dense_0": dict(DENSE_ROLES)}
    return Model(name, init, apply, roles, blocks, normalises=True)


def _layout(
    channels: int, stages: tuple[int, ...], width: int
) -> tuple[dict[str, tuple[int, ...]], list[_Block]]:
    """Shapes of all kernels in the order of computation, and what the blocks are made of."""
    shapes: dict[str, tuple[int, ...]] = {"conv_0": (3, 3, channels, width)}
    plan, count, inputs = [], itertools.count(1, 2), width
    for stage, blocks in enumerate(stages):
        outputs = width * 2**stage
        for block in range(blocks):
            first = next(count)
            stride = 2 if stage and not block else 1
            projects = inputs != outputs
            shapes[f"conv_{first}"] = (3, 3, inputs, outputs)
            shapes[f"conv_{first + 1}"] = (3, 3, outputs, outputs)
            if projects:
                shapes[f"shortcut_{first + 1}"] = (1, 1, inputs, outputs)
            plan.append(_Block(first, stride, projects))
            inputs = outputs
    return shapes, plan


def _norm(layer: str) -> str:
    """The normalisation behind a convolution: `conv_3` has `norm_3`.

    >>> _norm("shortcut_6")
    'shortcut_norm_6'
    """
    kind, number = layer.rsplit("_", 1)
    return f"norm_{number}" if kind == "conv" else f"{kind}_norm_{number}"


def _layer(
    kernel: Float[Array, "side side in out"],
    norm: dict[str, Array],
    images: Float[Array, "batch height width in"],
    stride: int,
    reference: int | None,
) -> Float[Array, "batch new_height new_width out"]:
    """Convolution and normalisation; what goes out has the type of what came in."""
    padding = kernel.shape[0] // 2
    passed = convolve(images, kernel.astype(images.dtype), padding=padding, stride=stride)
    # Eight bits of bfloat16 do not hold the sum of a batch: moments have the parameters' type.
    passed = passed.astype(kernel.dtype)
    by = image_moments(passed, reference)
    return normalise(passed, by, norm["gain"], norm["bias"]).astype(images.dtype)
