r"""The implicit function theorem: the derivative of a solution, whatever steps found it.

At the solution of `F(θ; prior) = 0`, with `A = ∂F/∂θ`,

    dE/dprior = ∂E/∂prior − vᵀ ∂F/∂prior,    Aᵀ v = ∂E/∂θ.

Nothing is kept of the run. For the Bregman-proximal problem `A = ∇²ℓ + ∇²ψ/(2η)`, symmetric, and
positive definite at an isolated minimiser; for diagonals the formula is
`m ⊙ Δ² − (1/η) m ⊙ Δ ⊙ v` with `Δ = θ* − θ_1`, if `E` is the divergence itself.
Sources: spec B5, case 3; Rajeswaran et al. 2019 (conjugate gradients); Lorraine et al. 2020
(Neumann's series). For plain mirror descent S001's implicit gradient is the direct gradient, since
the derivative of an isolated minimiser with respect to the geometry is zero
(papers.md#s001-implicit).
"""

from collections.abc import Callable
from typing import get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as vector
from jax import lax
from jaxtyping import Array, PRNGKeyArray

from .._checks import check_count
from .._spectrum import extreme_eigenvalues
from .._tree import Dual, Primal, Scalar, all_finite, choose, dot
from ..geometry import AbstractGeometry
from ..inner import (
    AbstractInner,
    AbstractObjective,
    AbstractStationaryInner,
    InnerState,
    Prior,
    Problem,
    RunSummary,
)
from ..inner._randomness import Purpose, aside
from ._base import AbstractHypergradient, EstimatorState, Part, split
from ._linear_system import (
    Effort,
    LinearSystem,
    Solver,
    conjugate_gradients,
    gmres,
    neumann,
    relative_residual,
)
from ._report import ImplicitReport

_CHECK_EVERY = 8
"""Inner steps between two looks at the residual, which costs a gradient."""


