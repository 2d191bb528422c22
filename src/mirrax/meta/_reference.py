"""Where the solution of a task comes from when nobody knows it: the end of a longer run."""

import equinox as eqx
from jaxtyping import PRNGKeyArray

from ..geometry import Euclidean
from ..inner import AbstractInner, MirrorDescent, Prior, Problem, drawn, with_reference
from ..inner._randomness import Purpose, aside


class Reference(eqx.Module):
    """Where the comparator `θ*` of a run comes from: a longer Euclidean run from the same weights.

    With the last point of the run itself as comparator, parameters that moved little get lower
    rates and move less (papers.md#s000-eq10-last, parameter by parameter). A reference does not
    depend on the geometry, so nothing can collapse.

    **Arguments:**

    - `rate`: the step size of plain gradient descent.
    - `steps`: its length, usually a few times that of a run.

    **Raises:**

    - `ValueError`: if `rate` or `steps` is not positive.
    """

    rate: float = eqx.field(static=True)
    steps: int = eqx.field(static=True)

    def __check_init__(self):
        for name, value in (("rate", self.rate), ("steps", self.steps)):
            if not 0 < value < float("inf"):
                raise ValueError(f"Reference.{name}: expected a positive number, got {value!r}.")

    def solve(
        self, inner: AbstractInner, prior: Prior, problem: Problem, *, key: PRNGKeyArray
    ) -> Problem:
        """Fills `problem.solution`.

        **Arguments:**

        - `inner`, `prior`, `problem`: the run that the reference is for.
        - `key`: randomness of that run; the reference's is derived.
        """
        first = inner.init(drawn(prior, key)).primal
        return with_reference(
            problem,
            MirrorDescent(self.rate),
            Prior(Euclidean(), first, prior.shared),
            self.steps,
            key=aside(key, Purpose.REFERENCE),
        )
