r"""Theorem 3.1 of S000 as a certificate: four bounds, the regret they bound, and what they assume.

For convex losses, a `λ`-strongly convex potential and mirror steps with one rate `η`,

    Σ ℓ_t(x_t) − ℓ_t(u) ≤ Σ ⟨g_t, x_t − u⟩
      ≤ [D(u‖x_1) + Σ D(x_t‖x_{t+1})]/η              exact, up to D(u‖x_{T+1})/η
      ≤ D(u‖x_1)/η + (η/2) Σ ‖g_t‖²_{x_t,*}          in the geometry's own norm
      ≤ D(u‖x_1)/η + (η/2λ) Σ ‖g_t‖_*²               Theorem 3.1
      ≤ D(u‖x_1)/η + (η/2λ) T L²                     eq. 9

for every comparator `u`. (On the simplex the local norm of the entropy is another bound, and may
exceed the one below it.) A guarantee is claimed only where each assumption of a bound is known
before the run, by construction or by declaration, and the run does not contradict it
(papers.md#s000-theorem-3-1). What was only measured supports a statement about this run, no more.
"""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._tree import Dual, Primal, Scalar
from ..geometry import AbstractGeometry
from ..inner import (
    AbstractInner,
    DualDescent,
    MirrorDescent,
    PreconditionedDescent,
    Prior,
    Problem,
    Trajectory,
)
from ._measure import (
    Comparator,
    RegretMeasurements,
    certifiable,
    constant_rate,
    measure_run,
    measure_trajectory,
)
from ._records import Assumption, Bound, RegretCertificate, Status


def _assumptions(
    measured: RegretMeasurements,
    geometry: AbstractGeometry,
    steps: int,
    *,
    rule: str | None,
    convex: bool,
    lipschitz: float | None,
    source: str,
) -> tuple[Assumption, ...]:
    residual, violations = float(measured.mirror_residual), int(measured.not_convex)
    largest = float(measured.largest_norm)
    # Rounding in the dual leaves about this much after a solve by Newton's method.
    rounding = 4 * float(jnp.finfo(measured.regret.dtype).eps) ** 0.5
    mirrored, within = residual <= rounding, float(measured.outside) <= rounding
    by_rule = f"{rule} makes mirror steps; " if rule else ""
    checked = (
        f"ℓ_t(u) ≥ ℓ_t(x_t) + ⟨g_t, u − x_t⟩ failed at {violations} of {steps} steps "
        f"(worst gap {float(measured.worst_gap):.2e})"
        if violations
        else f"ℓ_t(u) ≥ ℓ_t(x_t) + ⟨g_t, u − x_t⟩ at all {steps} points of the run: necessary for "
        "convexity, and all that the proof uses, but of this run only"
    )
    bounded = lipschitz is None or largest <= lipschitz * (1 + 1e-6)
    constant = "the largest of this run" if lipschitz is None else f"declared L = {lipschitz:.6g}"
    return (
        Assumption(
            "finite run",
            bool(measured.finite),
            # A run that stayed finite takes nothing away from what is known before it.
            "construction",
            "losses, gradients and divergences are finite"
            if measured.finite
            else "a loss, gradient or divergence is not finite: the run diverged, or the "
            "comparator lies outside the domain of the potential",
        ),
        Assumption(
            "mirror step",
            mirrored,
            "construction" if rule and mirrored else "measured",
            f"{by_rule}x_t and ∇ψ*(z_1 − ηΣg) differ by at most {residual:.1e} of the way from x_1"
            + ("" if mirrored else ": these are not mirror steps with one constant rate"),
        ),
        Assumption(
            "convex losses",
            violations == 0,
            "declared" if convex and not violations else "measured",
            ("declared; " if convex else "not declared; ") + checked,
        ),
        Assumption(
            "strong convexity",
            geometry.is_strongly_convex,
            "construction",
            f"λ = {float(measured.strong_convexity):.6g} for {type(geometry).__name__}",
        ),
        Assumption(
            "bounded gradients",
            bounded,
            "measured" if lipschitz is None or not bounded else "declared",
            f"{constant}; the largest ‖g_t‖_* of this run is {largest:.6g}",
        ),
        Assumption(
            "comparator",
            within,
            "construction",
            source + ("" if within else "; it lies outside the domain of the potential"),
        ),
    )