class Implicit(AbstractHypergradient):
    r"""Differentiates the solution of a stationary inner problem, such as `BregmanProximal`.

    The objective must judge the solution alone: there is no run whose steps could be summed. Each
    call starts from the last one's solution and adjoint. What did not hold is flagged in
    `EstimatorState.implicit`, and the derivative is NaN then; `ImplicitReport.require_sound`
    raises.

    **Arguments:**

    - `steps`: the most inner steps.
    - `solver`: `"cg"` (default) for conjugate gradients, `"neumann"`, or `"gmres"` where `A` is
      not definite.
    - `wrt`: the fields of the prior to differentiate.
    - `tolerance`: of the inner solver, `‖F(θ)‖ ≤ tolerance ‖F(θ_1)‖`. No tolerance is taken as
      smaller than 256 roundings of the parameters' type.
    - `linear_steps`: the most iterations for the adjoint system.
    - `linear_tolerance`: of that system, `‖b − A v‖ ≤ tolerance ‖b‖`. With `None` all iterations
      are made and the residual they leave is reported, not flagged: a truncated adjoint.
    - `neumann_rate`: `c` of Neumann's series; `1/λ_max(A)`, estimated, by default.
    - `precondition`: use the geometry's inverse Hessian as preconditioner.
    - `spectrum_steps`: products spent on the ends of the spectrum, which tell whether conjugate
      gradients and Neumann's series apply; as many as there are parameters are exact.

    **Raises:**

    - `ValueError`: if a number is out of range, `solver` is unknown or `wrt` names no field of the
      prior; later, if the inner rule is not stationary, or the objective judges steps.

    >>> from mirrax.geometry import Euclidean
    >>> from mirrax.inner import BregmanProximal, Prior, Problem, Repeat
    >>> from mirrax.objective import ValidationLoss
    >>> prior = Prior(Euclidean(), start=jnp.array(4.0))
    >>> problem = Problem(lambda x, shared, y: (x - y) ** 2 / 2, Repeat(0.0), query=1.0)
    >>> inner, estimator = BregmanProximal(0.5), Implicit(steps=100, wrt=("start",))
    >>> value, slope, state = estimator.estimate(
    ...     ValidationLoss(), inner, prior, problem, estimator.init(inner, prior),
    ...     key=jax.random.key(0))
    >>> float(value), float(slope.start), bool(state.implicit.flagged)
    (0.5, 0.5, False)
    """

    steps: int = eqx.field(static=True)
    solver: Solver = eqx.field(static=True, default="cg")
    wrt: tuple[Part, ...] = eqx.field(static=True, default=("geometry",))
    tolerance: float = eqx.field(static=True, default=1e-10)
    linear_steps: int = eqx.field(static=True, default=500)
    linear_tolerance: float | None = eqx.field(static=True, default=1e-10)
    neumann_rate: float | None = eqx.field(static=True, default=None)
    precondition: bool = eqx.field(static=True, default=False)
    spectrum_steps: int = eqx.field(static=True, default=20)

    def __check_init__(self):
        if self.solver not in get_args(Solver):
            raise ValueError(
                f"Implicit.solver: expected one of {get_args(Solver)}, got {self.solver!r}."
            )
        for name in ("linear_steps", "spectrum_steps"):
            check_count("Implicit", name, getattr(self, name))
        for name in ("tolerance", "linear_tolerance"):
            value = getattr(self, name)
            if value is None and name == "linear_tolerance":
                continue
            if value is None or not 0 < value < 1:
                raise ValueError(
                    f"Implicit.{name}: expected a number between 0 and 1, got {self._of(name)}."
                )
        if self.neumann_rate is not None and not 0 < self.neumann_rate < float("inf"):
            raise ValueError(
                "Implicit.neumann_rate: expected a positive finite number or None, got "
                f"{self._of('neumann_rate')}."
            )

    def _of(self, name: str) -> str:
        return repr(getattr(self, name))

    def init(self, inner: AbstractInner, prior: Prior) -> EstimatorState:
        """The inner rule at the start, and a zero adjoint."""
        begin = _stationary(inner).init(prior)
        report = ImplicitReport.empty(begin.primal)
        return EstimatorState(RunSummary.empty(begin.primal), begin, implicit=report)

    def estimate(
        self,
        objective: AbstractObjective,
        inner: AbstractInner,
        prior: Prior,
        problem: Problem,
        state: EstimatorState,
        *,
        key: PRNGKeyArray,
    ) -> tuple[Scalar, Prior, EstimatorState]:
        """The value at the solution and its derivative, NaN where flagged."""
        stationary = _stationary(inner)
        _terminal_only(objective)
        if state.inner is None or state.implicit is None:
            raise ValueError("Implicit.estimate: state carries no solution; use Implicit.init.")
        learned, complete = split(prior, self.wrt)
        reached, inner_residual, converged = self._solve(
            stationary, prior, problem, state.inner, key=key
        )
        solution = lax.stop_gradient(reached.primal)

        def worth(part: Prior, last: Primal) -> Scalar:
            whole = complete(part)
            return objective.terminal(whole, problem, stationary.init(whole).primal, last)

        value, (direct, slope) = jax.value_and_grad(worth, argnums=(0, 1))(learned, solution)
        _, transposed = jax.vjp(lambda x: stationary.residual(prior, problem, x), solution)
        system = LinearSystem(
            lambda v: transposed(v)[0], slope, self._preconditioner(prior, solution)
        )
        report = self._adjoint(system, state.implicit.adjoint, key=key)
        report = eqx.tree_at(
            lambda r: (r.inner_residual, r.inner_steps, r.inner_unconverged),
            report,
            (inner_residual, reached.count, ~converged),
        )

        def equation(part: Prior) -> Dual:
            return stationary.residual(complete(part), problem, solution)

        (indirect,) = jax.vjp(equation, learned)[1](report.adjoint)
        sound = ~report.flagged
        grad = jax.tree.map(
            lambda d, i: jnp.where(sound, d - i, jnp.full_like(d, jnp.nan)), direct, indirect
        )
        summary = self._summary(prior, problem, reached, key=key)
        return value, grad, EstimatorState(summary, reached, implicit=report)

    def _solve(
        self,
        inner: AbstractStationaryInner,
        prior: Prior,
        problem: Problem,
        carried: InnerState,
        *,
        key: PRNGKeyArray,
    ) -> tuple[InnerState, Scalar, Array]:
        """Steps until the residual is small: the state, that residual, and whether it is."""
        fresh = inner.init(prior)

        def equation(primal: Primal) -> Dual:
            return inner.residual(prior, problem, primal)

        forces, change = jax.jvp(equation, (fresh.primal,), (fresh.primal,))
        first = vector.norm(forces)
        # A start that solves the problem leaves rounding, relative to the terms that cancel.
        resolution = 16 * jnp.finfo(first.dtype).eps * vector.norm(change)
        enough = jnp.maximum(_at_least(self.tolerance, first.dtype) * first, resolution)

        def goes_on(carry: tuple[InnerState, Scalar]) -> Array:
            state, size = carry
            return (size > enough) & (state.count < self.steps)

        def chunk(carry: tuple[InnerState, Scalar]) -> tuple[InnerState, Scalar]:
            def one(_: Array, state: InnerState) -> InnerState:
                own = jax.random.fold_in(key, state.count)
                return inner.step(prior, problem, state, key=own)[0]

            length = jnp.minimum(_CHECK_EVERY, self.steps - carry[0].count)
            state = lax.fori_loop(0, length, one, carry[0])
            return state, vector.norm(equation(state.primal))

        # The last solution, unless it is none or further from the present one than the start.
        held = inner.hold(prior, carried)
        again = vector.norm(equation(held.primal))
        better = all_finite(held, again) & (again <= first)
        begin = choose(better, held, fresh)
        begin = eqx.tree_at(lambda state: state.count, begin, fresh.count)
        end, size = lax.while_loop(goes_on, chunk, (begin, jnp.where(better, again, first)))
        relative = jnp.where(first > 0, size / jnp.where(first > 0, first, 1), size)
        return end, relative, size <= enough

    def _adjoint(
        self, system: LinearSystem, carried: Primal, *, key: PRNGKeyArray
    ) -> ImplicitReport:
        """Solves `A v = b`; the fields about the inner problem are filled in by the caller."""
        dtype = vector.norm(carried).dtype
        # An adjoint of another problem may be worse than none, which is exact for `b = 0`.
        better = (relative_residual(system, carried) < 1) & (vector.norm(system.right) > 0)
        guess = choose(better, carried, vector.zeros_like(carried))
        tolerance = None
        if self.linear_tolerance is not None:
            tolerance = _at_least(self.linear_tolerance, dtype)
        effort = Effort(tolerance, self.linear_steps)
        smallest = largest = radius = jnp.full((), jnp.nan, dtype)
        indefinite = expanding = jnp.zeros((), bool)
        if self.solver != "gmres":
            smallest, largest = self._spectrum(system, key)
            # Not above rounding of the largest is singular: no inverse, hence no derivative.
            indefinite = ~(smallest > 64 * jnp.finfo(dtype).eps * largest)
        if self.solver == "neumann":
            rate = (
                1 / largest if self.neumann_rate is None else jnp.asarray(self.neumann_rate, dtype)
            )
            radius = jnp.maximum(jnp.abs(1 - rate * smallest), jnp.abs(1 - rate * largest))
            expanding = ~(radius < 1)
            adjoint, count = neumann(system, guess, effort, rate)
        elif self.solver == "cg":
            adjoint, count, concave = conjugate_gradients(system, guess, effort)
            indefinite |= concave
        else:
            adjoint, count = gmres(system, guess, effort)
        residual = relative_residual(system, adjoint)
        # The solvers' own residuals are recurrences and drift; twice the tolerance forgives that.
        solved = jnp.isfinite(residual) if tolerance is None else residual <= 2 * tolerance
        blank = ImplicitReport.empty(carried)
        return ImplicitReport(
            adjoint,
            blank.inner_residual,
            residual,
            blank.inner_steps,
            count.astype(blank.linear_steps.dtype),
            smallest,
            largest,
            radius,
            blank.inner_unconverged,
            indefinite,
            expanding,
            ~solved,
        )

    def _spectrum(self, system: LinearSystem, key: PRNGKeyArray) -> tuple[Scalar, Scalar]:
        """Both ends, seen from `b`, as conjugate gradients do, and from a random direction."""
        noise = vector.random_like(aside(key, Purpose.SPECTRUM), system.right)
        size = vector.norm(system.right)
        unit = vector.scale(1 / jnp.where(size > 0, size, 1), system.right)
        # Turned towards `b`, so that the two cannot cancel: of one number they could exactly.
        turn = jnp.where(dot(unit, noise) < 0, -1, 1) / vector.norm(noise)
        start = vector.add(unit, vector.scale(turn, noise))
        return extreme_eigenvalues(system.product, start, self.spectrum_steps, system.precondition)

    def _preconditioner(self, prior: Prior, solution: Primal) -> Callable[[Dual], Primal]:
        if not self.precondition:
            return lambda dual: dual
        geometry = prior.geometry
        if not isinstance(geometry, AbstractGeometry):
            raise ValueError(
                "Implicit.precondition: expected False for a prior.geometry without an inverse "
                f"Hessian, got True with {type(geometry).__name__}."
            )
        return lambda dual: geometry.inverse_hessian(solution, dual)

    def _summary(
        self, prior: Prior, problem: Problem, end: InnerState, *, key: PRNGKeyArray
    ) -> RunSummary:
        """The losses at both ends; all steps count as finite if the last one is."""
        batch = problem.batches.draw(jnp.zeros((), int), key=key)
        first = problem.loss(prior.start, prior.shared, batch)
        last = problem.loss(end.primal, prior.shared, batch)
        made = jnp.minimum(end.count, self.steps - 1)
        return RunSummary(first, last, jnp.where(all_finite(end.primal, last), self.steps, made))


def _stationary(inner: AbstractInner) -> AbstractStationaryInner:
    if isinstance(inner, AbstractStationaryInner):
        return inner
    raise ValueError(
        "Implicit.inner: expected a stationary inner problem such as BregmanProximal, got "
        f"{type(inner).__name__}; at an isolated minimiser the derivative of the solution with "
        "respect to the geometry is zero, only the direct term remains: use Direct. Where the "
        "minimiser is not isolated (more parameters than data) the system is singular, 0/0: use "
        "Reverse."
    )


def _terminal_only(objective: AbstractObjective) -> None:
    if objective.judges_steps:
        raise ValueError(
            "Implicit.objective: expected one that judges the solution alone, got "
            f"{type(objective).__name__}, which sums over the steps of a run; a solution has "
            "none. Use Reverse, or an objective whose judges_steps is False."
        )


def _at_least(tolerance: float, dtype: jnp.dtype) -> float:
    return max(tolerance, 256 * float(jnp.finfo(dtype).eps))
