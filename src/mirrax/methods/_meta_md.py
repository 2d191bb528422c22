r"""MetaMD: learn the Bregman divergence of mirror descent from a family of tasks (S000).

The paper's composition is `geometry="max-of-diagonals"`, `objective="eq10"`, `comparator="last"`.
The default composition is the one that works: the tight regret bound, whose minimiser for a
diagonal geometry is closed.
"""

from collections.abc import Callable
from typing import Literal

import jax
import optax
from jaxtyping import PRNGKeyArray

from .._tree import Primal
from ..geometry import AbstractGeometry, Diagonal, Kronecker, MaxOfDiagonals
from ..hypergradient import AbstractHypergradient, Direct, Evolution, Reverse, Truncated
from ..inner import AbstractObjective, PreconditionedDescent, mirror_step
from ..meta import Alternating, Descent, ManyShot, OnFailure, Reference
from ..objective import Comparator, LipschitzRegretBound, RegretBound

GeometryName = Literal["diagonal", "max-of-diagonals", "kronecker"]
ObjectiveName = Literal["tight", "eq10"]
EstimatorName = Literal[
    "closed-form",
    "direct",
    "reverse",
    "checkpointed",
    "mixed",
    "first-order",
    "truncated",
    "evolution",
]
"""How `meta_md` improves a geometry: the closed form, or a hypergradient by name."""
StepName = Literal["exact", "printed"]


def meta_md(
    initialise: Callable[[PRNGKeyArray], Primal],
    *,
    steps: int,
    rate: float,
    geometry: GeometryName = "diagonal",
    components: int = 3,
    objective: ObjectiveName = "tight",
    comparator: Comparator = "last",
    reference: Reference | None = None,
    k: float = 1.0,
    estimator: EstimatorName = "closed-form",
    window: int = 0,
    pairs: int = 16,
    spread: float = 0.05,
    step: StepName = "exact",
    outer_rate: float = 0.05,
    decay: float = 0.5,
    damping: float = 0.1,
    pool: tuple[tuple[int, ...], ...] | None = None,
    visits: int = 1,
    devices: int = 1,
    batch_devices: int = 1,
    in_turn: bool = False,
    on_failure: OnFailure = "stop",
    key: PRNGKeyArray,
) -> tuple[ManyShot, AbstractGeometry]:
    r"""The many-shot learner of S000, and the geometry it starts from.

    **Arguments:**

    - `initialise`: draws initial weights, `key -> parameters`.
    - `steps`: the length of a run.
    - `rate`: the step size `η`; the geometry starts at `M = I`, that is at gradient descent with
      this rate.
    - `geometry`, `components`: the divergence; `components` counts the diagonals of the maximum.
    - `objective`, `k`: the tight bound, or eq. 10 with weight `k`.
    - `comparator`: where `θ*` comes from: the last point of a run, or the problem's solution.
    - `reference`: makes that solution by a longer run where it is not known.
    - `estimator`: the closed form (tight bound, not for a maximum), or a hypergradient.
    - `window`: the length of a window for `"truncated"` and `"evolution"`; by default the run's.
    - `pairs`, `spread`: how many pairs of runs `"evolution"` makes, and how far apart.
    - `step`: the exact mirror step, or S000's eq. 7–8.
    - `outer_rate`: the rate `ρ` of the outer optimiser (Adam on `log m`).
    - `decay`, `damping`, `pool`: the averages of the closed form, see `Alternating`.
    - `visits`: initial weights a task and round.
    - `devices`, `batch_devices`, `in_turn`: where and how the runs of a round are made, see
      `ManyShot`.
    - `on_failure`: what becomes of rounds some of whose runs fail, see `Descent`; the closed form
      recovers in its own way.
    - `key`: randomness of the initial components.

    **Returns:**

    The learner and the initial geometry.

    **Raises:**

    - `ValueError`: if the closed form is asked for where there is none, or a reference where the
      comparator is the last point.

    >>> import jax.numpy as jnp
    >>> draw = lambda key: {"w": jax.random.normal(key, (3,))}
    >>> learner, geometry = meta_md(draw, steps=10, rate=0.1, key=jax.random.key(0))
    >>> type(geometry).__name__, learner.steps
    ('Diagonal', 10)
    """
    if reference is not None and comparator == "last":
        raise ValueError(
            "meta_md.reference: a reference run is the comparator 'solution', got "
            "comparator='last'; give one or the other."
        )
    params = jax.eval_shape(initialise, key)
    params = jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype), params)
    initial: AbstractGeometry
    if geometry == "diagonal":
        initial = Diagonal.like(params)
    elif geometry == "kronecker":
        initial = Kronecker.like(params)
    else:
        initial = MaxOfDiagonals.like(params, components, key=key)
    inner = PreconditionedDescent(rate) if step == "printed" else mirror_step(initial, rate)
    if estimator == "closed-form":
        if objective != "tight" or geometry == "max-of-diagonals":
            raise ValueError(
                "meta_md.estimator: 'closed-form' exists for objective='tight' and "
                "geometry='diagonal' or 'kronecker', got "
                f"{objective!r} and {geometry!r}; choose 'direct' or 'reverse'."
            )
        outer = Alternating(rate, steps, comparator, reference, decay, damping, pool)
        return ManyShot(inner, outer, initialise, visits, devices, in_turn, batch_devices), initial
    worth: AbstractObjective
    if objective == "tight":
        worth = RegretBound(rate, comparator)
    else:
        worth = LipschitzRegretBound(k, comparator)
    hypergradient = _estimator(estimator, steps, window, pairs, spread)
    outer = Descent(worth, hypergradient, optax.adam(outer_rate), reference, on_failure)
    return ManyShot(inner, outer, initialise, visits, devices, in_turn, batch_devices), initial


def _estimator(
    name: EstimatorName, steps: int, window: int, pairs: int, spread: float
) -> AbstractHypergradient:
    if name == "direct":
        return Direct(steps)
    if name == "truncated":
        return Truncated(steps=steps, window=window or steps)
    if name == "evolution":
        return Evolution(steps=steps, pairs=pairs, spread=spread, window=window or None)
    return Reverse(
        steps,
        checkpoint=name == "checkpointed",
        first_order=name == "first-order",
        mixed=name == "mixed",
    )
