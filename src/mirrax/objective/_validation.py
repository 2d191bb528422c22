r"""The loss on other data: `E = ℓ(x_{T+1}; query)`, the objective of few-shot learning.

Source: MAML, Finn, Abbeel and Levine 2017; S004 eq. 5.
"""

import jax.numpy as jnp

from .._tree import Primal, Scalar
from ..inner import AbstractObjective, Prior, Problem, Step


class ValidationLoss(AbstractObjective):
    """The problem's loss on its query batch, after the run.

    >>> from mirrax.geometry import Euclidean
    >>> from mirrax.inner import Repeat
    >>> problem = Problem(lambda x, shared, y: (x - y) ** 2, Repeat(1.0), query=3.0)
    >>> prior = Prior(Euclidean(), jnp.array(0.0))
    >>> float(ValidationLoss().terminal(prior, problem, prior.start, jnp.array(2.0)))
    1.0
    """

    @property
    def judges_steps(self) -> bool:
        """False."""
        return False

    def stage(self, prior: Prior, problem: Problem, step: Step) -> Scalar:
        """Zero."""
        del prior, problem
        return jnp.zeros_like(step.loss)

    def terminal(self, prior: Prior, problem: Problem, first: Primal, last: Primal) -> Scalar:
        """`ℓ(x_{T+1}; query)`."""
        del first
        if problem.query is None:
            raise ValueError(
                "ValidationLoss: problem.query is None; give the problem a batch to be judged on."
            )
        return problem.loss(last, prior.shared, problem.query)
