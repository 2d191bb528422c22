r"""The learned convex potential, `∇ψ*(z) = c ⊙ z + Eᵀ Uᵀ (a ⊙ σ(U E z + b))`.

`E` is one mode product for each array, all results joined. The way to the dual solves one equation
a unit (`_dual_system`). Source: spec A8, as `mirrax.geometry.ConvexPotential`.
"""

import dataclasses
import math

import torch
from torch import Tensor

from ...._views import Axes
from ._dual_system import balance
from ._modes import mode_product, unview, view
from ._part import Named, Part


@dataclasses.dataclass(frozen=True, eq=False)
class Ridges(Part):
    """`ψ*(z) = ½ Σ c z² + Σ_r a_r softplus(u_rᵀ E z + b_r)`.

    **Arguments:**

    - `rates`: `c` for each parameter.
    - `encoders`: the factors `E_d` of each parameter's view.
    - `directions`: `U`, one row a unit.
    - `amplitudes`, `offsets`: `a ≥ 0` and `b`, one a unit.
    - `axes`: the parameters with the roles of their axes, in the order in which they are joined.
    """

    rates: Named
    encoders: dict[str, tuple[Tensor, ...]]
    directions: Tensor
    amplitudes: Tensor
    offsets: Tensor
    axes: Axes

    @property
    def names(self) -> tuple[str, ...]:
        """All parameters."""
        return tuple(name for name, _ in self.axes)

    def to_primal(self, dual: Named) -> Named:
        """`c ⊙ z + Eᵀ Uᵀ (a ⊙ σ(U E z + b))`."""
        shares = torch.sigmoid(self._ridges(dual) + self.offsets)
        spread = self._spread(self.amplitudes * shares)
        return {name: self.rates[name] * dual[name] + spread[name] for name in self.names}

    def to_dual(self, primal: Named) -> Named:
        """`c⁻¹ ⊙ (x − Eᵀ Uᵀ y)`, where `y = a ⊙ σ(q − K y)`."""
        columns = []
        for unit in torch.eye(len(self.offsets)).to(self.offsets):
            row = self._spread(unit)
            columns.append(self._ridges({name: row[name] / self.rates[name] for name in row}))
        gram = torch.stack(columns, dim=1)
        offset = self._ridges({n: primal[n] / self.rates[n] for n in self.names}) + self.offsets
        spread = self._spread(balance(self.amplitudes, (gram + gram.mT) / 2, offset))
        return {name: (primal[name] - spread[name]) / self.rates[name] for name in self.names}

    def _ridges(self, named: Named) -> Tensor:
        """`U E z`, without offsets."""
        parts = [
            mode_product(view(named[name], roles), self.encoders[name]).flatten()
            for name, roles in self.axes
        ]
        return self.directions @ torch.cat(parts)

    def _spread(self, weights: Tensor) -> Named:
        """`Eᵀ Uᵀ y`, the transpose of `_ridges`."""
        joined, named, start = weights @ self.directions, {}, 0
        for name, roles in self.axes:
            shape = [len(factor) for factor in self.encoders[name]]
            end = start + math.prod(shape)
            back = [factor.mT for factor in self.encoders[name]]
            whole = mode_product(joined[start:end].reshape(shape), back)
            named[name] = unview(whole, roles, self.rates[name].shape)
            start = end
        return named
