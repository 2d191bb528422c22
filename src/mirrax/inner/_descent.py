r"""Mirror descent, dual descent and preconditioned descent.

One step of mirror descent with rate `η` solves `x⁺ = argmin ⟨g, x⟩ + D(x‖x_t)/η`, that is
`∇ψ(x⁺) = ∇ψ(x_t) − η g` (convention C1 of the notation page). The rule keeps the dual point as
its state: where `∇ψ` is set-valued, the primal point alone does not determine the next step.
Sources: S000 eq. 1 and appendix A.1; S004 eq. 7 for dual descent; S000 eq. 7–8 for the printed
step of a maximum of diagonals, which is preconditioned descent.
"""

import abc
from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax.tree as vector
from jax.core import Tracer
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from .._tree import Dual, Primal, Scalar
from ..geometry import (
    AbstractGeometry,
    AbstractMirrorMap,
    AbstractPreconditioner,
    Diagonal,
    Euclidean,
)
from ._problem import Prior, Problem

Rate: TypeAlias = float | Scalar | Callable[[Int[Array, ""]], Any]
"""A step size: a positive number, or a schedule from the step's number to one."""


def as_rate(rate: Any, owner: str, field: str = "rate") -> Any:
    """Checks a rate and makes numbers arrays of one type, so that changing one never recompiles."""
    if callable(rate) or isinstance(rate, Tracer):
        return rate
    value = np.asarray(rate)
    real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
    # What is kept is checked: in single precision the smallest rates are zero.
    if value.ndim or not real or not 0 < value.astype(jnp.result_type(float)) < np.inf:
        raise ValueError(
            f"{owner}.{field}: expected a positive finite number or a schedule, got {rate!r}."
        )
    return jnp.asarray(rate, float)


def rate_at(rate: Any, count: Array) -> Array:
    """A rate or schedule at a step's number."""
    value = rate(count) if callable(rate) else rate
    return jnp.asarray(value)


def _close(first: Primal, second: Primal) -> Array:
    """Whether two points are equal but for rounding, entry by entry."""

    def near(a: Array, b: Array) -> Array:
        return jnp.all(jnp.abs(a - b) <= 256 * jnp.finfo(b.dtype).eps * jnp.abs(b))

    return jnp.all(jnp.stack(jax.tree.leaves(jax.tree.map(near, first, second))))


def times(rate: Array, direction: Any) -> Any:
    """`rate · direction`, in the type of the direction."""
    return jax.tree.map(lambda d: rate.astype(d.dtype) * d, direction)


def subtract_scaled(base: Any, rate: Array, direction: Any) -> Any:
    """`base − rate · direction`, in the type of the direction."""
    return vector.sub(base, times(rate, direction))


class Step(eqx.Module):
    """One step of a run: the point `x_t` it left, the gradient `g_t` and the loss there."""

    primal: Primal
    gradient: Dual
    loss: Scalar


class InnerState(eqx.Module):
    """Where an inner rule stands.

    **Arguments:**

    - `primal`: the parameters.
    - `dual`: their dual point, or `None` for rules that have none.
    - `count`: how many steps have been made.
    - `memory`: whatever else a rule remembers between steps.
    """

    primal: Primal
    dual: Dual | None
    count: Int[Array, ""]
    memory: PyTree[Any] = None


class AbstractInner(eqx.Module):
    """A rule that learns one task, step by step."""

    @abc.abstractmethod
    def init(self, prior: Prior) -> InnerState:
        """The state before the first step.

        **Arguments:**

        - `prior`: what is learned across tasks.

        **Returns:**

        The state at `prior.start`.
        """

    @abc.abstractmethod
    def step(
        self, prior: Prior, problem: Problem, state: InnerState, *, key: PRNGKeyArray
    ) -> tuple[InnerState, Step]:
        """One step on one batch.

        **Arguments:**

        - `prior`, `problem`: the two halves of the task.
        - `state`: where the rule stands.
        - `key`: randomness of this step.

        **Returns:**

        The next state, and a record of the point left, its gradient and its loss.
        """

    def start_at(self, state: InnerState) -> Primal:
        """What `prior.start` is for a run that begins where a state stands.

        **Arguments:**

        - `state`: where the rule stands.

        **Returns:**

        The parameters; for rules that start at something else, that.
        """
        return state.primal

    def image(self, prior: Prior, state: InnerState) -> Primal | None:
        """The parameters as a function of the rest of a state, or `None` if they are not one.

        Long runs then carry the rest alone: what a reverse pass must keep of every step is halved.

        **Arguments:**

        - `prior`: what is learned across tasks.
        - `state`: where the rule stands; its `primal` is not looked at.

        **Returns:**

        The parameters after any step; a run's first point need not be an image.
        """
        del prior, state
        return None

    @abc.abstractmethod
    def hold(self, prior: Prior, state: InnerState) -> InnerState:
        """The state as a function of the prior, its free variable held constant.

        Truncated hypergradients start their window from it: nothing before it is differentiated.

        **Arguments:**

        - `prior`: what is learned across tasks.
        - `state`: where the rule stands.

        **Returns:**

        A state of the same value.
        """


