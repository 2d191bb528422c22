r"""A step whose rates follow their own gradient: what the online optimisers share.

The step is `x⁺ = x − r(w) ⊙ G` with a number `w` for each entry, leaf or tree, and `r` says how it
enters. The gradient of `h(w) = f(x − r(w) ⊙ G)` is `−r'(w) ⊙ G ⊙ G⁺`, summed over the entries that
share `w`; `G⁺` is the gradient at the new point, which the next step needs anyway. So one gradient
moves both: `w⁺ = clip(w + β r'(w) ⊙ G ⊙ G⁺)`. The optimistic form adds the hint `G⁺ ⊙ G⁺` for the
product to come and takes back the last one, `G ⊙ G`.
Source: S002 (Algorithm 1 and §7.2); spec C1, C2, C6 (papers.md#s002-signs,
papers.md#s002-parenthesis).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._tree import check_floating, total
from ..inner._descent import as_rate, rate_at
from ._checks import (
    check_gradients,
    check_rates,
    check_shape,
    check_single,
    check_word,
    spread,
)

GROUPS = ("element", "leaf", "all")


class OnlineState(NamedTuple):
    """The state of an online optimiser: arrays only, at most two numbers a parameter.

    **Arguments:**

    - `count`: how many steps have been made.
    - `skipped`: how many calls were not steps, because something in them was not finite.
    - `rates`: `w`, of at least 32 bits: shaped like the parameters, or one scalar for each leaf, or
        one scalar. With lazy clipping the sum before it is clipped.
    - `previous`: the gradient of the last step, shaped and typed like the parameters.
    """

    count: Int[Array, ""]
    skipped: Int[Array, ""]
    rates: PyTree[Float[Array, "..."]]
    previous: PyTree[Float[Array, "..."]]


@dataclasses.dataclass(frozen=True)
class Rule:
    """What makes one online optimiser.

    **Arguments:**

    - `function`, `field`: names of the public function and of the argument `start`, for errors.
    - `start`: `w_1`, a number or a pytree.
    - `meta_rate`: `β`, a number or a schedule of the count.
    - `lower`, `upper`: the bounds of `w`.
    - `per`: which entries share a rate.
    - `optimistic`, `first_hint`, `clipping`: as in `online_sgd`.
    - `factor`, `slope`: `r` and `r'`.
    """

    function: str
    field: str
    start: PyTree
    meta_rate: Any
    lower: Any
    upper: Any
    per: str
    optimistic: bool = False
    first_hint: str = "given"
    clipping: str = "greedy"
    factor: Callable[[Array], Array] = lambda w: w
    slope: Callable[[Array], Any] = lambda w: 1

    def clip(self, rate: Array) -> Array:
        """The rate between its bounds."""
        return _within_range(rate, self.lower, self.upper)


def transformation(rule: Rule) -> optax.GradientTransformation:
    """The optax transformation of a rule.

    **Raises:**

    - `ValueError`: a field of the rule out of its range.
    """
    check_word(f"{rule.function}.per", rule.per, GROUPS)
    meta_rate = as_rate(rule.meta_rate, rule.function, "meta_rate")
    rule = dataclasses.replace(rule, meta_rate=meta_rate)
    check_rates(rule.field, rule.start, rule.lower, rule.upper)

    def init(params: PyTree) -> OnlineState:
        check_floating(rule.function, params)
        count, skipped = (jnp.zeros((), jnp.int32) for _ in range(2))
        previous = jax.tree.map(jnp.zeros_like, params)
        return OnlineState(count, skipped, _first_rates(rule, params), previous)

    def update(updates: PyTree, state: Any, params: Any = None):
        del params
        check_gradients(rule.function, updates, state.previous)
        return _update(rule, updates, state)

    return optax.GradientTransformation(init, update)


def _first_rates(rule: Rule, params: PyTree) -> PyTree:
    """`w_1` in buffers of its own, laid out over devices as the parameters are."""
    if rule.per == "all":
        check_single(rule.field, rule.start)
        return jnp.array(rule.start, _widest(params))

    def first(leaf: Array, rate: Any) -> Array:
        if rule.per == "leaf":
            check_shape(rule.field, rate, ((),))
            return jnp.array(rate, _wide(leaf))
        check_shape(rule.field, rate, ((), jnp.shape(leaf)))
        return jnp.zeros_like(leaf, dtype=_wide(leaf)) + jnp.asarray(rate, _wide(leaf))

    return jax.tree.map(first, params, spread(rule.field, rule.start, params))


def _update(rule: Rule, gradients: PyTree, state: OnlineState) -> tuple[PyTree, OnlineState]:
    # Read in the type they are kept in: what a hint adds is then what the next step takes back.
    new = jax.tree.map(lambda g, p: g.astype(p.dtype).astype(_wide(p)), gradients, state.previous)
    fine = _norms_are_finite(new)
    rates = _moved(rule, state, _products(rule, state, new), fine)
    read = jax.tree.map(rule.clip, rates) if rule.clipping == "lazy" else rates
    each = spread(rule.field, read, gradients)

    def step(w: Array, g: Array, like: Array) -> Array:
        return jnp.where(fine, -rule.factor(w) * g.astype(w.dtype), 0).astype(like.dtype)

    def remembered(w: Array, g: Array, old: Array) -> Array:
        # Adding `0 w` has XLA compute the rates, which need the old gradient, before it writes the
        # new one in its place. Else it first copies the old one, and the step takes twice as long.
        return jnp.where(fine, (g + 0 * w.astype(g.dtype)).astype(old.dtype), old)

    return jax.tree.map(step, each, new, gradients), OnlineState(
        jnp.where(fine, optax.safe_increment(state.count), state.count),
        jnp.where(fine, state.skipped, optax.safe_increment(state.skipped)),
        rates,
        jax.tree.map(remembered, each, new, state.previous),
    )


def _norms_are_finite(gradients: PyTree) -> Bool[Array, ""]:
    """Whether four times the squared norm is: by Cauchy and Schwarz no sum of products exceeds it.

    It reads one number an entry, where looking at the products themselves would read two.
    """
    norms = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradients)]
    if not norms:
        return jnp.array(True)
    wide = np.result_type(*(norm.dtype for norm in norms))
    return jnp.isfinite(4 * jnp.sum(jnp.stack([norm.astype(wide) for norm in norms])))


def _products(rule: Rule, state: OnlineState, new: PyTree) -> PyTree:
    """`G ⊙ G⁺`, or `G⁺ ⊙ (G + G⁺) − G ⊙ G`, summed over what shares a rate."""
    # Whether the hint that w_2 takes back was in w_1, `first_hint` says.
    hinted = (state.count > 1) | (rule.first_hint == "given")

    def one(g: Array, old: Array) -> Array:
        old = old.astype(g.dtype)
        if not rule.optimistic:
            return g * old
        return g * (old + g) - hinted.astype(g.dtype) * old * old

    products = jax.tree.map(one, new, state.previous)
    if rule.per == "element":
        return products
    if rule.per == "leaf":
        return jax.tree.map(jnp.sum, products)
    return total(lambda p: p.astype(_widest(products)), products)


def _moved(rule: Rule, state: OnlineState, products: PyTree, fine: Bool[Array, ""]) -> PyTree:
    """The rates after `w + β r'(w) ⊙ products`, or as they were."""
    # At the first step there is no G yet, and schedules may divide by the count.
    beta = jnp.where(state.count > 0, rate_at(rule.meta_rate, state.count), 0)
    clip = _within_range if rule.clipping == "lazy" else rule.clip

    def moved(w: Array, p: Array) -> Array:
        return jnp.where(fine, clip(w + beta.astype(w.dtype) * rule.slope(w) * p), w)

    return jax.tree.map(moved, state.rates, products)


def _within_range(rate: Array, lower: Any = -jnp.inf, upper: Any = jnp.inf) -> Array:
    """The rate between bounds that are finite: what overflows stays a number."""
    largest = jnp.finfo(rate.dtype).max
    low, high = (jnp.asarray(bound).astype(rate.dtype) for bound in (lower, upper))
    return jnp.clip(rate, jnp.maximum(low, -largest), jnp.minimum(high, largest))


def _wide(leaf: Any) -> Any:
    """The type to compute in: the leaf's, of 32 bits at least."""
    double = jnp.dtype("float64")
    return double if jnp.result_type(leaf) == double else jnp.dtype("float32")


def _widest(tree: PyTree) -> Any:
    double = jnp.dtype("float64")
    return double if double in map(_wide, jax.tree.leaves(tree)) else jnp.dtype("float32")
