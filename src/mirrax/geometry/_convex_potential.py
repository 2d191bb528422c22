r"""A learned convex potential that mixes all parameters, given by its conjugate.

    ψ*(z) = ½ Σ_i c_i z_i² + Σ_r a_r softplus(u_rᵀ E z + b_r),    c_i > 0,  a_r ≥ 0,

with `E` *linear*: one mode product for each array, all results joined. So
`∇ψ*(z) = c ⊙ z + Eᵀ Uᵀ (a ⊙ σ(U E z + b))`, whose Jacobian
`diag(c) + (U E)ᵀ diag(a σ') U E` is symmetric and lies between `min c` and
`max c + ¼ λ_max((U E)ᵀ diag(a) U E)`: `ψ` is a strongly convex, smooth potential by construction,
which blockIAF is not (papers.md#s004-theorem-1), and `∇ψ*` costs `O(d)`. `ψ` and `∇ψ` need the
solution of `r` equations (see `_dual_system`). Source: derived in spec A8 ("A8-valid") in place of
S004 §4.1.
"""

import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._tree import Dual, Primal, Scalar, dot, sums_type, total
from .._views import Axes, as_axes, view_shape
from ._base import AbstractGeometry
from ._constraints import AbstractConstrained
from ._draws import Draw, drawn
from ._dual_system import balance
from ._modes import axes_of, by_name, check_names, mode_product, rebuilt, unview, view
from ._softplus import softplus_gap

Named = dict[str, Array]
Units = Float[Array, " units"]


