r"""What the regret theorem needs to know of a run, gathered as it goes.

The proof keeps the dual `z_{t+1} = z_t − η g_t` and pairs it with the points of the run. With
`D_z(u‖x) = ψ(u) − ψ(x) − ⟨z, u − x⟩`, every run whatsoever satisfies the identity

    η Σ_t ⟨g_t, x_t − u⟩ = D_{z_1}(u‖x_1) + Σ_t D_{z_{t+1}}(x_t‖x_{t+1}) − D_{z_{T+1}}(u‖x_{T+1}),

and the last term may be dropped if it is a Bregman divergence, which it is where
`x_{t+1} = ∇ψ*(z_{t+1})`: where the step is a mirror step. Both sides are measured here, and so is
the distance of the run from that condition. Source: S000 Theorem 3.1; Beck and Teboulle 2003.
"""

from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as vector
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from .._tree import Dual, Primal, Scalar, dot, total
from ..geometry import AbstractGeometry
from ..inner import (
    AbstractInner,
    DualDescent,
    MirrorDescent,
    PreconditionedDescent,
    Prior,
    Problem,
    Step,
    Trajectory,
    fold,
)

Comparator = Literal["solution", "last"]
"""The comparator of a run: `problem.solution`, or the run's own last point."""


_ROUNDINGS = 16.0
"""How many roundings of a point, or ways to the dual and back, a step may be off by."""


class RegretMeasurements(eqx.Module):
    """Sums over one run of `T` steps against one comparator `u`.

    **Arguments:**

    - `rate`: the step size `η`.
    - `regret`: `Σ_t ℓ_t(x_t) − ℓ_t(u)`.
    - `linearised_regret`: `Σ_t ⟨g_t, x_t − u⟩`.
    - `start_divergence`, `end_divergence`: `D(u‖x_1)` and `D(u‖x_{T+1})`.
    - `step_divergences`: `Σ_t D(x_t‖x_{t+1})`.
    - `local_norms`: `Σ_t ‖g_t‖²_{x_t,*}`.
    - `squared_norms`: `Σ_t ‖g_t‖_*²`.
    - `largest_norm`: `max_t ‖g_t‖_*`.
    - `strong_convexity`: the modulus `λ` of the potential.
    - `not_convex`: at how many steps `ℓ_t(u) < ℓ_t(x_t) + ⟨g_t, u − x_t⟩`, beyond rounding.
    - `worst_gap`: the smallest `ℓ_t(u) − ℓ_t(x_t) − ⟨g_t, u − x_t⟩`.
    - `mirror_residual`: the largest `‖x_t − ∇ψ*(z_t)‖` beyond rounding, as a share of how far `x_t`
      or `∇ψ*(z_t)` is from `x_1` (at the start, of `‖x_1‖`); zero for mirror steps.
    - `outside`: `‖u − ∇ψ*(∇ψ(u))‖/‖u‖`, zero for a comparator within the potential's domain.
    - `finite`: whether everything stayed finite.
    """

    rate: Scalar
    regret: Scalar
    linearised_regret: Scalar
    start_divergence: Scalar
    end_divergence: Scalar
    step_divergences: Scalar
    local_norms: Scalar
    squared_norms: Scalar
    largest_norm: Scalar
    strong_convexity: Scalar
    not_convex: Int[Array, ""]
    worst_gap: Scalar
    mirror_residual: Scalar
    outside: Scalar
    finite: Bool[Array, ""]


class _Running(eqx.Module):
    """Where the proof stands.

    **Arguments:**

    - `dual`: `z_t`.
    - `previous`, `first`: `x_{t−1}` and `x_1`.
    - `first_gap`: `‖x_1 − ∇ψ*(z_1)‖`: what the way to the dual and back loses.
    - `reach`: `max_t ‖x_t‖`.
    - `count`: the number of steps so far.
    - `sums`: the sums so far.
    """

    dual: Dual
    previous: Primal
    first: Primal
    first_gap: Scalar
    reach: Scalar
    count: Int[Array, ""]
    sums: RegretMeasurements


