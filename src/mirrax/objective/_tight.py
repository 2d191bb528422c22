r"""The closed-form minimiser of the tight regret bound for diagonal geometries.

With the trajectory held constant, `R(m) = Σ_i [m_i² D_i/(2η) + η G_i/(2 m_i²)]`, where
`D_i = mean (θ*_i − θ_{1,i})²` and `G_i = mean Σ_t g_{t,i}²` over tasks. The minimiser is
`m_i² = η √(G_i/D_i)`, that is the rate `√(D_i/G_i)` for parameter `i`, with the value
`Σ_i √(D_i G_i)`. Gradients that agree raise a rate, gradients that cancel lower it.
Source: spec B4; the form is that of ARUBA (Khodak et al. 2019) and AdaGrad.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._tree import Dual, Primal
from ..geometry import Diagonal
from ..inner import AbstractInner, Prior, Problem, RunSummary, fold
from ._regret import Comparator, check_comparator, comparator_point


class Moments(eqx.Module):
    """What the tight bound needs to know of runs, parameter by parameter.

    **Arguments:**

    - `displacement`: `D = (θ* − θ_1)²`.
    - `gradient`: `G = Σ_t g_t²`.
    """

    displacement: PyTree[Float[Array, "..."]]
    gradient: PyTree[Float[Array, "..."]]


def path_moments(
    inner: AbstractInner,
    prior: Prior,
    problem: Problem,
    steps: int,
    *,
    comparator: Comparator,
    key: PRNGKeyArray,
) -> tuple[Moments, RunSummary]:
    """Runs one task and gathers its moments, with memory for one step.

    **Arguments:**

    - `inner`, `prior`, `problem`: the rule and the task.
    - `steps`: the length of the run.
    - `comparator`: which `θ*` the displacement is measured to.
    - `key`: randomness of the run.

    **Returns:**

    The moments, and a summary of the run.

    **Raises:**

    - `ValueError`: if `comparator` is unknown, or `"solution"` for a problem that has none.
    """
    displacement, gradient, summary = gathered(
        "path_moments",
        lambda tree: jax.tree.map(jnp.square, tree),
        lambda tree: jax.tree.map(jnp.square, tree),
        (inner, prior, problem),
        steps,
        comparator=comparator,
        key=key,
    )
    return Moments(displacement, gradient), summary


def gathered(
    owner: str,
    of_displacement: Callable[[Primal], PyTree],
    of_gradient: Callable[[Dual], PyTree],
    run: tuple[AbstractInner, Prior, Problem],
    steps: int,
    *,
    comparator: Comparator,
    key: PRNGKeyArray,
) -> tuple[PyTree, PyTree, RunSummary]:
    """Runs one task and gathers a function of its displacement, and one of its gradients, summed.

    **Arguments:**

    - `owner`: who asks, for error messages.
    - `of_displacement`: of `θ* − θ_1`.
    - `of_gradient`: of each step's gradient.
    - `run`: the rule, the prior and the task.
    - `steps`, `comparator`, `key`: as for `path_moments`.

    **Returns:**

    The function of the displacement, the sum over steps, and a summary of the run.
    """
    check_comparator(owner, comparator)
    inner, prior, problem = run
    begin = inner.init(prior)

    def observe(seen, step, count):
        sums, summary = seen
        sums = jax.tree.map(jnp.add, sums, of_gradient(step.gradient))
        return sums, summary.observe(step.loss, count, steps)

    blank = jax.eval_shape(of_gradient, begin.primal)
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), blank)
    end, (sums, summary) = fold(
        inner,
        prior,
        problem,
        steps,
        observe,
        (blank, RunSummary.empty(begin.primal)),
        key=key,
        state=begin,
    )
    target = comparator_point(owner, comparator, problem, end.primal)
    displacement = jax.tree.map(jnp.subtract, target, begin.primal)
    return of_displacement(displacement), sums, summary


def tight_diagonal(moments: Moments, rate: float, *, damping: float = 0.0) -> Diagonal:
    r"""The diagonal geometry that minimises the tight bound, `m_i² = η √(G_i/D_i)`.

    Damping adds to every parameter a share `s` of its array's mean `G`, as a run at the rate `η`
    would have left it: `G_i + s`, `D_i + η² s`. Parameters that showed much keep what they showed;
    parameters that showed little stay near the rate `η`.

    **Arguments:**

    - `moments`: moments averaged over tasks.
    - `rate`: the step size `η` with which the geometry will be used. A parameter that never moved
      or never had a gradient has no minimiser; it keeps this rate, `m = 1`.
    - `damping`: the share `s` in units of the array's mean `G`, not negative.

    **Returns:**

    The geometry.

    **Raises:**

    - `ValueError`: if `rate` is not positive, or `damping` is negative.

    >>> moments = Moments(jnp.array([4.0]), jnp.array([1.0]))
    >>> geometry = tight_diagonal(moments, rate=0.5)
    >>> float(0.5 / geometry.curvature[0])
    2.0
    """
    if not isinstance(rate, Tracer) and not 0 < rate < float("inf"):
        raise ValueError(f"tight_diagonal.rate: expected a positive finite number, got {rate!r}.")
    if not 0 <= damping < float("inf"):
        raise ValueError(f"tight_diagonal.damping: expected at least 0, got {damping!r}.")

    def log_m(displacement: Array, gradient: Array) -> Array:
        share = damping * jnp.mean(gradient)
        moved, sloped = displacement + rate * (rate * share), gradient + share
        known = (moved > 0) & (sloped > 0)
        # The difference of logarithms, because the quotient itself may overflow in float32.
        log_ratio = jnp.log(jnp.where(known, sloped, 1)) - jnp.log(jnp.where(known, moved, 1))
        return jnp.where(known, jnp.log(rate) / 2 + log_ratio / 4, 0)

    return Diagonal(jax.tree.map(log_m, moments.displacement, moments.gradient))
