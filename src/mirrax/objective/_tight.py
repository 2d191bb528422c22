r"""The closed-form minimiser of the tight regret bound for diagonal geometries.

With the trajectory held constant, `R(m) = Σ_i [m_i² D_i/(2η) + η G_i/(2 m_i²)]`, where
`D_i = mean (θ*_i − θ_{1,i})²` and `G_i = mean Σ_t g_{t,i}²` over tasks. The minimiser is
`m_i² = η √(G_i/D_i)`, that is the rate `√(D_i/G_i)` for parameter `i`, with the value
`Σ_i √(D_i G_i)`. Gradients that agree raise a rate, gradients that cancel lower it.
Source: spec B4; the form is that of ARUBA (Khodak et al. 2019) and AdaGrad.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as vector
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._tree import Primal
from ..geometry import Diagonal
from ..inner import AbstractInner, Prior, Problem, RunSummary, fold
from ._regret import Comparator, comparator_point


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
    """
    begin = inner.init(prior)
    dtype = jnp.result_type(*jax.tree.leaves(begin.primal))

    def observe(gathered, step, count):
        squares, summary = gathered
        squares = jax.tree.map(lambda total, g: total + g**2, squares, step.gradient)
        return squares, summary.observe(step.loss, count, steps)

    empty = (vector.zeros_like(begin.primal), RunSummary.empty(dtype))
    end, (squares, summary) = fold(
        inner, prior, problem, steps, observe, empty, key=key, state=begin
    )
    target = comparator_point("path_moments", comparator, problem, end.primal)
    displacement = jax.tree.map(lambda a, b: (a - b) ** 2, target, begin.primal)
    return Moments(displacement, squares), summary


def tight_diagonal(
    moments: Moments, rate: float, *, slowest: float = 0.0, fastest: float = float("inf")
) -> Diagonal:
    r"""The diagonal geometry that minimises the tight bound, `m_i² = η √(G_i/D_i)`.

    **Arguments:**

    - `moments`: moments averaged over tasks.
    - `rate`: the step size `η` with which the geometry will be used.
    - `slowest`, `fastest`: limits of the learned rates `η/m²`. A parameter that never moved, or
      never had a gradient, gets a limit; one that had neither gets the geometric mean of its leaf.

    **Returns:**

    The geometry.

    >>> moments = Moments(jnp.array([4.0]), jnp.array([1.0]))
    >>> geometry = tight_diagonal(moments, rate=0.5)
    >>> float(0.5 / geometry.curvature[0])
    2.0
    """

    def log_m(displacement: Primal, gradient: Primal) -> Primal:
        tiny = jnp.finfo(displacement.dtype).tiny
        known = (displacement > 0) & (gradient > 0)
        log_rate = (jnp.log(displacement + tiny) - jnp.log(gradient + tiny)) / 2
        middle = jnp.sum(jnp.where(known, log_rate, 0)) / jnp.maximum(jnp.sum(known), 1)
        unseen = (displacement <= 0) & (gradient <= 0)
        log_rate = jnp.where(unseen, middle, log_rate)
        log_rate = jnp.clip(log_rate, jnp.log(slowest), jnp.log(fastest))
        return (jnp.log(rate) - log_rate) / 2

    return Diagonal(jax.tree.map(log_m, moments.displacement, moments.gradient))
