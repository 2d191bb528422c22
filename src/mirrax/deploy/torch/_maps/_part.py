r"""What a part is: a mirror map of some parameters that no other parameter takes part in.

A sum of potentials `ψ(x) = Σ_b ψ_b(x_b)` steps block by block, and a potential that is itself a sum
over arrays steps array by array. So a geometry is a list of parts, each as small as it can be;
what the parameters of one part do depends on all of them, and on nothing else.
"""

import abc
import dataclasses
from typing import Any, TypeAlias

import torch
from torch import Tensor

Named: TypeAlias = dict[str, Tensor]
"""Arrays by the name of the parameter, with the axes of the artifact."""


class Part(abc.ABC):
    """A mirror map of the parameters `names`."""

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """The parameters it maps, as the artifact calls them."""

    @property
    def is_linear(self) -> bool:
        """Whether `∇ψ` is linear: then `x⁺ = x − η ∇ψ*(g)`, and no dual is kept."""
        return False

    @property
    def is_homogeneous(self) -> bool:
        """Whether `∇ψ(c x) = c ∇ψ(x)`: then a dual shrinks as its parameters are shrunk."""
        return self.is_linear

    def decayed(self, dual: Named, kept: float) -> Named | None:
        """`∇ψ(c x)` from `z = ∇ψ(x)`, or `None` where `x` is needed.

        **Arguments:**

        - `dual`: `z`.
        - `kept`: `c`, positive.

        **Returns:**

        `c z` where the map is homogeneous.
        """
        return {name: kept * z for name, z in dual.items()} if self.is_homogeneous else None

    @abc.abstractmethod
    def to_dual(self, primal: Named) -> Named:
        """`∇ψ(x)`.

        **Arguments:**

        - `primal`: the parameters of this part.

        **Returns:**

        Their dual, of the same shapes.
        """

    @abc.abstractmethod
    def to_primal(self, dual: Named) -> Named:
        """`∇ψ*(z)`.

        **Arguments:**

        - `dual`: a dual point of this part.

        **Returns:**

        The parameters, of the same shapes.
        """


def placed(node: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """The same part with all its arrays of one type, on one device.

    **Arguments:**

    - `node`: a part, or whatever parts are made of.
    - `dtype`, `device`: where its parameters are.

    >>> placed((torch.ones(1),), torch.float64, torch.device("cpu"))[0].dtype
    torch.float64
    """
    if isinstance(node, Tensor):
        return node.to(device=device, dtype=dtype)
    if isinstance(node, tuple):
        return tuple(placed(item, dtype, device) for item in node)
    if isinstance(node, dict):
        return {name: placed(item, dtype, device) for name, item in node.items()}
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        fields = {f.name: getattr(node, f.name) for f in dataclasses.fields(node) if f.init}
        return type(node)(**{name: placed(item, dtype, device) for name, item in fields.items()})
    return node
