"""Axes of a network's parameters that number hidden units, none of which differs from another."""

from ..models import Model


def exchangeable_axes(model: Model) -> tuple[tuple[int, ...], ...]:
    """The axes of each parameter array that number hidden units or channels.

    Initial weights are drawn alike for all hidden units, so no statistic over tasks and draws can
    tell one unit from another; only inputs and outputs of the whole network keep their identity.

    **Arguments:**

    - `model`: a network; its blocks name the layers in the order of computation.

    **Returns:**

    Axes a parameter array, in flattening order.

    >>> from mirrax.models import build
    >>> exchangeable_axes(build("mlp-4-3", (2, 2, 1), 5))
    ((0,), (1,), (0,), (0, 1), (), (0,))
    """
    first, last = (model.blocks[end][0].partition("/")[0] for end in (0, -1))
    axes = []
    for layer in sorted(model.roles):  # dicts are flattened in sorted order
        for name in sorted(model.roles[layer]):
            roles = model.roles[layer][name]
            hidden = {
                role
                for role, end in (("in", first), ("out", last))
                if role in roles and layer != end
            }
            axes.append(tuple(i for i, role in enumerate(roles) if role in hidden))
    return tuple(axes)
