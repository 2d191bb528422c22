r"""Dense layers behind flattened images: whose inputs are channels, rows and columns in one.

PyTorch and Equinox flatten `(channels, height, width)`, the library and Flax
`(height, width, channels)`. Only the number of channels matters, for rows and columns follow each
other alike. It is that of the convolution in front, where the model's order leaves no doubt; else
it has to be said.
"""

from collections.abc import Mapping, Sequence

from ._pairs import numbers, stems
from ._reorder import Reorder

Layers = Sequence[tuple[str, Reorder]]
"""The artifact's names with their layouts, in the order of the model."""


def inferred_channels(
    layers: Layers, given: Mapping[str, int], ordered: bool = True
) -> dict[str, int]:
    """The channels of the images that dense layers see flattened.

    **Arguments:**

    - `layers`: all parameters, in the order of the model.
    - `given`: channels of layers by name, which are not looked for.
    - `ordered`: whether the order is the model's; else it is that of the numbers in names.

    **Returns:**

    Channels by name, for those layers that need them.

    **Raises:**

    - `ValueError`: a layer that may stand behind images or not.

    >>> kernel, dense = Reorder((6, 1, 5, 5), (2, 3, 1, 0)), Reorder((10, 24), (1, 0))
    >>> inferred_channels([("conv_0/weight", kernel), ("dense_0/weight", dense)], {})
    {'dense_0/weight': 6}
    """
    found: dict[str, int] = {}
    ahead = [reorder.outputs for _, reorder in layers if reorder.turns_images]
    channels: list[int] = []
    last, behind_images = None, False
    for name, reorder in layers if ordered or not ahead else _by_number(layers, given):
        if reorder.turns_images:
            channels.append(reorder.outputs)
            last, behind_images = reorder.outputs, True
        elif len(reorder.own) == 2:
            if name not in given:
                known = channels or ahead
                seen = _seen(name, reorder.inputs, last, behind_images, known)
                found |= {name: seen} if seen > 1 else {}
            last, behind_images = reorder.outputs, False
    return found


def _by_number(layers: Layers, given: Mapping[str, int]) -> Layers:
    """Kernels, then dense layers, each in the order of the numbers in their names."""
    kernels = [layer for layer in layers if layer[1].turns_images]
    dense = [layer for layer in layers if len(layer[1].own) == 2 and layer[0] not in given]
    for some in (kernels, dense):
        if dense and len(stems(name for name, _ in some)) > 1:
            asked = ", ".join(f"{name!r}: channels" for name, _ in dense)
            raise ValueError(
                "flatten: several groups of parameters hide the order of the layers; "
                f"pass flatten={{{asked}}}, 1 for inputs that are not flattened images."
            )
    return [
        layer for some in (kernels, dense) for layer in sorted(some, key=lambda x: numbers(x[0]))
    ]


def _seen(
    name: str, inputs: int, last: int | None, behind_images: bool, channels: list[int]
) -> int:
    """The channels that one dense layer sees; 1 where its inputs are no images."""
    if inputs == last:  # one pixel a channel, or the outputs of a dense layer
        return 1
    if behind_images and last and inputs % last == 0 and inputs not in channels:
        return last
    if not behind_images and not any(inputs % count == 0 for count in channels):
        return 1
    raise ValueError(
        f"flatten: it cannot be told whether the {inputs} inputs of {name!r} are "
        f"flattened images; pass flatten={{{name!r}: channels}}, 1 for inputs that are not."
    )
