r"""MetaCurvature: learn where to start, and a Kronecker-factored transform of the gradients.

`x_{k+1} = x_k − α G ×_O M_o ×_I M_i ×_F M_f` for convolutions, `M_o G M_iᵀ` for dense weights and
`m ⊙ g` for vectors, all identities at first. The transform may become indefinite.
Sources: Park and Oliva 2019; spec A5 (factors are not transposed).
"""

from jaxtyping import PRNGKeyArray

from ..geometry import ModeProducts
from ..inner import PreconditionedDescent, Prior
from ..meta import FewShot
from ._few_shot import Protocol, few_shot, initial


@few_shot
def meta_curvature(protocol: Protocol, *, key: PRNGKeyArray) -> tuple[FewShot, Prior]:
    """MetaCurvature: a learned start and one learned matrix for every mode of every array.

    **Arguments:**

    - `protocol`, `key`: as for `maml`.
    """
    model = protocol.network()
    start, _ = initial(model, key)
    inner = PreconditionedDescent(protocol.rate)
    learner = protocol.learner(model, inner, wrt=("geometry", "start"))
    return learner, Prior(ModeProducts.identity(start, model.roles), start)
