r"""Weighted sums of objectives, `E = Σ_i w_i E_i`."""

import functools
import operator
from collections.abc import Callable

from .._tree import Primal, Scalar
from ..inner import AbstractObjective, Prior, Problem, Step


class WeightedSum(AbstractObjective):
    """`Σ_i w_i E_i`, such as a validation loss and a penalty.

    **Arguments:**

    - `terms`: pairs of a weight and an objective, at least one.

    **Raises:**

    - `ValueError`: if there is no term.
    """

    terms: tuple[tuple[float, AbstractObjective], ...]

    def __check_init__(self):
        if not self.terms:
            raise ValueError("WeightedSum.terms: expected at least one objective, got none.")

    @property
    def judges_steps(self) -> bool:
        """Whether any of the objectives does."""
        return any(objective.judges_steps for _, objective in self.terms)

    def stage(self, prior: Prior, problem: Problem, step: Step) -> Scalar:
        """The weighted sum of the stages."""
        return self._sum(lambda objective: objective.stage(prior, problem, step))

    def terminal(self, prior: Prior, problem: Problem, first: Primal, last: Primal) -> Scalar:
        """The weighted sum of the terminal costs."""
        return self._sum(lambda objective: objective.terminal(prior, problem, first, last))

    def _sum(self, cost: Callable[[AbstractObjective], Scalar]) -> Scalar:
        parts = [weight * cost(objective) for weight, objective in self.terms]
        return functools.reduce(operator.add, parts)
