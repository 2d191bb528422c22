r"""The maximum of `N` learned diagonal geometries, `ψ(x) = max_j ½ Σ_i m_ji² x_i²`.

The geometry depends on where the parameters are: another component may be the largest. `∇ψ(x)` is
`m_{j*}² x` with `j* = argmax_j`; on ties it is one element of the subdifferential, so a mirror
step must keep the *dual* as its state, and `∇ψ*(p) = p/D(w)` mixes components where several are
active at once. That exact step is what `MirrorDescent` does here. Equations 7–8 of S000 replace
it by `x ← x − η g/m_{j*}²` with `j*` from the old point, which is a mirror step only while `j*`
stays the same (papers.md#s000-step); that printed step is `PreconditionedDescent`, through
`inverse_hessian`.
Source: S000 §4.2, eq. 6–8; spec B2.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._tree import Dual, Primal, Scalar, sums_type, total
from ._base import AbstractGeometry
from ._mixing import MAX_COMPONENTS, mixing_weights, objective


class MaxOfDiagonals(AbstractGeometry):
    r"""The potential `ψ(x) = max_j ½ Σ_i m_ji² x_i²` of `N` diagonal components.

    **Arguments:**

    - `log_diagonals`: `log m`, a pytree like the parameters whose leaves have one leading axis
      of length `N`, the components. `like` builds it from parameters.

    **Raises:**

    - `ValueError`: if the leaves disagree on `N`, or `N` is not between 1 and 8.

    >>> import jax.numpy as jnp
    >>> geometry = MaxOfDiagonals(jnp.log(jnp.array([[1.0, 2.0], [2.0, 1.0]])))
    >>> x = jnp.array([3.0, 1.0])
    >>> int(geometry.active(x)), geometry.to_primal(geometry.to_dual(x)).tolist()
    (1, [3.0, 1.0])
    """

    log_diagonals: PyTree[Float[Array, "components ..."]]

    def __check_init__(self):
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(self.log_diagonals)]
        counts = {shape[0] if shape else 0 for shape in shapes}
        if len(counts) != 1 or not 1 <= min(counts) <= MAX_COMPONENTS:
            raise ValueError(
                "MaxOfDiagonals.log_diagonals: every leaf needs one leading axis of components, "
                f"of one length between 1 and {MAX_COMPONENTS}; got lengths {sorted(counts)}."
            )

    @staticmethod
    def like(
        params: Primal,
        components: int = 3,
        diagonal: float = 1.0,
        *,
        spread: float = 0.05,
        key: PRNGKeyArray,
    ) -> "MaxOfDiagonals":
        """Components `m_j = diagonal·(1 + spread·noise)`.

        Equal components would tie everywhere, and all but one would get no gradient.

        **Arguments:**

        - `params`: parameters, for their structure, shapes and types.
        - `components`: the number `N`; S000 uses 3.
        - `diagonal`: the common value around which the components scatter.
        - `spread`: the relative size of the standard normal noise.
        - `key`: randomness.

        **Raises:**

        - `ValueError`: if `components`, `diagonal` or `spread` is out of range.
        """
        possible = 1 <= components <= MAX_COMPONENTS
        if not (possible and 0 < diagonal < float("inf") and 0 <= spread < 1):
            raise ValueError(
                f"MaxOfDiagonals.like: expected 1 to {MAX_COMPONENTS} components, a finite "
                f"diagonal > 0 and 0 <= spread < 1; got components={components!r}, "
                f"diagonal={diagonal!r}, spread={spread!r}."
            )
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(key, len(leaves))

        def scattered(leaf: Array, leaf_key: PRNGKeyArray) -> Array:
            shape = (components, *jnp.shape(leaf))
            noise = jax.random.normal(leaf_key, shape, jnp.result_type(leaf))
            return jnp.log(diagonal) + jnp.log1p(jnp.maximum(spread * noise, -0.9))

        drawn = [scattered(leaf, k) for leaf, k in zip(leaves, keys, strict=True)]
        return MaxOfDiagonals(jax.tree.unflatten(structure, drawn))

    @property
    def components(self) -> int:
        """The number of components, `N`."""
        return jax.tree.leaves(self.log_diagonals)[0].shape[0]

    @property
    def diagonals(self) -> PyTree[Float[Array, "components ..."]]:
        """The positive numbers `m_ji`."""
        return jax.tree.map(jnp.exp, self.log_diagonals)

    @property
    def curvatures(self) -> PyTree[Float[Array, "components ..."]]:
        """`m_ji²`."""
        return jax.tree.map(lambda r: jnp.exp(2 * r), self.log_diagonals)

    def component_potentials(self, primal: Primal) -> Float[Array, " components"]:
        """`q_j(x) = ½ Σ_i m_ji² x_i²` for every component.

        **Arguments:**

        - `primal`: a point `x`.

        **Returns:**

        An array of shape `(components,)`.
        """
        values = jax.vmap(lambda c: total(lambda ci, x: ci * x**2, c, primal))(self.curvatures)
        return values / 2

    def active(self, primal: Primal) -> Int[Array, ""]:
        """The largest component at a point, `j* = argmax_j q_j(x)` (the first, on ties)."""
        return jnp.argmax(self.component_potentials(primal))

    def _active_curvature(self, primal: Primal) -> PyTree:
        index = self.active(primal)
        return jax.tree.map(lambda c: c[index], self.curvatures)

    def weights(self, dual: Dual) -> Float[Array, " components"]:
        """The mixing weights `w` with `∇ψ*(p) = p/Σ_j w_j m_j²`; positive on active components.

        **Arguments:**

        - `dual`: a dual point `p`.

        **Returns:**

        Weights on the simplex, shape `(components,)`.
        """
        return self._solve(dual)[0]

    def _solve(self, dual: Dual) -> tuple[Array, Array, Array, Callable[[Array], PyTree]]:
        flat, unravel = ravel_pytree(dual)
        rows = jax.vmap(lambda c: ravel_pytree(c)[0])(self.curvatures)
        wide = sums_type(flat)  # in which small systems can be solved
        weights = mixing_weights(rows.astype(wide), flat.astype(wide))
        return weights.astype(flat.dtype), rows, flat, unravel

    def to_dual(self, primal: Primal) -> Dual:
        """`m_{j*}² x`, one element of the subdifferential."""
        return jax.tree.map(jnp.multiply, self._active_curvature(primal), primal)

    def to_primal(self, dual: Dual) -> Primal:
        """`p/D(w)` with the exact mixing weights."""
        weights, rows, flat, unravel = self._solve(dual)
        return unravel(flat / (weights @ rows))

    def potential(self, primal: Primal) -> Scalar:
        """`max_j q_j(x)`."""
        return jnp.max(self.component_potentials(primal))

    def divergence(self, primal: Primal, reference: Primal) -> Scalar:
        """`max_j q_j(x) − q_b(x) + ½ Σ m_b² (x − y)²` with `b` the largest component at `y`.

        Both terms are non-negative, so nothing cancels where the points are close.
        """
        values = self.component_potentials(primal)
        here = total(
            lambda c, x, y: c * (x - y) ** 2, self._active_curvature(reference), primal, reference
        )
        return jnp.max(values) - values[self.active(reference)] + here / 2

    def conjugate(self, dual: Dual) -> Scalar:
        """`min_w ½ Σ p²/D(w)` over the simplex."""
        weights, rows, flat, _ = self._solve(dual)
        return objective(weights, rows, flat)

    def _floor(self) -> PyTree:
        return jax.tree.map(lambda c: jnp.min(c, axis=0), self.curvatures)

    def strong_convexity(self) -> Scalar:
        """`min_{j,i} m_ji²`, in the Euclidean norm."""
        return jnp.min(jnp.stack([jnp.min(leaf) for leaf in jax.tree.leaves(self.curvatures)]))

    def jacobian_bounds(self) -> tuple[Scalar, Scalar]:
        """Zero, where two components tie, and `1/min_{j,i} m_ji²`."""
        modulus = self.strong_convexity()
        return jnp.zeros_like(modulus), 1 / modulus

    def local_dual_norm_squared(self, gradient: Dual, primal: Primal) -> Scalar:
        """`Σ_i g_i²/min_j m_ji²`: every component is at least that curved."""
        del primal
        return total(lambda floor, g: g**2 / floor, self._floor(), gradient)

    def inverse_hessian(self, primal: Primal, gradient: Dual) -> Primal:
        """`g/m_{j*}²` with `j*` at `primal`: the direction of the printed step, S000 eq. 7–8."""
        return jax.tree.map(lambda c, g: g / c, self._active_curvature(primal), gradient)