def paired_divergence(
    geometry: AbstractGeometry, primal: Primal, reference: Primal, dual: Dual
) -> Scalar:
    """`D_z(x‖y)` with the subgradient `z` at `y` that the run keeps, where `∇ψ(y)` is a set."""
    # Written as a correction of the geometry's own divergence, which cancels less in rounding.
    difference = vector.sub(primal, reference)
    excess = vector.sub(geometry.to_dual(reference), dual)
    correction = total(lambda e, d: jnp.where(d == 0, 0, e * d), excess, difference)
    return geometry.divergence(primal, reference) + correction


def _off_mirror(geometry: AbstractGeometry, primal: Primal, dual: Dual) -> Scalar:
    """`‖x − ∇ψ*(z)‖/‖x‖`."""
    gap = vector.sub(primal, geometry.to_primal(dual))
    tiny = jnp.finfo(jnp.result_type(*jax.tree.leaves(primal))).tiny
    return jnp.sqrt(dot(gap, gap) / jnp.maximum(dot(primal, primal), tiny))


def _residual(geometry: AbstractGeometry, run: _Running, x: Primal) -> Scalar:
    """`‖x_t − ∇ψ*(z_t)‖` beyond rounding, as a share of how far either is from `x_1`."""
    image = geometry.to_primal(run.dual)
    away = [vector.norm(vector.sub(point, run.first)) for point in (x, image)]
    gap, moved = vector.norm(vector.sub(x, image)), jnp.maximum(*away)
    info = jnp.finfo(gap.dtype)
    points = jnp.sqrt(1 + run.count.astype(gap.dtype))
    rounding = _ROUNDINGS * (run.first_gap + info.eps * points * run.reach)
    # The comparison is false where there is no number.
    return jnp.where(gap <= rounding, jnp.zeros_like(gap), gap / jnp.maximum(moved, info.tiny))


def _local_norm(geometry: AbstractGeometry, gradient: Dual, primal: Primal, dtype) -> Scalar:
    """`‖g‖²_{x,*}`, infinite where nothing bounds what a step can lose."""
    if not geometry.is_strongly_convex:
        return jnp.full((), jnp.inf, dtype)
    return geometry.local_dual_norm_squared(gradient, primal)


def _begin(geometry: AbstractGeometry, rate: Array, u: Primal, x: Primal, z: Dual) -> _Running:
    dtype = jnp.result_type(*jax.tree.leaves(x))
    zero = jnp.zeros((), dtype)
    sums = RegretMeasurements(
        rate=jnp.asarray(rate).astype(dtype),
        regret=zero,
        linearised_regret=zero,
        start_divergence=paired_divergence(geometry, u, x, z).astype(dtype),
        end_divergence=zero,
        step_divergences=zero,
        local_norms=zero,
        squared_norms=zero,
        largest_norm=zero,
        strong_convexity=geometry.strong_convexity().astype(dtype),
        not_convex=jnp.zeros((), int),
        worst_gap=jnp.full((), jnp.inf, dtype),
        mirror_residual=_off_mirror(geometry, x, z),
        outside=_off_mirror(geometry, u, geometry.to_dual(u)),
        finite=jnp.array(True),
    )
    gap = vector.norm(vector.sub(x, geometry.to_primal(z))).astype(dtype)
    return _Running(z, x, x, gap, vector.norm(x).astype(dtype), jnp.zeros((), int), sums)


