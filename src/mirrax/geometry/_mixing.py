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
from jaxtyping import Array, Bool, Float, Int

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
    return (curvatures * ((dual / mixed) ** 2 / mixed)) @ curvatures.T


def _regularised(hessian: Array) -> Array:
    # Equal components make the Hessian singular; a relative shift at the level of rounding keeps
    # the linear systems solvable and moves no digit that is determined.
    shift = 8 * jnp.finfo(hessian.dtype).eps * jnp.trace(hessian) + jnp.finfo(hessian.dtype).tiny
    return hessian + shift * jnp.eye(len(hessian), dtype=hessian.dtype)


def _solve_on_face(hessian: Array, target: Array, face: Bool[Array, " n"]) -> Array:
    """Minimises `½ vᵀHv − ⟨target, v⟩` over `{v : supp v ⊆ face, Σ v = 1}` by its KKT system."""
    count = len(target)
    on = face.astype(hessian.dtype)
    block = hessian * on[:, None] * on[None, :] + jnp.diag(1 - on)
    system = jnp.zeros((count + 1, count + 1), hessian.dtype)
    # The multiplier's column is scaled like the Hessian, which keeps pivots comparable.
    border = on * jnp.trace(hessian)
    system = system.at[:count, :count].set(block)
    system = system.at[:count, count].set(border).at[count, :count].set(border)
    right = jnp.concatenate([target * on, jnp.trace(hessian)[None]])
    return jnp.linalg.solve(system, right)[:count]


@functools.cache
def _faces(count: int) -> np.ndarray:
    return np.array(list(itertools.product([False, True], repeat=count))[1:])


def _model_minimiser(here: "_Point") -> Weights:
    """Minimises the quadratic model of `f` around a point over the whole simplex."""
    hessian = _regularised(here.hessian)
    target = hessian @ here.weights - here.slope
    faces = jnp.asarray(_faces(len(target)))
    points = jax.vmap(lambda face: _solve_on_face(hessian, target, face))(faces)
    points = jnp.where(faces, points, 0)
    feasible = jnp.all(points >= 0, axis=1) & jnp.all(jnp.isfinite(points), axis=1)
    values = jnp.einsum("fi,ij,fj->f", points, hessian, points) / 2 - points @ target
    best = points[jnp.argmin(jnp.where(feasible, values, jnp.inf))]
    return best / jnp.sum(best)


class _Point(NamedTuple):
    """Weights, and all that a Newton step needs to know there."""

    weights: Weights
    slope: Weights
    hessian: Float[Array, "components components"]

    @property
    def value(self) -> Array:
        """`f`, which Euler's identity for homogeneous functions gives for nothing."""
        return -self.weights @ self.slope

    @property
    def gap(self) -> Array:
        """The Frank–Wolfe gap, a bound on `f − min f`."""
        return self.weights @ self.slope - jnp.min(self.slope)


class _Trial(NamedTuple):
    """A step of some length, and whether it is too long."""

    length: Float[Array, ""]
    there: _Point
    rejected: Bool[Array, ""]


class _Search(NamedTuple):
    """Where Newton's method stands, and whether it goes on."""

    here: _Point
    steps: Int[Array, ""]
    unfinished: Bool[Array, ""]


def _point(weights: Weights, curvatures: Curvatures, dual: Point) -> _Point:
    """Everything at `weights` from one sweep over the coordinates, the only costly part."""
    # XLA shares the quotients between the two, so this costs one sweep.
    slope, hessian = _slope(weights, curvatures, dual), _hessian(weights, curvatures, dual)
    return _Point(weights, slope, hessian)


def _best_start(curvatures: Curvatures, dual: Point) -> Weights:
    """The centre of the simplex or the vertex where `f` is smallest.

    Where one component alone is active, the vertex is the answer and its gap says so at once.
    """
    count = len(curvatures)
    centre = jnp.full((1, count), 1 / count, dual.dtype)
    starts = jnp.concatenate([centre, jnp.eye(count, dtype=dual.dtype)])
    mixed = jnp.concatenate([jnp.mean(curvatures, axis=0, keepdims=True), curvatures])
    return starts[jnp.argmin(jnp.sum(dual**2 / mixed, axis=1))]