class ConvexPotential(AbstractGeometry, AbstractConstrained):
    r"""The potential with `ψ*(z) = ½ Σ c z² + Σ_r a_r softplus(u_rᵀ E z + b_r)`.

    The amplitudes must not be negative. They are stored as they are, are zero at the start and are
    kept in range by projection: `project` after every outer step. A square or an exponential in
    their place would have derivative zero at zero or not reach it. What is evaluated is
    `max(a, 0)`, so the potential is convex whatever a leaf holds, with the derivative from the
    right at zero, where the gradient is therefore alive; below zero it is not, which is why an
    outer loop has to project.

    **Arguments:**

    - `raw_rates`: for each array by name numbers with `c = smallest_rate + softplus(raw)`.
    - `encoders`: for each array by name the factors `E_d` of its view's modes.
    - `directions`: `U`, one row a unit, over the joined results of the encoders.
    - `amplitudes`: `a`, one a unit.
    - `offsets`: `b`, one a unit.
    - `axes`: the names of the arrays with their roles, in the order in which they are joined.
    - `smallest_rate`: a positive lower bound of `c`, hence of the Jacobian of `∇ψ*`.

    **Raises:**

    - `ValueError`: if `smallest_rate` is not positive and finite.

    >>> template = {"dense_0": {"weight": jnp.ones((4, 3))}}
    >>> roles = {"dense_0": {"weight": ("in", "out")}}
    >>> geometry = ConvexPotential.like(template, roles, key=jax.random.key(0))
    >>> bool(jnp.allclose(geometry.to_primal(template)["dense_0"]["weight"], 1.0))
    True
    """

    raw_rates: Named
    encoders: dict[str, tuple[Float[Array, "modes size"], ...]]
    directions: Float[Array, "units embedding"]
    amplitudes: Units
    offsets: Units
    axes: Axes = eqx.field(static=True, converter=as_axes)
    smallest_rate: float = eqx.field(static=True, default=0.1)

    def __check_init__(self):
        if not 0 < self.smallest_rate < math.inf:
            raise ValueError(
                "ConvexPotential.smallest_rate: expected a positive finite number, got "
                f"{self.smallest_rate!r}."
            )

    @classmethod
    def like(
        cls,
        template: PyTree,
        roles: Mapping[str, Any],
        *,
        units: int = 32,
        reduction: int = 8,
        smallest_rate: float = 0.1,
        key: PRNGKeyArray,
    ) -> "ConvexPotential":
        """The identity, `c = 1` and `a = 0`, with random directions.

        Rows of `E` and of `U` have a length of about one, so that a unit of amplitude one changes
        rates by at most about a quarter.

        **Arguments:**

        - `template`: parameters, or `jax.ShapeDtypeStruct`s of them.
        - `roles`: as `Model.roles`.
        - `units`: the number of ridge functions, `r`.
        - `reduction`: encoders divide the size of each mode by this, down to one at least.
        - `smallest_rate`: the lower bound of `c`, between 0 and 1.
        - `key`: randomness.

        **Raises:**

        - `ValueError`: if roles do not fit the parameters or a number is out of range.
        """
        if units < 1 or reduction < 1 or not 0 < smallest_rate < 1:
            raise ValueError(
                "ConvexPotential.like: expected units and reduction of at least 1 and "
                f"0 < smallest_rate < 1; got units={units!r}, reduction={reduction!r}, "
                f"smallest_rate={smallest_rate!r}."
            )
        axes = axes_of(template, roles, cls.__name__)
        leaves = by_name(template)
        one = math.log(math.expm1(1 - smallest_rate))
        shapes = {name: view_shape(leaves[name].shape, axis_roles) for name, axis_roles in axes}
        sizes = {
            name: tuple(max(size // reduction, 1) for size in shape)
            for name, shape in shapes.items()
        }
        width = sum(map(math.prod, sizes.values()))
        wanted = (
            {name: Draw(leaves[name].shape, centre=one) for name in shapes},
            {
                name: tuple(
                    Draw((small, size), math.sqrt(3 / size))
                    for small, size in zip(sizes[name], shape, strict=True)
                )
                for name, shape in shapes.items()
            },
            Draw((units, width), math.sqrt(3 / width)),
            Draw((units,)),
            Draw((units,)),
        )
        dtype = jnp.result_type(*(leaf.dtype for leaf in leaves.values()))
        arrays = drawn(wanted, dtype, key=key)
        return cls(*arrays, axes=axes, smallest_rate=smallest_rate)

    @property
    def rates(self) -> Named:
        """`c`, by name."""
        return {
            name: self.smallest_rate + jax.nn.softplus(raw) for name, raw in self.raw_rates.items()
        }

    @property
    def weights(self) -> Units:
        """`max(a, 0)`, with the derivative one at zero."""
        return jnp.where(self.amplitudes >= 0, self.amplitudes, 0)

    def project(self) -> "ConvexPotential":
        """The nearest geometry with amplitudes that are not negative."""
        return eqx.tree_at(lambda g: g.amplitudes, self, jnp.maximum(self.amplitudes, 0))

    # --- the conjugate, in closed form ---

    def _named(self, tree: PyTree) -> Named:
        named = by_name(tree)
        check_names(named, self.axes, "ConvexPotential")
        return named

    def _ridges(self, named: Named) -> Units:
        """`U E z`, without offsets."""
        parts = [
            jnp.ravel(mode_product(view(named[name], roles), self.encoders[name]))
            for name, roles in self.axes
        ]
        return self.directions @ jnp.concatenate(parts)

    def _spread(self, weights: Units) -> Named:
        """`Eᵀ Uᵀ y`, the transpose of `_ridges`."""
        joined, named, start = weights @ self.directions, {}, 0
        for name, roles in self.axes:
            shape = tuple(factor.shape[0] for factor in self.encoders[name])
            end = start + math.prod(shape)
            back = [factor.T for factor in self.encoders[name]]
            whole = mode_product(joined[start:end].reshape(shape), back)
            named[name] = unview(whole, roles, self.raw_rates[name].shape)
            start = end
        return named

    def _arguments(self, named: Named) -> Units:
        return self._ridges(named) + self.offsets

    def to_primal(self, dual: Dual) -> Primal:
        """`c ⊙ z + Eᵀ Uᵀ (a ⊙ σ(U E z + b))`."""
        z = self._named(dual)
        spread = self._spread(self.weights * jax.nn.sigmoid(self._arguments(z)))
        rates = self.rates
        return rebuilt({name: rates[name] * z[name] + spread[name] for name in z}, dual)

    def conjugate(self, dual: Dual) -> Scalar:
        """`½ Σ c z² + Σ_r a_r softplus(u_rᵀ E z + b_r)`."""
        z = self._named(dual)
        return self._quadratic(z) + self.weights @ jax.nn.softplus(self._arguments(z))

    def _quadratic(self, z: Named) -> Scalar:
        return total(lambda c, zi: c * zi**2, self.rates, z) / 2

    # --- the potential, through the dual system ---

    def to_dual(self, primal: Primal) -> Dual:
        """`c⁻¹ ⊙ (x − Eᵀ Uᵀ y)`, where `y = a ⊙ σ(q − K y)`."""
        x, rates = self._named(primal), self.rates
        rows = jax.vmap(self._spread)(jnp.eye(len(self.offsets), dtype=self.offsets.dtype))
        scaled = {name: rows[name] / rates[name] for name in x}
        gram = jax.vmap(self._ridges, out_axes=1)(scaled)
        offset = self._arguments({name: x[name] / rates[name] for name in x})
        wide = sums_type(gram)  # in which small systems can be solved
        system = (self.weights, (gram + gram.T) / 2, offset)
        solution = balance(*(part.astype(wide) for part in system))
        spread = self._spread(solution.astype(gram.dtype))
        return rebuilt({name: (x[name] - spread[name]) / rates[name] for name in x}, primal)

    def potential(self, primal: Primal) -> Scalar:
        """`⟨z, x⟩ − ψ*(z)` at `z = ∇ψ(x)`."""
        dual = self.to_dual(primal)
        return dot(dual, primal) - self.conjugate(dual)

    def divergence(self, primal: Primal, reference: Primal) -> Scalar:
        """`D_ψ*(∇ψ(y)‖∇ψ(x))`, the quadratic and each unit apart.

        All terms are non-negative, so nothing large cancels where the points are close; nor does
        it within them, see `softplus_gap`.
        """
        here, there = self._named(self.to_dual(primal)), self._named(self.to_dual(reference))
        away = {name: there[name] - here[name] for name in here}
        start, step = self._arguments(here), self._ridges(away)
        return self._quadratic(away) + self.weights @ softplus_gap(start, step)

    def inverse_hessian(self, primal: Primal, gradient: Dual) -> Primal:
        """`c ⊙ g + Eᵀ Uᵀ (a σ' ⊙ U E g)`, the Jacobian of `∇ψ*` at `∇ψ(x)`."""
        share = jax.nn.sigmoid(self._arguments(self._named(self.to_dual(primal))))
        return self._curved(self.weights * share * (1 - share), gradient)

    def _curved(self, curvature: Units, gradient: Dual) -> Primal:
        g, rates = self._named(gradient), self.rates
        spread = self._spread(curvature * self._ridges(g))
        return rebuilt({name: rates[name] * g[name] + spread[name] for name in g}, gradient)

    # --- bounds ---

    def jacobian_bounds(self) -> tuple[Scalar, Scalar]:
        """Bounds of the eigenvalues of the Jacobian of `∇ψ*`, at every point.

        **Returns:**

        `min c` and `max c + λ_max`, where `λ_max` is the largest eigenvalue of
        `(U E)ᵀ diag(a/4) U E`, found as that of a matrix with one row a unit and rounded outwards.
        """
        lowest = jnp.stack([jnp.min(c) for c in self.rates.values()])
        highest = jnp.stack([jnp.max(c) for c in self.rates.values()])
        eps = jnp.finfo(self.directions.dtype).eps
        # The smallest number added keeps the root differentiable at zero, and errs upwards.
        root = jnp.sqrt(self.weights / 4 + eps**2)
        product = root[:, None] * self._direction_products() * root
        curved = jnp.linalg.eigvalsh(product.astype(sums_type(product)))[-1].astype(product.dtype)
        rounding = 1 + 4 * eps * sum(self.directions.shape)
        return jnp.min(lowest), (jnp.max(highest) + curved) * rounding

    def _direction_products(self) -> Float[Array, "units units"]:
        """`U E Eᵀ Uᵀ`, where `E Eᵀ` is a mode product again."""
        parts, start = [], 0
        for name, _ in self.axes:
            shape = tuple(factor.shape[0] for factor in self.encoders[name])
            end = start + math.prod(shape)
            block = self.directions[:, start:end].reshape(-1, *shape)
            squares = [factor @ factor.T for factor in self.encoders[name]]
            parts.append(mode_product(block, (None, *squares)).reshape(len(block), -1))
            start = end
        products = self.directions @ jnp.concatenate(parts, axis=1).T
        return (products + products.T) / 2

    def strong_convexity(self) -> Scalar:
        """One over the upper bound of the Jacobian of `∇ψ*`, in the Euclidean norm."""
        return 1 / self.jacobian_bounds()[1]

    def local_dual_norm_squared(self, gradient: Dual, primal: Primal) -> Scalar:
        """`Σ c g² + ¼ Σ_r a_r (u_rᵀ E g)²`: no unit is ever more curved than a quarter."""
        del primal
        return dot(gradient, self._curved(self.weights / 4, gradient))
