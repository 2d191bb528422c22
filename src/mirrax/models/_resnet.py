r"""ResNet-18 for small images and ResNet-50 for photographs, `x ← relu(F(x) + S(x))`.

ResNet-18: `F = BN(conv(relu(BN(conv(x)))))` with kernels 3×3, and a first convolution of 3×3
without a stride and without pooling behind it. ResNet-50: bottlenecks `F` of 1×1, 3×3 and 1×1, the
last with four times the channels, behind a first convolution of 7×7 with stride 2 and a maximum
over 3×3 with stride 2. What they share is in `_residual`.
Source: He et al., 2016, "Deep Residual Learning for Image Recognition", §3.3, §4.1, §4.2.
"""

from ._model import Model
from ._residual import Layout, Precision, residual

RESNET18 = Layout("resnet18", (2, 2, 2, 2), (3, 3), 1, pools=False, smallest=8)
"""8 pixels leave one after three strides of two."""

# The stride of the paper's bottleneck is in its first 1×1; that of what goes by this name is not.
RESNET50 = Layout("resnet50", (3, 4, 6, 3), (1, 3, 1), 4, pools=True, smallest=17)
"""17 pixels are the least of which more than one is left before the last of five strides of two."""


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
    return residual(RESNET18, input_shape, classes, width, precision)


def resnet50(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    width: int = 64,
    precision: Precision = "full",
) -> Model:
    r"""ResNet-50: a 7×7 stem, sixteen bottlenecks in four stages, and a dense head.

    `x ← relu(pool(BN(conv_0(x))))`, then blocks `x ← relu(F(x) + S(x))`, 3, 4, 6 and 3 a stage, of
    kernels 1×1, 3×3 and 1×1 with `c`, `c` and `4 c` channels, `c` from `width` to `8 width`. The
    3×3 of the first block of every later stage has stride 2, not the 1×1 in front of it as in the
    paper (the form known as v1.5). Else as `resnet18`.

    **Arguments:**

    - `input_shape`: `(height, width, channels)` of one image, at least 17 by 17.
    - `classes`: number of logits.
    - `width`: channels of the first stage's 3×3.
    - `precision`: as for `resnet18`.

    **Returns:**

    A `Model` named `resnet50`, with names and layers as those of `resnet18`.

    **Raises:**

    - `ValueError`: if the images are too small, a size is not a positive whole number, or the
      precision is unknown.

    Source: He et al., 2016, §4.1 and Table 1; S002 §7.2.

    >>> resnet50((224, 224, 3), 1000).count
    25557032
    >>> resnet50((64, 64, 3), 10, width=4).name
    'resnet50-4'
    """
    return residual(RESNET50, input_shape, classes, width, precision)
