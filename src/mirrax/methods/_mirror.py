r"""Learned mirror maps: blockIAF, and the convex potential that is mirrax's own default.

`x_k = g(z_k)`, `z_{k+1} = z_k − α ∇ℓ(x_k)`: the dual point starts at a learned `z_0`, and the map
`g` is learned with it. blockIAF is the map of S004, in its published and its corrected variant; it
is no gradient map (error E1). The convex potential is one by construction, so that the run is
mirror descent and Theorem 3.1 of S000 holds on convex tasks.
Sources: S004 eq. 7 and §4; spec A8.
"""

from typing import Literal

from jaxtyping import PRNGKeyArray

from ..geometry import AbstractMirrorMap, BlockIAF, ConvexPotential
from ..inner import DualDescent, Prior
from ..meta import FewShot
from ..models import Model
from ._few_shot import Protocol, few_shot, initial


def _descended(
    protocol: Protocol, model: Model, geometry: AbstractMirrorMap, key: PRNGKeyArray
) -> tuple[FewShot, Prior]:
    # At first the map is the identity: a network's initial parameters are their own dual point.
    dual, _ = initial(model, key)
    learner = protocol.learner(model, DualDescent(protocol.rate), wrt=("geometry", "start"))
    return learner, Prior(geometry, dual)


@few_shot
def block_iaf(
    protocol: Protocol, *, variant: Literal["paper", "official"] = "paper", key: PRNGKeyArray
) -> tuple[FewShot, Prior]:
    """S004's method: dual descent with a block-autoregressive map.

    **Arguments:**

    - `protocol`, `key`: as for `maml`.
    - `variant`: `"paper"` (bounded scales, heads that can be trained) or `"official"` (as the
      authors' code, most of whose heads cannot).
    """
    model = protocol.network()
    shapes = model.shapes
    geometry = BlockIAF.like(shapes, model.roles, model.blocks, variant=variant, key=key)
    return _descended(protocol, model, geometry, key)


@few_shot
def block_iaf_official(protocol: Protocol, *, key: PRNGKeyArray) -> tuple[FewShot, Prior]:
    """`block_iaf` in the variant of the authors' code.

    **Arguments:**

    - `protocol`, `key`: as for `maml`.
    """
    return block_iaf(protocol, variant="official", key=key)


@few_shot
def convex_potential(protocol: Protocol, *, key: PRNGKeyArray) -> tuple[FewShot, Prior]:
    """Mirror descent with a learned convex potential of all parameters.

    **Arguments:**

    - `protocol`, `key`: as for `maml`.
    """
    model = protocol.network()
    geometry = ConvexPotential.like(model.shapes, model.roles, key=key)
    return _descended(protocol, model, geometry, key)
