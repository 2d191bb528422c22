r"""T-net and MT-net: linear layers between the layers that a task adapts.

Layer `A x = T(W x + b)`: a task adapts `W` and `b`, while `T` and the normalisations are shared.
In a linear layer the step of `A = T W` is preconditioned by `T M Tᵀ`. MT-net also learns which
units are adapted at all: one random mask `M` a task.
Sources: Lee and Choi 2018; spec A3.
"""

from jaxtyping import PRNGKeyArray

from ..geometry import Euclidean, RandomMask
from ..inner import MirrorDescent, PreconditionedDescent, Prior
from ..meta import FewShot
from ..models import Model
from ._few_shot import Protocol, few_shot, initial, is_norm, is_warp


def _with_warps(protocol: Protocol, key: PRNGKeyArray) -> tuple[Model, dict, dict | None]:
    model = protocol.network(warp="pointwise", head_warp=True)
    start, shared = initial(model, key, lambda name: not (is_warp(name) or is_norm(name)))
    return model, start, shared


@few_shot
def t_net(protocol: Protocol, *, key: PRNGKeyArray) -> tuple[FewShot, Prior]:
    """T-net: every layer is followed by a learned linear map that no task adapts.

    **Arguments:**

    - `protocol`, `key`: as for `maml`.
    """
    model, start, shared = _with_warps(protocol, key)
    learner = protocol.learner(model, MirrorDescent(protocol.rate), wrt=("start", "shared"))
    return learner, Prior(Euclidean(), start, shared)


@few_shot
def mt_net(protocol: Protocol, *, key: PRNGKeyArray) -> tuple[FewShot, Prior]:
    """MT-net: T-net with a random mask of units a task, its probabilities learned.

    **Arguments:**

    - `protocol`, `key`: as for `maml`.
    """
    model, start, shared = _with_warps(protocol, key)
    learner = protocol.learner(
        model, PreconditionedDescent(protocol.rate), wrt=("geometry", "start", "shared")
    )
    return learner, Prior(RandomMask.like(start), start, shared)