def mirror_map(owner: str, prior: Prior) -> AbstractMirrorMap:
    """The prior's mirror map, for rules that cannot do without one."""
    if not isinstance(prior.geometry, AbstractMirrorMap):
        raise ValueError(
            f"{owner}: prior.geometry must be a mirror map, got {type(prior.geometry).__name__}; "
            "use PreconditionedDescent for a preconditioner."
        )
    return prior.geometry


def measure(prior: Prior, problem: Problem, state: InnerState, key: PRNGKeyArray) -> Step:
    """The loss and gradient of a step's batch, at the point where the rule stands."""
    batch = problem.batches.draw(state.count, key=key)
    loss, gradient = jax.value_and_grad(problem.loss)(state.primal, prior.shared, batch)
    return Step(state.primal, gradient, loss)


def held_dual(geometry: AbstractMirrorMap, held: InnerState) -> Dual:
    """The dual of a state whose parameters are held, moving with the geometry as `∇ψ(x)` does."""
    moving = geometry.to_dual(held.primal)
    still = jax.lax.stop_gradient(moving)
    # Where the map is set-valued, the run's own dual is more than ∇ψ(x) can say.
    own = _close(geometry.to_primal(held.dual), held.primal)
    value = jax.tree.map(lambda a, b: jnp.where(own, a, b), held.dual, still)
    return vector.add(jax.lax.stop_gradient(value), vector.sub(moving, still))


def _dual_step(
    owner: str, rate: Any, prior: Prior, problem: Problem, state: InnerState, key: PRNGKeyArray
) -> tuple[InnerState, Step]:
    record = measure(prior, problem, state, key)
    dual = subtract_scaled(state.dual, rate_at(rate, state.count), record.gradient)
    primal = mirror_map(owner, prior).to_primal(dual)
    return InnerState(primal, dual, state.count + 1), record


class MirrorDescent(AbstractInner):
    r"""`∇ψ(x_{t+1}) = ∇ψ(x_t) − η g_t`, started at the parameters `prior.start`.

    **Arguments:**

    - `rate`: the step size `η`, a positive number or a schedule.

    **Raises:**

    - `ValueError`: if `rate` is not positive and finite.

    >>> import jax
    >>> from mirrax.geometry import Euclidean
    >>> from mirrax.inner import Prior, Problem, Repeat
    >>> rule = MirrorDescent(0.5)
    >>> prior = Prior(Euclidean(), start=jnp.array(4.0))
    >>> problem = Problem(lambda x, shared, batch: x**2 / 2, Repeat(None))
    >>> state, record = rule.step(prior, problem, rule.init(prior), key=jax.random.key(0))
    >>> float(state.primal), float(record.loss)
    (2.0, 8.0)
    """

    rate: Rate

    def __init__(self, rate: Rate):
        self.rate = as_rate(rate, "MirrorDescent")

    def init(self, prior: Prior) -> InnerState:
        """At the start and its dual."""
        dual = mirror_map("MirrorDescent", prior).to_dual(prior.start)
        return InnerState(prior.start, dual, jnp.zeros((), int))

    def step(
        self, prior: Prior, problem: Problem, state: InnerState, *, key: PRNGKeyArray
    ) -> tuple[InnerState, Step]:
        """A step in the dual, then back."""
        return _dual_step("MirrorDescent", self.rate, prior, problem, state, key)

    def image(self, prior: Prior, state: InnerState) -> Primal:
        """`∇ψ*` of the dual."""
        return mirror_map("MirrorDescent", prior).to_primal(state.dual)

    def hold(self, prior: Prior, state: InnerState) -> InnerState:
        """Holds the parameters; the dual moves with the geometry as `∇ψ(x)` does.

        If the geometry is no longer the one the state was made with, the dual is `∇ψ(x)` anew.
        """
        held = jax.lax.stop_gradient(state)
        dual = held_dual(mirror_map("MirrorDescent", prior), held)
        return InnerState(held.primal, dual, held.count)


