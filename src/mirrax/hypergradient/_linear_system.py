r"""Solving `A v = b` by products with `A` alone: conjugate gradients, Neumann's series, GMRES.

- `cg` needs `A` symmetric and positive definite, `gmres` only invertible; both come from lineax.
- `neumann` is the series `A⁻¹ = c Σ_j (I − cA)^j`, summed as `v ← v + c (b − A v)`. It converges
  where the spectral radius of `I − cA` is below one, and `k` terms of it are the error
  propagation through `k` steps of gradient descent at the solution (Lorraine et al. 2020).

With a preconditioner `P`, the system is `P A v = P b`. Source: spec B5, case 3.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import lineax as lx
import optax.tree as vector
from jax import lax
from jaxtyping import Array, Int

from .._tree import Dual, Primal, Scalar

Solver = Literal["cg", "neumann", "gmres"]
"""A method for the adjoint system."""

_RESTART = 20
"""The Krylov dimension after which GMRES starts again."""


class LinearSystem(NamedTuple):
    """`A v = b`, and a preconditioner `P`, near `A⁻¹` or the identity."""

    product: Callable[[Primal], Dual]
    right: Dual
    precondition: Callable[[Dual], Primal]


class Effort(NamedTuple):
    """When to stop: at `‖b − A v‖ ≤ tolerance ‖b‖`, or after so many products, whichever is first.

    Without a tolerance, after exactly so many.
    """

    tolerance: float | None
    steps: int


def relative_residual(system: LinearSystem, point: Primal) -> Scalar:
    """`‖b − A v‖/‖b‖`; zero for `b = 0`, which `v = 0` solves."""
    miss = vector.norm(vector.sub(system.right, system.product(point)))
    size = vector.norm(system.right)
    return jnp.where(size > 0, miss / jnp.where(size > 0, size, 1), miss)


def neumann(
    system: LinearSystem, guess: Primal, effort: Effort, rate: Scalar
) -> tuple[Primal, Int[Array, ""]]:
    """Sums `v ← v + c P (b − A v)`.

    **Arguments:**

    - `system`: what is solved.
    - `guess`: where the sum starts; zero for the series itself.
    - `effort`: when to stop.
    - `rate`: `c`.

    **Returns:**

    `v`, and the number of terms.
    """
    enough = (effort.tolerance or 0) * vector.norm(system.right)

    def goes_on(carry) -> Array:
        _, miss, count = carry
        unsolved = jnp.asarray(True) if effort.tolerance is None else vector.norm(miss) > enough
        return unsolved & (count < effort.steps)

    def add_term(carry):
        point, miss, count = carry
        point = vector.add(point, vector.scale(rate, system.precondition(miss)))
        return point, vector.sub(system.right, system.product(point)), count + 1

    begin = (guess, vector.sub(system.right, system.product(guess)), jnp.zeros((), int))
    point, _, count = lax.while_loop(goes_on, add_term, begin)
    return point, count


def krylov(
    system: LinearSystem, guess: Primal, effort: Effort, solver: Literal["cg", "gmres"]
) -> tuple[Primal, Int[Array, ""]]:
    """Conjugate gradients or GMRES.

    **Arguments:**

    - `system`: what is solved; for conjugate gradients it must be definite, which is not checked.
    - `guess`: where to start.
    - `effort`: when to stop. GMRES counts in multiples of 20 products.
    - `solver`: which.

    **Returns:**

    `v`, and the number of iterations that the solver reports.
    """
    # The right-hand side is made one long, so that tolerances are relative.
    size = vector.norm(system.right)
    size = jnp.where(size > 0, size, 1)
    unit = vector.scale(1 / size, system.right)
    guess = vector.scale(1 / size, guess)
    method = _conjugate_gradients if solver == "cg" else _gmres
    found, count = method(system, unit, guess, effort)
    return vector.scale(size, found), count


def _half(effort: Effort) -> float:
    """Half the tolerance: lineax adds a relative one to the absolute one."""
    return (effort.tolerance or 0.0) / 2


def _conjugate_gradients(
    system: LinearSystem, right: Dual, guess: Primal, effort: Effort
) -> tuple[Primal, Int[Array, ""]]:
    shape, tag = jax.eval_shape(lambda: right), lx.positive_semidefinite_tag
    preconditioner = lx.FunctionLinearOperator(system.precondition, shape, tag)
    found = lx.linear_solve(
        lx.FunctionLinearOperator(system.product, shape, tag),
        right,
        lx.CG(_half(effort), _half(effort), norm=vector.norm, max_steps=effort.steps),
        options={"y0": guess, "preconditioner": preconditioner},
        throw=False,
    )
    return found.value, jnp.asarray(found.stats["num_steps"])


def _gmres(
    system: LinearSystem, right: Dual, guess: Primal, effort: Effort
) -> tuple[Primal, Int[Array, ""]]:
    """`A P u = b − A v_0` and `v = v_0 + P u`: preconditioned so, the residual is the true one."""

    def product(shifted: Dual) -> Dual:
        return system.product(system.precondition(shifted))

    # lineax's first cycle makes no products.
    cycles = -(-effort.steps // _RESTART) + 1
    found = lx.linear_solve(
        lx.FunctionLinearOperator(product, jax.eval_shape(lambda: right)),
        vector.sub(right, system.product(guess)),
        lx.GMRES(
            _half(effort), _half(effort), norm=vector.norm, max_steps=cycles, restart=_RESTART
        ),
        throw=False,
    )
    return vector.add(guess, system.precondition(found.value)), jnp.asarray(
        found.stats["num_steps"]
    )
