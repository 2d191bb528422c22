r"""The alternation of spec B4 and B5: run the tasks, average their moments, move to the minimiser.

For one rate a parameter the tight bound is smallest at `m_i² = η √(G_i/D_i)`; for Kronecker factors
at the solution of a Riccati equation. What a kind of geometry needs is in `_closed_forms`.
"""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._checks import check_count
from .._tree import Primal
from ..geometry import AbstractGeometry
from ..inner import AbstractInner, Prior, Problem
from ..objective import Comparator
from ._closed_forms import Move, Pool, closed_form
from ._outer import AbstractOuter, Outcome, Runs, mean_over_runs
from ._reference import Reference

_SETTLING = 20
"""Rounds after which changes are half as large: the alternation settles instead of circling."""


class Alternating(AbstractOuter):
    r"""Alternates runs with the tight bound's minimiser, for diagonal and Kronecker geometries.

    Moments are averaged over tasks and visits, and over the axes of `pool`: hidden units are
    exchangeable, so what one of them shows holds for all. Logarithms of rates are averaged over
    rounds, and no rate changes more than fourfold a round. If a run ends above where it began, its
    moments say nothing about convergence; rates are lowered instead, each by its share in the
    bound's gradient term `η G_i/m_i²`, the largest by half: what blew up is what is cut.

    **Arguments:**

    - `rate`: the step size `η` of the inner rule.
    - `steps`: the length of a run.
    - `comparator`: `"solution"` (default), which is the reference's where there is one, or
      `"last"`, the end of the run itself.
    - `reference`: makes the solution of each run; `None` where problems have one.
    - `decay`: the weight of the geometry so far in the average over rounds, in [0, 1).
    - `damping`: how strongly parameters and directions that showed little stay at the rate `η`, see
      `tight_diagonal` and `tight_side`.
    - `pool`: for each parameter array, in flattening order, the axes whose entries share one rate,
      or, of a weight matrix, may be exchanged; `None` if there are none.

    **Raises:**

    - `ValueError`: if a number is out of range.
    """

    rate: float = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    comparator: Comparator = eqx.field(static=True, default="solution")
    reference: Reference | None = None
    decay: float = eqx.field(static=True, default=0.5)
    damping: float = eqx.field(static=True, default=0.1)
    pool: Pool = eqx.field(static=True, default=None)

    def __check_init__(self):
        if not self.rate > 0:
            raise ValueError(f"Alternating.rate: expected a positive number, got {self.rate!r}.")
        check_count("Alternating", "steps", self.steps)
        if not 0 <= self.decay < 1:
            raise ValueError(f"Alternating.decay: expected a weight in [0, 1), got {self.decay!r}.")
        if not 0 <= self.damping < math.inf:
            raise ValueError(f"Alternating.damping: expected at least 0, got {self.damping!r}.")

    @property
    def length(self) -> int:
        """`steps`."""
        return self.steps

    @property
    def recovers(self) -> bool:
        """True: after a round that diverged the rates responsible are lowered."""
        return True

    def init(self, geometry: AbstractGeometry) -> PyTree[Array]:
        """The number of rounds; the geometry itself is the average over them."""
        arrays = closed_form(geometry).arrays(geometry)
        if self.pool is not None and len(self.pool) != arrays:
            raise ValueError(
                f"Alternating.pool: expected axes for {arrays} parameter arrays, got {self.pool!r}."
            )
        return jnp.zeros((), int)

    def update(
        self, inner: AbstractInner, geometry: AbstractGeometry, state: PyTree[Array], runs: Runs
    ) -> tuple[AbstractGeometry, PyTree[Array], Outcome]:
        """Gathers moments and moves towards the geometry they call for."""
        form = closed_form(geometry)

        def run(problem: Problem, start: Primal, key: PRNGKeyArray, geometry: AbstractGeometry):
            prior = Prior(geometry, start)
            if self.reference is not None:
                problem = self.reference.solve(inner, prior, problem, key=key)
            return form.gather(
                inner, prior, problem, self.steps, comparator=self.comparator, key=key
            )

        moments, summary = runs.map(run, geometry)
        moments = mean_over_runs(moments)
        moved = form.moved(
            geometry,
            form.pooled(moments, self.pool, geometry),
            Move(
                self.rate,
                self.damping,
                share=1 - self.decay,
                gain=1 / (1 + state / _SETTLING),
                descended=jnp.all(summary.last_loss <= summary.first_loss),
            ),
        )
        value = form.bound(geometry, moments, self.rate)
        return moved, state + 1, Outcome(value, geometry, summary)
