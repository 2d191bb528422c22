r"""A geometry in learned coordinates: `ψ(x) = φ(K⁻ᵀ x)`, `ψ*(z) = φ*(K z)`.

So `∇ψ*(z) = Kᵀ ∇φ*(K z)` and `∇ψ(x) = K⁻¹ ∇φ(K⁻ᵀ x)`, divergences are those of `φ` between
transformed points, and a modulus of `φ` in a norm is one of `ψ` in `‖v‖ = ‖K⁻ᵀ v‖_φ`. `K` acts on
every matrix or convolution through one triangular factor for each mode, `L_o ⊗ L_i ⊗ L_f`, with a
positive diagonal: it always has an inverse, and `KᵀK` can be every positive definite Kronecker
product. With `φ` Euclid's potential a step is `x − α KᵀK g`, on matrices and convolutions that of
MetaCurvature with a preconditioner that cannot become indefinite.
Sources: spec A5 and B5 (log-diagonal Cholesky factors).
"""

import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, PyTree

from .._tree import Dual, Primal, Scalar
from .._views import Axes, as_axes, view_shape
from ._base import AbstractGeometry
from ._kronecker import cholesky_of, singular_values
from ._modes import axes_of, by_name, check_names, mode_product, unviewed, viewed


class Transformed(AbstractGeometry):
    r"""The potential `φ(K⁻ᵀ x)` of a geometry `φ`, with `K` Kronecker-factored and triangular.

    **Arguments:**

    - `geometry`: the geometry `φ`.
    - `raw_factors`: for each array by name one square matrix a mode of its view, none for vectors.
        `L` has its entries below the diagonal and the exponentials of those on it; entries above
        mean nothing. Zeros are the identity.
    - `axes`: the names of the arrays with their roles.

    **Raises:**

    - `ValueError`: if `geometry` is not a geometry, or `raw_factors` are not square or have other
        names than `axes`.

    >>> from mirrax.geometry import Euclidean
    >>> params = {"dense_0": {"weight": jnp.array([[1.0, 2.0]])}}
    >>> roles = {"dense_0": {"weight": ("in", "out")}}
    >>> like = Transformed.like(Euclidean(), params, roles)
    >>> raw = {"dense_0/weight": (jnp.array([[0.0, 0.0], [3.0, 0.0]]), jnp.zeros((1, 1)))}
    >>> geometry = Transformed(Euclidean(), raw, like.axes)
    >>> geometry.to_primal(params)["dense_0"]["weight"].tolist()  # L (1, 2) = (1, 5), Lᵀ (1, 5)
    [[16.0, 5.0]]
    """

    geometry: AbstractGeometry
    raw_factors: dict[str, tuple[Float[Array, "size size"], ...]]
    axes: Axes = eqx.field(static=True, converter=as_axes)

    def __check_init__(self):
        if not isinstance(self.geometry, AbstractGeometry):
            raise ValueError(
                f"Transformed.geometry: expected a geometry, got {type(self.geometry).__name__}."
            )
        check_names(self.raw_factors, self.axes, "Transformed.raw_factors")
        for name, factors in self.raw_factors.items():
            shapes = [jnp.shape(factor) for factor in factors]
            if any(len(shape) != 2 or shape[0] != shape[1] for shape in shapes):
                raise ValueError(
                    f"Transformed.raw_factors: expected square matrices for {name!r}, got {shapes}."
                )

    @classmethod
    def like(
        cls, geometry: AbstractGeometry, template: PyTree, roles: Mapping[str, Any]
    ) -> "Transformed":
        """The geometry itself, `K = I`.

        **Arguments:**

        - `geometry`: `φ`.
        - `template`: parameters, or `jax.ShapeDtypeStruct`s of them.
        - `roles`: as `Model.roles`.

        **Raises:**

        - `ValueError`: if roles and parameters do not fit.
        """
        axes = axes_of(template, roles, cls.__name__)
        named, factors = by_name(template), {}
        for name, axis_roles in axes:
            sizes = view_shape(named[name].shape, axis_roles)
            dtype = named[name].dtype
            square = tuple(jnp.zeros((size, size), dtype) for size in sizes)
            factors[name] = square if len(sizes) > 1 else ()
        return cls(geometry, factors, axes)

    @property
    def factors(self) -> dict[str, tuple[Float[Array, "size size"], ...]]:
        """`L`, lower triangular, for each array by name and each mode of its view."""
        return jax.tree.map(cholesky_of, self.raw_factors)

    @property
    def idle(self) -> int:
        """How many stored numbers mean nothing: those above the diagonals."""
        return sum(len(raw) * (len(raw) - 1) // 2 for raw in jax.tree.leaves(self.raw_factors))

    def _applied(self, factors: dict[str, tuple[Array, ...]], tree: PyTree) -> PyTree:
        views = viewed(tree, self.axes, "Transformed")
        for name, array in views.items():
            sizes = tuple(len(factor) for factor in factors[name])
            if sizes and sizes != array.shape:
                raise ValueError(
                    f"Transformed: expected modes of sizes {sizes} for {name!r}, got "
                    f"{array.shape}; it was made for other parameters."
                )
        products = {name: mode_product(array, factors[name]) for name, array in views.items()}
        return unviewed(products, self.axes, tree)

    def _forward(self, tree: PyTree) -> PyTree:
        """`K v`."""
        return self._applied(self.factors, tree)

    def _transposed(self, tree: PyTree) -> PyTree:
        """`Kᵀ v`."""
        return self._applied(jax.tree.map(jnp.transpose, self.factors), tree)

    def _inverses(self) -> dict[str, tuple[Array, ...]]:
        def inverse(factor: Array) -> Array:
            return solve_triangular(factor, jnp.eye(len(factor), dtype=factor.dtype), lower=True)

        return jax.tree.map(inverse, self.factors)

    def _back(self, tree: PyTree) -> PyTree:
        """`K⁻¹ v`."""
        return self._applied(self._inverses(), tree)

    def _coordinates(self, primal: Primal) -> Primal:
        """`K⁻ᵀ x`, where `φ` measures."""
        return self._applied(jax.tree.map(jnp.transpose, self._inverses()), primal)

    def diagonal(self, rates: PyTree) -> PyTree:
        """The diagonal of `Kᵀ diag(c) K`.

        **Arguments:**

        - `rates`: `c`, one number a parameter.
        """
        squares = jax.tree.map(lambda factor: (factor**2).T, self.factors)
        return self._applied(squares, rates)

    def jacobian_bounds(self) -> tuple[Scalar, Scalar]:
        """Those of `∇φ*` times the smallest and the largest eigenvalue of `KᵀK`."""
        lower, upper = self.geometry.jacobian_bounds()
        lowest, highest = self._stretch()
        return lower * lowest, upper * highest

    def _stretch(self) -> tuple[Scalar, Scalar]:
        """The smallest and the largest eigenvalue of `KᵀK`."""
        lowest, highest = [], []
        for factors in self.factors.values():
            values = [singular_values(factor) ** 2 for factor in factors]
            lowest.append(jnp.asarray(math.prod(v[-1] for v in values), float))
            highest.append(jnp.asarray(math.prod(v[0] for v in values), float))
        return jnp.min(jnp.stack(lowest)), jnp.max(jnp.stack(highest))

    @property
    def is_strongly_convex(self) -> bool:
        """As the geometry's."""
        return self.geometry.is_strongly_convex

    @property
    def is_quadratic(self) -> bool:
        """As the geometry's."""
        return self.geometry.is_quadratic

    def to_dual(self, primal: Primal) -> Dual:
        """`K⁻¹ ∇φ(K⁻ᵀ x)`."""
        return self._back(self.geometry.to_dual(self._coordinates(primal)))

    def to_primal(self, dual: Dual) -> Primal:
        """`Kᵀ ∇φ*(K z)`."""
        return self._transposed(self.geometry.to_primal(self._forward(dual)))

    def potential(self, primal: Primal) -> Scalar:
        """`φ(K⁻ᵀ x)`."""
        return self.geometry.potential(self._coordinates(primal))

    def conjugate(self, dual: Dual) -> Scalar:
        """`φ*(K z)`."""
        return self.geometry.conjugate(self._forward(dual))

    def divergence(self, primal: Primal, reference: Primal) -> Scalar:
        """`D_φ(K⁻ᵀ x‖K⁻ᵀ y)`."""
        return self.geometry.divergence(self._coordinates(primal), self._coordinates(reference))

    def strong_convexity(self) -> Scalar:
        """The geometry's, in the transformed norm."""
        return self.geometry.strong_convexity()

    def norm_squared(self, displacement: Primal) -> Scalar:
        """`‖K⁻ᵀ v‖²` in the geometry's norm."""
        return self.geometry.norm_squared(self._coordinates(displacement))

    def dual_norm_squared(self, gradient: Dual) -> Scalar:
        """`‖K g‖_*²` in the geometry's dual norm."""
        return self.geometry.dual_norm_squared(self._forward(gradient))

    def local_dual_norm_squared(self, gradient: Dual, primal: Primal) -> Scalar:
        """The geometry's of `K g` at `K⁻ᵀ x`."""
        there = self._coordinates(primal)
        return self.geometry.local_dual_norm_squared(self._forward(gradient), there)

    def inverse_hessian(self, primal: Primal, gradient: Dual) -> Primal:
        """`Kᵀ ∇²φ*(∇φ(K⁻ᵀ x)) K g`."""
        there = self._coordinates(primal)
        return self._transposed(self.geometry.inverse_hessian(there, self._forward(gradient)))