def _observe(
    geometry: AbstractGeometry, u: Primal, run: _Running, step: Step, loss_at_u: Array
) -> _Running:
    x, g, sums = step.primal, step.gradient, run.sums
    dtype = sums.regret.dtype
    loss, loss_at_u = step.loss.astype(dtype), loss_at_u.astype(dtype)
    slope = dot(g, vector.sub(x, u))
    gap = loss_at_u - loss + slope
    # Rounding of a loss is at least that of the products it is made of.
    size = total(lambda gi, xi, ui: jnp.abs(gi) * (jnp.abs(xi) + jnp.abs(ui)), g, x, u)
    rounding = 64 * jnp.finfo(dtype).eps * (jnp.abs(loss) + jnp.abs(loss_at_u) + size)
    norm = geometry.dual_norm_squared(g)
    step_divergence = paired_divergence(geometry, run.previous, x, run.dual)
    residual = _residual(geometry, run, x).astype(dtype)
    after = RegretMeasurements(
        rate=sums.rate,
        regret=sums.regret + loss - loss_at_u,
        linearised_regret=sums.linearised_regret + slope,
        start_divergence=sums.start_divergence,
        end_divergence=sums.end_divergence,
        step_divergences=sums.step_divergences + step_divergence,
        local_norms=sums.local_norms + _local_norm(geometry, g, x, dtype),
        squared_norms=sums.squared_norms + norm,
        largest_norm=jnp.maximum(sums.largest_norm, jnp.sqrt(norm)),
        strong_convexity=sums.strong_convexity,
        not_convex=sums.not_convex + (gap < -rounding).astype(sums.not_convex.dtype),
        worst_gap=jnp.minimum(sums.worst_gap, gap),
        mirror_residual=jnp.maximum(sums.mirror_residual, residual),
        outside=sums.outside,
        finite=sums.finite & jnp.isfinite(gap) & jnp.isfinite(norm),
    )
    moved = jax.tree.map(lambda z, gi: z - sums.rate.astype(gi.dtype) * gi, run.dual, g)
    reach = jnp.maximum(run.reach, vector.norm(x).astype(dtype))
    return _Running(moved, x, run.first, run.first_gap, reach, run.count + 1, after)


def _end(geometry: AbstractGeometry, u: Primal, run: _Running, last: Primal) -> RegretMeasurements:
    sums = run.sums
    step_divergence = paired_divergence(geometry, run.previous, last, run.dual)
    end_divergence = paired_divergence(geometry, u, last, run.dual)
    residual = jnp.maximum(
        sums.mirror_residual, _residual(geometry, run, last).astype(sums.regret.dtype)
    )
    finite = sums.finite & jnp.isfinite(end_divergence) & jnp.isfinite(residual)
    return eqx.tree_at(
        lambda s: (s.step_divergences, s.end_divergence, s.mirror_residual, s.finite),
        sums,
        (sums.step_divergences + step_divergence, end_divergence, residual, finite),
    )


def certifiable(owner: str, geometry: object) -> AbstractGeometry:
    """The geometry, if it has a potential."""
    if not isinstance(geometry, AbstractGeometry):
        raise ValueError(
            f"{owner}: prior.geometry must have a potential, got {type(geometry).__name__}, a "
            "mirror map without one; no regret bound exists for it."
        )
    return geometry


def constant_rate(owner: str, inner: AbstractInner) -> Array:
    """The rate of an inner rule, if it is one number."""
    if not isinstance(inner, MirrorDescent | DualDescent | PreconditionedDescent):
        raise ValueError(
            f"{owner}: inner must be MirrorDescent, DualDescent or PreconditionedDescent, got "
            f"{type(inner).__name__}, whose rate is unknown."
        )
    if callable(inner.rate):
        raise ValueError(
            f"{owner}: inner.rate is a schedule; Theorem 3.1 is about one constant rate. Certify "
            f"a run of {type(inner).__name__} with a number as its rate."
        )
    return jnp.asarray(inner.rate)


