r"""The p-norm of several arrays as one vector, `ψ(x) = ½‖x‖_p²`.

`∇ψ(x) = ‖x‖_p^{2−p} sign(x)|x|^{p−1} = ‖x‖ sign(x)(|x|/‖x‖)^{p−1}`, written so that no power
overflows; back with `q` for `p`, `1/p + 1/q = 1`. Source: Gentile 2003.
"""

import dataclasses

import torch
from torch import Tensor

from ._leafwise import signed_power
from ._part import Named, Part


@dataclasses.dataclass(frozen=True, eq=False)
class Norm(Part):
    """`ψ(x) = ½‖x‖_p²`.

    **Arguments:**

    - `members`: the parameters.
    - `p`: the exponent, above 1.
    """

    members: tuple[str, ...]
    p: float

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that make up the vector."""
        return self.members

    @property
    def is_homogeneous(self) -> bool:
        """True."""
        return True

    def to_dual(self, primal: Named) -> Named:
        """`∇ ½‖x‖_p²`."""
        return _slope(primal, self.p)

    def to_primal(self, dual: Named) -> Named:
        """`∇ ½‖z‖_q²`."""
        return _slope(dual, self.p / (self.p - 1))


def _slope(x: Named, p: float) -> Named:
    if p == 2:
        return x
    norm = _norm(x, p)
    safe = torch.where(norm == 0, 1, norm)
    return {name: norm * signed_power(leaf / safe, p - 1) for name, leaf in x.items()}


def _norm(x: Named, p: float) -> Tensor:
    # The largest entry is taken out first: the q of a p near 1 is large, and the powers of small
    # numbers would vanish.
    largest = torch.stack([leaf.abs().max() for leaf in x.values()]).max()
    scale = torch.where(largest == 0, 1, largest)
    powers = [((leaf / scale).abs() ** p).sum() for leaf in x.values()]
    return scale * torch.stack(powers).sum() ** (1 / p)
