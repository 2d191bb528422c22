r"""ECML: learn a start from which adaptation is well conditioned.

`min Σ_t ℓ(x_K; Q_t) + γ P_t`, where `P` is the spread of the spectrum of `J Jᵀ` along the run; the
inner loop is plain gradient descent, and nothing is learned besides the start.
Source: public at the level of an abstract only, so this is the reconstruction of spec A7.
"""

import jax
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._tree import Layers
from ..geometry import Euclidean
from ..inner import MirrorDescent, Prior
from ..meta import FewShot, logits_of
from ..models import Model
from ..objective import ConditionPenalty, ValidationLoss, WeightedSum
from ._few_shot import Protocol, few_shot, initial


@few_shot
def ecml(protocol: Protocol, *, penalty: float = 0.01, key: PRNGKeyArray) -> tuple[FewShot, Prior]:
    """MAML with a penalty on the condition of the head's adaptation (reconstruction).

    **Arguments:**

    - `protocol`, `key`: as for `maml`.
    - `penalty`: its weight `γ`.
    """
    model = protocol.network()
    start, _ = initial(model, key)
    condition = ConditionPenalty(
        _residuals(model), protocol.steps, among=model.blocks[-1].__contains__
    )
    objective = WeightedSum(((1.0, ValidationLoss()), (penalty, condition)))
    learner = protocol.learner(model, MirrorDescent(protocol.rate), objective=objective)
    return learner, Prior(Euclidean(), start)


def _residuals(model: Model):
    """`softmax(logits) − onehot(labels)`, rows that sum to zero."""

    def residual(params: Layers, shared: PyTree, batch: tuple[Array, Array]) -> Array:
        logits = logits_of(model, params, shared, batch)
        return jax.nn.softmax(logits) - jax.nn.one_hot(
            batch[1], logits.shape[1], dtype=logits.dtype
        )

    return residual
