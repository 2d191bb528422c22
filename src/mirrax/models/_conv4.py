r"""Conv4, the network of few-shot learning: four blocks of 64 filters and a dense head.

A block is `maxpool(relu(BN(A(conv(x)))))`, conv 3×3 with padding 1 and a bias, `A` a warp or
nothing, BN by batch statistics, pooling 2×2 with the last row or column dropped where the size is
odd. Two identities save most of the elementwise work, and neither changes a derivative:

- batch statistics absorb whatever is added to a channel, so a bias in front of them is not added
  (it stays a parameter with gradient zero, as elsewhere);
- pooling commutes with ReLU and with an affine map of slope `≥ 0`. With `s = sign g` in the
  kernel's output channels, `g BN(x) = |g| BN(s x)`, so raw convolutions are pooled and a quarter of
  the entries normalised. Statistics come from the full resolution.

Source: Vinyals et al., 2016, "Matching Networks", §4.1; Finn et al., 2017, "MAML", §5.2.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._checks import image_shape, images_like, positive
from ._convolution import convolve
from ._layers import blocks_of, dense, init_layers, roles_of
from ._model import Model, Parameters
from ._normalise import check_reference, normalise
from ._pooled import convolve_and_pool

Warp = Literal["pointwise", "spatial"]

_WARPS = {None: None, "pointwise": 1, "spatial": 3}
"""The side of a warp's kernel."""

_NORM_ROLES = {"gain": ("out",), "bias": ("out",)}


def conv4(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    filters: int = 64,
    warp: Warp | None = None,
    head_warp: bool = False,
) -> Model:
    r"""Four blocks of convolution, batch normalisation, ReLU and pooling, then a dense head.

    `x ← maxpool(relu(BN(A_i(conv_i(x) + b_i))))` for `i = 0..3`, then `logits = H(vec(x) W + b)`.
    Convolutions are 3×3 with padding 1; BN uses batch statistics, always (`ε = 1e-5`); pooling is
    2×2, dropping what is left over. Weights and biases start as PyTorch's defaults,
    `U(−1/√fan_in, 1/√fan_in)`; gains at one, their biases at zero; warps at the identity.

    **Arguments:**

    - `input_shape`: `(height, width, channels)` of one image, at least 16 by 16.
    - `classes`: number of logits.
    - `filters`: channels of every block.
    - `warp`: a linear layer `A_i` in front of every BN: `"pointwise"` (1×1) or `"spatial"` (3×3,
      padding 1), without bias; none by default.
    - `head_warp`: whether the logits pass a square matrix `H`.

    **Returns:**

    A `Model` named `conv4-FILTERS` with `conv_i`, `norm_i` (`gain`, `bias`) and `dense_0`, and as
    asked `warp_i` and `head_warp` (`weight`), which belong to no block.

    **Raises:**

    - `ValueError`: if the images are too small, a size is not a positive whole number, or the warp
      is unknown.

    Source: Vinyals et al., 2016, §4.1; warps: Lee & Choi, 2018, "T-nets", §4; Flennerhag et al.,
    2020, "WarpGrad", §3.

    >>> conv4((84, 84, 3), 5).count
    121093
    >>> conv4((28, 28, 1), 5, filters=32, warp="pointwise").leaf_shapes["warp_3/weight"]
    (1, 1, 32, 32)
    """
    width = positive("conv4", "filters", filters)
    return blocks_then_head(f"conv4-{width}", input_shape, (width,) * 4, classes, warp, head_warp)


