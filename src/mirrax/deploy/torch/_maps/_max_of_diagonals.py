r"""The maximum of diagonal quadratics, `ψ(x) = max_j ½ Σ_i C_ji x_i²`.

`∇ψ(x) = C_{j*} x` with the largest component `j*`, one element of the subdifferential on ties;
`∇ψ*(p) = p/D(w)` with the mixing weights of `_mixing`. Source: S000 §4.2, eq. 6–8; spec B2.
"""

import dataclasses

import torch

from ._mixing import mixing_weights
from ._part import Named, Part


@dataclasses.dataclass(frozen=True, eq=False)
class Maximum(Part):
    """`max_j ½ Σ_i C_ji x_i²`.

    **Arguments:**

    - `curvatures`: `C` for each parameter, one leading axis of components.
    """

    curvatures: Named

    @property
    def names(self) -> tuple[str, ...]:
        """All parameters."""
        return tuple(self.curvatures)

    @property
    def is_homogeneous(self) -> bool:
        """True: the component that is largest does not depend on the scale."""
        return True

    def to_dual(self, primal: Named) -> Named:
        """`C_{j*} x`."""
        values = sum((c * primal[n] ** 2).flatten(1).sum(1) for n, c in self.curvatures.items())
        active = torch.as_tensor(values).argmax()
        return {name: rows[active] * primal[name] for name, rows in self.curvatures.items()}

    def to_primal(self, dual: Named) -> Named:
        """`p/D(w)`."""
        flat = torch.cat([dual[name].flatten() for name in self.names])
        rows = torch.cat([rows.flatten(1) for rows in self.curvatures.values()], dim=1)
        weights = mixing_weights(rows, flat)
        return {
            name: dual[name] / torch.tensordot(weights, rows, dims=1)
            for name, rows in self.curvatures.items()
        }
