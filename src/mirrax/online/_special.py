r"""Classical methods as meta-gradients of the rule `Φ(x, w) = w`, exactly.

| method | `α_t` | `β` | hint |
|---|---|---|---|
| `heavy_ball` | `t` | `1/(2L)` | none |
| `nesterov` | `t` | `1/(2L)` | `same_weight` |
| `nesterov_momentum` | `α_t² = 2 α_{1:t}` | `1/(2L)` | `Accelerated` |

The averages `x̄_t` are then those of

    x̄_t = x̄_{t−1} + (t−2)/(t+1) (x̄_{t−1} − x̄_{t−2}) − (t−1)/((t+1)L) ∇f(x̄_{t−1}),
    x̄_{t+1} = (1 − ρ_{t+1}) y_t + ρ_{t+1} z_t  with  z_t = z_{t−1} − t/(2L) ∇f(x̄_t),
    x̄_{t+1} = y_t + ρ_{t+1} (1 − ρ_t)/ρ_t (y_t − y_{t−1}),

where `y_t = x̄_t − ∇f(x̄_t)/L`.

Sources: S002 §4 and §5, whose coefficients are corrected in spec C3 and C4 (papers.md#s002-rho,
papers.md#s002-nesterov).
"""

from typing import Any

from jaxtyping import PyTree

from .._tree import Primal
from ._convex import ConvexMeta
from ._ftrl import FTRL, Project, everywhere, linear_weights
from ._hints import Accelerated, AcceleratedWeights, no_hint, same_weight


def heavy_ball(smoothness: Any, *, project: Project = everywhere) -> ConvexMeta:
    """Polyak's Heavy Ball, with momentum and step that change with time.

    **Arguments:**

    - `smoothness`: `L`, the Lipschitz constant of the gradient.
    - `project`: the projection on the set of solutions; all of the space by default.

    >>> import jax.numpy as jnp
    >>> method = heavy_ball(1.0)
    >>> state, _ = method.run(lambda x: x @ x / 2, method.init(jnp.ones(2), jnp.ones(2)), 3)
    >>> [round(value, 4) for value in state.average.tolist()]
    [0.25, 0.25]
    """
    return ConvexMeta(_play, FTRL(0.5 / smoothness, linear_weights, project), no_hint)


def nesterov(smoothness: Any, *, project: Project = everywhere) -> ConvexMeta:
    """Nesterov's accelerated gradients, as a coupling of gradient and mirror descent (N2).

    **Arguments:**

    - `smoothness`: `L`, the Lipschitz constant of the gradient.
    - `project`: the projection on the set of solutions; all of the space by default.
    """
    return ConvexMeta(_play, FTRL(0.5 / smoothness, linear_weights, project), same_weight)


def nesterov_momentum(smoothness: Any, *, project: Project = everywhere) -> ConvexMeta:
    """Nesterov's accelerated gradients, with classical momentum (N3).

    **Arguments:**

    - `smoothness`: `L`, the Lipschitz constant of the gradient.
    - `project`: the projection on the set of solutions; all of the space by default.
    """
    constant = 2.0  # 1/(β L) at β = 1/(2L)
    leader = FTRL(0.5 / smoothness, AcceleratedWeights(constant), project)
    return ConvexMeta(_play, leader, Accelerated(constant))


def _play(average: Primal, point: PyTree) -> Primal:
    del average
    return point
