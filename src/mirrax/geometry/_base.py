r"""What a mirror map is, and what a potential adds to it.

A mirror map carries points of parameter space to a dual space and back. A geometry is a mirror map
that comes from a convex potential: `to_dual = ∇ψ` and `to_primal = ∇ψ*`, with the Bregman
divergence `D(x‖y) = ψ(x) − ψ(y) − ⟨∇ψ(y), x − y⟩`. Not every mirror map has a potential (a map has
one only if its Jacobian is symmetric), so the two are different types: what needs a divergence
asks for an `AbstractGeometry`. A preconditioner is less than either: a linear map of gradients.
"""

import abc

import equinox as eqx
import jax.numpy as jnp
import optax.tree as vector
from jaxtyping import PRNGKeyArray

from .._tree import Dual, Primal, Scalar, dot


class AbstractPreconditioner(eqx.Module):
    """A linear map `P` from gradients to directions, for steps `x⁺ = x − η P g`.

    `P` may be indefinite and depends on no point: it need not be the inverse Hessian of anything,
    so a run that uses it is in general no mirror descent.
    """

    @abc.abstractmethod
    def apply(self, gradient: Dual) -> Primal:
        """The direction `P g`.

        **Arguments:**

        - `gradient`: a dual vector `g`.

        **Returns:**

        A direction in parameter space, linear in `g`, a pytree of the same structure.
        """


class AbstractRandomPreconditioner(eqx.Module):
    """A preconditioner that is drawn anew for every task, and kept while the task is learned."""

    @abc.abstractmethod
    def draw(self, *, key: PRNGKeyArray) -> AbstractPreconditioner:
        """The preconditioner of one task.

        **Arguments:**

        - `key`: randomness of the task.
        """


class AbstractMirrorMap(eqx.Module):
    """A pair of maps between parameter space and a dual space, `to_primal ∘ to_dual = id`."""

    @abc.abstractmethod
    def to_dual(self, primal: Primal) -> Dual:
        """Maps a point to the dual space.

        **Arguments:**

        - `primal`: a point of parameter space.

        **Returns:**

        Its dual, a pytree of the same structure. Where the potential has a kink, one element of
        the subdifferential.
        """

    @abc.abstractmethod
    def to_primal(self, dual: Dual) -> Primal:
        """Maps a dual point back to parameter space.

        **Arguments:**

        - `dual`: a point of the dual space.

        **Returns:**

        The point of parameter space, a pytree of the same structure.
        """


class AbstractGeometry(AbstractMirrorMap):
    """A mirror map with a convex potential, hence with a Bregman divergence."""

    @abc.abstractmethod
    def potential(self, primal: Primal) -> Scalar:
        """The convex potential `ψ(x)`.

        **Arguments:**

        - `primal`: a point `x` of parameter space.

        **Returns:**

        A scalar.
        """

    @abc.abstractmethod
    def conjugate(self, dual: Dual) -> Scalar:
        """The convex conjugate `ψ*(z) = sup_x ⟨z, x⟩ − ψ(x)`.

        **Arguments:**

        - `dual`: a point `z` of the dual space.

        **Returns:**

        A scalar.
        """

    def divergence(self, primal: Primal, reference: Primal) -> Scalar:
        """The Bregman divergence `D(x‖y) = ψ(x) − ψ(y) − ⟨∇ψ(y), x − y⟩`.

        **Arguments:**

        - `primal`: the point `x`.
        - `reference`: the point `y`, from which the divergence is measured.

        **Returns:**

        A non-negative scalar, zero where `x = y`.
        """
        slope = self.to_dual(reference)
        gap = self.potential(primal) - self.potential(reference)
        return gap - dot(slope, vector.sub(primal, reference))

    @property
    def is_strongly_convex(self) -> bool:
        """Whether `strong_convexity` is positive; regret bounds need it."""
        return True

    @property
    def is_quadratic(self) -> bool:
        """Whether `∇ψ` is linear, so that a mirror step is `x − η [∇²ψ]⁻¹ g` wherever it starts."""
        return False

    @abc.abstractmethod
    def strong_convexity(self) -> Scalar:
        """The modulus `λ` with `D(x‖y) ≥ (λ/2)‖x − y‖²` in the geometry's `norm`.

        **Returns:**

        A scalar; zero for a geometry whose `is_strongly_convex` is false.
        """

    def jacobian_bounds(self) -> tuple[Scalar, Scalar]:
        """Bounds of the eigenvalues of the Jacobian of `∇ψ*` everywhere; 0 and ∞ if unknown.

        **Returns:**

        A lower and an upper bound, scalars.
        """
        return jnp.zeros(()), jnp.asarray(jnp.inf)

    def norm_squared(self, displacement: Primal) -> Scalar:
        """The squared norm `‖v‖²` that `strong_convexity` refers to: Euclid's, if none is given.

        **Arguments:**

        - `displacement`: a difference `v` of two points.

        **Returns:**

        A non-negative scalar.
        """
        return dot(displacement, displacement)

    def dual_norm_squared(self, gradient: Dual) -> Scalar:
        """The square of the dual norm, `‖g‖_* = sup {⟨g, v⟩ : ‖v‖ ≤ 1}`.

        **Arguments:**

        - `gradient`: a dual vector `g`.

        **Returns:**

        A non-negative scalar.
        """
        return dot(gradient, gradient)

    def local_dual_norm_squared(self, gradient: Dual, primal: Primal) -> Scalar:
        """What one mirror step with rate `η` can lose, `D(x‖x⁺) ≤ (η²/2) ‖g‖²_{x,*}`.

        The sum of these over a run, instead of `‖g‖_*²/λ`, gives the tight regret bound: it keeps
        the geometry's own norm where strong convexity keeps only its worst direction.

        **Arguments:**

        - `gradient`: the gradient `g` at `primal`.
        - `primal`: the point `x` at which the step starts.

        **Returns:**

        A non-negative scalar, at most `‖g‖_*²/λ` but for a geometry that says otherwise.

        **Raises:**

        - `ValueError`: if the geometry is not strongly convex; then no such bound exists.
        """
        del primal
        if not self.is_strongly_convex:
            raise ValueError(
                f"{type(self).__name__}.local_dual_norm_squared: {self!r} is not strongly convex, "
                "so nothing bounds its steps; choose another geometry, exponent or domain."
            )
        return self.dual_norm_squared(gradient) / self.strong_convexity()

    def inverse_hessian(self, primal: Primal, gradient: Dual) -> Primal:
        """Applies `[∇²ψ(x)]⁻¹` to a gradient, for the geometries that offer it in closed form.

        **Arguments:**

        - `primal`: the point `x`.
        - `gradient`: a dual vector `g`.

        **Returns:**

        A direction in parameter space.

        **Raises:**

        - `ValueError`: if the geometry has no closed form.
        """
        del primal, gradient
        raise ValueError(
            f"{type(self).__name__}.inverse_hessian: this geometry has no closed-form inverse "
            "Hessian; use MirrorDescent, which needs none."
        )
