r"""What a diagonal geometry learned on `n` tasks promises on a new one: Theorem 4.1, corrected.

For one diagonal, the divergence of a task is linear in `m²`: `D_m(Δ) = ½ ⟨m², Δ²⟩` with
`Δ = θ* − θ_1`. Over all `m` with `‖m‖₂ ≤ C`, and tasks with `‖Δ‖₂ ≤ r`, it lies in
`[0, C²r²/2]`, its Rademacher complexity is at most `(C²/2n) E‖Σ σ_i Δ_i²‖₂ ≤ C²r²/(2√n)`, and with
McDiarmid's inequality, for `n` independent tasks and with probability at least `1 − δ`,

    E D_m ≤ (1/n) Σ D_m(Δ_i) + C²r²/√n + (C²r²/2) √(ln(1/δ)/2n)    for all these m at once,

so that the expected regret of a new task is at most the right side over `η`, plus `ηTL²/(2λ)`.

S000 prints this theorem for maxima of `N` diagonals, where it does not hold
(papers.md#s000-theorem-4-1): `‖Δ‖ ≤ r` does not bound the divergence of a maximum near a kink (its
eq. 14 fails at `M_1² = (1, 4)`, `M_2² = (4, 1)`), eq. 15 bounds a maximum by a sum under negative
signs too, `1/η` is missing from two terms, and so are the factor two of symmetrisation and the
range `C²r²/2` in the last. No bound is offered for `N > 1`.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from .._tree import Primal, total
from ..geometry import Diagonal


@dataclasses.dataclass(frozen=True)
class TransferBound:
    """A bound on the expected regret of a new task, term by term.

    **Arguments:**

    - `divergence`: the mean of `D(θ*‖θ_1)/η` over the tasks learned from.
    - `complexity`: `C²r²/(η√n)`, the price of having chosen the geometry on them.
    - `confidence`: `(C²r²/2η) √(ln(1/δ)/2n)`.
    - `steps_term`: `ηTL²/(2λ)`.

    >>> TransferBound(1.0, 2.0, 0.5, 0.25).value
    3.75
    """

    divergence: float
    complexity: float
    confidence: float
    steps_term: float

    @property
    def value(self) -> float:
        """The sum of the four terms."""
        return self.divergence + self.complexity + self.confidence + self.steps_term


def transfer_bound(
    geometry: Diagonal,
    displacements: Primal,
    *,
    rate: float,
    steps: int,
    lipschitz: float,
    radius: float,
    size: float,
    failure: float = 0.05,
) -> TransferBound:
    """Bounds the expected regret of mirror descent on a new task of the family.

    The tasks must be convex, independent and alike; `θ*` must not depend on the geometry; and
    `radius`, `size` and `lipschitz` must be fixed before the tasks are seen.

    **Arguments:**

    - `geometry`: the diagonal geometry, however it was chosen.
    - `displacements`: `Δ_i = θ*_i − θ_1`, shaped like the parameters with a leading axis of tasks.
    - `rate`, `steps`: the step size `η` and the length `T` of a run.
    - `lipschitz`: a bound `L` on the Euclidean norm of gradients.
    - `radius`: a bound `r` on `‖Δ‖₂` for all tasks of the family.
    - `size`: the bound `C` on `‖m‖₂` of the geometries that were considered.
    - `failure`: the probability `δ` that the bound may fail.

    **Returns:**

    The bound.

    **Raises:**

    - `ValueError`: if the geometry is not a `Diagonal`, a number is not positive, or `radius` or
      `size` is exceeded.

    Source: S000 Theorem 4.1 with the corrections above.

    >>> geometry = Diagonal.like(jnp.zeros(2))
    >>> bound = transfer_bound(geometry, jnp.ones((100, 2)), rate=0.5, steps=10, lipschitz=1.0,
    ...                        radius=1.5, size=1.5)
    >>> round(bound.divergence, 6), round(bound.complexity, 6)
    (2.0, 1.0125)
    """
    if not isinstance(geometry, Diagonal):
        raise ValueError(
            f"transfer_bound.geometry: expected a Diagonal, got {type(geometry).__name__}; for "
            "maxima of several diagonals Theorem 4.1 of S000 does not hold."
        )
    numbers = {"rate": rate, "steps": steps, "lipschitz": lipschitz, "radius": radius, "size": size}
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise ValueError(f"transfer_bound.{name}: expected a positive number, got {number!r}.")
    if not 0 < failure < 1:
        raise ValueError(f"transfer_bound.failure: expected within (0, 1), got {failure!r}.")
    largest = float(jnp.sqrt(jnp.max(jax.vmap(lambda d: total(jnp.square, d))(displacements))))
    _check_within("radius", radius, "displacement", largest)
    _check_within("size", size, "geometry", float(jnp.sqrt(total(jnp.abs, geometry.curvature))))
    zero = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), displacements)
    divergences = jax.vmap(lambda d: geometry.divergence(d, zero))(displacements)
    count, spread = len(divergences), size**2 * radius**2
    return TransferBound(
        divergence=float(jnp.mean(divergences)) / rate,
        complexity=spread / math.sqrt(count) / rate,
        confidence=spread / 2 * math.sqrt(math.log(1 / failure) / (2 * count)) / rate,
        steps_term=rate * steps * lipschitz**2 / 2 / float(geometry.strong_convexity()),
    )


def _check_within(field: str, limit: float, what: str, found: float) -> None:
    if not found <= limit * (1 + 1e-6):
        raise ValueError(
            f"transfer_bound.{field}: {limit!r} is exceeded by a {what} of norm {found:.6g}."
        )
