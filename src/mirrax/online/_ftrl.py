r"""Follow the regularised leader, with hints: the online learner behind every meta-gradient.

In round `t` the leader plays `w_t`, sees a gradient `g_t` with weight `α_t`, may be given a hint
`g̃_{t+1}` of the next one, and plays

    w_{t+1} = argmin_{w ∈ W} ⟨α_{t+1} g̃_{t+1} + Σ_{s≤t} α_s g_s, w⟩ + ‖w − w_1‖²/(2β_t)
            = Π_W(w_1 − β_t (α_{t+1} g̃_{t+1} + Σ_{s≤t} α_s g_s)).

Against any `u ∈ W`, if `b_t`, the rate that led to `w_t`, never rises (it is `β_{t−1}`, and `β_1`
for `w_1`, which needs none),

    Σ_t α_t ⟨g_t, w_t − u⟩ ≤ ‖u − w_1‖²/(2 b_T) + Σ_t (b_t/2) ‖α_t (g_t − g̃_t)‖².

Sources: S002 eq. 3, 4, 5 and 9, centred at `w_1` instead of 0 (spec C3, C4); the bound by
McMahan 2017, lemma 7. With `AdaGrad` every entry has its rate, and both hold entry by entry.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as vector
from jaxtyping import Array, Bool, Int, PyTree

from .._tree import Scalar, dot, total
from ..inner import Rate
from ..inner._descent import as_rate, rate_at
from ._conditions import check_like, close, require

Weights: TypeAlias = float | Scalar | Callable[[Scalar, Scalar], Scalar]
"""`α_t`: a positive number, or a function of `t` and `α_{1:t−1}`."""

Project: TypeAlias = Callable[[PyTree], PyTree]
"""The Euclidean projection on a closed convex set, as `optax.projections` has them."""


def everywhere(point: PyTree) -> PyTree:
    """The projection on all of the space, which moves nothing."""
    return point


def linear_weights(count: Scalar, before: Scalar) -> Scalar:
    """`α_t = t`, the weights of accelerated rates."""
    del before
    return count


class AdaGrad(eqx.Module):
    r"""A rate for every entry, `β_{t,i} = η/√(δ² + Σ_{s≤t} (α_s (g_s − g̃_s))_i²)`.

    The set of an `FTRL` with such rates must be a product of intervals, because the projection is
    then no longer Euclidean. Source: Duchi et al. 2011, primal-dual form; S002 §2.

    **Arguments:**

    - `scale`: `η`, positive.
    - `floor`: `δ`, positive; keeps the rate of an entry finite whose gradients are zero.

    **Raises:**

    - `ValueError`: if either is not positive.

    >>> float(AdaGrad(1.0, floor=0.5).floor)
    0.5
    """

    scale: Scalar
    floor: Scalar

    def __init__(self, scale: float | Scalar, floor: float | Scalar = 1e-8):
        self.scale = _positive(scale, "AdaGrad.scale")
        self.floor = _positive(floor, "AdaGrad.floor")


class FTRLState(eqx.Module):
    """Where a leader stands.

    **Arguments:**

    - `count`: `t`, how many gradients were seen.
    - `start`, `point`: `w_1`, and `w_{t+1}`, to be played next.
    - `weight`: `α_{1:t}`.
    - `gradients`: `Σ_{s≤t} α_s g_s`.
    - `hint`: `α_{t+1} g̃_{t+1}`, which `point` took into account.
    - `rates`: `b_{t+1}`, the rate that led to `point`, of every leaf or entry.
    - `squares`: `Σ_{s≤t} (α_s (g_s − g̃_s))²`, for `AdaGrad` only.
    - `incurred`: `Σ_{s≤t} α_s ⟨g_s, w_s⟩`.
    - `surprise`: `Σ_{s≤t} (b_s/2) ‖α_s (g_s − g̃_s)‖²`, the second term of the bound.
    - `falling`: whether no rate ever rose, on which the bound rests.
    """

    count: Int[Array, ""]
    start: PyTree
    point: PyTree
    weight: Scalar
    gradients: PyTree
    hint: PyTree
    rates: PyTree
    squares: PyTree | None
    incurred: Scalar
    surprise: Scalar
    falling: Bool[Array, ""]

    def regret(self, comparator: PyTree) -> Scalar:
        """The linearised regret `Σ_{s≤t} α_s ⟨g_s, w_s − u⟩` against `u`."""
        return self.incurred - dot(self.gradients, comparator)


class FTRL(eqx.Module):
    """Follow the regularised leader over a closed convex set, with or without hints.

    **Arguments:**

    - `rate`: `β`, a positive number, a schedule of `t = 1, 2, …`, or `AdaGrad`.
    - `weights`: `α_t`, a positive number or a function of `t` and `α_{1:t−1}`.
    - `project`: the Euclidean projection on the set `W`; `optax.projections` has those on boxes,
      the orthant, balls and simplices. All of the space by default.

    **Raises:**

    - `ValueError`: if a rate or weight that is a number is not positive. Of schedules this is
      checked while they run.

    >>> leader = FTRL(rate=0.5)
    >>> state = leader.init(jnp.array([1.0, 1.0]))
    >>> state = leader.step(state, jnp.array([1.0, -1.0]))
    >>> state.point.tolist()
    [0.5, 1.5]
    >>> u = jnp.zeros(2)
    >>> float(state.regret(u)), float(leader.regret_bound(state, u))
    (0.0, 2.5)
    """

    rate: Rate | AdaGrad
    weights: Weights
    project: Project

    def __init__(
        self,
        rate: Rate | AdaGrad,
        weights: Weights = 1.0,
        project: Project = everywhere,
    ):
        self.rate = rate if isinstance(rate, AdaGrad) else as_rate(rate, "FTRL")
        self.weights = weights if callable(weights) else _positive(weights, "FTRL.weights")
        self.project = project

    def init(self, start: PyTree) -> FTRLState:
        """The state before the first round, in which `w_1` is played.

        **Arguments:**

        - `start`: `w_1`, in the set.

        **Raises:**

        - `ValueError`: if `start` is not in the set.
        """
        start = jax.tree.map(jnp.asarray, start)
        inside = close(self.project(start), start)
        start = require(start, inside, "FTRL.start: not in the set; project it first.")
        zeros, zero = vector.zeros_like(start), jnp.zeros((), _dtype(start))
        entries = isinstance(self.rate, AdaGrad)
        return FTRLState(
            count=jnp.zeros((), jnp.int32),
            start=start,
            point=start,
            weight=zero,
            gradients=zeros,
            hint=zeros,
            rates=zeros if entries else jax.tree.map(lambda leaf: jnp.zeros((), leaf.dtype), start),
            squares=zeros if entries else None,
            incurred=zero,
            surprise=zero,
            falling=jnp.ones((), bool),
        )

    def weight(self, state: FTRLState) -> Scalar:
        """`α_t`, the weight of the gradient to come."""
        return self._weight(state.count + 1, state.weight)

    def weight_after(self, state: FTRLState) -> Scalar:
        """`α_{t+1}`, the weight of the gradient after the one to come, and of its hint."""
        return self._weight(state.count + 2, state.weight + self.weight(state))

    def step(self, state: FTRLState, gradient: PyTree, hint: PyTree | None = None) -> FTRLState:
        """Sees a gradient, and moves on to the next point.

        **Arguments:**

        - `state`: where the leader stands.
        - `gradient`: `g_t`, at `state.point`.
        - `hint`: `g̃_{t+1}`, a guess of the next gradient; zero if there is none.

        **Raises:**

        - `ValueError`: if the gradient or the hint is not shaped like the point.
        """
        check_like(gradient, state.start, "FTRL.gradient")
        weight = self.weight(state)
        weighted = vector.scale(weight, gradient)
        error = vector.sub(weighted, state.hint)
        gradients = vector.add(state.gradients, weighted)
        if hint is None:
            hint = vector.zeros_like(state.start)
        else:
            check_like(hint, state.start, "FTRL.hint")
            hint = vector.scale(self.weight_after(state), hint)
        squares = state.squares
        if squares is not None:
            squares = jax.tree.map(lambda s, e: s + e * e, squares, error)
        rates = self._rates(state.count + 1, state.start, squares)
        first = state.count == 0
        used = jax.tree.map(lambda new, old: jnp.where(first, new, old), rates, state.rates)
        pull = vector.add(hint, gradients)
        moved = jax.tree.map(lambda w, b, p: w - b * p, state.start, rates, pull)
        return FTRLState(
            count=state.count + 1,
            start=state.start,
            point=self.project(moved),
            weight=state.weight + weight,
            gradients=gradients,
            hint=hint,
            rates=rates,
            squares=squares,
            incurred=state.incurred + dot(weighted, state.point),
            surprise=state.surprise + total(lambda b, e: b * e * e / 2, used, error),
            falling=state.falling & _never(jnp.greater, rates, used),
        )

    def regret_bound(self, state: FTRLState, comparator: PyTree) -> Scalar:
        """What the regret against `u` is at most; infinite if a rate rose, when eq. 5 is silent.

        **Arguments:**

        - `state`: the state after `T` rounds.
        - `comparator`: any `u` in the set.
        """
        # The rate that led to the last point played is the state's before its last step; a rate
        # that never rises is smallest now, which makes this one an upper bound of it.
        away = vector.sub(comparator, state.start)
        distance = total(lambda b, a: a * a / (2 * b), state.rates, away)
        return jnp.where(state.falling, distance + state.surprise, jnp.inf)

    def _weight(self, count: Int[Array, ""], before: Scalar) -> Scalar:
        if not callable(self.weights):
            return jnp.asarray(self.weights, before.dtype)
        weight = jnp.asarray(self.weights(count.astype(before.dtype), before), before.dtype)
        return require(weight, weight > 0, "FTRL.weights: a weight is not positive.")

    def _rates(self, count: Int[Array, ""], like: PyTree, squares: PyTree | None) -> PyTree:
        rate = self.rate
        if isinstance(rate, AdaGrad):

            def entry(square: Array) -> Array:
                floor = rate.floor.astype(square.dtype)
                return rate.scale.astype(square.dtype) / jnp.sqrt(floor**2 + square)

            return jax.tree.map(entry, squares)
        value = rate_at(rate, count)
        value = require(value, jnp.all(value > 0), "FTRL.rate: a rate is not positive.")
        return jax.tree.map(lambda leaf: value.astype(leaf.dtype), like)


def _never(relation: Callable[..., Array], first: PyTree, second: PyTree) -> Bool[Array, ""]:
    hits = [jnp.any(hit) for hit in jax.tree.leaves(jax.tree.map(relation, first, second))]
    return ~jnp.any(jnp.stack(hits))


def _dtype(tree: PyTree) -> Any:
    return jnp.result_type(*jax.tree.leaves(tree))


def _positive(value: Any, name: str) -> Scalar:
    array = jnp.asarray(value, float)
    return require(
        array,
        jnp.all((array > 0) & (array < jnp.inf)),
        f"{name}: expected a positive finite number, got {value!r}.",
    )
