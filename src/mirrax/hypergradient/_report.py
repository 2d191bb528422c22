"""What an implicit hypergradient rests on, and a refusal where it does not hold."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax.tree as vector
from jaxtyping import Array, Bool, Int

from .._errors import NumericalError
from .._tree import Primal, Scalar


class ImplicitReport(eqx.Module):
    """How well both systems of an implicit hypergradient were solved.

    **Arguments:**

    - `adjoint`: the solution `v` of the adjoint system; the next call starts from it. `None` in
      records of rounds, which have no use for it.
    - `inner_residual`: `‖F(θ)‖/‖F(θ_1)‖` at the end of the inner solver.
    - `linear_residual`: `‖b − A v‖/‖b‖`.
    - `inner_steps`, `linear_steps`: how many steps each solver made.
    - `smallest`, `largest`: estimates of the ends of the spectrum of `A` (of `P A`, if
      preconditioned), from within; NaN for GMRES, which needs none.
    - `radius`: the spectral radius of `I − cA`; NaN except for Neumann's series.
    - `inner_unconverged`: the inner solver did not reach its tolerance.
    - `indefinite`: `A` has a direction without positive curvature, and conjugate gradients or
      Neumann's series were to invert it. The point is no isolated minimiser.
    - `expanding`: the spectral radius is not below one, so Neumann's series diverges.
    - `linear_unconverged`: the adjoint system was not solved to its tolerance.
    """

    adjoint: Primal | None
    inner_residual: Scalar
    linear_residual: Scalar
    inner_steps: Int[Array, ""]
    linear_steps: Int[Array, ""]
    smallest: Scalar
    largest: Scalar
    radius: Scalar
    inner_unconverged: Bool[Array, ""]
    indefinite: Bool[Array, ""]
    expanding: Bool[Array, ""]
    linear_unconverged: Bool[Array, ""]

    @staticmethod
    def empty(like: Primal) -> "ImplicitReport":
        """A report of nothing, with a zero adjoint.

        **Arguments:**

        - `like`: parameters.
        """
        adjoint = vector.zeros_like(like)
        number = jnp.zeros_like(vector.norm(adjoint))
        count, flag = jnp.zeros((), int), jnp.zeros((), bool)
        return ImplicitReport(adjoint, *[number] * 2, *[count] * 2, *[number] * 3, *[flag] * 4)

    @property
    def flagged(self) -> Bool[Array, "..."]:
        """Whether the hypergradient is not to be used, for any reason; it is NaN then."""
        return self.inner_unconverged | self.indefinite | self.expanding | self.linear_unconverged

    def require_sound(self) -> None:
        """Raises, outside of compiled programs, if the hypergradient was flagged.

        **Raises:**

        - `NumericalError`: if this report, or one of several with leading axes, has a flag. The
          text names the first reason that applies, the numbers behind it and a remedy.
        """
        for name, sentence in _REASONS.items():
            raised = np.atleast_1d(np.asarray(getattr(self, name)))
            if raised.any():
                numbers = {
                    field: np.atleast_1d(np.asarray(getattr(self, field)))[raised].flat[0]
                    for field in _NUMBERS
                }
                which = f" ({raised.sum()} of {raised.size} runs)" if raised.size > 1 else ""
                raise NumericalError(f"Implicit{which}: {sentence.format(**numbers)}")


_NUMBERS = (
    "inner_residual",
    "linear_residual",
    "inner_steps",
    "linear_steps",
    "smallest",
    "largest",
    "radius",
)

_REASONS = {
    "inner_unconverged": (
        "the inner solver did not converge: relative residual {inner_residual:.2g} after "
        "{inner_steps} steps; raise steps, lower the inner rate, or loosen tolerance."
    ),
    "indefinite": (
        "the inner problem has no positive curvature in some direction at the point found: "
        "eigenvalues reach from {smallest:.3g} to {largest:.3g}; lower the inner rate for a "
        "stronger proximal term, or choose solver='gmres', which needs an invertible system only."
    ),
    "expanding": (
        "Neumann's series diverges: spectral radius {radius:.3g}; lower neumann_rate below "
        "2/{largest:.3g}, or leave it out."
    ),
    "linear_unconverged": (
        "the adjoint system was not solved: relative residual {linear_residual:.2g} after "
        "{linear_steps} iterations; raise linear_steps, set precondition=True, or loosen "
        "linear_tolerance."
    ),
}
