r"""Warp-MAML and WarpGrad: linear warp layers `Ω` between the layers that a task adapts.

`x_{k+1} = x_k − α ∇_x ℓ(x_k; Ω)`. Warp-MAML learns `Ω` and the start through the whole run, as
MAML does; WarpGrad learns `Ω` from single steps along the path, and the start by Leap.
Sources: Flennerhag et al. 2020; spec A4, with what the published code computes instead.
"""

from jaxtyping import PRNGKeyArray

from ..geometry import Euclidean
from ..hypergradient import AbstractHypergradient, Pathwise
from ..inner import MirrorDescent, Prior
from ..meta import FewShot
from ..models import Warp
from ._few_shot import Protocol, few_shot, initial, is_warp


def _warped(
    protocol: Protocol, warp: Warp, key: PRNGKeyArray, estimator: AbstractHypergradient | None
) -> tuple[FewShot, Prior]:
    model = protocol.network(warp=warp)
    start, shared = initial(model, key, lambda name: not is_warp(name))
    learner = protocol.learner(
        model, MirrorDescent(protocol.rate), wrt=("start", "shared"), estimator=estimator
    )
    return learner, Prior(Euclidean(), start, shared)


@few_shot
def warp_maml(
    protocol: Protocol, *, warp: Warp = "spatial", key: PRNGKeyArray
) -> tuple[FewShot, Prior]:
    """Warp-MAML: MAML whose outer loop learns warp layers too.

    **Arguments:**

    - `protocol`, `key`: as for `maml`.
    - `warp`: `"pointwise"` (1×1) or `"spatial"` (3×3) warps, the identity at first.
    """
    return _warped(protocol, warp, key, None)


@few_shot
def warpgrad(
    protocol: Protocol, *, warp: Warp = "spatial", first_order: bool = False, key: PRNGKeyArray
) -> tuple[FewShot, Prior]:
    """WarpGrad: warps learned from single steps along the path, the start by Leap.

    **Arguments:**

    - `protocol`, `key`: as for `maml`.
    - `warp`: as for `warp_maml`.
    - `first_order`: treat the gradients of those steps as constants, as the published code does.
    """
    return _warped(protocol, warp, key, Pathwise(protocol.steps, first_order=first_order))
