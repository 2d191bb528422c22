r"""Parts around parts: `ψ = s·φ` has `∇ψ*(z) = ∇φ*(z/s)`; `ψ(x) = φ(K⁻ᵀ x)` has `Kᵀ ∇φ*(K z)`.

`K` is one lower triangular factor a mode of every array. Source: spec A5 and B5.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...._views import Roles
from ._modes import mode_product, unview, view
from ._part import Named, Part

Factors = tuple[Tensor, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Scale(Part):
    """`s·φ`.

    **Arguments:**

    - `inner`: the part `φ`.
    - `scale`: `s`, a positive scalar.
    """

    inner: Part
    scale: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        """Those of `φ`."""
        return self.inner.names

    @property
    def is_linear(self) -> bool:
        """As `φ`."""
        return self.inner.is_linear

    @property
    def is_homogeneous(self) -> bool:
        """As `φ`."""
        return self.inner.is_homogeneous

    def decayed(self, dual: Named, kept: float) -> Named | None:
        """As `φ`, whose dual is `z/s`."""
        found = self.inner.decayed({name: z / self.scale for name, z in dual.items()}, kept)
        return None if found is None else {name: self.scale * z for name, z in found.items()}

    def to_dual(self, primal: Named) -> Named:
        """`s ∇φ(x)`."""
        return {name: self.scale * z for name, z in self.inner.to_dual(primal).items()}

    def to_primal(self, dual: Named) -> Named:
        """`∇φ*(z/s)`."""
        return self.inner.to_primal({name: z / self.scale for name, z in dual.items()})


@dataclasses.dataclass(frozen=True, eq=False)
class Coordinates(Part):
    """`φ(K⁻ᵀ x)`.

    **Arguments:**

    - `inner`: the part `φ`.
    - `factors`: for each parameter the lower triangular factors of its view's modes, or none.
    - `roles`: what the axes of each parameter mean.
    """

    inner: Part
    factors: dict[str, Factors]
    roles: dict[str, Roles]

    @property
    def names(self) -> tuple[str, ...]:
        """Those of `φ`."""
        return self.inner.names

    @property
    def is_linear(self) -> bool:
        """As `φ`."""
        return self.inner.is_linear

    @property
    def is_homogeneous(self) -> bool:
        """As `φ`."""
        return self.inner.is_homogeneous

    def to_dual(self, primal: Named) -> Named:
        """`K⁻¹ ∇φ(K⁻ᵀ x)`."""
        inverses = {name: tuple(map(_inverse, found)) for name, found in self.factors.items()}
        there = self._applied(lambda name: [factor.mT for factor in inverses[name]], primal)
        return self._applied(lambda name: inverses[name], self.inner.to_dual(there))

    def to_primal(self, dual: Named) -> Named:
        """`Kᵀ ∇φ*(K z)`."""
        there = self._applied(lambda name: self.factors[name], dual)
        found = self.inner.to_primal(there)
        return self._applied(lambda name: [factor.mT for factor in self.factors[name]], found)

    def _applied(self, factors: Callable[[str], Sequence[Tensor]], arrays: Named) -> Named:
        found = {}
        for name, array in arrays.items():
            moved = mode_product(view(array, self.roles[name]), factors(name))
            found[name] = unview(moved, self.roles[name], array.shape)
        return found


def _inverse(factor: Tensor) -> Tensor:
    eye = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    return torch.linalg.solve_triangular(factor, eye, upper=False)
