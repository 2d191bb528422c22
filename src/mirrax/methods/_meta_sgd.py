r"""MetaSGD: learn where to start, and one rate a parameter.

`x_{k+1} = x_k − e^l ⊙ ∇ℓ(x_k)` is descent in the diagonal geometry with `e^l = α/m²`. The outer
optimiser moves `l`: with `log m = (log α − l)/2` it sees `log m` in units of `−½`.
Sources: Li et al. 2017; spec A2, whose parameterisation is that of the codes it cites.
"""

from jaxtyping import PRNGKeyArray

from ..geometry import Diagonal
from ..inner import PreconditionedDescent, Prior
from ..meta import FewShot
from ._few_shot import Protocol, few_shot, in_units, initial


@few_shot
def meta_sgd(protocol: Protocol, *, key: PRNGKeyArray) -> tuple[FewShot, Prior]:
    """MetaSGD: a learned start and a learned rate for every parameter, `α` at first.

    **Arguments:**

    - `protocol`, `key`: as for `maml`.
    """
    model = protocol.network()
    start, _ = initial(model, key)
    learner = protocol.learner(
        model,
        PreconditionedDescent(protocol.rate),
        wrt=("geometry", "start"),
        optimiser=in_units(protocol.optimiser, "geometry", -0.5),
    )
    return learner, Prior(Diagonal.like(start), start)
