r"""Gradient descent whose rates are learned on the way: `x_{t+1} = x_t − w_t ⊙ G_t`.

Standard: `w_{t+1} = clip(w_t + β G_t ⊙ G_{t+1})`, the gradient step on `w ↦ f(x_t − w ⊙ G_t)`.
Optimistic: `w_{t+1} = clip(w_t + β [G_{t+1} ⊙ (G_t + G_{t+1}) − G_t ⊙ G_t])`, which expects of the
next product that it will be the square of the gradient at hand. S002 prints other signs, which
descend in neither variable (papers.md#s002-signs), and `β` on one product only
(papers.md#s002-parenthesis).
Source: S002 (Algorithm 1 and §7.2); spec C1, C2, C6.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import optax
from jaxtyping import Array, Float, Int, PyTree

from ._checks import check_bounds, check_word
from ._transform import Rule, transformation

Rates: TypeAlias = float | Array | PyTree[Float[Array, "..."]]
MetaRate: TypeAlias = float | Array | Callable[[Int[Array, ""]], Any]
Group: TypeAlias = Literal["element", "leaf", "all"]


def online_sgd(
    learning_rate: Rates,
    meta_rate: MetaRate,
    *,
    optimistic: bool = False,
    per: Group = "element",
    clipping: Literal["greedy", "lazy"] = "greedy",
    first_hint: Literal["given", "zero"] = "given",
    lower: float | Array = 0.0,
    upper: float | Array | None = None,
) -> optax.GradientTransformation:
    r"""Gradient descent that learns its rates from step to step; it stands where `optax.sgd` stood.

    Call number `t` receives `G_t` and returns `−w_t ⊙ G_t`. Before that the rates have moved along
    the gradient of `h(w) = f(x_{t−1} − w ⊙ G_{t−1})`, which is `−G_{t−1} ⊙ G_t`:
    `w_t = clip(w_{t−1} + β G_{t−1} ⊙ G_t)`. The optimistic form has the last gradient's square as
    a hint: `w_t = clip(w_{t−1} + β [G_t ⊙ (G_{t−1} + G_t) − G_{t−1} ⊙ G_{t−1}])`. `β` has the unit
    of a rate divided by that of a squared gradient; a fraction of `w_1/max G_1²` is a start.

    **In a chain.** The hypergradient sees what comes in, so it is exact for the loss whose gradient
    that is: put weight decay before it, and clipping knowing that `G` is then the clipped gradient.
    What comes after it changes the step and not the products: with `optax.scale_by_schedule` the
    rates are learned as if the step had not been scaled, and `optax.trace(d)` makes it
    Meta-Momentum, `x⁺ = x + d (x − x_prev) − w ⊙ G`, whose hypergradient is the same.

    **Not finite.** If the squared norm of a leaf of the gradient is not finite, nor are perhaps the
    products. Then the call is no step: the updates are zero, rates and remembered gradient stay as
    they are, and `skipped` counts it, not `count`. A rate that overflows stays the largest number.

    **Arguments:**

    - `learning_rate`: `w_1`, a positive number, or a pytree of positive rates like the parameters
        or a prefix of them; each a number or (per element) shaped like its parameter.
    - `meta_rate`: `β`, a positive number or an optax schedule of the number of steps made: its
        value at `t` stands before all the products that make `w_{t+1}`.
    - `optimistic`: whether to use the hint.
    - `per`: what shares a rate: nothing (`"element"`), a leaf or all parameters. The products are
        summed over it.
    - `clipping`: `"greedy"` clips every `w_t`, as printed; `"lazy"` keeps the sum of all products
        and clips when reading it, as follow-the-regularised-leader does.
    - `first_hint`: whether the hint of the first gradient is understood to be in `w_1` and is taken
        back (`"given"`), or there was none (`"zero"`); of the optimistic form only.
    - `lower`, `upper`: bounds of the rates; `lower=-jnp.inf` lets them change sign.

    **Returns:**

    An optax gradient transformation. `optax.tree.get(state, "rates")` finds the rates of the last
    step in any chain, and `"skipped"` the number of calls that were no steps. With lazy clipping
    the state has the sum, and `optax.tree.clip(rates, lower, upper)` are the rates.

    **Raises:**

    - `ValueError`: a rate or `β` that is not positive and finite; a rate outside the bounds; bounds
        in the wrong order; an unknown word; parameters that are not floating-point arrays, or not
        those of the rates (at `init`); gradients unlike the parameters (at `update`).

    >>> import jax.numpy as jnp
    >>> from mirrax.online import online_sgd
    >>> params = {"w": jnp.array([1.0, -2.0])}
    >>> optimiser = optax.chain(optax.clip_by_global_norm(10.0), online_sgd(0.125, 0.0625))
    >>> state = optimiser.init(params)
    >>> for _ in range(3):
    ...     grads = params  # of ½ ‖w‖²
    ...     updates, state = optimiser.update(grads, state, params)
    ...     params = optax.apply_updates(params, updates)

    >>> optax.tree.get(state, "rates")["w"].tolist()
    [0.218..., 0.469...]
    >>> int(optax.tree.get(state, "skipped"))
    0
    """
    upper = float("inf") if upper is None else upper
    check_bounds("online_sgd.lower", lower, upper)
    check_word("online_sgd.clipping", clipping, ("greedy", "lazy"))
    check_word("online_sgd.first_hint", first_hint, ("given", "zero"))
    if first_hint == "zero" and not optimistic:
        raise ValueError("online_sgd.first_hint: only the optimistic form has hints, got 'zero'.")
    rule = Rule(
        "online_sgd",
        "online_sgd.learning_rate",
        learning_rate,
        meta_rate,
        lower,
        upper,
        per,
        optimistic=optimistic,
        first_hint=first_hint,
        clipping=clipping,
    )
    return transformation(rule)