class DualDescent(AbstractInner):
    r"""`z_{t+1} = z_t − η ∇ℓ(g(z_t))` with the map `g`, started at the dual point `prior.start`.

    **Arguments:**

    - `rate`: the step size, a positive number or a schedule.

    **Raises:**

    - `ValueError`: if `rate` is not positive and finite.

    >>> from mirrax.geometry import NegativeEntropy
    >>> from mirrax.inner import Prior
    >>> DualDescent(0.5).init(Prior(NegativeEntropy(), start=jnp.zeros(2))).primal.tolist()
    [0.5, 0.5]
    """

    rate: Rate

    def __init__(self, rate: Rate):
        self.rate = as_rate(rate, "DualDescent")

    def init(self, prior: Prior) -> InnerState:
        """At the dual start and its image."""
        primal = mirror_map("DualDescent", prior).to_primal(prior.start)
        return InnerState(primal, prior.start, jnp.zeros((), int))

    def step(
        self, prior: Prior, problem: Problem, state: InnerState, *, key: PRNGKeyArray
    ) -> tuple[InnerState, Step]:
        """A step in the dual, then back."""
        return _dual_step("DualDescent", self.rate, prior, problem, state, key)

    def start_at(self, state: InnerState) -> Dual:
        """The dual point."""
        return state.dual

    def image(self, prior: Prior, state: InnerState) -> Primal:
        """The map's image of the dual."""
        return mirror_map("DualDescent", prior).to_primal(state.dual)

    def hold(self, prior: Prior, state: InnerState) -> InnerState:
        """Holds the dual; the parameters move with the map."""
        held = jax.lax.stop_gradient(state)
        primal = mirror_map("DualDescent", prior).to_primal(held.dual)
        return InnerState(primal, held.dual, held.count)


def _conditioner(prior: Prior) -> AbstractPreconditioner | AbstractGeometry:
    """The prior's preconditioner, or the geometry whose inverse Hessian is one."""
    if isinstance(prior.geometry, AbstractPreconditioner | AbstractGeometry):
        return prior.geometry
    raise ValueError(
        "PreconditionedDescent: prior.geometry must be a geometry with a potential or a "
        f"preconditioner, got {type(prior.geometry).__name__}; use DualDescent for a mirror map, "
        "and Prior.drawn for a random preconditioner."
    )


class PreconditionedDescent(AbstractInner):
    r"""`x_{t+1} = x_t − η P g_t` with a preconditioner `P`, or `P = [∇²ψ(x_t)]⁻¹` of a geometry.

    For a geometry it is the mirror step linearised at the old point. For quadratic potentials it
    *is* mirror descent. For `MaxOfDiagonals` it is the printed step of S000 eq. 7–8,
    which keeps no dual and is a mirror step only while the largest component stays the same (error
    E6).

    **Arguments:**

    - `rate`: the step size, a positive number or a schedule.

    **Raises:**

    - `ValueError`: if `rate` is not positive and finite, or the prior's geometry is neither a
      preconditioner nor has a closed-form inverse Hessian.

    >>> from mirrax.geometry import Euclidean
    >>> from mirrax.inner import Prior
    >>> PreconditionedDescent(0.1).init(Prior(Euclidean(), start=jnp.zeros(2))).dual is None
    True
    """

    rate: Rate

    def __init__(self, rate: Rate):
        self.rate = as_rate(rate, "PreconditionedDescent")

    def init(self, prior: Prior) -> InnerState:
        """At the start."""
        _conditioner(prior)
        return InnerState(prior.start, None, jnp.zeros((), int))

    def step(
        self, prior: Prior, problem: Problem, state: InnerState, *, key: PRNGKeyArray
    ) -> tuple[InnerState, Step]:
        """A step along the preconditioned gradient."""
        record = measure(prior, problem, state, key)
        conditioner = _conditioner(prior)
        if isinstance(conditioner, AbstractPreconditioner):
            direction = conditioner.apply(record.gradient)
        else:
            direction = conditioner.inverse_hessian(state.primal, record.gradient)
        primal = subtract_scaled(state.primal, rate_at(self.rate, state.count), direction)
        return InnerState(primal, None, state.count + 1), record

    def hold(self, prior: Prior, state: InnerState) -> InnerState:
        """Holds the parameters."""
        del prior
        return jax.lax.stop_gradient(state)


def mirror_step(geometry: AbstractGeometry, rate: Rate) -> MirrorDescent | PreconditionedDescent:
    """The rule of mirror descent in the form that rounds least.

    Where `∇ψ` is a matrix that couples parameters, the way from the dual back to the parameters
    loses as many digits as its condition number has; the same step, made on the parameters, does
    not.

    **Arguments:**

    - `geometry`: the geometry it is for.
    - `rate`: the step size `η`.

    >>> from mirrax.geometry import Euclidean, Kronecker
    >>> mirror_step(Euclidean(), 0.1).__class__.__name__
    'MirrorDescent'
    >>> mirror_step(Kronecker.like({"w": jnp.zeros((2, 2))}), 0.1).__class__.__name__
    'PreconditionedDescent'
    """
    couples = geometry.is_quadratic and not isinstance(geometry, Diagonal | Euclidean)
    return PreconditionedDescent(rate) if couples else MirrorDescent(rate)
