"""Inner problems that have a solution, known by an equation that holds there.

A run of `T` steps ends wherever it ends. A stationary inner problem has a solution `θ*` with
`F(θ*; prior) = 0`, and if the prior stands in that equation, the solution can be differentiated
through it, `(∂F/∂θ) dθ* = −(∂F/∂prior) dprior`, whatever steps found it. The equation of plain
mirror descent is `∇ℓ(θ*) = 0`: no geometry and no start stand in it (papers.md#s001-implicit).
"""

import abc

from .._tree import Dual, Primal
from ._descent import AbstractInner
from ._problem import Prior, Problem


class AbstractStationaryInner(AbstractInner):
    """A rule whose steps converge to the root of an equation that the prior stands in."""

    @abc.abstractmethod
    def residual(self, prior: Prior, problem: Problem, primal: Primal) -> Dual:
        """`F(θ; prior)`, zero at the solution.

        **Arguments:**

        - `prior`, `problem`: the two halves of the task.
        - `primal`: a point `θ`.

        **Returns:**

        A dual vector, differentiable in the prior and in the point. It is one function: the same
        arguments give the same value at every step.
        """