def blocks_then_head(
    name: str,
    input_shape: tuple[int, ...],
    widths: tuple[int, ...],
    classes: int,
    warp: Warp | None = None,
    head_warp: bool = False,
) -> Model:
    """As `conv4`, under any name and with one block for each width."""
    if warp not in _WARPS:
        raise ValueError(f"conv4.warp: expected one of {[*_WARPS]}, got {warp!r}.")
    height, width, channels = shape = image_shape("conv4", input_shape)
    smallest = 2 ** len(widths)
    if min(height, width) < smallest:
        raise ValueError(
            f"conv4.input_shape: needs images of at least {smallest} by {smallest} pixels, got "
            f"{height} by {width}; use an mlp, or resample the images."
        )
    shapes: dict[str, tuple[int, ...]] = {
        f"conv_{i}": (3, 3, *pair)
        for i, pair in enumerate(zip((channels, *widths[:-1]), widths, strict=True))
    }
    flat = (height // smallest) * (width // smallest) * widths[-1]
    shapes["dense_0"] = (flat, positive("conv4", "classes", classes))
    warps = _warps(widths, classes, _WARPS[warp], head_warp)

    def init(key: PRNGKeyArray) -> Parameters:
        params = init_layers(key, shapes, "pytorch")
        for i, size in enumerate(widths):
            kind = params[f"conv_{i}"]["bias"].dtype
            params[f"norm_{i}"] = {"gain": jnp.ones(size, kind), "bias": jnp.zeros(size, kind)}
        return params | {layer: {"weight": _identity(shape)} for layer, shape in warps.items()}

    def apply(
        params: Parameters,
        images: Float[Array, "batch height width channels"],
        *,
        reference: int | None = None,
    ) -> Float[Array, "batch classes"]:
        hidden = images_like(name, shape, images, params["conv_0"]["weight"])
        check_reference(f"{name}.apply", reference, hidden)
        for i in range(len(widths)):
            warping = params[f"warp_{i}"]["weight"] if warp else None
            hidden = _block(params[f"conv_{i}"], warping, params[f"norm_{i}"], hidden, reference)
        logits = dense(params["dense_0"], hidden.reshape(len(hidden), flat))
        return logits @ params["head_warp"]["weight"] if head_warp else logits

    norms = {f"norm_{i}": dict(_NORM_ROLES) for i in range(len(widths))}
    linear = {layer: {"weight": roles["weight"]} for layer, roles in roles_of(warps).items()}
    *convolutions, head = blocks_of(shapes)
    blocks = (
        *((*leaves, f"norm_{i}/gain", f"norm_{i}/bias") for i, leaves in enumerate(convolutions)),
        head,
    )
    roles = roles_of(shapes) | norms | linear
    return Model(name, init, apply, roles, blocks, normalises=True)


def _block(
    conv: dict[str, Array],
    warp: Array | None,
    norm: dict[str, Array],
    images: Float[Array, "batch height width in"],
    reference: int | None,
) -> Float[Array, "batch new_height new_width out"]:
    """Convolution, warp, normalisation, ReLU and pooling, in a cheaper order of equal value."""
    sign = jnp.where(norm["gain"] < 0, -1, 1).astype(norm["gain"].dtype)
    kernel = conv["weight"]
    if warp is None:
        kernel = kernel * sign
    elif warp.shape[0] == 1:
        # One convolution by the product of both: a warp of one pixel mixes the kernel's outputs.
        kernel = kernel @ (warp[0, 0] * sign)
    else:
        # A spatial warp sees zeros around the images: there the bias is no constant any more.
        images = convolve(images, kernel, padding=1) + conv["bias"]
        kernel = warp * sign
    pooled, by = convolve_and_pool(images, kernel, reference)
    # Not |g|, whose derivative at zero is zero.
    return jax.nn.relu(normalise(pooled, by, sign * norm["gain"], norm["bias"]))


def _warps(
    widths: tuple[int, ...], classes: int, side: int | None, head: bool
) -> dict[str, tuple[int, ...]]:
    """The shapes of all warps."""
    shapes: dict[str, tuple[int, ...]] = {}
    if side is not None:
        shapes = {f"warp_{i}": (side, side, size, size) for i, size in enumerate(widths)}
    return shapes | ({"head_warp": (classes, classes)} if head else {})


def _identity(shape: tuple[int, ...]) -> Array:
    """The identity, as a matrix or as a kernel that has it in its middle (Dirac)."""
    middle = tuple(size // 2 for size in shape[:-2])
    return jnp.zeros(shape).at[middle].set(jnp.eye(shape[-1]))
