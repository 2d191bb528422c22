r"""The Bregman-proximal inner problem, whose solution depends on the geometry and the start.

    θ* = argmin ℓ(θ) + D(θ‖θ_1)/(2η),    F(θ) = ∇ℓ(θ) + (∇ψ(θ) − ∇ψ(θ_1))/(2η) = 0.

It is solved by mirror descent in the geometry itself, with the divergence kept exact and only the
loss linearised: `(c + 1/(2η)) (∇ψ(θ⁺) − ∇ψ(θ)) = −F(θ)`. The number `c` is measured: it is the
curvature of the loss relative to the potential along the last step, the rule of Barzilai and
Borwein. A step is shortened only if the objective rises above the mean of its late values, which
weighs them by `0.9^age`. The largest `c` that the loss ever shows, which makes the objective fall
with every step wherever `c ψ − ℓ` is convex, would make all steps as short as the shortest.
Sources: spec B5, case 3; Bauschke, Bolte and Teboulle 2017; Barzilai and Borwein 1988; Zhang and
Hager 2004 for the rule of acceptance.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as vector
from jax import lax
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from .._tree import Dual, Primal, Scalar, dot, sums_type
from ..geometry import AbstractGeometry, NegativeEntropy
from ._descent import (
    InnerState,
    Step,
    as_rate,
    held_dual,
    measure,
    subtract_scaled,
)
from ._problem import Prior, Problem
from ._stationary import AbstractStationaryInner

_KEEP = 0.9
"""How much of its weight a value of the objective keeps from step to step."""

_ENOUGH = 1e-4
"""The share of the linearised fall that a step must achieve."""

_MOST_TRIALS = 60


class ProximalMemory(eqx.Module):
    """What `BregmanProximal` remembers between steps.

    **Arguments:**

    - `anchor`: `∇ψ(θ_1)`.
    - `curvature`: the number `c`: how curved the loss is relative to the potential.
    - `value`: the objective at the point reached.
    - `level`: the weighted mean of the objective at the points left so far.
    - `weight`: the sum of the weights.
    """

    anchor: Dual
    curvature: Scalar
    value: Scalar
    level: Scalar
    weight: Scalar


class _Trial(eqx.Module):
    """A step of some length: `c`, the `c` to try next, and whether this one is too small."""

    curvature: Scalar
    following: Scalar
    value: Scalar
    rejected: Bool[Array, ""]
    count: Int[Array, ""]


class BregmanProximal(AbstractStationaryInner):
    r"""Minimises `ℓ(θ) + D(θ‖θ_1)/(2η)` by mirror descent with backtracking, from `prior.start`.

    The lengths of steps are measured and held constant in derivatives. At the solution, where the
    force is zero, they do not matter: the derivative of the steps (`Reverse`) approaches that of
    the solution (`Implicit`) as the residual goes to zero, and before that leaves out how lengths
    depend on the prior.

    Where `ψ` has a kink (ties of a maximum of diagonals) the residual is not a function and does
    not vanish if the solution lies on it; `Implicit` then reports that the solver did not
    converge.

    **Arguments:**

    - `rate`: `η`, a positive number: the larger, the further the solution may be from the start.

    **Raises:**

    - `ValueError`: if `rate` is not a positive finite number, a schedule included; later, if the
      geometry has no potential or no unique dual, or the batches are not `Repeat`.

    >>> import jax
    >>> from mirrax.geometry import Euclidean
    >>> from mirrax.inner import Prior, Problem, Repeat, unroll
    >>> prior = Prior(Euclidean(), start=jnp.array(4.0))
    >>> problem = Problem(lambda x, shared, batch: x**2 / 2, Repeat(None))
    >>> run = unroll(BregmanProximal(0.5), prior, problem, 3, key=jax.random.key(0))
    >>> float(run.last)
    2.0
    """

    rate: float | Scalar

    def __init__(self, rate: float | Scalar):
        if callable(rate):
            raise ValueError(
                "BregmanProximal.rate: expected a positive finite number, got a schedule; the "
                "solution must not depend on the step."
            )
        self.rate = as_rate(rate, "BregmanProximal")

    def init(self, prior: Prior) -> InnerState:
        """At the start and its dual."""
        anchor = _geometry(prior).to_dual(prior.start)
        nothing = jnp.zeros((), sums_type(anchor))
        memory = ProximalMemory(anchor, nothing, nothing, nothing, nothing)
        return InnerState(prior.start, anchor, jnp.zeros((), int), memory)

    def step(
        self, prior: Prior, problem: Problem, state: InnerState, *, key: PRNGKeyArray
    ) -> tuple[InnerState, Step]:
        """A mirror step on the whole objective, as long as the measured curvature says."""
        problem.batches.fixed("BregmanProximal")
        record = measure(prior, problem, state, key)
        force = self._force(record.gradient, state.dual, state.memory.anchor)
        # At the solution the force is zero, so what the length depends on has no derivative there.
        held = _held((prior, state, record, force))
        trial, level, weight = self._search(held, problem)
        dual = subtract_scaled(state.dual, self._length(trial.curvature), force)
        memory = ProximalMemory(state.memory.anchor, trial.following, trial.value, level, weight)
        primal = _geometry(prior).to_primal(dual)
        return InnerState(primal, dual, state.count + 1, memory), record

    def residual(self, prior: Prior, problem: Problem, primal: Primal) -> Dual:
        """`∇ℓ(θ) + (∇ψ(θ) − ∇ψ(θ_1))/(2η)`."""
        geometry, data = _geometry(prior), problem.batches.fixed("BregmanProximal")
        gradient = jax.grad(problem.loss)(primal, prior.shared, data)
        return self._force(gradient, geometry.to_dual(primal), geometry.to_dual(prior.start))

    def image(self, prior: Prior, state: InnerState) -> Primal:
        """`∇ψ*` of the dual."""
        return _geometry(prior).to_primal(state.dual)

    def hold(self, prior: Prior, state: InnerState) -> InnerState:
        """Holds the parameters; the dual moves with the geometry, the anchor with the start too."""
        held, geometry = lax.stop_gradient(state), _geometry(prior)
        memory = eqx.tree_at(lambda m: m.anchor, held.memory, geometry.to_dual(prior.start))
        return InnerState(held.primal, held_dual(geometry, held), held.count, memory)

    @property
    def _weight(self) -> Array:
        return 1 / (2 * jnp.asarray(self.rate))

    def _length(self, curvature: Scalar) -> Array:
        return 1 / (curvature + self._weight.astype(curvature.dtype))

    def _force(self, gradient: Dual, dual: Dual, anchor: Dual) -> Dual:
        return jax.tree.map(
            lambda g, z, a: g + self._weight.astype(g.dtype) * (z - a), gradient, dual, anchor
        )

    def _search(
        self, here: tuple[Prior, InnerState, Step, Dual], problem: Problem
    ) -> tuple[_Trial, Scalar, Scalar]:
        """The first of growing numbers `c` whose step is accepted; the new mean and its weight."""
        prior, state, record, force = here
        geometry, data = _geometry(prior), problem.batches.fixed("BregmanProximal")
        kind = state.memory.value.dtype  # the loss and the parameters may be of others
        near = self._weight.astype(kind)

        def objective(loss: Scalar, primal: Primal) -> Scalar:
            near_by = geometry.divergence(primal, prior.start)
            return loss.astype(kind) + near * near_by.astype(kind)

        now = objective(record.loss, state.primal)
        # Near the solution all falls are lost in rounding, and every step is accepted.
        size = 2 * jnp.abs(record.loss).astype(kind) + jnp.abs(now)
        slack = 64 * jnp.finfo(now.dtype).eps * size
        # Under another prior or task the objective is another one: its late values do not count.
        same = jnp.abs(now - state.memory.value) <= slack
        old = jnp.where(same, _KEEP * state.memory.weight, 0)
        level = (old * state.memory.level + now) / (old + 1)
        highest = jnp.maximum(level, now) + slack
        still = (64 * jnp.finfo(now.dtype).eps) ** 2

        def attempt(curvature: Scalar, count: Array) -> _Trial:
            dual = subtract_scaled(state.dual, self._length(curvature), force)
            primal = geometry.to_primal(dual)
            loss, gradient = jax.value_and_grad(problem.loss)(primal, prior.shared, data)
            moved = vector.sub(primal, state.primal)
            spread = dot(vector.sub(dual, state.dual), moved).astype(kind)
            bent = dot(vector.sub(gradient, record.gradient), moved).astype(kind)
            # At the solution steps are rounding and say nothing; what was measured last stays.
            seen = spread > still * (vector.norm(primal) * vector.norm(dual)).astype(kind)
            quotient = jnp.maximum(bent / jnp.where(seen, spread, 1), 0)
            measured = jnp.where(seen, quotient, curvature)
            value = objective(loss, primal)
            accepted = value <= highest + _ENOUGH * dot(force, moved).astype(kind)
            # What a rejected step measured, it measured far away: it would stall the next one.
            following = jnp.where(accepted, measured, 4 * curvature + near)
            return _Trial(curvature, following, value, ~accepted, count)

        trial = lax.while_loop(
            lambda trial: trial.rejected & (trial.count < _MOST_TRIALS),
            lambda trial: attempt(trial.following, trial.count + 1),
            attempt(state.memory.curvature, jnp.zeros((), int)),
        )
        return trial, level, old + 1


def _held(tree: Any) -> Any:
    """A tree as a constant, whatever else than numbers is in it."""
    return jax.tree.map(lambda x: lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, tree)


def _geometry(prior: Prior) -> AbstractGeometry:
    """The prior's geometry, if the proximal problem can be stated with it."""
    geometry = prior.geometry
    if not isinstance(geometry, AbstractGeometry):
        raise ValueError(
            "BregmanProximal: prior.geometry must have a potential, got "
            f"{type(geometry).__name__}; without one there is no divergence to be near by."
        )
    parts = jax.tree.leaves(geometry, is_leaf=lambda node: isinstance(node, NegativeEntropy))
    if any(isinstance(part, NegativeEntropy) and part.domain == "simplex" for part in parts):
        raise ValueError(
            "BregmanProximal: prior.geometry must have a unique dual, got NegativeEntropy on the "
            "simplex, whose dual is determined up to a constant; use domain='orthant'."
        )
    return geometry
