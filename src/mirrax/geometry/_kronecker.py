r"""A learned Kronecker-factored geometry, `ψ(W) = ½ tr(Wᵀ A W B)` for every weight matrix.

The factors `A = L_A L_Aᵀ` and `B = L_B L_Bᵀ` are kept as log-Cholesky parameters, so every value of
them is a geometry, and a step `W ← W − η A⁻¹ G B⁻¹` is four triangular solves, `O(m² n + m n²)` for
an `m × n` matrix. Arrays of more axes are matrices with the last axis as columns: a convolution of
shape `(kh, kw, in, out)` has `kh·kw·in` rows. Vectors and scalars keep one positive number an
entry. `(c A, B/c)` is the same geometry for every `c > 0`; `fixed_gauge` chooses `tr B = n`.
Source: S001, which publishes no more than the factorisation; spec B5.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import linalg
from jaxtyping import Array, Float, PyTree

from .._tree import Dual, Primal, Scalar, check_floating, sums_type, total
from ._base import AbstractGeometry

Square: TypeAlias = Float[Array, "*batch size size"]
Matrix: TypeAlias = Float[Array, "*batch rows columns"]


def cholesky_of(parameters: Square) -> Square:
    """The lower triangular `L` of log-Cholesky parameters, which keep its diagonal as logarithms.

    >>> cholesky_of(jnp.array([[0.0, 7.0], [3.0, 0.0]])).tolist()
    [[1.0, 0.0], [3.0, 1.0]]
    """
    diagonal = jnp.exp(jnp.diagonal(parameters, axis1=-2, axis2=-1))
    size = parameters.shape[-1]
    return jnp.tril(parameters, -1) + diagonal[..., None] * jnp.eye(size, dtype=parameters.dtype)


def log_cholesky_of(lower: Square) -> Square:
    """The inverse of `cholesky_of`; not a number where the diagonal is not positive.

    >>> log_cholesky_of(jnp.array([[1.0, 0.0], [3.0, 1.0]])).tolist()
    [[0.0, 0.0], [3.0, 0.0]]
    """
    diagonal = jnp.log(jnp.diagonal(lower, axis1=-2, axis2=-1))
    return jnp.tril(lower, -1) + diagonal[..., None] * jnp.eye(lower.shape[-1], dtype=lower.dtype)


def log_cholesky(matrix: Square) -> Square:
    """The parameters of `L` with `L Lᵀ = matrix`; not a number where that is not definite.

    >>> log_cholesky(jnp.eye(2)).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    return log_cholesky_of(jnp.linalg.cholesky(matrix))


class Factors(eqx.Module):
    """The two factors of one weight matrix, as log-Cholesky parameters.

    **Arguments:**

    - `rows`: of `A`, shape `(m, m)`; entries above the diagonal mean nothing.
    - `columns`: of `B`, shape `(n, n)`.
    - `shape`: of the weights, `m·n` numbers, of which the last axis has length `n`.
    """

    rows: Float[Array, "rows rows"]
    columns: Float[Array, "columns columns"]
    shape: tuple[int, ...] = eqx.field(static=True, converter=tuple)

    @property
    def matrices(self) -> tuple[Square, Square]:
        """`A` and `B`."""
        rows, columns = cholesky_of(self.rows), cholesky_of(self.columns)
        return rows @ rows.T, columns @ columns.T


def is_factors(node: Any) -> bool:
    """Whether a node of a tree of factors belongs to one array of parameters."""
    return isinstance(node, Factors)


def as_matrix(leaf: Array) -> Matrix:
    """Weights as a matrix, the last axis as columns."""
    return leaf.reshape(-1, leaf.shape[-1])


