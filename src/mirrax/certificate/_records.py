"""What a certificate says: bounds, what they rest on, and what may be claimed."""

import dataclasses
from typing import Any, Literal

from .._json import plain

How = Literal["construction", "declared", "measured"]
"""How an assumption is known: it is so by construction, the user says so, this run shows it."""

Status = Literal["guaranteed", "holds on this run", "not claimed"]


@dataclasses.dataclass(frozen=True)
class Assumption:
    """One assumption of the theorem.

    **Arguments:**

    - `name`: which.
    - `holds`: whether it holds, as far as is known.
    - `how`: how that is known.
    - `detail`: a sentence with the evidence.

    >>> Assumption("convex losses", True, "declared", "declared convex").holds
    True
    """

    name: str
    holds: bool
    how: How
    detail: str


@dataclasses.dataclass(frozen=True)
class Bound:
    """One bound on the regret.

    **Arguments:**

    - `name`: `"exact"`, `"local norm"`, `"Theorem 3.1"` or `"eq. 9"`.
    - `value`: its value.
    - `tightness`: regret over bound, at most 1 where the bound holds; near 1 is tight.
    - `satisfied`: whether the linearised regret is at most the bound, up to rounding.
    - `needs`: the names of the assumptions it rests on.
    - `status`: what may be said of it.

    >>> Bound("exact", 4.0, 0.5, True, ("mirror step",), "guaranteed").value
    4.0
    """

    name: str
    value: float
    tightness: float
    satisfied: bool
    needs: tuple[str, ...]
    status: Status


@dataclasses.dataclass(frozen=True)
class RegretCertificate:
    """The regret of one run beside the bounds of Theorem 3.1.

    **Arguments:**

    - `steps`, `rate`: the length `T` and the step size `η` of the run.
    - `regret`: `Σ ℓ_t(x_t) − ℓ_t(u)`.
    - `linearised_regret`: `Σ ⟨g_t, x_t − u⟩`, at least the regret where losses are convex.
    - `unclaimed`: `D(u‖x_{T+1})/η`, by which the exact bound exceeds the linearised regret.
    - `bounds`: `"exact"`, `"local norm"`, `"Theorem 3.1"` and `"eq. 9"`, in general from the
      tightest to the loosest.
    - `assumptions`: all that the bounds rest on.

    >>> import jax.numpy as jnp
    >>> from mirrax.certificate import regret_certificate
    >>> from mirrax.geometry import Euclidean
    >>> from mirrax.inner import Trajectory
    >>> run = Trajectory(jnp.array([1.0, 0.5]), jnp.array([1.0]), jnp.array([0.5]))
    >>> certificate = regret_certificate(
    ...     Euclidean(), run, jnp.zeros(1), jnp.array(0.0), 0.5, convex=True)
    >>> certificate.regret, certificate.bound("Theorem 3.1").value
    (0.5, 1.25)
    """

    steps: int
    rate: float
    regret: float
    linearised_regret: float
    unclaimed: float
    bounds: tuple[Bound, ...]
    assumptions: tuple[Assumption, ...]

    @property
    def status(self) -> Status:
        """What may be said of Theorem 3.1 for this run."""
        return self.bound("Theorem 3.1").status

    def bound(self, name: str) -> Bound:
        """The bound of that name."""
        return _named(self.bounds, name)

    def assumption(self, name: str) -> Assumption:
        """The assumption of that name."""
        return _named(self.assumptions, name)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words for a JSON file; `None` where a number is not finite."""
        return {**plain(dataclasses.asdict(self)), "status": self.status}


def _named(items: tuple[Any, ...], name: str) -> Any:
    for item in items:
        if item.name == name:
            return item
    raise ValueError(f"name: expected one of {[item.name for item in items]}, got {name!r}.")
