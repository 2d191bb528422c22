r"""Regret bounds as objectives of meta-learning.

`RegretBound` is the bound in the geometry's own norm,
`R = D(θ*‖θ_1)/η + (η/2) Σ_t ‖g_t‖²_{θ_t,*}`. `LipschitzRegretBound` is eq. 10 of S000,
`E = D(θ*‖θ_1) + k/λ`, which replaces the local norms by the strong convexity `λ` and a Lipschitz
constant. The second cannot prefer any anisotropy (papers.md#s000-eq10); it is here to be compared
with.

The comparator `θ*` is explicit. With `"last"`, `θ* = θ_T` of the run itself, both bounds are small
when nothing is learned at all (papers.md#s000-eq10-last): the freezing that `frozen` detects.
"""

from typing import Literal, get_args

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool

from .._tree import Primal, Scalar
from ..geometry import AbstractGeometry
from ..inner import AbstractObjective, Prior, Problem, RunSummary, Step

Comparator = Literal["solution", "last"]
"""Where `θ*` comes from: `problem.solution`, or the last point of the run."""


def _weak_scalar(value: float | Array) -> Array:
    """A number as an array that takes the type of its surroundings and never recompiles."""
    return jnp.asarray(float(value)) if isinstance(value, float | int) else jnp.asarray(value)


def _check_positive(owner: str, field: str, value: float | Array) -> None:
    if not isinstance(value, Tracer) and not jnp.all((value > 0) & (value < jnp.inf)):
        raise ValueError(f"{owner}.{field}: expected a positive finite number, got {value}.")


def check_comparator(owner: str, comparator: str) -> None:
    """Refuses a comparator that is not one."""
    if comparator not in get_args(Comparator):
        raise ValueError(
            f"{owner}.comparator: expected one of {get_args(Comparator)}, got {comparator!r}."
        )


def _geometry(owner: str, prior: Prior) -> AbstractGeometry:
    """The prior's geometry, if a regret bound can be stated for it."""
    geometry = prior.geometry
    if not isinstance(geometry, AbstractGeometry):
        raise ValueError(
            f"{owner}: prior.geometry must have a potential, got {type(geometry).__name__}, a "
            "mirror map without one; no Bregman divergence and no regret bound exist for it."
        )
    if not geometry.is_strongly_convex:
        raise ValueError(
            f"{owner}: prior.geometry must be strongly convex, got {geometry!r}, which is not; "
            "choose another geometry or domain."
        )
    return geometry


def comparator_point(owner: str, comparator: str, problem: Problem, last: Primal) -> Primal:
    """The point `θ*` that a bound compares with."""
    if comparator == "last":
        return last
    if problem.solution is None:
        raise ValueError(
            f"{owner}.comparator: 'solution' needs problem.solution, which is None; give one, "
            "run with_reference, or choose comparator='last'."
        )
    return problem.solution


class RegretBound(AbstractObjective):
    r"""`R = D(θ*‖θ_1)/η + (η/2) Σ_t ‖g_t‖²_{θ_t,*}`, the bound in the geometry's own norm.

    For diagonal geometries and a trajectory held constant, its minimiser is closed
    (`tight_diagonal`): the rate of a parameter is `√(D_i/G_i)`, displacement over gradients.

    **Arguments:**

    - `rate`: the step size `η` of the inner rule.
    - `comparator`: `"solution"` (default) or `"last"`.

    **Raises:**

    - `ValueError`: if `rate` is not positive, or `comparator` is unknown.

    Source: spec B4; S000 Theorem 3.1 before its norm is bounded.

    >>> RegretBound(rate=0.1).comparator
    'solution'
    """

    rate: float | Scalar = eqx.field(converter=_weak_scalar)
    comparator: Comparator = eqx.field(static=True, default="solution")

    def __check_init__(self):
        _check_positive("RegretBound", "rate", self.rate)
        check_comparator("RegretBound", self.comparator)

    def stage(self, prior: Prior, problem: Problem, step: Step) -> Scalar:
        """`(η/2) ‖g‖²_{x,*}`."""
        del problem
        geometry = _geometry("RegretBound", prior)
        return self.rate / 2 * geometry.local_dual_norm_squared(step.gradient, step.primal)

    def terminal(self, prior: Prior, problem: Problem, first: Primal, last: Primal) -> Scalar:
        """`D(θ*‖θ_1)/η`."""
        geometry = _geometry("RegretBound", prior)
        target = comparator_point("RegretBound", self.comparator, problem, last)
        return geometry.divergence(target, first) / self.rate