class Kronecker(AbstractGeometry):
    r"""The potential `½ Σ tr(Wᵀ A W B)` over weight matrices, plus `½ Σ m_i² x_i²` over the rest.

    **Arguments:**

    - `factors`: a pytree like the parameters, whose leaves are `Factors` for arrays of at least two
      axes, and `log m` for the others. `like` builds it from parameters.

    **Raises:**

    - `ValueError`: if factors are not square or do not fit the shape of their weights.

    >>> import jax.numpy as jnp
    >>> geometry = Kronecker.like({"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)}, diagonal=2.0)
    >>> geometry.to_primal({"w": jnp.full((2, 3), 4.0), "b": jnp.full(3, 4.0)})["b"].tolist()
    [1.0, 1.0, 1.0]
    """

    factors: PyTree[Any]

    def __check_init__(self):
        for node in jax.tree.leaves(self.factors, is_leaf=is_factors):
            if not is_factors(node) or not eqx.is_array_like(node.rows):
                continue
            rows, columns = jnp.shape(node.rows), jnp.shape(node.columns)
            wide = node.shape[-1] if len(node.shape) > 1 else 0
            high = math.prod(node.shape[:-1])
            if rows[-2:] != (high, high) or columns[-2:] != (wide, wide):
                raise ValueError(
                    f"Kronecker.factors: weights of shape {node.shape} need factors of shapes "
                    f"{(high, high)} and {(wide, wide)}, got {rows} and {columns}."
                )

    @staticmethod
    def like(params: Primal, diagonal: float = 1.0) -> "Kronecker":
        """A multiple of the identity, `A = m² I` and `B = I`, and `m` for every other parameter.

        **Arguments:**

        - `params`: parameters, for their structure, shapes and types.
        - `diagonal`: the common value `m`, positive. Mirror descent starts as gradient descent
          with rate `η/m²`.

        **Raises:**

        - `ValueError`: if `diagonal` is not a positive finite number, or a parameter is no
          floating-point number.
        """
        check_floating("Kronecker.like", params, "equinox.partition")
        if not 0 < diagonal < float("inf"):
            raise ValueError(
                f"Kronecker.diagonal: expected a positive finite number, got {diagonal!r}."
            )

        def start(leaf: Array) -> Any:
            if jnp.ndim(leaf) < 2:
                return jnp.full_like(leaf, jnp.log(diagonal))
            high, wide = as_matrix(leaf).shape
            rows = jnp.log(diagonal) * jnp.eye(high, dtype=leaf.dtype)
            return Factors(rows, jnp.zeros((wide, wide), leaf.dtype), leaf.shape)

        return Kronecker(jax.tree.map(start, params))

    def to_dual(self, primal: Primal) -> Dual:
        """`A W B`, and `m² x`."""
        return self._apply(_times, lambda r, x: jnp.exp(2 * r) * x, primal)

    def to_primal(self, dual: Dual) -> Primal:
        """`A⁻¹ Z B⁻¹`, and `z/m²`."""
        return self._apply(_solved, lambda r, z: jnp.exp(-2 * r) * z, dual)

    def potential(self, primal: Primal) -> Scalar:
        """`½ Σ ‖L_Aᵀ W L_B‖² + ½ Σ m² x²`."""
        return total(jnp.square, self._apply(_half_times, lambda r, x: jnp.exp(r) * x, primal)) / 2

    def conjugate(self, dual: Dual) -> Scalar:
        """`½ Σ ‖L_A⁻¹ Z L_B⁻ᵀ‖² + ½ Σ z²/m²`."""
        return self.local_dual_norm_squared(dual, dual) / 2

    def divergence(self, primal: Primal, reference: Primal) -> Scalar:
        """`ψ(x − y)`."""
        return self.potential(jax.tree.map(jnp.subtract, primal, reference))

    @property
    def is_quadratic(self) -> bool:
        """True."""
        return True

    def strong_convexity(self) -> Scalar:
        """The least of `λ_min(A) λ_min(B)` and of `m²`, in the Euclidean norm."""
        return self._extremes()[0]

    def jacobian_bounds(self) -> tuple[Scalar, Scalar]:
        """The extreme eigenvalues of `B⁻¹ ⊗ A⁻¹`, and of `1/m²`."""
        least, largest = self._extremes()
        return 1 / largest, 1 / least

    def local_dual_norm_squared(self, gradient: Dual, primal: Primal) -> Scalar:
        """`Σ tr(Gᵀ A⁻¹ G B⁻¹) + Σ g²/m²`, the dual of the geometry's own norm."""
        del primal
        return total(jnp.square, self._apply(_half_solved, lambda r, g: jnp.exp(-r) * g, gradient))

    def inverse_hessian(self, primal: Primal, gradient: Dual) -> Primal:
        """`A⁻¹ G B⁻¹`, and `g/m²`."""
        del primal
        return self.to_primal(gradient)

    @property
    def rates(self) -> PyTree[Float[Array, "..."]]:
        """The diagonal of `B⁻¹ ⊗ A⁻¹`, and `1/m²`: what a gradient of one entry does to it."""

        def rate(node: Any) -> Array:
            if not is_factors(node):
                return jnp.exp(-2 * node)
            rows, columns = (
                _inverse_diagonal(cholesky_of(raw)) for raw in (node.rows, node.columns)
            )
            return (rows[:, None] * columns).reshape(node.shape)

        return jax.tree.map(rate, self.factors, is_leaf=is_factors)

    @property
    def spectrum(self) -> PyTree[Float[Array, " size"]]:
        """The eigenvalues of `B⁻¹ ⊗ A⁻¹`, and `1/m²`, in no order.

        Singular values of a Cholesky factor are more exact than eigenvalues of the matrix.
        """

        def eigenvalues(node: Any) -> Array:
            if not is_factors(node):
                return jnp.exp(-2 * jnp.ravel(node))
            rows, columns = (
                singular_values(cholesky_of(raw)) ** -2.0 for raw in (node.rows, node.columns)
            )
            return jnp.outer(rows, columns).ravel()

        return jax.tree.map(eigenvalues, self.factors, is_leaf=is_factors)

    def fixed_gauge(self) -> "Kronecker":
        """The same geometry with `tr B = n` for every matrix."""

        def fix(node: Any) -> Any:
            if not is_factors(node):
                return node
            rows, columns = cholesky_of(node.rows), cholesky_of(node.columns)
            scale = jnp.sqrt(jnp.sum(columns**2) / len(columns))
            rows, columns = log_cholesky_of(rows * scale), log_cholesky_of(columns / scale)
            return Factors(rows, columns, node.shape)

        return Kronecker(jax.tree.map(fix, self.factors, is_leaf=is_factors))

    def _extremes(self) -> tuple[Scalar, Scalar]:
        """The least and the largest eigenvalue of the Hessian."""

        def ends(node: Any) -> tuple[Array, Array]:
            if not is_factors(node):
                return jnp.exp(2 * jnp.min(node)), jnp.exp(2 * jnp.max(node))
            lowers = (cholesky_of(node.rows), cholesky_of(node.columns))
            # Of `L` itself: the condition of `L Lᵀ` is the square of its own.
            rows, columns = (singular_values(lower) ** 2 for lower in lowers)
            return rows[-1] * columns[-1], rows[0] * columns[0]

        found = [ends(node) for node in jax.tree.leaves(self.factors, is_leaf=is_factors)]
        least, largest = zip(*found, strict=True)
        return jnp.min(jnp.stack(least)), jnp.max(jnp.stack(largest))

    def _apply(
        self,
        matrixwise: Callable[[Square, Square, Matrix], Matrix],
        entrywise: Callable[[Array, Array], Array],
        tree: PyTree,
    ) -> PyTree:
        """A function of the factors and a matrix, or of `log m` and an array, leaf by leaf.

        Matrices of one shape are treated together, as one operation on a stack.
        """
        nodes, structure = jax.tree.flatten(self.factors, is_leaf=is_factors)
        leaves = structure.flatten_up_to(tree)
        found: list[Any] = [None] * len(leaves)
        alike: dict[tuple[int, ...], list[int]] = {}
        for i, (node, leaf) in enumerate(zip(nodes, leaves, strict=True)):
            if is_factors(node):
                alike.setdefault(as_matrix(leaf).shape, []).append(i)
            else:
                found[i] = entrywise(node, leaf)
        for numbers in alike.values():
            rows = cholesky_of(_stack([nodes[i].rows for i in numbers]))
            columns = cholesky_of(_stack([nodes[i].columns for i in numbers]))
            made = matrixwise(rows, columns, _stack([as_matrix(leaves[i]) for i in numbers]))
            for place, i in enumerate(numbers):
                found[i] = (made if len(numbers) == 1 else made[place]).reshape(leaves[i].shape)
        return jax.tree.unflatten(structure, found)


