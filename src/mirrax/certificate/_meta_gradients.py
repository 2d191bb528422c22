r"""Bounds on what a convex meta-learner has left to gain: Theorem 1, Theorem 2 and Corollary 1.

For a convex `f` with `L`-Lipschitz gradients, a rule `Φ(x, w)` affine in `w`, any `w* ∈ W` and a
minimiser `x*`,

    α_{1:T} (f(x̄_T) − f(x*)) ≤ R_w(w*) + C(w*) − Σ_t α_t/(2L) ‖∇f(x̄_t) − ∇f(x*)‖²
                                          − Σ_t α_{1:t−1}/(2L) ‖∇f(x̄_{t−1}) − ∇f(x̄_t)‖²,

where `R_w = Σ α_t ⟨g_t, w_t − w*⟩` is bounded by the leader's eq. 5, and
`C = Σ α_t ⟨∇f(x̄_t), Φ(x̄_{t−1}, w*) − x*⟩` is what the rule at `w*` loses against `x*`. "Preserving
regret" (Definition 1) means `C(w*) ≤ 0`; here `C` is computed, so that the bound holds without it.
Sources: S002 eq. 5–8, with the sum over `t` that eq. 6 lacks and the factors of Theorem 1 and
Corollary 1 corrected (papers.md#s002-corollary-1; spec C3, C4).
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as vector
from jaxtyping import Array, Bool

from .._tree import Primal, Scalar, dot
from ..online import ConvexMeta, ConvexState, Round


class GapCertificate(eqx.Module):
    """The gap of a run beside its bound.

    **Arguments:**

    - `gap`: `f(x̄_T) − f(x*)`.
    - `bound`: what it is at most by Theorem 2, with `C(w*)` as it was.
    - `regret`, `regret_bound`: `R_w(w*)`, and the right side of eq. 5.
    - `capacity`: `C(w*)`.
    - `credit`: the two sums that the theorem subtracts.
    - `preserves_regret`: whether `C(w*) ≤ 0`.
    - `rule_smoothness`: `λ = max_t ‖g_t‖²/‖∇f(x̄_t)‖²` along the run.
    - `hint_smoothness`: `λ̃ = max_{t≥2} ‖g_t − g̃_t‖²/‖∇f(x̄_t) − ∇f(x̄_{t−1})‖²` along the run.
    """

    gap: Scalar
    bound: Scalar
    regret: Scalar
    regret_bound: Scalar
    capacity: Scalar
    credit: Scalar
    preserves_regret: Bool[Array, ""]
    rule_smoothness: Scalar
    hint_smoothness: Scalar

    @property
    def ratio(self) -> Scalar:
        """Gap over bound: at most 1, and near 1 where the bound is tight."""
        return self.gap / self.bound


def gap_certificate(
    method: ConvexMeta,
    state: ConvexState,
    rounds: Round,
    loss: Callable[[Primal], Scalar],
    *,
    optimum: Primal,
    comparator: Primal,
    smoothness: Scalar | float,
) -> GapCertificate:
    """Theorem 2 for one run of Algorithm 2 or 4 from its first round on.

    **Arguments:**

    - `method`, `state`, `rounds`: the learner, and what `method.run` returned from `method.init`.
    - `loss`: `f`, convex, with `smoothness`-Lipschitz gradients.
    - `optimum`: `x*`, a minimiser.
    - `comparator`: `w*`, in the leader's set.
    - `smoothness`: `L`.

    **Returns:**

    The gap, its bound and their parts. The bound is infinite if a rate rose.

    >>> from mirrax.online import nesterov
    >>> f = lambda x: x @ x / 2
    >>> method = nesterov(1.0)
    >>> state, rounds = method.run(f, method.init(jnp.ones(2), jnp.ones(2)), 10)
    >>> zeros = jnp.zeros(2)
    >>> found = gap_certificate(
    ...     method, state, rounds, f, optimum=zeros, comparator=zeros, smoothness=1.0)
    >>> bool(0 <= found.gap <= found.bound)
    True
    """
    least, slope = jax.value_and_grad(loss)(optimum)
    regret = state.leader.regret(comparator)
    regret_bound = method.leader.regret_bound(state.leader, comparator)
    capacity = _capacity(method, rounds, optimum, comparator)
    credit = _credit(rounds, slope) / (2 * smoothness)
    changes = jax.vmap(vector.sub)(*_neighbours(rounds.slope))
    errors = jax.tree.map(lambda g, h: (g - h)[1:], rounds.gradient, rounds.hint)
    return GapCertificate(
        gap=rounds.loss[-1] - least,
        bound=(regret_bound + capacity - credit) / state.leader.weight,
        regret=regret,
        regret_bound=regret_bound,
        capacity=capacity,
        credit=credit,
        preserves_regret=capacity <= 0,
        rule_smoothness=_largest_ratio(rounds.gradient, rounds.slope),
        hint_smoothness=_largest_ratio(errors, changes),
    )


def rate_without_hints(
    rule_smoothness: Scalar | float,
    smoothness: Scalar | float,
    distance: Scalar | float,
    rounds: int,
) -> Scalar:
    """Theorem 1's rate, `f(x̄_T) − f(x*) ≤ λ L ‖w* − w_1‖²/(2T)`.

    For `α_t = 1`, `β = 1/(λL)`, no hints, `∇f(x*) = 0`, and a `w*` for which regret is preserved.

    **Arguments:**

    - `rule_smoothness`: `λ`, with `‖g_t‖² ≤ λ ‖∇f(x̄_t)‖²` in every round.
    - `smoothness`: `L`.
    - `distance`: `‖w* − w_1‖`.
    - `rounds`: `T`.

    >>> float(rate_without_hints(1.0, 2.0, 3.0, 9))
    1.0
    """
    return jnp.asarray(rule_smoothness * smoothness * distance**2 / (2 * rounds))


def rate_with_hints(
    hint_smoothness: Scalar | float,
    smoothness: Scalar | float,
    distance: Scalar | float,
    rounds: int,
) -> Scalar:
    """Corollary 1's rate, `f(x̄_T) − f(x*) ≤ 4 λ̃ L ‖w* − w_1‖²/(T(T + 1))`.

    For `α_t = t`, a constant `β = 1/(4λ̃L)`, the hints `g̃_1 = 0` and `g̃_{t+1} = g_t`, `∇f(x*) = 0`,
    `λ ≤ 4λ̃`, and a `w*` for which regret is preserved.

    **Arguments:**

    - `hint_smoothness`: `λ̃`, with `‖g_t − g_{t−1}‖² ≤ λ̃ ‖∇f(x̄_t) − ∇f(x̄_{t−1})‖²` for `t ≥ 2`.
    - `smoothness`: `L`.
    - `distance`: `‖w* − w_1‖`.
    - `rounds`: `T`.

    >>> float(rate_with_hints(1.0, 2.0, 3.0, 8))
    1.0
    """
    return jnp.asarray(4 * hint_smoothness * smoothness * distance**2 / (rounds * (rounds + 1)))


def _capacity(method: ConvexMeta, rounds: Round, optimum: Primal, comparator: Primal) -> Scalar:
    def lost(before: Primal, slope: Primal) -> Scalar:
        return dot(slope, vector.sub(method.rule(before, comparator), optimum))

    return jnp.sum(rounds.weight * jax.vmap(lost)(rounds.before, rounds.slope))


def _credit(rounds: Round, slope: Primal) -> Scalar:
    """`Σ α_t ‖∇f(x̄_t) − ∇f(x*)‖² + Σ α_{1:t−1} ‖∇f(x̄_{t−1}) − ∇f(x̄_t)‖²`."""
    from_optimum = jax.vmap(lambda at: _square(vector.sub(at, slope)))(rounds.slope)
    changes = jax.vmap(lambda a, b: _square(vector.sub(a, b)))(*_neighbours(rounds.slope))
    earlier = jnp.cumsum(rounds.weight)[:-1]
    return jnp.sum(rounds.weight * from_optimum) + jnp.sum(earlier * changes)


def _neighbours(tree: Primal) -> tuple[Primal, Primal]:
    """All rounds but the last, and all but the first."""
    return jax.tree.map(lambda leaf: leaf[:-1], tree), jax.tree.map(lambda leaf: leaf[1:], tree)


def _square(tree: Primal) -> Scalar:
    return dot(tree, tree)


def _largest_ratio(above: Primal, below: Primal) -> Scalar:
    """The largest quotient of squared norms along a run, where the lower one is not zero."""
    top, bottom = jax.vmap(_square)(above), jax.vmap(_square)(below)
    known = bottom > 0
    return jnp.max(jnp.where(known, top / jnp.where(known, bottom, 1), 0), initial=0)
