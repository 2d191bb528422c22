"""The Euclidean geometry, `ψ(x) = ½‖x‖²`: mirror descent is gradient descent."""

import jax.numpy as jnp

from .._tree import Dual, Primal, Scalar, dot, total
from ._base import AbstractGeometry


class Euclidean(AbstractGeometry):
    """The potential `ψ(x) = ½‖x‖²`, whose divergence is `½‖x − y‖²`.

    >>> float(Euclidean().divergence({"w": jnp.array([3.0])}, {"w": jnp.array([1.0])}))
    2.0
    """

    def to_dual(self, primal: Primal) -> Dual:
        """The identity."""
        return primal

    def to_primal(self, dual: Dual) -> Primal:
        """The identity."""
        return dual

    def potential(self, primal: Primal) -> Scalar:
        """`½‖x‖²`."""
        return dot(primal, primal) / 2

    def conjugate(self, dual: Dual) -> Scalar:
        """`½‖z‖²`."""
        return dot(dual, dual) / 2

    def divergence(self, primal: Primal, reference: Primal) -> Scalar:
        """`½‖x − y‖²`."""
        return total(lambda x, y: (x - y) ** 2, primal, reference) / 2

    @property
    def is_quadratic(self) -> bool:
        """True."""
        return True

    def strong_convexity(self) -> Scalar:
        """One."""
        return jnp.asarray(1.0)

    def jacobian_bounds(self) -> tuple[Scalar, Scalar]:
        """One and one."""
        return jnp.ones(()), jnp.ones(())

    def local_dual_norm_squared(self, gradient: Dual, primal: Primal) -> Scalar:
        """`‖g‖²`."""
        del primal
        return dot(gradient, gradient)

    def inverse_hessian(self, primal: Primal, gradient: Dual) -> Primal:
        """The gradient itself."""
        del primal
        return gradient
