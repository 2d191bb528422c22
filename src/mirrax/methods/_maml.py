r"""MAML and ANIL: learn where to start gradient descent.

`x_{k+1} = x_k − α ∇ℓ(x_k; S)`, `min_{x_0} Σ_t ℓ(x_K; Q_t)`. ANIL adapts the head alone; the rest of
the network is learned, but the same for all tasks.
Sources: Finn, Abbeel and Levine 2017; Raghu et al. 2020; spec A1.
"""

from jaxtyping import PRNGKeyArray

from ..geometry import Euclidean
from ..hypergradient import Reverse
from ..inner import MirrorDescent, Prior
from ..meta import FewShot
from ._few_shot import Protocol, few_shot, initial


@few_shot
def maml(
    protocol: Protocol, *, first_order: bool = False, key: PRNGKeyArray
) -> tuple[FewShot, Prior]:
    """MAML: gradient descent from a learned start.

    **Arguments:**

    - `protocol`: what all methods share.
    - `first_order`: treat the inner gradients as constants (FOMAML).
    - `key`: randomness of the initial parameters.

    **Returns:**

    The learner, and the prior it starts from.
    """
    model = protocol.network()
    start, _ = initial(model, key)
    estimator = Reverse(protocol.steps, wrt=("start",), first_order=first_order)
    inner = MirrorDescent(protocol.rate)
    return protocol.learner(model, inner, estimator=estimator), Prior(Euclidean(), start)


@few_shot
def anil(protocol: Protocol, *, key: PRNGKeyArray) -> tuple[FewShot, Prior]:
    """ANIL: almost no inner loop; a task adapts the head only.

    **Arguments:**

    - `protocol`, `key`: as for `maml`.
    """
    model = protocol.network()
    start, shared = initial(model, key, model.blocks[-1].__contains__)
    learner = protocol.learner(model, MirrorDescent(protocol.rate), wrt=("start", "shared"))
    return learner, Prior(Euclidean(), start, shared)