def measure_run(
    inner: AbstractInner,
    prior: Prior,
    problem: Problem,
    steps: int,
    *,
    key: PRNGKeyArray,
    comparator: Comparator = "solution",
) -> RegretMeasurements:
    """Runs one task and measures what the regret theorem is about, keeping three of its points.

    It can be compiled and vectorised over tasks. Each step costs one more evaluation of the loss
    and one more inverse mirror map; `comparator="last"` runs the task twice.

    **Arguments:**

    - `inner`, `prior`, `problem`: the rule and the task.
    - `steps`: the length `T` of the run.
    - `key`: randomness of the run, as in `fold`.
    - `comparator`: `"solution"` (default) or `"last"`.

    **Returns:**

    The measurements.

    **Raises:**

    - `ValueError`: if the geometry has no potential, the rate is a schedule, the comparator is
      missing or unknown.

    >>> from mirrax.geometry import Euclidean
    >>> from mirrax.inner import Repeat
    >>> prior = Prior(Euclidean(), start=jnp.array(1.0))
    >>> problem = Problem(lambda x, shared, batch: x**2 / 2, Repeat(None), jnp.array(0.0))
    >>> float(measure_run(MirrorDescent(0.5), prior, problem, 2, key=jax.random.key(0)).regret)
    0.625
    """
    geometry = certifiable("measure_run", prior.geometry)
    rate = constant_rate("measure_run", inner)
    if comparator not in get_args(Comparator):
        raise ValueError(f"comparator: expected one of {get_args(Comparator)}, got {comparator!r}.")
    begin = inner.init(prior)
    if comparator == "last":
        end, _ = fold(inner, prior, problem, steps, lambda n, *_: n, None, key=key, state=begin)
        u = end.primal
    elif problem.solution is None:
        raise ValueError(
            "comparator: 'solution' needs problem.solution, which is None; give one, run "
            "with_reference, or choose comparator='last'."
        )
    else:
        u = problem.solution
    dual = geometry.to_dual(begin.primal) if begin.dual is None else begin.dual

    def observe(run: _Running, step: Step, count: Array) -> _Running:
        loss_at_u = _loss_at(problem, prior.shared, u, count, key)
        return _observe(geometry, u, run, step, loss_at_u)

    start = _begin(geometry, rate, u, begin.primal, dual)
    end, run = fold(inner, prior, problem, steps, observe, start, key=key, state=begin)
    return _end(geometry, u, run, end.primal)


def _loss_at(problem: Problem, shared: PyTree, point: Primal, count: Array, key: Array) -> Scalar:
    # The batch that `fold` gives the inner rule at this step.
    batch = problem.batches.draw(count, key=jax.random.fold_in(key, count))
    return problem.loss(point, shared, batch)


def losses_at(
    problem: Problem, point: Primal, steps: int, *, key: PRNGKeyArray, shared: PyTree = None
) -> Float[Array, " steps"]:
    """The losses of one fixed point on the batches of a run, `ℓ_1(u), …, ℓ_T(u)`.

    **Arguments:**

    - `problem`: the task.
    - `point`: the comparator `u`.
    - `steps`: the length of the run.
    - `key`: randomness of the run, the one given to `unroll`.
    - `shared`: `prior.shared`.

    **Returns:**

    An array of shape `(steps,)`.

    >>> from mirrax.inner import Stream
    >>> problem = Problem(lambda x, shared, batch: x * batch, Stream(jnp.array([1.0, 2.0])))
    >>> losses_at(problem, jnp.array(3.0), 2, key=jax.random.key(0)).tolist()
    [3.0, 6.0]
    """
    return lax.map(lambda count: _loss_at(problem, shared, point, count, key), jnp.arange(steps))


def measure_trajectory(
    geometry: AbstractGeometry,
    trajectory: Trajectory,
    comparator_losses: Float[Array, " steps"],
    comparator: Primal,
    rate: float | Scalar,
    *,
    dual: Dual | None = None,
) -> RegretMeasurements:
    """As `measure_run`, of a trajectory that is already there, whoever made it.

    **Arguments:**

    - `geometry`: the geometry of the run.
    - `trajectory`: its points, gradients and losses.
    - `comparator_losses`: `ℓ_t(u)` for every step; `losses_at` computes them.
    - `comparator`: the point `u`.
    - `rate`: the step size `η` of the run.
    - `dual`: the dual start `z_1`; `∇ψ(x_1)` by default.

    **Returns:**

    The measurements.
    """
    certifiable("measure_trajectory", geometry)
    first = trajectory.first
    begin = geometry.to_dual(first) if dual is None else dual

    def body(run: _Running, record: tuple[Primal, Dual, Array, Array]):
        point, gradient, loss, loss_at_u = record
        return _observe(geometry, comparator, run, Step(point, gradient, loss), loss_at_u), None

    points = jax.tree.map(lambda leaf: leaf[:-1], trajectory.primal)
    records = (points, trajectory.gradients, trajectory.losses, jnp.asarray(comparator_losses))
    start = _begin(geometry, jnp.asarray(rate), comparator, first, begin)
    return _end(geometry, comparator, lax.scan(body, start, records)[0], trajectory.last)
