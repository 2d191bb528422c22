r"""What residual networks share: `x ← relu(F(x) + S(x))`, block after block, and a dense head.

`F` is a few convolutions with batch statistics, `relu` between them, and `S` the identity, or where
the size or the number of channels changes `BN(conv(x))` with a kernel 1×1. A network is a `Layout`
and a width: nothing else tells ResNet-18 from ResNet-50.

Batch normalisation knows the statistics of one batch only, see `_normalise`: there are no running
averages, so the network stays a pure function of its parameters. In training that is the batch of
the step. Whoever judges it passes a fixed batch of training images in front and its length as
`reference`, so that every test image is judged alone and by statistics of training images.
Source: He et al., 2016, "Deep Residual Learning for Image Recognition", eq. 1 and 2.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._checks import image_shape, images_like, positive
from ._convolution import convolve
from ._layers import CONV_ROLES, DENSE_ROLES, dense, init_layers
from ._model import Model, Parameters
from ._normalise import check_reference, image_moments, normalise
from ._pooling import max_pool

Precision = Literal["full", "bf16"]
"""`full`, the type of the parameters, or `bf16`, bfloat16 between normalisations."""

_PRECISIONS = ("full", "bf16")
_WIDTH = 64
"""Channels of the first stage of every published network; of this width no name speaks."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """What tells one residual network from another, its width aside.

    **Arguments:**

    - `name`: of the network.
    - `stages`: how many blocks each stage has; stage `s` has `2^s` times the channels of the first.
    - `sides`: sides of the kernels of one block. The first kernel larger than a pixel takes the
      stride: a kernel of one pixel with a stride of two leaves three pixels of four out.
    - `widening`: how many times the channels of its stage a block puts out.
    - `pools`: whether the first convolution is 7×7 with stride 2 and a maximum over 3×3 with stride
      2 behind it, for photographs; else 3×3 alone, for small images.
    - `smallest`: the least height and width of an image.
    """

    name: str
    stages: tuple[int, ...]
    sides: tuple[int, ...]
    widening: int
    pools: bool
    smallest: int


class _Block(NamedTuple):
    """The layers of one block by number: `conv_first` to `conv_last`, perhaps a shortcut."""

    first: int
    strides: tuple[int, ...]
    projects: bool

    @property
    def last(self) -> int:
        return self.first + len(self.strides) - 1


def residual(
    layout: Layout,
    input_shape: tuple[int, ...],
    classes: int,
    width: int = _WIDTH,
    precision: Precision = "full",
) -> Model:
    r"""A residual network.

    `x ← relu(BN(conv_0(x)))`, pooled or not, then the blocks; then `logits = mean(x) W + b`, the
    mean over rows and columns. Convolutions have no bias, BN has a gain and a bias and uses batch
    statistics, always (`ε = 1e-5`). Weights start as `U(−√(6/fan_in), √(6/fan_in))` (He et al.,
    2015), gains at one, biases at zero.

    **Arguments:**

    - `layout`: which network.
    - `input_shape`: `(height, width, channels)` of one image.
    - `classes`: number of logits.
    - `width`: channels of the first stage.
    - `precision`: `"full"`, or `"bf16"` for convolutions and what passes between layers in
      bfloat16; parameters, statistics, the head and logits keep the parameters' type.

    **Returns:**

    A `Model` of the layout's name, with `-WIDTH` and `-bf16` behind it where they are not the
    defaults, with `conv_i`, `norm_i` (`gain`, `bias`), `dense_0`, and `shortcut_i`,
    `shortcut_norm_i`, which are added to what `norm_i` gives.

    **Raises:**

    - `ValueError`: if the images are too small, a size is not a positive whole number, or the
      precision is unknown.
    """
    if precision not in _PRECISIONS:
        raise ValueError(
            f"{layout.name}.precision: expected one of {_PRECISIONS}, got {precision!r}."
        )
    width = positive(layout.name, "width", width)
    name = layout.name + (f"-{width}" if width != _WIDTH else "")
    name += "-bf16" if precision == "bf16" else ""
    height, breadth, channels = shape = image_shape(layout.name, input_shape)
    if min(height, breadth) < layout.smallest:
        raise ValueError(
            f"{layout.name}.input_shape: needs images of at least {layout.smallest} by "
            f"{layout.smallest} pixels, got {height} by {breadth}; use an mlp, or resample the "
            "images."
        )
    shapes, plan = _plan(layout, channels, width)
    outputs = layout.widening * width * 2 ** (len(layout.stages) - 1)
    head = {"dense_0": (outputs, positive(layout.name, "classes", classes))}

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

        hidden = layer("conv_0", hidden, 2 if layout.pools else 1)
        if layout.pools:
            hidden = max_pool(hidden, 3, stride=2, padding=1)
        hidden = jax.nn.relu(hidden)
        for block in plan:
            beside, inner = hidden, hidden
            if block.projects:
                beside = layer(f"shortcut_{block.last}", hidden, max(block.strides))
            for number, stride in enumerate(block.strides, block.first):
                inner = layer(f"conv_{number}", inner, stride)
                inner = jax.nn.relu(inner if number < block.last else inner + beside)
            hidden = inner
        return dense(params["dense_0"], jnp.mean(hidden.astype(exact), axis=(1, 2)))

    roles = {layer: {"weight": CONV_ROLES["weight"]} for layer in shapes}
    norms = {_norm(layer): {"gain": ("out",), "bias": ("out",)} for layer in shapes}
    blocks = (
        *((f"{n}/weight", f"{_norm(n)}/gain", f"{_norm(n)}/bias") for n in shapes),
        ("dense_0/weight", "dense_0/bias"),
    )
    roles |= norms | {"dense_0": dict(DENSE_ROLES)}
    return Model(name, init, apply, roles, blocks, normalises=True)


def _plan(
    layout: Layout, channels: int, width: int
) -> tuple[dict[str, tuple[int, ...]], list[_Block]]:
    """Shapes of all kernels in the order of computation, and what the blocks are made of."""
    side = 7 if layout.pools else 3
    shapes: dict[str, tuple[int, ...]] = {"conv_0": (side, side, channels, width)}
    plan, first, inputs = [], 1, width
    taker = next(i for i, side in enumerate(layout.sides) if side > 1)
    for stage, blocks in enumerate(layout.stages):
        inner = width * 2**stage
        outputs = inner * layout.widening
        ends = [inner] * (len(layout.sides) - 1) + [outputs]
        for block in range(blocks):
            strides = [1] * len(layout.sides)
            strides[taker] = 2 if stage and not block else 1
            begins = [inputs, *ends[:-1]]
            for number, sizes in enumerate(zip(layout.sides, begins, ends, strict=True), first):
                side, begin, end = sizes
                shapes[f"conv_{number}"] = (side, side, begin, end)
            plan.append(_Block(first, tuple(strides), inputs != outputs))
            if inputs != outputs:
                shapes[f"shortcut_{plan[-1].last}"] = (1, 1, inputs, outputs)
            first, inputs = first + len(layout.sides), outputs
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