def _certificate(
    measured: RegretMeasurements,
    geometry: AbstractGeometry,
    steps: int,
    *,
    lipschitz: float | None,
    **known: Any,
) -> RegretCertificate:
    assumptions = _assumptions(measured, geometry, steps, lipschitz=lipschitz, **known)
    rate, modulus = float(measured.rate), float(measured.strong_convexity)
    start = float(measured.start_divergence) / rate
    largest = float(measured.largest_norm) if lipschitz is None else lipschitz
    # Without strong convexity nothing bounds what a step can lose.
    per_norm = rate / 2 / modulus if modulus > 0 else math.inf
    local = float(measured.local_norms) if modulus > 0 else math.inf
    values = {
        "exact": start + float(measured.step_divergences) / rate,
        "local norm": start + rate / 2 * local,
        "Theorem 3.1": start + per_norm * float(measured.squared_norms),
        "eq. 9": start + per_norm * steps * largest**2,
    }
    always = ("finite run", "mirror step", "convex losses", "comparator")
    extra = {
        "exact": (),
        "local norm": ("strong convexity",),
        "Theorem 3.1": ("strong convexity",),
        "eq. 9": ("strong convexity", "bounded gradients"),
    }
    regret, linearised = float(measured.regret), float(measured.linearised_regret)
    slack = 64 * float(jnp.finfo(measured.regret.dtype).eps) * steps**0.5

    def bound(name: str, value: float) -> Bound:
        needed = always + extra[name]
        satisfied = linearised <= value + slack * (abs(value) + abs(linearised))
        status = _status([a for a in assumptions if a.name in needed], satisfied)
        return Bound(name, value, regret / value if value else math.nan, satisfied, needed, status)

    bounds = tuple(bound(name, value) for name, value in values.items())
    end = float(measured.end_divergence) / rate
    return RegretCertificate(steps, rate, regret, linearised, end, bounds, assumptions)


def _status(needed: list[Assumption], satisfied: bool) -> Status:
    # A run that exceeds a bound contradicts it, whatever could be seen of its assumptions.
    if not satisfied or not all(assumption.holds for assumption in needed):
        return "not claimed"
    measured = any(assumption.how == "measured" for assumption in needed)
    return "holds on this run" if measured else "guaranteed"


def _check_lipschitz(owner: str, lipschitz: float | None) -> None:
    if lipschitz is not None and not 0 < lipschitz < math.inf:
        raise ValueError(
            f"{owner}.lipschitz: expected a positive finite number or None, got {lipschitz!r}."
        )


def regret_certificate(
    geometry: AbstractGeometry,
    trajectory: Trajectory,
    comparator_losses: Float[Array, " steps"],
    comparator: Primal,
    rate: float | Scalar,
    *,
    convex: bool = False,
    lipschitz: float | None = None,
    dual: Dual | None = None,
    source: str = "given by the user",
) -> RegretCertificate:
    """Certifies a trajectory that is already there, whoever made it.

    Whether its steps are mirror steps is measured, never assumed, so that at best the bounds hold
    on this run; `certify_run` knows the rule and can claim more.

    **Arguments:**

    - `geometry`: the geometry of the run.
    - `trajectory`: its points, gradients and losses.
    - `comparator_losses`: `ℓ_t(u)` for every step, shape `(T,)`; `losses_at` computes them.
    - `comparator`: the point `u`.
    - `rate`: the constant step size `η` of the run.
    - `convex`: declare the losses convex. The run is checked for a contradiction.
    - `lipschitz`: a bound `L` on `‖g_t‖_*` that is known beforehand; by default the largest of
      this run.
    - `dual`: the dual start `z_1`; `∇ψ(x_1)` by default.
    - `source`: where the comparator comes from, in words.

    **Returns:**

    The certificate.

    **Raises:**

    - `ValueError`: if the geometry has no potential, or `rate` or `lipschitz` is not positive.

    Source: S000 Theorem 3.1, eq. 9.

    >>> from mirrax.geometry import Euclidean
    >>> run = Trajectory(jnp.array([1.0, 0.5]), jnp.array([1.0]), jnp.array([0.5]))
    >>> regret_certificate(Euclidean(), run, jnp.zeros(1), jnp.array(0.0), 0.5).status
    'holds on this run'
    """
    certifiable("regret_certificate", geometry)
    _check_lipschitz("regret_certificate", lipschitz)
    if not 0 < float(rate) < math.inf:
        raise ValueError(
            f"regret_certificate.rate: expected a positive finite number, got {rate!r}."
        )
    measured = _measure_trajectory(
        geometry, trajectory, comparator_losses, comparator, jnp.asarray(rate, float), dual
    )
    return _certificate(
        measured,
        geometry,
        len(trajectory.losses),
        rule=None,
        convex=convex,
        lipschitz=lipschitz,
        source=source,
    )


