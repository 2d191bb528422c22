r"""Solving `A v = b` by products with `A` alone: conjugate gradients, Neumann's series, GMRES.

- `cg` needs `A` symmetric and positive definite. It is written here because lineax's (0.1) takes
  directions of curvature below `200 n` roundings for singular ones and answers NaN: in float32 and
  with 100,000 numbers, all below 2.4.
- `gmres` needs `A` only invertible; it comes from lineax.
- `neumann` is the series `A⁻¹ = c Σ_j (I − cA)^j`, summed as `v ← v + c (b − A v)`. It converges
  where the spectral radius of `I − cA` is below one, and `k` terms of it are the error
  propagation through `k` steps of gradient descent at the solution (Lorraine et al. 2020).

With a preconditioner `P` the first two solve `P A v = P b`, and GMRES `A P u = b`. Source: spec B5,
case 3.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import lineax as lx
import optax.tree as vector
from jax import lax
from jaxtyping import Array, Bool, Int

from .._tree import Dual, Primal, Scalar, dot

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

    Without a tolerance, after so many. GMRES completes its cycle of 20.
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


class Solved(NamedTuple):
    """What conjugate gradients found.

    **Arguments:**

    - `point`: `v`.
    - `count`: the number of steps.
    - `concave`: whether a direction `p` with `⟨p, A p⟩ ≤ 0` ended them: `A` is not positive
      definite, and there is no minimum to step to.
    """

    point: Primal
    count: Int[Array, ""]
    concave: Bool[Array, ""]


def conjugate_gradients(system: LinearSystem, guess: Primal, effort: Effort) -> Solved:
    """Conjugate gradients, preconditioned.

    Their residual is a recurrence: the true one stays above some roundings times the condition
    number. To begin again at the end lowers it by no more than a half.

    **Arguments:**

    - `system`: what is solved; `A` and `P` must be symmetric and `P` positive definite.
    - `guess`: where to start.
    - `effort`: when to stop.

    **Returns:**

    `v`, the number of steps, and whether a direction without positive curvature ended them.
    """
    size = vector.norm(system.right)
    # Below its rounding a residual says nothing, of curvature neither.
    enough = max(effort.tolerance or 0, float(jnp.finfo(size.dtype).eps)) * size

    def goes_on(carry) -> Array:
        _, miss, _, height, count, concave = carry
        return (vector.norm(miss) > enough) & (height > 0) & (count < effort.steps) & ~concave

    def step(carry):
        point, miss, way, height, count, _ = carry
        ahead = system.product(way)
        bend = dot(way, ahead)
        length = jnp.where(bend > 0, height / jnp.where(bend > 0, bend, 1), 0)
        point = vector.add(point, vector.scale(length, way))
        miss = vector.sub(miss, vector.scale(length, ahead))
        image = system.precondition(miss)
        next_height = dot(miss, image)
        way = vector.add(image, vector.scale(next_height / height, way))
        return point, miss, way, next_height, count + jnp.where(bend > 0, 1, 0), ~(bend > 0)

    miss = vector.sub(system.right, system.product(guess))
    way = system.precondition(miss)
    nothing, unseen = jnp.zeros((), int), jnp.zeros((), bool)
    begin = (guess, miss, way, dot(miss, way), nothing, unseen)
    point, _, _, _, count, concave = lax.while_loop(goes_on, step, begin)
    return Solved(point, count, concave)


def gmres(system: LinearSystem, guess: Primal, effort: Effort) -> tuple[Primal, Int[Array, ""]]:
    """GMRES, started again every 20 products.

    `A P u = b − A v_0` and `v = v_0 + P u`: preconditioned so, the residual is the true one.

    **Arguments:**

    - `system`: what is solved; `A` and `P` must be invertible.
    - `guess`: where to start.
    - `effort`: when to stop, looked at after every cycle.

    **Returns:**

    `v`, and the number of steps in the cycles begun: at least as many as were made, since a cycle
    ends early where the solution is exact, and another begins to confirm it.
    """
    # What is missing is made one long, so that tolerances are relative to the right-hand side.
    size = vector.norm(system.right)
    share = 1 / jnp.where(size > 0, size, 1)
    miss = vector.scale(share, vector.sub(system.right, system.product(guess)))
    shape = jax.eval_shape(lambda: miss)
    restart = min(_RESTART, sum(leaf.size for leaf in jax.tree.leaves(shape)))

    def product(shifted: Dual) -> Dual:
        return system.product(system.precondition(shifted))

    # lineax adds a relative tolerance to the absolute one, and its first cycle makes no products.
    half, cycles = (effort.tolerance or 0.0) / 2, -(-effort.steps // restart) + 1
    found = lx.linear_solve(
        lx.FunctionLinearOperator(product, shape),
        miss,
        lx.GMRES(half, half, norm=vector.norm, max_steps=cycles, restart=restart),
        throw=False,
    )
    step = vector.scale(1 / share, system.precondition(found.value))
    made = restart * (jnp.asarray(found.stats["num_steps"]) - 1)
    return vector.add(guess, step), made