def _newton_step(search: _Search, curvatures: Curvatures, dual: Point) -> _Search:
    """One step of projected Newton, halved until `f` falls enough."""
    now = search.here
    resolution = _resolution(dual)
    move = _model_minimiser(now) - now.weights
    descent = now.slope @ move

    def attempt(length: Array) -> _Trial:
        weights = now.weights + length * move
        there = _point(jnp.where(weights < 0, 0, weights), curvatures, dual)
        # The slack forgives rounding, so that the last, tiny Newton steps are accepted.
        enough = (1 + resolution) * now.value + 1e-4 * length * descent
        return _Trial(length, there, ~(there.value <= enough) & (length > 1e-9))

    first = attempt(jnp.ones((), dual.dtype))
    last = lax.while_loop(lambda trial: trial.rejected, lambda t: attempt(t.length / 2), first)
    moved = last.length * jnp.max(jnp.abs(move))
    goes_on = (moved > resolution) & (search.steps < _MAX_STEPS - 1)
    return _Search(last.there, search.steps + 1, goes_on & _is_open(last.there, resolution))


def _resolution(dual: Point) -> Array:
    return jnp.asarray(4 * jnp.finfo(dual.dtype).eps, dual.dtype)


def _is_open(here: _Point, resolution: Array) -> Array:
    return here.gap > resolution * here.value


@jax.jit
def _newton(curvatures: Curvatures, dual: Point) -> Weights:
    """Projected Newton with backtracking, until the gap or the move is at rounding level."""
    # The loops' conditions are flags that the bodies computed. Under vmap a condition is evaluated
    # twice, once to go on and once to choose who moves; two comparisons of freshly computed floats
    # may round differently, and then the loop goes on for ever while nobody moves.
    start = _point(_best_start(curvatures, dual), curvatures, dual)
    search = _Search(start, jnp.array(0), _is_open(start, _resolution(dual)))
    search = lax.while_loop(
        lambda search: search.unfinished,
        lambda search: _newton_step(search, curvatures, dual),
        search,
    )
    return search.here.weights


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
    largest = jnp.max(jnp.abs(dual))
    # f is homogeneous in p, so its minimiser is not changed by this scale, but overflow is.
    unit = dual / jnp.where(largest > 0, largest, 1)
    return _newton(curvatures, unit)


def _determined(hessian: Array, active: Bool[Array, " n"]) -> Array:
    """Projects on the directions within the active face along which `f` is curved.

    Along the others, which exist where active components coincide, the weights are not determined
    and `p/D(w)` does not move; the projection leaves them alone.
    """
    on = active.astype(hessian.dtype)
    within = jnp.diag(on) - jnp.outer(on, on) / jnp.sum(on)
    values, vectors = jnp.linalg.eigh(within @ hessian @ within)
    rounding = 64 * jnp.finfo(hessian.dtype).eps * jnp.trace(hessian)
    curved = (values > rounding).astype(hessian.dtype)
    return (vectors * curved) @ vectors.T


@mixing_weights.defjvp
def _mixing_weights_jvp(primals, tangents):
    """Differentiates optimality on the active face: `Q H Q dw = −Q d(∇f)`, `dw = Q dw`.

    `Q` projects on the moves that keep the sum and the inactive weights. The rule is written in
    the differentiable `mixing_weights` itself, so it can be differentiated again; transposing it
    gives reverse mode.
    """
    weights = mixing_weights(*primals)
    largest = jnp.max(jnp.abs(primals[1]))
    scale = lax.stop_gradient(jnp.where(largest > 0, largest, 1))

    def slope_at_weights(curvatures: Array, dual: Array) -> Array:
        return _slope(weights, curvatures, dual / scale)

    _, change = jax.jvp(slope_at_weights, primals, tangents)
    hessian = _hessian(weights, primals[0], primals[1] / scale)
    allowed = _determined(lax.stop_gradient(hessian), lax.stop_gradient(weights) > 0)
    trace = lax.stop_gradient(jnp.trace(hessian))
    rest = jnp.where(trace > 0, trace, 1) * (jnp.eye(len(weights), dtype=trace.dtype) - allowed)
    system = allowed @ hessian @ allowed + rest
    return weights, allowed @ jnp.linalg.solve(system, -allowed @ change)
