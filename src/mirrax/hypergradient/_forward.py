r"""Forward mode: exact, memory independent of `T`, one tangent run a meta-parameter.

The tangents `Z_t = dθ_t/dφ` follow the run, `Z_{t+1} = A_t Z_t + B_t` (S000 eq. 20 and appendix
C). Cost grows with the number of directions, so it suits few meta-parameters and very long runs,
or a few directions among many meta-parameters. Source: Franceschi et al. 2017.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from .._tree import Scalar
from ..inner import AbstractInner, AbstractObjective, Prior, Problem, evaluate
from ._base import AbstractHypergradient, EstimatorState, Part, split


class Forward(AbstractHypergradient):
    r"""Differentiates a whole run forwards, along all meta-parameters or along given directions.

    With directions `v_1, …, v_K` the estimate is `Σ_k ⟨∇E, v_k⟩ v_k`: the gradient itself if they
    are an orthonormal basis, its projection if they are orthonormal and fewer.

    **Arguments:**

    - `steps`: the length `T` of a run.
    - `directions`: shape `(K, n)`, where `n` counts the differentiated numbers in flattening
      order. All `n` unit vectors by default, which is exact.
    - `wrt`: the fields of the prior to differentiate.

    **Raises:**

    - `ValueError`: if `steps` is not positive, `wrt` names no field of the prior, or
      `directions` does not fit the meta-parameters.

    >>> import jax.numpy as jnp
    >>> from mirrax.geometry import Diagonal
    >>> from mirrax.inner import MirrorDescent, Prior, Problem, Repeat
    >>> from mirrax.objective import RegretBound
    >>> prior = Prior(Diagonal.like(jnp.ones(2)), start=jnp.ones(2))
    >>> problem = Problem(lambda x, shared, batch: jnp.sum(x**2), Repeat(None), jnp.zeros(2))
    >>> inner = MirrorDescent(0.1)
    >>> estimator = Forward(steps=3)
    >>> value, slope, _ = estimator.estimate(
    ...     RegretBound(0.1), inner, prior, problem, estimator.init(inner, prior),
    ...     key=jax.random.key(0))
    >>> slope.geometry.log_diagonal.shape
    (2,)
    """

    steps: int = eqx.field(static=True)
    directions: Float[Array, "count dim"] | None = None
    wrt: tuple[Part, ...] = eqx.field(static=True, default=("geometry",))

    def derivatives(
        self,
        objective: AbstractObjective,
        inner: AbstractInner,
        prior: Prior,
        problem: Problem,
        *,
        key: PRNGKeyArray,
    ) -> tuple[Scalar, Float[Array, " count"], EstimatorState]:
        """The value and its derivatives `⟨∇E, v_k⟩` along the directions.

        **Arguments:**

        - `objective`, `inner`, `prior`, `problem`, `key`: as in `estimate`.

        **Returns:**

        The value, one derivative a direction, and the state.
        """
        learned, complete = split(prior, self.wrt)
        flat, restore = ravel_pytree(learned)

        def worth(numbers: Array):
            whole = complete(restore(numbers))
            return evaluate(objective, inner, whole, problem, self.steps, key=key)

        def along(direction: Array):
            return jax.jvp(worth, (flat,), (direction,), has_aux=True)

        value, slopes, summary = jax.vmap(along, out_axes=(None, 0, None))(self._basis(flat))
        return value, slopes, EstimatorState(summary)

    def _basis(self, flat: Float[Array, " dim"]) -> Float[Array, "count dim"]:
        if self.directions is None:
            return jnp.eye(len(flat), dtype=flat.dtype)
        if self.directions.ndim != 2 or self.directions.shape[1] != len(flat):
            raise ValueError(
                f"Forward.directions: expected shape (K, {len(flat)}), one row a direction, got "
                f"{self.directions.shape}."
            )
        return self.directions

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
        """The value and its derivative, exact or projected on the directions."""
        del state
        flat, restore = ravel_pytree(split(prior, self.wrt)[0])
        value, slopes, after = self.derivatives(objective, inner, prior, problem, key=key)
        return value, restore(slopes @ self._basis(flat)), after
