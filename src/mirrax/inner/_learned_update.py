r"""Preconditioned descent whose preconditioner learns too, while the task is learned.

With the preconditioner `U_ξ`, from the second step on
`ξ_{t} = ξ_{t−1} − η ∂ℓ(x_t)/∂ξ_{t−1}`, `x_{t+1} = x_t − η U_{ξ_t}(∇ℓ(x_t))`.
The derivative is with respect to the current `ξ` and passes through the last step only:
`x_t = x_{t−1} − η U_ξ(g_{t−1})`, so `∂ℓ/∂ξ = −η ∂⟨g_t, U_ξ(g_{t−1})⟩/∂ξ`.
Source: meta-KFO, Arnold, Iqbal and Sha 2021; spec A6.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as vector
from jaxtyping import PRNGKeyArray

from .._tree import Dual, Primal, Scalar, dot
from ..geometry import AbstractPreconditioner
from ._descent import (
    AbstractInner,
    InnerState,
    Rate,
    Step,
    as_rate,
    measure,
    rate_at,
    subtract_scaled,
    times,
)
from ._problem import Prior, Problem


class LearnedUpdate(AbstractInner):
    """Descent along `U_ξ(g)`, where `ξ` starts at `prior.geometry` and descends the same loss.

    **Arguments:**

    - `rate`: the step size `η` of parameters and preconditioner, a positive number or a schedule.

    **Raises:**

    - `ValueError`: if `rate` is not positive and finite, or `prior.geometry` is no preconditioner.

    >>> from mirrax.geometry import Euclidean
    >>> LearnedUpdate(0.1).init(Prior(Euclidean(), start=jnp.zeros(2)))
    Traceback (most recent call last):
    ...
    ValueError: LearnedUpdate: prior.geometry must be a preconditioner, got Euclidean...
    """

    rate: Rate

    def __init__(self, rate: Rate):
        self.rate = as_rate(rate, "LearnedUpdate")

    def init(self, prior: Prior) -> InnerState:
        """At the start, with the preconditioner as learned and no step behind."""
        if not isinstance(prior.geometry, AbstractPreconditioner):
            raise ValueError(
                "LearnedUpdate: prior.geometry must be a preconditioner, got "
                f"{type(prior.geometry).__name__}; use PreconditionedDescent or MirrorDescent."
            )
        update, _ = eqx.partition(prior.geometry, eqx.is_inexact_array)
        behind = vector.zeros_like(prior.start)
        return InnerState(prior.start, None, jnp.zeros((), int), (update, behind))

    def step(
        self, prior: Prior, problem: Problem, state: InnerState, *, key: PRNGKeyArray
    ) -> tuple[InnerState, Step]:
        """Corrects the preconditioner by what its last step led to, then steps with it."""
        record, rate = measure(prior, problem, state, key), rate_at(self.rate, state.count)
        update, behind = state.memory

        def applied(update: AbstractPreconditioner, gradient: Dual) -> Primal:
            whole = eqx.combine(update, prior.geometry)
            assert isinstance(whole, AbstractPreconditioner)  # `init` saw to it
            return whole.apply(gradient)

        def gain(update: AbstractPreconditioner) -> Scalar:
            # Before the first step `behind` is zero, and so is this derivative.
            return dot(record.gradient, applied(update, behind))

        update = vector.add(update, times(rate, jax.grad(gain)(update)))
        direction = applied(update, record.gradient)
        primal = subtract_scaled(state.primal, rate, direction)
        behind = times(rate, record.gradient)
        return InnerState(primal, None, state.count + 1, (update, behind)), record

    def hold(self, prior: Prior, state: InnerState) -> InnerState:
        """Holds the parameters and the preconditioner."""
        del prior
        return jax.lax.stop_gradient(state)
