r"""A penalty on how badly conditioned adaptation is: the spread of `log₁₀ λ_i(J Jᵀ)`.

`P = (1/T) Σ_t Var_i log₁₀ λ_i(J_t J_tᵀ)`, where `J_t = ∂r/∂x` is the Jacobian of the residuals on
the support set at step `t` (rows `n · C`). Softmax residuals `p − y` of one example sum to zero,
so they are first expressed in `C − 1` orthonormal contrasts; eigenvalues that are null to rounding
are left out. `P` does not change when `J` is scaled, and is zero if its rows are orthogonal and of
equal norm.
Source: ECML is public at the level of an abstract only; this is the reconstruction of spec A7.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._checks import check_count
from .._tree import Primal, Scalar, join, select
from ..inner import AbstractObjective, Prior, Problem, Step

Residual = Callable[[Primal, PyTree[Any], PyTree[Any]], Float[Array, "examples outputs"]]


def log_spread(jacobian: Float[Array, "rows parameters"]) -> Scalar:
    r"""`Var_i log₁₀ λ_i(J Jᵀ)` over the eigenvalues that are not null to rounding.

    **Arguments:**

    - `jacobian`: `J`, with at most as many rows as columns that are to count.

    **Returns:**

    A scalar, not negative.

    >>> round(float(log_spread(jnp.diag(jnp.array([1.0, 1.0, 10.0, 10.0])))), 6)
    1.0
    """
    values = jnp.linalg.eigvalsh(jacobian @ jacobian.T)
    null = len(values) * jnp.finfo(values.dtype).eps * values[-1]
    kept = values > null
    logs = jnp.log10(jnp.where(kept, values, 1))
    count = jnp.maximum(jnp.sum(kept.astype(logs.dtype)), 1)
    mean = jnp.sum(logs) / count
    return jnp.sum(jnp.where(kept, (logs - mean) ** 2, 0)) / count


def contrasts(classes: int) -> Float[Array, "classes contrasts"]:
    """Orthonormal columns that are orthogonal to the vector of ones (Helmert's).

    **Arguments:**

    - `classes`: how many classes, at least 2.

    >>> bool(jnp.all(jnp.abs(contrasts(3).sum(axis=0)) < 1e-6))
    True
    """
    rows, columns = jnp.arange(float(classes))[:, None], jnp.arange(1.0, classes)[None, :]
    entries = jnp.where(rows < columns, 1, jnp.where(rows == columns, -columns, 0))
    return entries / jnp.sqrt(columns * (columns + 1))


class ConditionPenalty(AbstractObjective):
    """The mean of `log_spread` over the steps of a run on one support set.

    **Arguments:**

    - `residual`: `residual(params, shared, batch) -> (examples, outputs)`, rows that sum to zero.
    - `steps`: the length of a run.
    - `among`: selects from the parameters those whose Jacobian counts; all by default.

    **Raises:**

    - `ValueError`: if `steps` is not positive, or the batches of a problem differ between steps.
    """

    residual: Residual = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    among: Callable[[str], bool] = eqx.field(static=True, default=lambda name: True)

    def __check_init__(self):
        check_count("ConditionPenalty", "steps", self.steps)

    def stage(self, prior: Prior, problem: Problem, step: Step) -> Scalar:
        """`Var_i log₁₀ λ_i(J Jᵀ) / T` at the point left."""
        batch = problem.batches.fixed("ConditionPenalty")
        chosen, rest = select(step.primal, self.among)

        def residuals(part: Primal) -> Array:
            return self.residual(join(part, rest), prior.shared, batch)

        slopes = jax.jacrev(residuals)(chosen)
        examples, outputs = jax.eval_shape(residuals, chosen).shape
        flat = [leaf.reshape(examples, outputs, -1) for leaf in jax.tree.leaves(slopes)]
        jacobian = jnp.concatenate(flat, axis=2)
        basis = contrasts(outputs).astype(jacobian.dtype)
        inner = jnp.einsum("nop,oc->ncp", jacobian, basis)
        return log_spread(inner.reshape(-1, jacobian.shape[2])) / self.steps

    def terminal(self, prior: Prior, problem: Problem, first: Primal, last: Primal) -> Scalar:
        """Zero."""
        del prior, problem, first
        return jnp.zeros((), jnp.result_type(*jax.tree.leaves(last)))
