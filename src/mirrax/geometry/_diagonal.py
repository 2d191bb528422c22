r"""A learned diagonal geometry, `ψ(x) = ½ Σ m_i² x_i²`.

Mirror descent with rate `η` becomes `x ← x − η g/m²`: one learned rate `η/m_i²` a parameter.
The strong convexity in the Euclidean norm is `min m²` (S000 prints `min M`,
papers.md#s000-modulus).
Source: S000 §4.2 with N = 1; spec B1.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._tree import Dual, Primal, Scalar, check_floating, total
from ._base import AbstractGeometry


class Diagonal(AbstractGeometry):
    r"""The potential `ψ(x) = ½ Σ m_i² x_i²` with one positive number `m_i` a parameter.

    **Arguments:**

    - `log_diagonal`: `log m`, a pytree shaped like the parameters. These are the
      meta-parameters; `like` builds them from parameters.

    >>> import jax.numpy as jnp
    >>> geometry = Diagonal.like({"w": jnp.zeros(2)}, diagonal=2.0)
    >>> geometry.to_primal({"w": jnp.array([4.0, 8.0])})["w"].tolist()
    [1.0, 2.0]
    """

    log_diagonal: PyTree[Float[Array, "..."]]

    @staticmethod
    def like(params: Primal, diagonal: float = 1.0) -> "Diagonal":
        """A multiple of the identity, `m_i = diagonal` for every parameter.

        **Arguments:**

        - `params`: parameters, for their structure, shapes and types.
        - `diagonal`: the common value `m`, positive. Mirror descent starts as gradient descent
          with rate `η/m²`.

        **Raises:**

        - `ValueError`: if `diagonal` is not a positive finite number, or a parameter is no
          floating-point number.
        """
        check_floating("Diagonal.like", params, "equinox.partition")
        if not 0 < diagonal < float("inf"):
            raise ValueError(
                f"Diagonal.diagonal: expected a positive finite number, got {diagonal!r}."
            )
        return Diagonal(jax.tree.map(lambda x: jnp.full_like(x, jnp.log(diagonal)), params))

    @property
    def diagonal(self) -> PyTree[Float[Array, "..."]]:
        """The positive numbers `m`."""
        return jax.tree.map(jnp.exp, self.log_diagonal)

    @property
    def curvature(self) -> PyTree[Float[Array, "..."]]:
        """`m²`, the Hessian of the potential."""
        return jax.tree.map(lambda r: jnp.exp(2 * r), self.log_diagonal)

    def to_dual(self, primal: Primal) -> Dual:
        """`m² x`."""
        return jax.tree.map(jnp.multiply, self.curvature, primal)

    def to_primal(self, dual: Dual) -> Primal:
        """`z/m²`."""
        return jax.tree.map(lambda r, z: jnp.exp(-2 * r) * z, self.log_diagonal, dual)

    def potential(self, primal: Primal) -> Scalar:
        """`½ Σ m² x²`."""
        return total(lambda c, x: c * x**2, self.curvature, primal) / 2

    def conjugate(self, dual: Dual) -> Scalar:
        """`½ Σ z²/m²`."""
        return self.local_dual_norm_squared(dual, dual) / 2

    def divergence(self, primal: Primal, reference: Primal) -> Scalar:
        """`½ Σ m² (x − y)²`."""
        return total(lambda c, x, y: c * (x - y) ** 2, self.curvature, primal, reference) / 2

    @property
    def is_quadratic(self) -> bool:
        """True."""
        return True

    def strong_convexity(self) -> Scalar:
        """`min m²`, in the Euclidean norm."""
        smallest = [jnp.min(leaf) for leaf in jax.tree.leaves(self.curvature)]
        return jnp.min(jnp.stack(smallest))

    def jacobian_bounds(self) -> tuple[Scalar, Scalar]:
        """`1/max m²` and `1/min m²`, which are eigenvalues."""
        largest = [jnp.max(leaf) for leaf in jax.tree.leaves(self.curvature)]
        return 1 / jnp.max(jnp.stack(largest)), 1 / self.strong_convexity()

    def local_dual_norm_squared(self, gradient: Dual, primal: Primal) -> Scalar:
        """`Σ g²/m²`, the dual of the geometry's own norm."""
        del primal
        return total(lambda r, g: jnp.exp(-2 * r) * g**2, self.log_diagonal, gradient)

    def inverse_hessian(self, primal: Primal, gradient: Dual) -> Primal:
        """`g/m²`."""
        del primal
        return self.to_primal(gradient)
