r"""Geometries that step array by array: rates, entropies, powers, Kronecker factors.

- `Rates`: `∇ψ*(z) = r ⊙ z`. Euclid's geometry (`r = 1`) and learned diagonals (`r = 1/m²`).
- `Entropy`: `∇ψ(x) = log x`, back by the softmax of the last axis, or by `exp` on the orthant.
- `Power`: `∇ψ(x) = sign(x)|x|^{p−1}`, back with `q` for `p`.
- `Factored`: `∇ψ*(Z) = A⁻¹ Z B⁻¹` by triangular solves.

Sources: as of the geometries of the same mathematics in `mirrax.geometry`.
"""

import dataclasses
import math

import torch
from torch import Tensor

from ._part import Named, Part


@dataclasses.dataclass(frozen=True, eq=False)
class Rates(Part):
    """`∇ψ*(z) = r ⊙ z`.

    **Arguments:**

    - `name`: the parameter.
    - `rate`: `r`, shaped like it, or a scalar.
    """

    name: str
    rate: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        """The one parameter."""
        return (self.name,)

    @property
    def is_linear(self) -> bool:
        """True."""
        return True

    def to_dual(self, primal: Named) -> Named:
        """`x/r`."""
        return {self.name: primal[self.name] / self.rate}

    def to_primal(self, dual: Named) -> Named:
        """`r ⊙ z`."""
        return {self.name: self.rate * dual[self.name]}


@dataclasses.dataclass(frozen=True, eq=False)
class Entropy(Part):
    """`ψ(x) = Σ x log x` of one array.

    **Arguments:**

    - `name`: the parameter.
    - `simplex`: whether slices along the last axis are probabilities; else entries are free.
    """

    name: str
    simplex: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The one parameter."""
        return (self.name,)

    def decayed(self, dual: Named, kept: float) -> Named:
        """`z + log c`, which on a simplex, where proportions count, is `z`."""
        if self.simplex:
            return dual
        return {name: z + math.log(kept) for name, z in dual.items()}

    def to_dual(self, primal: Named) -> Named:
        """`log x`."""
        return {self.name: torch.log(primal[self.name])}

    def to_primal(self, dual: Named) -> Named:
        """The softmax, or `exp z`."""
        z = dual[self.name]
        return {self.name: torch.softmax(z, -1) if self.simplex else torch.exp(z)}


@dataclasses.dataclass(frozen=True, eq=False)
class Power(Part):
    """`ψ(x) = (1/p) Σ|x_i|^p` of one array.

    **Arguments:**

    - `name`: the parameter.
    - `p`: the exponent, above 1.
    """

    name: str
    p: float

    @property
    def names(self) -> tuple[str, ...]:
        """The one parameter."""
        return (self.name,)

    def to_dual(self, primal: Named) -> Named:
        """`sign(x)|x|^{p−1}`."""
        return {self.name: signed_power(primal[self.name], self.p - 1)}

    def to_primal(self, dual: Named) -> Named:
        """`sign(z)|z|^{q−1}`."""
        return {self.name: signed_power(dual[self.name], 1 / (self.p - 1))}


@dataclasses.dataclass(frozen=True, eq=False)
class Factored(Part):
    """`ψ(W) = ½ tr(Wᵀ A W B)` of one array, taken as a matrix with the last axis as columns.

    **Arguments:**

    - `name`: the parameter.
    - `rows`, `columns`: lower triangular `L` with `A = L Lᵀ`, and the same of `B`.
    """

    name: str
    rows: Tensor
    columns: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        """The one parameter."""
        return (self.name,)

    @property
    def is_linear(self) -> bool:
        """True."""
        return True

    def to_dual(self, primal: Named) -> Named:
        """`A W B`."""
        whole = primal[self.name]
        weights = whole.reshape(len(self.rows), len(self.columns))
        inner = self.rows @ (self.rows.mT @ weights)
        return {self.name: ((inner @ self.columns) @ self.columns.mT).reshape(whole.shape)}

    def to_primal(self, dual: Named) -> Named:
        """`A⁻¹ Z B⁻¹`: two triangular solves from the left, two from the right."""
        whole = dual[self.name]
        left = torch.cholesky_solve(whole.reshape(len(self.rows), len(self.columns)), self.rows)
        found = torch.cholesky_solve(left.mT, self.columns).mT
        return {self.name: found.reshape(whole.shape)}


def signed_power(x: Tensor, exponent: float) -> Tensor:
    """`sign(x)|x|^a` for `a > 0`.

    >>> signed_power(torch.tensor([-4.0, 0.0, 9.0]), 0.5).tolist()
    [-2.0, 0.0, 3.0]
    """
    return x if exponent == 1 else torch.sign(x) * torch.abs(x) ** exponent


def cholesky_of(parameters: Tensor) -> Tensor:
    """The lower triangular `L` of log-Cholesky parameters, which keep its diagonal as logarithms.

    >>> cholesky_of(torch.tensor([[0.0, 7.0], [3.0, 0.0]])).tolist()
    [[1.0, 0.0], [3.0, 1.0]]
    """
    return torch.tril(parameters, -1) + torch.diag(torch.exp(torch.diagonal(parameters)))
