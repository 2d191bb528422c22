r"""The mixing weights that invert the mirror map of a maximum of diagonal quadratics.

For `ψ(x) = max_j ½ Σ_i C_ji x_i²` with `C_ji = m_ji² > 0`, minimax duality gives
`ψ*(p) = min_w f(w)` over the simplex, where `f(w) = ½ Σ_i p_i²/D_i(w)` and `D(w) = Σ_j w_j C_j`,
and `∇ψ*(p) = p/D(w)` at the minimiser. With `x = p/D(w)`, `∂f/∂w_j = −½ Σ_i C_ji x_i²`.
`f` is convex and has few variables, so projected Newton solves it: each step minimises the
quadratic model over the simplex *exactly*, by looking at every face. The Frank–Wolfe gap
`⟨∇f, w⟩ − min_j ∂f/∂w_j = max_j q_j(x) − Σ w_j q_j(x)` certifies the result. Source: spec B2.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

MAX_COMPONENTS = 8
"""Faces of the simplex grow as `2^N`; past this the search over them would dominate."""

_MAX_STEPS = 60

Curvatures = Float[Array, "components dim"]
Weights = Float[Array, " components"]
Point = Float[Array, " dim"]


def objective(weights: Weights, curvatures: Curvatures, dual: Point) -> Float[Array, ""]:
    """`f(w) = ½ Σ p²/D(w)`, whose minimum over the simplex is the conjugate `ψ*(p)`."""
    return jnp.sum(dual**2 / (weights @ curvatures)) / 2


def _slope(weights: Weights, curvatures: Curvatures, dual: Point) -> Weights:
    return -curvatures @ (dual / (weights @ curvatures)) ** 2 / 2


def _hessian(
    weights: Weights, curvatures: Curvatures, dual: Point
) -> Float[Array, "components components"]:
    mixed = weights @ curvatures
    scaled = curvatures * (dual / mixed)
    hessian = (scaled / mixed) @ scaled.T
    # Equal components make the Hessian singular; a relative shift at the level of rounding keeps
    # the linear systems solvable and moves no digit that is determined.
    shift = 8 * jnp.finfo(hessian.dtype).eps * jnp.trace(hessian) + jnp.finfo(hessian.dtype).tiny
    return hessian + shift * jnp.eye(len(weights), dtype=hessian.dtype)


def _solve_on_face(hessian: Array, target: Array, face: Bool[Array, " n"], mass: Array) -> Array:
    """Minimises `½ vᵀHv − ⟨target, v⟩` over `{v : supp v ⊆ face, Σ v = mass}` by its KKT system."""
    count = len(target)
    on = face.astype(hessian.dtype)
    block = hessian * on[:, None] * on[None, :] + jnp.diag(1 - on)
    system = jnp.zeros((count + 1, count + 1), hessian.dtype)
    # The multiplier's column is scaled like the Hessian, which keeps pivots comparable.
    border = on * jnp.trace(hessian)
    system = system.at[:count, :count].set(block)
    system = system.at[:count, count].set(border).at[count, :count].set(border)
    right = jnp.concatenate([target * on, (mass * jnp.trace(hessian))[None]])
    return jnp.linalg.solve(system, right)[:count]


@functools.cache
def _faces(count: int) -> np.ndarray:
    return np.array(list(itertools.product([False, True], repeat=count))[1:])


def _model_minimiser(hessian: Array, slope: Array, weights: Weights) -> Weights:
    """Minimises the quadratic model of `f` around `weights` over the whole simplex."""
    target = hessian @ weights - slope
    one = jnp.ones((), weights.dtype)
    faces = jnp.asarray(_faces(len(weights)))
    points = jax.vmap(lambda face: _solve_on_face(hessian, target, face, one))(faces)
    points = jnp.where(faces, points, 0)
    feasible = jnp.all(points >= 0, axis=1) & jnp.all(jnp.isfinite(points), axis=1)
    values = jnp.einsum("fi,ij,fj->f", points, hessian, points) / 2 - points @ target
    best = points[jnp.argmin(jnp.where(feasible, values, jnp.inf))]
    return best / jnp.sum(best)


class _Search(NamedTuple):
    weights: Weights
    gap: Float[Array, ""]
    moved: Float[Array, ""]
    steps: Array


def _newton(weights: Weights, curvatures: Curvatures, dual: Point) -> Weights:
    """Projected Newton with backtracking, until the gap or the move is at rounding level."""
    resolution = jnp.finfo(dual.dtype).eps

    def unfinished(search: _Search) -> Array:
        value = objective(search.weights, curvatures, dual)
        open_gap = search.gap > 4 * resolution * value
        return open_gap & (search.moved > 4 * resolution) & (search.steps < _MAX_STEPS)

    def step(search: _Search) -> _Search:
        now = search.weights
        slope = _slope(now, curvatures, dual)
        move = _model_minimiser(_hessian(now, curvatures, dual), slope, now) - now
        value, descent = objective(now, curvatures, dual), slope @ move

        def too_long(length: Array) -> Array:
            reached = objective(now + length * move, curvatures, dual)
            # The slack forgives rounding, so that the last, tiny Newton steps are accepted.
            enough = value + 1e-4 * length * descent + 4 * resolution * value
            return ~(reached <= enough) & (length > 1e-9)

        length = lax.while_loop(too_long, lambda t: t / 2, jnp.ones((), dual.dtype))
        weights = now + length * move
        weights = jnp.where(weights < 0, 0, weights)
        after = _slope(weights, curvatures, dual)
        return _Search(
            weights,
            after @ weights - jnp.min(after),
            length * jnp.max(jnp.abs(move)),
            search.steps + 1,
        )

    slope = _slope(weights, curvatures, dual)
    gap = slope @ weights - jnp.min(slope)
    infinity = jnp.asarray(jnp.inf, dual.dtype)
    return lax.while_loop(unfinished, step, _Search(weights, gap, infinity, jnp.array(0))).weights


@jax.custom_jvp
def mixing_weights(curvatures: Curvatures, dual: Point) -> Weights:
    """The minimiser of `f` over the simplex, differentiable to any order.

    **Arguments:**

    - `curvatures`: `C`, positive, one row a component.
    - `dual`: the dual point `p`.

    **Returns:**

    Weights `w ≥ 0` with sum 1. They are not unique where components coincide or `p = 0`; the
    point `p/D(w)` is.
    """
    count = len(curvatures)
    largest = jnp.max(jnp.abs(dual))
    # f is homogeneous in p, so its minimiser is not changed by this scale, but overflow is.
    unit = dual / jnp.where(largest > 0, largest, 1)
    return _newton(jnp.full(count, 1 / count, dual.dtype), curvatures, unit)


@mixing_weights.defjvp
def _mixing_weights_jvp(primals, tangents):
    """Differentiates the KKT system on the active face: `H_AA dw + 1 dν = −d(∇f)`, `Σ dw = 0`.

    The rule is written in the differentiable `mixing_weights` itself, so it can be differentiated
    again; transposing it gives reverse mode.
    """
    weights = mixing_weights(*primals)
    largest = jnp.max(jnp.abs(primals[1]))
    scale = lax.stop_gradient(jnp.where(largest > 0, largest, 1))

    def slope_at_weights(curvatures: Array, dual: Array) -> Array:
        return _slope(weights, curvatures, dual / scale)

    _, change = jax.jvp(slope_at_weights, primals, tangents)
    hessian = _hessian(weights, primals[0], primals[1] / scale)
    active = lax.stop_gradient(weights) > 0
    rate = _solve_on_face(hessian, -change, active, jnp.zeros((), weights.dtype))
    return weights, jnp.where(active, rate, 0)
