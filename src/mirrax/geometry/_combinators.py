r"""Geometries made of geometries: a scale, and a sum over blocks of parameters.

`Scaled`: `ψ_s = s·ψ`, so `∇ψ_s*(z) = ∇ψ*(z/s)` and the divergence and its modulus scale by `s`.
`Blockwise`: `ψ(x) = Σ_b ψ_b(x_b)`, so every map acts block by block, the divergence is the sum and
the modulus in the norm `‖v‖² = Σ_b ‖v_b‖_b²` is the smallest of the blocks'.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._tree import Dual, Primal, Scalar
from ._base import AbstractGeometry


def _times(factor: Scalar, tree: PyTree) -> PyTree:
    """A tree times a number, in the tree's own types."""
    return jax.tree.map(lambda leaf: factor.astype(jnp.result_type(leaf)) * leaf, tree)


def _is_geometry(node: Any) -> bool:
    return isinstance(node, AbstractGeometry)


def _as_floating(number: Any) -> Any:
    """A number as an array that has a derivative."""
    whole = jnp.issubdtype(jnp.result_type(number), jnp.integer)
    return jnp.asarray(number, float) if whole else jnp.asarray(number)


class Scaled(AbstractGeometry):
    r"""The potential `s·ψ(x)` with a learned positive scale `s`.

    **Arguments:**

    - `geometry`: the geometry `ψ`.
    - `log_scale`: `log s`, a scalar meta-parameter. Doubling the scale halves the step.

    **Raises:**

    - `ValueError`: if `geometry` is not a geometry or `log_scale` is not a scalar.

    >>> from mirrax.geometry import Euclidean
    >>> scaled = Scaled(Euclidean(), jnp.log(4.0))
    >>> float(scaled.divergence(jnp.array(3.0), jnp.array(1.0)))
    8.0
    """

    geometry: AbstractGeometry
    log_scale: Float[Array, ""] = eqx.field(converter=_as_floating)

    def __check_init__(self):
        if not _is_geometry(self.geometry):
            raise ValueError(
                f"Scaled.geometry: expected a geometry, got {type(self.geometry).__name__}."
            )
        if jnp.shape(self.log_scale) != ():
            raise ValueError(
                f"Scaled.log_scale: expected a scalar, got shape {jnp.shape(self.log_scale)}."
            )

    @property
    def scale(self) -> Scalar:
        """The positive scale `s`."""
        return jnp.exp(self.log_scale)

    @property
    def is_strongly_convex(self) -> bool:
        """As the geometry's."""
        return self.geometry.is_strongly_convex

    @property
    def is_quadratic(self) -> bool:
        """As the geometry's."""
        return self.geometry.is_quadratic

    def to_dual(self, primal: Primal) -> Dual:
        """`s ∇ψ(x)`."""
        return _times(self.scale, self.geometry.to_dual(primal))

    def to_primal(self, dual: Dual) -> Primal:
        """`∇ψ*(z/s)`."""
        return self.geometry.to_primal(_times(1 / self.scale, dual))

    def potential(self, primal: Primal) -> Scalar:
        """`s ψ(x)`."""
        return self.scale * self.geometry.potential(primal)

    def conjugate(self, dual: Dual) -> Scalar:
        """`s ψ*(z/s)`."""
        return self.scale * self.geometry.conjugate(_times(1 / self.scale, dual))

    def divergence(self, primal: Primal, reference: Primal) -> Scalar:
        """`s D(x‖y)`."""
        return self.scale * self.geometry.divergence(primal, reference)

    def strong_convexity(self) -> Scalar:
        """`s λ`, in the geometry's norm."""
        return self.scale * self.geometry.strong_convexity()

    def jacobian_bounds(self) -> tuple[Scalar, Scalar]:
        """The geometry's, divided by `s`."""
        lower, upper = self.geometry.jacobian_bounds()
        return lower / self.scale, upper / self.scale

    def norm_squared(self, displacement: Primal) -> Scalar:
        """The geometry's norm."""
        return self.geometry.norm_squared(displacement)

    def dual_norm_squared(self, gradient: Dual) -> Scalar:
        """The geometry's dual norm."""
        return self.geometry.dual_norm_squared(gradient)

    def local_dual_norm_squared(self, gradient: Dual, primal: Primal) -> Scalar:
        """The geometry's, divided by `s`."""
        return self.geometry.local_dual_norm_squared(gradient, primal) / self.scale

    def inverse_hessian(self, primal: Primal, gradient: Dual) -> Primal:
        """The geometry's, divided by `s`."""
        return _times(1 / self.scale, self.geometry.inverse_hessian(primal, gradient))


