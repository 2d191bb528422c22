r"""Learned mirror maps: blockIAF, and the potentials that are mirrax's own.

`x_k = g(z_k)`, `z_{k+1} = z_k − α ∇ℓ(x_k)`. With blockIAF, the map of S004 in its published and its
corrected variant, the dual point starts at a learned `z_0`; the map is no gradient map
(papers.md#s004-theorem-1). The others are gradients of convex potentials by construction, so that a
run is mirror descent and Theorem 3.1 of S000 holds on convex tasks. They start at a learned
*point*, `z_0 = ∇ψ(x_0)`: were `z_0` learned, every change of the map would move the start too.
Sources: S004 eq. 7 and §4; spec A5, A8 and B5.
"""

from typing import Literal

import jax
from jaxtyping import PRNGKeyArray

from ..geometry import BlockIAF, ConvexPotential, Euclidean, Transformed
from ..inner import DualDescent, MirrorDescent, Prior, mirror_step
from ..meta import FewShot
from ..models import Model, Warp
from ._few_shot import Protocol, few_shot, initial, is_warp, scaled


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
    map_key = jax.random.fold_in(key, 1)  # the network's own would draw its parameters again
    geometry = BlockIAF.like(shapes, model.roles, model.blocks, variant=variant, key=map_key)
    # At first the map is the identity: a network's initial parameters are their own dual point.
    dual, _ = initial(model, key)
    learner = protocol.learner(model, DualDescent(protocol.rate), wrt=("geometry", "start"))
    return learner, Prior(geometry, dual)


@few_shot
def block_iaf_official(protocol: Protocol, *, key: PRNGKeyArray) -> tuple[FewShot, Prior]:
    """`block_iaf` in the variant of the authors' code.

    **Arguments:**

    - `protocol`, `key`: as for `maml`.
    """
    return block_iaf(protocol, variant="official", key=key)


@few_shot
def convex_potential(protocol: Protocol, *, key: PRNGKeyArray) -> tuple[FewShot, Prior]:
    """Mirror descent with a learned convex potential of all parameters, in learned coordinates.

    The updates of the potential, whose ridges are products of several learned factors, are a tenth
    of those of the coordinates and the start.

    **Arguments:**

    - `protocol`, `key`: as for `maml`.
    """
    return _with_potential(protocol, protocol.network(), key)


@few_shot
def warped_potential(
    protocol: Protocol, *, warp: Warp = "spatial", key: PRNGKeyArray
) -> tuple[FewShot, Prior]:
    """`convex_potential` of a network between whose layers lie warps, learned as in `warp_maml`.

    **Arguments:**

    - `protocol`, `key`: as for `maml`.
    - `warp`: as for `warp_maml`.
    """
    return _with_potential(protocol, protocol.network(warp=warp), key)


def _with_potential(protocol: Protocol, model: Model, key: PRNGKeyArray) -> tuple[FewShot, Prior]:
    """A learned potential of what a task adapts; warp layers are learned and shared."""
    start, shared = initial(model, key, lambda name: not is_warp(name))
    map_key = jax.random.fold_in(key, 1)  # as above
    potential = ConvexPotential.like(start, model.roles, key=map_key)
    learner = protocol.learner(
        model,
        MirrorDescent(protocol.rate),
        wrt=("geometry", "start", "shared") if shared else ("geometry", "start"),
        optimiser=scaled(protocol.optimiser, "geometry.geometry", 0.1),
    )
    return learner, Prior(Transformed.like(potential, start, model.roles), start, shared)


@few_shot
def kronecker_metric(protocol: Protocol, *, key: PRNGKeyArray) -> tuple[FewShot, Prior]:
    """Descent in a learned metric, `½‖K⁻ᵀ x‖²`: `convex_potential` without its potential.

    **Arguments:**

    - `protocol`, `key`: as for `maml`.
    """
    model = protocol.network()
    start, _ = initial(model, key)
    geometry = Transformed.like(Euclidean(), start, model.roles)
    inner = mirror_step(geometry, protocol.rate)
    return protocol.learner(model, inner, wrt=("geometry", "start")), Prior(geometry, start)