def certify_run(
    inner: AbstractInner,
    prior: Prior,
    problem: Problem,
    steps: int,
    *,
    key: PRNGKeyArray,
    comparator: Comparator = "solution",
    convex: bool = False,
    lipschitz: float | None = None,
    source: str | None = None,
) -> RegretCertificate:
    """Runs one task and certifies the run, keeping three of its points.

    **Arguments:**

    - `inner`, `prior`, `problem`: the rule and the task. The rate is the rule's.
    - `steps`: the length `T` of the run.
    - `key`: randomness of the run.
    - `comparator`: `"solution"`, that is `problem.solution` (default), or `"last"`. The bounds
      hold for every comparator; against the last point the regret says less, which is not best.
    - `convex`: declare the losses convex in the parameters, as for linear models with a convex
      loss. The run is checked for a contradiction.
    - `lipschitz`: a bound `L` on `‖g_t‖_*` that is known beforehand; by default the largest of
      this run.
    - `source`: where the solution comes from (a closed form, a reference run), in words.

    **Returns:**

    The certificate.

    **Raises:**

    - `ValueError`: if the geometry has no potential, the rate is a schedule, the comparator is
      missing or unknown, or `steps` or `lipschitz` is not positive.

    Source: S000 Theorem 3.1, eq. 9.

    >>> import jax
    >>> from mirrax.geometry import Euclidean
    >>> from mirrax.inner import Repeat
    >>> prior = Prior(Euclidean(), start=jnp.array(1.0))
    >>> problem = Problem(lambda x, shared, batch: x**2 / 2, Repeat(None), jnp.array(0.0))
    >>> certify_run(
    ...     MirrorDescent(0.5), prior, problem, 4, key=jax.random.key(0), convex=True).status
    'guaranteed'
    """
    geometry = certifiable("certify_run", prior.geometry)
    constant_rate("certify_run", inner)
    _check_lipschitz("certify_run", lipschitz)
    if steps < 1:
        raise ValueError(f"certify_run.steps: expected at least 1, got {steps!r}.")
    measured = _measure_run(inner, prior, problem, steps, key=key, comparator=comparator)
    by_rule = isinstance(inner, MirrorDescent | DualDescent) or (
        isinstance(inner, PreconditionedDescent) and geometry.is_quadratic
    )
    default = {
        "solution": "problem.solution, taken as given",
        "last": "the last point of the run, not a minimiser",
    }
    return _certificate(
        measured,
        geometry,
        steps,
        rule=type(inner).__name__ if by_rule else None,
        convex=convex,
        lipschitz=lipschitz,
        source=source or default[comparator],
    )


@eqx.filter_jit
def _measure_run(inner, prior, problem, steps, *, key, comparator) -> RegretMeasurements:
    return measure_run(inner, prior, problem, steps, key=key, comparator=comparator)


@eqx.filter_jit
def _measure_trajectory(geometry, trajectory, losses, u, rate, dual) -> RegretMeasurements:
    return measure_trajectory(geometry, trajectory, losses, u, rate, dual=dual)
