r"""Reverse mode: exact, one backward pass however many meta-parameters there are.

For mirror descent the backward recursion is that of spec B3,
`a_T = ∂E/∂θ_T`, `dE/dm += 2η g_t ⊙ a/m³`, `a ← a − η H_t(a/m²)`; JAX derives it. The plain pass
keeps one dual point a step, memory `O(T)`; with checkpoints it keeps `O(√T)` of them and
recomputes the rest.
S000 prefers forward mode because the geometry is large, which is the wrong way round (error E10).
Source: Franceschi et al. 2017.
"""

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from .._tree import Scalar
from ..inner import AbstractInner, AbstractObjective, Prior, Problem, evaluate
from ._base import AbstractHypergradient, EstimatorState, Part, split


class Reverse(AbstractHypergradient):
    """Differentiates a whole run of `steps` steps backwards.

    **Arguments:**

    - `steps`: the length `T` of a run.
    - `checkpoint`: keep about `2√T` states instead of `T`, for up to twice the time.
    - `wrt`: the fields of the prior to differentiate.

    **Raises:**

    - `ValueError`: if `steps` is not positive or `wrt` names no field of the prior.

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
        """The value and its exact derivative."""
        del state
        learned, complete = split(prior, self.wrt)

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
