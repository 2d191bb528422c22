r"""Curvature products forward over reverse, inside the reverse pass of a run.

The reverse pass of a step meets the gradient `g(x, s) = ∇_x ℓ(x, s)` with a cotangent `v`. The
Hessian is symmetric, so what it owes is one forward derivative of a gradient along `v`,
`vᵀ ∂g/∂x = d/dr ∇_x ℓ(x + r v, s)` and `vᵀ ∂g/∂s = d/dr ∇_s ℓ(x + r v, s)`, where JAX by itself
transposes the backward pass of the loss a second time. Nothing of a step is kept but its point.
Source: Kemaev et al. 2025, arXiv 2505.00793 (MixFlow-MG); Pearlmutter 1994 for the product.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import PRNGKeyArray, PyTree

from .._tree import Primal, Scalar
from ..inner import AbstractInner, InnerState, Prior, Problem, Step

Loss = Callable[[Primal, PyTree, PyTree], Scalar]
"""`loss(params, shared, data)`, where the first two are inexact arrays."""


def mixed(problem: Problem) -> Problem:
    """The problem with a loss whose gradient is differentiated forward over reverse.

    Values and derivatives are those of the loss, with respect to parameters and shared ones. They
    exist in reverse mode only, and not with respect to a batch.

    **Arguments:**

    - `problem`: the task.
    """

    def loss(params: Primal, shared: PyTree, batch: PyTree) -> Scalar:
        moving, fixed = eqx.partition(shared, eqx.is_inexact_array)
        data, static = eqx.partition((fixed, batch), eqx.is_array)

        def plain(params: Primal, moving: PyTree, data: PyTree) -> Scalar:
            fixed, batch = eqx.combine(data, static)
            return problem.loss(params, eqx.combine(moving, fixed), batch)

        return _with_measured_slope(plain)(params, moving, data)

    return Problem(loss, problem.batches, problem.solution, problem.query)


def _with_measured_slope(loss: Loss) -> Loss:
    """The loss, whose reverse pass reads its gradient off `_measured`."""
    measured = _measured(loss)
    whole = jax.custom_vjp(loss)

    def forward(params: Primal, shared: PyTree, data: PyTree):
        value, slope = measured(params, shared, data)
        return value, (slope, params, shared, data)

    def backward(kept: tuple[Any, ...], weight: Scalar):
        slope, params, shared, data = kept
        # Rules that do not ask for it do not compute it: the compiler removes what is not used.
        cross = jax.grad(loss, argnums=1)(params, shared, data)
        return *jax.tree.map(lambda leaf: weight.astype(leaf.dtype) * leaf, (slope, cross)), None

    whole.defvjp(forward, backward)
    return whole


def _measured(loss: Loss) -> Callable[[Primal, PyTree, PyTree], tuple[Scalar, Primal]]:
    """`(ℓ, ∇_x ℓ)`, whose reverse pass is one forward pass over `∇ℓ`."""
    plain = jax.value_and_grad(loss)
    measured = jax.custom_vjp(plain)

    def forward(*point: Any):
        params, shared, data = jax.tree.map(lambda leaf: leaf.value, point)
        return plain(params, shared, data), (params, shared, data)

    def backward(kept: tuple[Any, ...], cotangents: tuple[Any, PyTree]):
        params, shared, data = kept
        weight, along = cotangents

        def slopes(params: Primal) -> tuple[Primal, PyTree]:
            return jax.grad(loss, argnums=(0, 1))(params, shared, data)

        slope, curved = jax.jvp(slopes, (params,), (jax.tree.map(_filled, along, params),))
        # A run judged by its end alone has no use for a step's loss: then no slope is computed.
        if isinstance(weight, SymbolicZero):
            return *curved, None
        return *jax.tree.map(lambda g, h: weight.astype(g.dtype) * g + h, slope, curved), None

    measured.defvjp(forward, backward, symbolic_zeros=True)
    return measured


def _filled(cotangent: Any, primal: jax.Array) -> jax.Array:
    """A cotangent as an array."""
    return jnp.zeros_like(primal) if isinstance(cotangent, SymbolicZero) else cotangent


class Mixed(AbstractInner):
    """An inner rule whose gradients are differentiated forward over reverse.

    Only the rule sees such a loss, an objective sees the problem as it is.

    **Arguments:**

    - `inner`: the rule.
    """

    inner: AbstractInner

    def init(self, prior: Prior) -> InnerState:
        """The rule's."""
        return self.inner.init(prior)

    def step(
        self, prior: Prior, problem: Problem, state: InnerState, *, key: PRNGKeyArray
    ) -> tuple[InnerState, Step]:
        """The rule's step on the `mixed` problem."""
        return self.inner.step(prior, mixed(problem), state, key=key)

    def start_at(self, state: InnerState) -> Primal:
        """The rule's."""
        return self.inner.start_at(state)

    def image(self, prior: Prior, state: InnerState) -> Primal | None:
        """The rule's."""
        return self.inner.image(prior, state)

    def hold(self, prior: Prior, state: InnerState) -> InnerState:
        """The rule's."""
        return self.inner.hold(prior, state)