def _inverse_diagonal(lower: Square) -> Float[Array, " size"]:
    """The diagonal of `(L Lᵀ)⁻¹`."""
    eye = jnp.eye(lower.shape[-1], dtype=lower.dtype)
    inverse = linalg.triangular_solve(lower, eye, left_side=True, lower=True)
    return jnp.sum(inverse**2, axis=0)


def _stack(matrices: list[Array]) -> Array:
    return matrices[0] if len(matrices) == 1 else jnp.stack(matrices)


def singular_values(matrix: Matrix) -> Float[Array, " size"]:
    """Singular values, found in single precision at least: bfloat16 has no decompositions."""
    wide = matrix.astype(sums_type(matrix))
    return jnp.linalg.svd(wide, compute_uv=False).astype(matrix.dtype)


def _half_times(rows: Square, columns: Square, weights: Matrix) -> Matrix:
    """`L_Aᵀ W L_B`."""
    return rows.mT @ weights @ columns


def _times(rows: Square, columns: Square, weights: Matrix) -> Matrix:
    """`A W B`."""
    return rows @ _half_times(rows, columns, weights) @ columns.mT


def _half_solved(rows: Square, columns: Square, dual: Matrix) -> Matrix:
    """`L_A⁻¹ Z L_B⁻ᵀ`."""
    solve = functools.partial(linalg.triangular_solve, lower=True)
    left = solve(rows, dual, left_side=True)
    return solve(columns, left, left_side=False, transpose_a=True)


def _solved(rows: Square, columns: Square, dual: Matrix) -> Matrix:
    """`A⁻¹ Z B⁻¹`."""
    solve = functools.partial(linalg.triangular_solve, lower=True)
    left = solve(rows, _half_solved(rows, columns, dual), left_side=True, transpose_a=True)
    return solve(columns, left, left_side=False)