class Blockwise(AbstractGeometry):
    r"""The potential `ψ(x) = Σ_b ψ_b(x_b)`, one geometry for each block of parameters.

    **Arguments:**

    - `blocks`: a pytree of geometries that is a prefix of the parameters: each geometry acts on
      the subtree of parameters at its place.

    **Raises:**

    - `ValueError`: if a leaf of `blocks` is not a geometry.

    >>> from mirrax.geometry import Euclidean, NegativeEntropy
    >>> geometry = Blockwise({"weight": Euclidean(), "mixture": NegativeEntropy()})
    >>> dual = {"weight": jnp.array([2.0]), "mixture": jnp.zeros(2)}
    >>> jax.tree.map(lambda leaf: leaf.tolist(), geometry.to_primal(dual))
    {'mixture': [0.5, 0.5], 'weight': [2.0]}
    """

    blocks: PyTree[AbstractGeometry]

    def __check_init__(self):
        leaves = jax.tree.leaves(self.blocks, is_leaf=_is_geometry)
        wrong = [leaf for leaf in leaves if not _is_geometry(leaf)]
        if wrong or not leaves:
            found = type(wrong[0]).__name__ if wrong else "an empty tree"
            raise ValueError(f"Blockwise.blocks: expected a pytree of geometries, got {found}.")

    def _map(self, function: Callable[..., Any], *trees: PyTree) -> PyTree:
        return jax.tree.map(function, self.blocks, *trees, is_leaf=_is_geometry)

    def _sum(self, function: Callable[..., Scalar], *trees: PyTree) -> Scalar:
        return jnp.sum(jnp.stack(jax.tree.leaves(self._map(function, *trees))))

    @property
    def is_strongly_convex(self) -> bool:
        """True where every block is."""
        blocks = jax.tree.leaves(self.blocks, is_leaf=_is_geometry)
        return all(block.is_strongly_convex for block in blocks)

    @property
    def is_quadratic(self) -> bool:
        """Whether all blocks' are."""
        return all(
            block.is_quadratic for block in jax.tree.leaves(self.blocks, is_leaf=_is_geometry)
        )

    def to_dual(self, primal: Primal) -> Dual:
        """Block by block."""
        return self._map(lambda block, x: block.to_dual(x), primal)

    def to_primal(self, dual: Dual) -> Primal:
        """Block by block."""
        return self._map(lambda block, z: block.to_primal(z), dual)

    def potential(self, primal: Primal) -> Scalar:
        """`Σ_b ψ_b(x_b)`."""
        return self._sum(lambda block, x: block.potential(x), primal)

    def conjugate(self, dual: Dual) -> Scalar:
        """`Σ_b ψ_b*(z_b)`."""
        return self._sum(lambda block, z: block.conjugate(z), dual)

    def divergence(self, primal: Primal, reference: Primal) -> Scalar:
        """`Σ_b D_b(x_b‖y_b)`."""
        return self._sum(lambda block, x, y: block.divergence(x, y), primal, reference)

    def strong_convexity(self) -> Scalar:
        """The smallest modulus of the blocks."""
        moduli = jax.tree.leaves(self._map(lambda block: block.strong_convexity()))
        return jnp.min(jnp.stack(moduli))

    def jacobian_bounds(self) -> tuple[Scalar, Scalar]:
        """The widest of the blocks'."""
        lower = jax.tree.leaves(self._map(lambda block: block.jacobian_bounds()[0]))
        upper = jax.tree.leaves(self._map(lambda block: block.jacobian_bounds()[1]))
        return jnp.min(jnp.stack(lower)), jnp.max(jnp.stack(upper))

    def norm_squared(self, displacement: Primal) -> Scalar:
        """`Σ_b ‖v_b‖_b²`."""
        return self._sum(lambda block, v: block.norm_squared(v), displacement)

    def dual_norm_squared(self, gradient: Dual) -> Scalar:
        """`Σ_b ‖g_b‖_{b,*}²`."""
        return self._sum(lambda block, g: block.dual_norm_squared(g), gradient)

    def local_dual_norm_squared(self, gradient: Dual, primal: Primal) -> Scalar:
        """The sum over blocks."""
        return self._sum(lambda block, g, x: block.local_dual_norm_squared(g, x), gradient, primal)

    def inverse_hessian(self, primal: Primal, gradient: Dual) -> Primal:
        """Block by block."""
        return self._map(lambda block, x, g: block.inverse_hessian(x, g), primal, gradient)
