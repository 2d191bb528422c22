r"""Hypergradients of quadratic problems in quadratic geometries, without a loop or an adjoint.

The loss is `s q(x)`, `q(x) = ½ xᵀHx − bᵀx + const`, and judged is `s r(x)` of the same form. A step
`x ← x − η P ∇(s q)(x)` with a constant matrix `P(φ)`, of the identity step at `φ = 0`, has
`x_T − c = Aᵀ(x_0 − c)` to the power `T`, with `A = I − η s P H` and `H c = b`, so

    ∂x_T/∂φ_i = Σ_k A^{T−1−k} (−η s ∂_iP H) A^k (x_0 − c),    ∂x_T/∂x_0 = A^T.

The proximal problem is `(s H + M/(2η)) θ* = s b + M θ_1/(2η)` with `M = P⁻¹`.
Source: spec B4, B5; both are differentiated by hand.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ..geometry import AbstractGeometry, AbstractPreconditioner
from ._gradient_cases import RATE, GradientCase


class _Linear(NamedTuple):
    """`H` and `b` of `s q`, `P` and its derivatives along the first axis, the start, and `s`."""

    matrix: np.ndarray
    slope: np.ndarray
    inverse: np.ndarray
    slopes: np.ndarray
    start: np.ndarray
    scale: float


def has_closed_form(geometry: object) -> bool:
    """Whether steps are linear: a quadratic potential, or a preconditioner, which is constant."""
    if isinstance(geometry, AbstractGeometry):
        return geometry.is_quadratic
    return isinstance(geometry, AbstractPreconditioner)


def closed_form(case: GradientCase, *, solved: bool) -> np.ndarray:
    """The derivative with respect to the numbers of geometry, start and `s`, in this order.

    **Arguments:**

    - `case`: of `make_case`, `quadratic`, in a geometry that `has_closed_form`.
    - `solved`: the proximal problem instead of the run.
    """
    start = np.asarray(ravel_pytree(case.prior.start)[0])
    scale = float(case.prior.shared["scale"])
    inverse, slopes = _step_matrix(case)
    matrix, slope = _quadratic(case, case.problem.batches.data)  # type: ignore[attr-defined]
    given = _Linear(scale * matrix, scale * slope, inverse, slopes, start, scale)
    if solved:
        rate = float(case.inner.rate)  # type: ignore[attr-defined]
        last, ends = _solution(rate, given)
    else:
        last, ends = _run(case.steps, given)
    judged, tilt = _quadratic(case, case.problem.query)
    found = ends @ (scale * (judged @ last - tilt))
    found[-1] += _value(case, last)
    return found


def _step_matrix(case: GradientCase) -> tuple[np.ndarray, np.ndarray]:
    """`P`, and its derivatives with respect to the geometry's numbers, along the first axis."""
    numbers, restore = ravel_pytree(case.prior.geometry)
    flat, unflatten = ravel_pytree(case.prior.start)

    def matrix(numbers: jax.Array) -> jax.Array:
        geometry = restore(numbers)
        step = geometry.to_primal if isinstance(geometry, AbstractGeometry) else geometry.apply
        return jax.vmap(lambda row: ravel_pytree(step(unflatten(row)))[0], out_axes=1)(
            jnp.eye(len(flat))
        )

    slopes = jax.jacfwd(matrix)(numbers)
    return np.asarray(matrix(numbers)), np.moveaxis(np.asarray(slopes), 2, 0)


def _quadratic(case: GradientCase, rows: object) -> tuple[np.ndarray, np.ndarray]:
    """`H` and `b` of `q`."""
    flat, unflatten = ravel_pytree(case.prior.start)

    def loss(x: jax.Array) -> jax.Array:
        return case.problem.loss(unflatten(x), {"scale": 1.0}, rows)

    nothing = jnp.zeros_like(flat)
    return np.asarray(jax.hessian(loss)(nothing)), -np.asarray(jax.grad(loss)(nothing))


def _value(case: GradientCase, last: np.ndarray) -> float:
    """`r` at the end."""
    unflatten = ravel_pytree(case.prior.start)[1]
    return float(
        case.problem.loss(unflatten(jnp.asarray(last)), {"scale": 1.0}, case.problem.query)
    )


def _run(steps: int, given: _Linear) -> tuple[np.ndarray, np.ndarray]:
    """`x_T` and its derivatives, one a row."""
    matrix, slope, inverse, slopes, start, scale = given
    centre = np.linalg.solve(matrix, slope)
    whole = np.eye(len(start)) - RATE * inverse @ matrix
    powers = [np.linalg.matrix_power(whole, k) for k in range(steps + 1)]
    # What changes with `s` is `P H s`, by one `s`-th of itself.
    changes = [*(-RATE * slope_i @ matrix for slope_i in slopes), -RATE * inverse @ matrix / scale]
    away = start - centre
    moved = [
        sum(powers[steps - 1 - k] @ change @ powers[k] @ away for k in range(steps))
        for change in changes
    ]
    return centre + powers[-1] @ away, np.stack([*moved[:-1], *powers[-1].T, moved[-1]])


def _solution(rate: float, given: _Linear) -> tuple[np.ndarray, np.ndarray]:
    """`θ*` and its derivatives, one a row."""
    matrix, slope, inverse, slopes, start, scale = given
    near = 1 / (2 * rate)
    metric = np.linalg.inv(inverse)
    system = matrix + near * metric
    last = np.linalg.solve(system, slope + near * metric @ start)
    forces = [near * metric @ slope_i @ metric @ (last - start) for slope_i in slopes]
    forces += [*(near * metric.T), (slope - matrix @ last) / scale]
    return last, np.linalg.solve(system, np.stack(forces).T).T