class LipschitzRegretBound(AbstractObjective):
    r"""`E = D(θ*‖θ_1) + k/λ`, eq. 10 of S000.

    **Arguments:**

    - `k`: the weight of the second term; `from_lipschitz` computes it.
    - `comparator`: `"solution"` (default) or `"last"`, as printed.
    - `modulus`: `"m2"` (default) for the strong convexity `λ` itself, `min m²` for diagonals;
      `"m"` for its square root, the `min M` that S000 prints (papers.md#s000-modulus).

    **Raises:**

    - `ValueError`: if `k` is not positive, or an option is unknown.

    >>> float(LipschitzRegretBound.from_lipschitz(rate=0.5, steps=4, lipschitz=2.0).k)
    2.0
    """

    k: float | Scalar = eqx.field(converter=_weak_scalar)
    comparator: Comparator = eqx.field(static=True, default="solution")
    modulus: Literal["m2", "m"] = eqx.field(static=True, default="m2")

    def __check_init__(self):
        _check_positive("LipschitzRegretBound", "k", self.k)
        check_comparator("LipschitzRegretBound", self.comparator)
        if self.modulus not in ("m2", "m"):
            raise ValueError(
                f"LipschitzRegretBound.modulus: expected 'm2' or 'm', got {self.modulus!r}."
            )

    @staticmethod
    def from_lipschitz(
        rate: float, steps: int, lipschitz: float, **options: str
    ) -> "LipschitzRegretBound":
        """The weight that eq. 9 implies, `k = η² T L²/2`.

        **Arguments:**

        - `rate`: the step size `η`.
        - `steps`: the length of a run, `T`.
        - `lipschitz`: a bound `L` on the norm of gradients.
        - `**options`: `comparator`, `modulus`.
        """
        return LipschitzRegretBound(rate**2 * steps * lipschitz**2 / 2, **options)  # type: ignore[arg-type]

    @property
    def judges_steps(self) -> bool:
        """False."""
        return False

    def stage(self, prior: Prior, problem: Problem, step: Step) -> Scalar:
        """Zero: the bound sees only the ends of a run."""
        del prior, problem
        return jnp.zeros_like(step.loss)

    def terminal(self, prior: Prior, problem: Problem, first: Primal, last: Primal) -> Scalar:
        """`D(θ*‖θ_1) + k/λ`."""
        geometry = _geometry("LipschitzRegretBound", prior)
        target = comparator_point("LipschitzRegretBound", self.comparator, problem, last)
        strong_convexity = geometry.strong_convexity()
        modulus = strong_convexity if self.modulus == "m2" else jnp.sqrt(strong_convexity)
        return geometry.divergence(target, first) + self.k / modulus


def frozen(summary: RunSummary, threshold: float = 0.1) -> Bool[Array, "..."]:
    """Whether a run hardly learned: its loss fell by less than `threshold` of its first size.

    With the comparator `"last"` this is how a regret bound is gamed: not moving makes it small.
    The fall is measured against `|first loss|`, so it means most for losses whose optimum is near
    zero. A run that diverged to NaN is not frozen; `RunSummary.finite_steps` reports that.

    **Arguments:**

    - `summary`: summary of one run, or of several with leading axes.
    - `threshold`: the relative fall below which a run counts as frozen.

    **Returns:**

    A boolean a run.

    >>> bool(frozen(RunSummary(jnp.array(2.0), jnp.array(1.9), jnp.array(10))))
    True
    """
    fall = summary.first_loss - summary.last_loss
    return fall < threshold * jnp.abs(summary.first_loss)
