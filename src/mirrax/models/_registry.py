"""Models by name, as recipes and artifacts refer to them."""

import re

from .._errors import ConfigError, nearest
from ._conv4 import Warp, conv4
from ._lenet import lenet5
from ._linear import linear
from ._mlp import mlp
from ._model import Model
from ._residual import residual
from ._resnet import RESNET18, RESNET50

NAMES = ("linear", "mlp-128-64", "mlp-256-128", "lenet5", "conv4-32", "conv4-64", "conv4-128") + (
    "resnet18",
    "resnet18-bf16",
    "resnet50",
    "resnet50-bf16",
)
"""The models that recipes use; `build` also takes other widths: `mlp-W1-W2-…`, `conv4-W`,
`resnet18-W`, `resnet18-W-bf16`, and so for `resnet50`."""

_RESNETS = {layout.name: layout for layout in (RESNET18, RESNET50)}
_RESNET = re.compile(rf"({'|'.join(_RESNETS)})(?:-([1-9][0-9]{{0,3}}))?(-bf16)?")


def build(
    name: str,
    image_shape: tuple[int, ...],
    classes: int,
    *,
    warp: Warp | None = None,
    head_warp: bool = False,
) -> Model:
    r"""Builds a model by its name.

    **Arguments:**

    - `name`: `linear`, `lenet5`, `conv4-` and the number of filters, `mlp-` and the widths of
      the hidden layers joined with `-`, or `resnet18` or `resnet50`, perhaps with `-` and the width
      of its first stage, perhaps with `-bf16` at the end for computation in bfloat16.
    - `image_shape`: `(height, width, channels)` of one image.
    - `classes`: number of logits.
    - `warp`, `head_warp`: warp layers, see `conv4`; other models have none.

    **Returns:**

    A `Model` whose `name` is the one asked for.

    **Raises:**

    - `ConfigError`: if no model has this name; the nearest names are given; or if warp layers
      are asked for where there are none.
    - `ValueError`: if the model cannot take images of this shape.

    >>> build("mlp-256-128", (28, 28, 1), 10).count
    235146
    >>> build("lenet", (28, 28, 1), 10)
    Traceback (most recent call last):
    ...
    mirrax._errors.ConfigError: unknown model 'lenet'. Did you mean 'lenet5' or 'resnet50'? ...
    """
    if re.fullmatch(r"conv4-[1-9][0-9]{0,3}", name):
        filters = int(name.removeprefix("conv4-"))
        return conv4(image_shape, classes, filters=filters, warp=warp, head_warp=head_warp)
    if warp is not None or head_warp:
        raise ConfigError(
            f"model {name!r} has no warp layers; choose conv4-64, or a method without warps."
        )
    if name == "linear":
        return linear(image_shape, classes)
    if name == "lenet5":
        return lenet5(image_shape, classes)
    if re.fullmatch(r"mlp(-[1-9][0-9]{0,6})+", name):
        return mlp(image_shape, [int(width) for width in name.split("-")[1:]], classes)
    if found := _RESNET.fullmatch(name):
        width, half = int(found[2] or 64), "bf16" if found[3] else "full"
        return residual(_RESNETS[found[1]], image_shape, classes, width, half)
    raise ConfigError(
        f"unknown model {name!r}.{nearest(name, NAMES)} Models: {', '.join(NAMES)}; "
        "any other widths as mlp-W1-W2-…, conv4-W, resnet18-W or resnet50-W"
    )
