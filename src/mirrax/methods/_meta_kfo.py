r"""MetaKFO: learn where to start, and an update network that learns along with each task.

`x_{k+1} = x_k − α U_{ξ_k}(∇ℓ(x_k))` with `U_ξ(G) = (LᵀL) G (RᵀR)`; from the second step on,
`ξ` descends the same loss before it is used.
Sources: Arnold, Iqbal and Sha 2021 (linear KFO); spec A6.
"""

from jaxtyping import PRNGKeyArray

from ..geometry import KroneckerUpdate
from ..inner import LearnedUpdate, Prior
from ..meta import FewShot
from ._few_shot import Protocol, few_shot, initial


@few_shot
def meta_kfo(protocol: Protocol, *, key: PRNGKeyArray) -> tuple[FewShot, Prior]:
    """MetaKFO: a learned start and a learned Kronecker update that tasks adapt too.

    **Arguments:**

    - `protocol`, `key`: as for `maml`.
    """
    model = protocol.network()
    start, _ = initial(model, key)
    learner = protocol.learner(model, LearnedUpdate(protocol.rate), wrt=("geometry", "start"))
    return learner, Prior(KroneckerUpdate.identity(start, model.roles), start)
