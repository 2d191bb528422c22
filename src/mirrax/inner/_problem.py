"""What is learned across tasks (`Prior`) and what one task contributes (`Problem`)."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import PRNGKeyArray, PyTree

from .._tree import Primal, Scalar
from ..geometry import AbstractMirrorMap, AbstractPreconditioner, AbstractRandomPreconditioner
from ._batches import AbstractBatches


class Prior(eqx.Module):
    """All that is learned across tasks.

    **Arguments:**

    - `geometry`: the mirror map or geometry of the inner rule, or a preconditioner.
    - `start`: where the inner rule starts: parameters, or a dual point for `DualDescent`.
    - `shared`: network parameters that the inner loop uses and never touches; `None` if none.

    >>> import jax.numpy as jnp
    >>> from mirrax.geometry import Euclidean
    >>> Prior(Euclidean(), start=jnp.zeros(2)).shared is None
    True
    """

    geometry: AbstractMirrorMap | AbstractPreconditioner | AbstractRandomPreconditioner
    start: Primal
    shared: PyTree[Any] = None

    def drawn(self, *, key: PRNGKeyArray) -> "Prior":
        """The prior of one task: a random preconditioner is drawn, anything else stays.

        **Arguments:**

        - `key`: randomness of the task.
        """
        if not isinstance(self.geometry, AbstractRandomPreconditioner):
            return self
        return Prior(self.geometry.draw(key=key), self.start, self.shared)


class Problem(eqx.Module):
    """All that one task contributes.

    **Arguments:**

    - `loss`: `loss(params, shared, batch) -> scalar`. It must be one function for all tasks of a
      family; what differs between tasks belongs in `batches`.
    - `batches`: where each step's batch comes from.
    - `solution`: a known minimiser, or the end of a reference run; the comparator `θ*` of regret
      bounds. `None` if unknown.
    - `query`: the batch on which a learner is judged after its run; `None` if there is none.

    >>> from mirrax.inner import Repeat
    >>> problem = Problem(lambda params, shared, batch: (params - batch) ** 2, Repeat(1.0))
    >>> problem.solution is None
    True
    """

    loss: Callable[[Primal, PyTree[Any], PyTree[Any]], Scalar] = eqx.field(static=True)
    batches: AbstractBatches
    solution: Primal | None = None
    query: PyTree[Any] = None
