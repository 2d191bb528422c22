r"""Reverse mode: exact, one backward pass however many meta-parameters there are.

For mirror descent the backward recursion is that of spec B3,
`a_T = ∂E/∂θ_T`, `dE/dm += 2η g_t ⊙ a/m³`, `a ← a − η H_t(a/m²)`; JAX derives it. The plain pass
keeps one dual point a step, memory `O(T)`; with checkpoints it keeps `O(√T)` of them and
recomputes the rest.
S000 prefers forward mode because the geometry is large, which is the wrong way round
(papers.md#s000-appendix-c).
Source: Franceschi et al. 2017.
"""

import equinox as eqx
import jax
import optax.tree as vector
from jaxtyping import PRNGKeyArray, PyTree

from .._tree import Primal, Scalar, dot
from ..inner import AbstractInner, AbstractObjective, Prior, Problem, evaluate
from ._base import AbstractHypergradient, EstimatorState, Part, split
from ._mixed import Mixed


def linearised(problem: Problem) -> Problem:
    """The problem with the loss `ℓ(x̄) + ⟨∇ℓ(x̄), x − x̄⟩`, where `x̄ = x` is held constant.

    Value and gradient are those of `ℓ`, at every point; second derivatives are zero. What runs
    along its gradients is therefore differentiated to first order.

    **Arguments:**

    - `problem`: the task.
    """

    def loss(params: Primal, shared: PyTree, batch: PyTree) -> Scalar:
        moving, fixed = eqx.partition(shared, eqx.is_inexact_array)

        def plain(at: tuple[Primal, PyTree]) -> Scalar:
            return problem.loss(at[0], eqx.combine(at[1], fixed), batch)

        here = jax.lax.stop_gradient((params, moving))
        value, slopes = jax.value_and_grad(plain)(here)
        return value + dot(slopes, vector.sub((params, moving), here))

    return Problem(loss, problem.batches, problem.solution, problem.query)


class Reverse(AbstractHypergradient):
    """Differentiates a whole run of `steps` steps backwards.

    **Arguments:**

    - `steps`: the length `T` of a run.
    - `checkpoint`: keep about `2√T` states instead of `T`, for up to twice the time.
    - `wrt`: the fields of the prior to differentiate.
    - `first_order`: treat the gradients of the run as constants: no second derivatives.
    - `mixed`: compute curvature products forward over reverse, see `mixed`.

    **Raises:**

    - `ValueError`: if `steps` is not positive, `wrt` names no field of the prior, or both
      `first_order` and `mixed` are asked for.

    >>> import jax.numpy as jnp
    >>> from mirrax.geometry import Euclidean
    >>> from mirrax.inner import MirrorDescent, Prior, Problem, Repeat
    >>> from mirrax.objective import RegretBound
    >>> prior = Prior(Euclidean(), start=jnp.array(1.0))
    >>> problem = Problem(lambda x, shared, batch: x**2 / 2, Repeat(None), jnp.array(0.0))
    >>> inner = MirrorDescent(0.5)
    >>> estimator = Reverse(steps=2, wrt=("start",))
    >>> value, slope, _ = estimator.estimate(
    ...     RegretBound(0.5), inner, prior, problem, estimator.init(inner, prior),
    ...     key=jax.random.key(0))
    >>> float(value), float(slope.start)
    (1.3125, 2.625)
    """

    steps: int = eqx.field(static=True)
    checkpoint: bool = eqx.field(static=True, default=False)
    wrt: tuple[Part, ...] = eqx.field(static=True, default=("geometry",))
    first_order: bool = eqx.field(static=True, default=False)
    mixed: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.mixed and self.first_order:
            raise ValueError(
                "Reverse.mixed: expected False with first_order, which has no curvature, got True."
            )

    def estimate(
        self,
        objective: AbstractObjective,
        inner: AbstractInner,
        prior: Prior,
        problem: Problem,
        state: EstimatorState,
        *,
        key: PRNGKeyArray,
    ) -> tuple[Scalar, Prior, EstimatorState]:
        """The value and its derivative, exact unless `first_order`."""
        del state
        learned, complete = split(prior, self.wrt)
        problem = linearised(problem) if self.first_order else problem
        inner = Mixed(inner) if self.mixed else inner

        def worth(part: Prior):
            return evaluate(
                objective,
                inner,
                complete(part),
                problem,
                self.steps,
                key=key,
                checkpoint=self.checkpoint,
            )

        (value, summary), grad = jax.value_and_grad(worth, has_aux=True)(learned)
        return value, grad, EstimatorState(summary)
