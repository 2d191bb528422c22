r"""The minimiser of the tight regret bound for Kronecker-factored geometries, factor by factor.

With the trajectory held constant and `B` fixed, the bound of a weight matrix is
`½ tr(A D_A)/η + ½ η tr(A⁻¹ G_A)` with `D_A = mean Δ B Δᵀ` and `G_A = mean Σ_t G_t B⁻¹ G_tᵀ` over
tasks, `Δ = θ* − θ_1`. Its minimiser is the positive definite solution of the Riccati equation

    A D_A A = η² G_A,    A = η D_A^{-½} (D_A^{½} G_A D_A^{½})^{½} D_A^{-½},

a multiple of the geometric mean of `G_A` and `D_A⁻¹`; that of `B` for fixed `A` has the transposed
moments. Solving for the two in turn lowers the bound every time. Source: spec B5.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import linalg
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._checks import check_count
from ..geometry import Factors, Kronecker, as_matrix, cholesky_of, is_factors, log_cholesky
from ..inner import AbstractInner, Prior, Problem, RunSummary
from ._regret import Comparator
from ._tight import Moments, gathered

Square: TypeAlias = Float[Array, "size size"]


class Side(NamedTuple):
    """What the bound needs to know to choose one factor.

    **Arguments:**

    - `displacement`: `D_A = Δ B Δᵀ`, or `D_B = Δᵀ A Δ`.
    - `gradient`: `G_A = Σ_t G_t B⁻¹ G_tᵀ`, or `G_B = Σ_t G_tᵀ A⁻¹ G_t`.
    """

    displacement: Square
    gradient: Square


class FactorMoments(eqx.Module):
    """The moments of one weight matrix: those that choose `A`, and those that choose `B`."""

    rows: Side
    columns: Side


def _outer(matrix: Float[Array, "rows columns"]) -> Square:
    return matrix @ matrix.T


def _whitened(factors: Factors, gradient: Array) -> tuple[Array, Array]:
    """`G L_B⁻ᵀ` and `Gᵀ L_A⁻ᵀ`."""

    def solved(raw: Array, right: Array) -> Array:
        lower = cholesky_of(raw)
        return linalg.triangular_solve(lower, right, lower=True, transpose_a=True)

    return solved(factors.columns, gradient), solved(factors.rows, gradient.T)


def _gradient_moments(factors: Factors, gradient: Array) -> tuple[Square, Square]:
    for_rows, for_columns = _whitened(factors, as_matrix(gradient))
    return _outer(for_rows), _outer(for_columns)


def _displacement_moments(factors: Factors, displacement: Array) -> tuple[Square, Square]:
    moved = as_matrix(displacement)
    for_rows = moved @ cholesky_of(factors.columns)
    return _outer(for_rows), _outer(moved.T @ cholesky_of(factors.rows))


def factor_path_moments(
    inner: AbstractInner,
    prior: Prior,
    problem: Problem,
    steps: int,
    *,
    comparator: Comparator,
    key: PRNGKeyArray,
) -> tuple[PyTree[FactorMoments | Moments], RunSummary]:
    """Runs one task and gathers its moments under the prior's factors, with memory for one step.

    **Arguments:**

    - `inner`, `prior`, `problem`: the rule and the task; the geometry is a `Kronecker`.
    - `steps`: the length of the run.
    - `comparator`: which `θ*` the displacement is measured to.
    - `key`: randomness of the run.

    **Returns:**

    A tree like the parameters, of `FactorMoments` for weight matrices and `Moments` for the rest;
    and a summary of the run.

    **Raises:**

    - `ValueError`: if `comparator` is unknown, or `"solution"` for a problem that has none, or the
      geometry is not a `Kronecker`.
    """
    owner = "factor_path_moments"
    if not isinstance(prior.geometry, Kronecker):
        raise ValueError(
            f"{owner}.prior: expected a Kronecker geometry, got {type(prior.geometry).__name__}."
        )
    factors = prior.geometry.factors

    def squares(of_matrix: Callable[[Factors, Array], tuple[Square, Square]], tree: PyTree):
        def one(node, leaf):
            return of_matrix(node, leaf) if is_factors(node) else leaf**2

        return jax.tree.map(one, factors, tree, is_leaf=is_factors)

    moved, sums, summary = gathered(
        owner,
        functools.partial(squares, _displacement_moments),
        functools.partial(squares, _gradient_moments),
        (inner, prior, problem),
        steps,
        comparator=comparator,
        key=key,
    )
    return jax.tree.map(_joined, factors, moved, sums, is_leaf=is_factors), summary


def _joined(node, displacement, gradient) -> FactorMoments | Moments:
    if not is_factors(node):
        return Moments(displacement, gradient)
    rows, columns = zip(displacement, gradient, strict=True)
    return FactorMoments(Side(*rows), Side(*columns))


def riccati(displacement: Square, gradient: Square, rate: float | Array) -> Square:
    r"""The positive definite solution `A` of `A D A = η² G`.

    With `D = R Rᵀ`, `G = S Sᵀ` and singular values `RᵀS = U Σ Vᵀ` it is `A = η R⁻ᵀ U Σ Uᵀ R⁻¹`. No
    product of `D` and `G` is formed, whose condition is the square of that of `RᵀS`: single
    precision is enough for moments that differ by a million.

    **Arguments:**

    - `displacement`: `D`, positive definite; singular gives a result that is not finite.
    - `gradient`: `G`, positive semi-definite.
    - `rate`: `η`.

    >>> found = riccati(jnp.diag(jnp.array([4.0, 1.0])), jnp.diag(jnp.array([1.0, 4.0])), 0.5)
    >>> jnp.round(found, 6).tolist()
    [[0.25, 0.0], [0.0, 1.0]]
    """
    lower = jnp.linalg.cholesky(displacement)
    values, vectors = jnp.linalg.eigh(gradient)
    root = vectors * jnp.sqrt(jnp.maximum(values, 0))
    left, sizes, _ = jnp.linalg.svd(lower.T @ root)
    half = left * jnp.sqrt(sizes)
    half = linalg.triangular_solve(lower, half, left_side=True, lower=True, transpose_a=True)
    solution = rate * (half @ half.T)
    return (solution + solution.T) / 2


def tight_side(side: Side, rate: float | Array, *, damping: float = 0.0) -> Square:
    r"""The factor that minimises the tight bound, the other one fixed.

    Damping adds a share `s` of the mean `tr(G)/n` in every direction, as a run at the rate `η`
    would have left it: `G + s I`, `D + η² s I`. Directions that showed little keep the rate `η`; so
    does a matrix that never had a gradient.

    **Arguments:**

    - `side`: moments averaged over tasks.
    - `rate`: the step size `η` with which the geometry will be used.
    - `damping`: `s` in units of that mean, not negative. Without it both moments must be definite.

    **Returns:**

    `A`, or `B`.
    """
    size = len(side.gradient)
    eye = jnp.eye(size, dtype=side.gradient.dtype)
    share = damping * jnp.trace(side.gradient) / size * eye
    still = jnp.trace(side.gradient) == 0
    moved = jnp.where(still, eye, side.displacement + rate * (rate * share))
    return jnp.where(still, eye, riccati(moved, side.gradient + share, rate))


def tight_kronecker(
    displacements: Float[Array, "runs rows columns"],
    gradients: Float[Array, "runs steps rows columns"],
    rate: float,
    *,
    sweeps: int = 60,
    damping: float = 0.0,
    start: Kronecker | None = None,
) -> Kronecker:
    r"""The geometry of one weight matrix that minimises the tight bound over recorded runs.

    Each sweep solves for `A` with `B` fixed, then for `B`, then fixes the gauge.

    **Arguments:**

    - `displacements`: `θ* − θ_1` of each run.
    - `gradients`: those of each run's steps.
    - `rate`: the step size `η`.
    - `sweeps`: how often both factors are solved for.
    - `damping`: see `tight_side`.
    - `start`: where the first sweep begins; at `A = B = I` by default.

    **Returns:**

    The geometry, with `tr B = n`.

    **Raises:**

    - `ValueError`: if `rate` or `sweeps` is not positive, or `damping` is negative.

    >>> key = jax.random.key(0)
    >>> moved = jax.random.normal(key, (9, 2, 3))
    >>> geometry = tight_kronecker(moved, moved[:, None], 0.1, damping=0.1)
    >>> geometry.factors.shape
    (2, 3)
    """
    if not 0 < rate < float("inf"):
        raise ValueError(f"tight_kronecker.rate: expected a positive number, got {rate!r}.")
    check_count("tight_kronecker", "sweeps", sweeps)
    if not 0 <= damping < float("inf"):
        raise ValueError(f"tight_kronecker.damping: expected at least 0, got {damping!r}.")

    def mean_moments(factors: Factors) -> FactorMoments:
        moved = jax.vmap(lambda one: _displacement_moments(factors, one))(displacements)
        over_steps = jax.vmap(jax.vmap(lambda one: _gradient_moments(factors, one)))
        sloped = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=1), over_steps(gradients))
        means = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), (moved, sloped))
        return FactorMoments(*(Side(d, g) for d, g in zip(*means, strict=True)))

    def sweep(factors: Factors, _: None) -> tuple[Factors, None]:
        rows = log_cholesky(tight_side(mean_moments(factors).rows, rate, damping=damping))
        factors = Factors(rows, factors.columns, factors.shape)
        columns = log_cholesky(tight_side(mean_moments(factors).columns, rate, damping=damping))
        fixed = Kronecker(Factors(rows, columns, factors.shape)).fixed_gauge()
        return fixed.factors, None

    begin = Kronecker.like(jnp.zeros_like(displacements[0])) if start is None else start
    return Kronecker(jax.lax.scan(sweep, begin.factors, None, length=sweeps)[0])
