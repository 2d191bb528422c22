r"""blockIAF: a block-autoregressive mirror map with learned scales and shifts.

Parameters are cut into blocks `z = (z_1, …, z_B)`, in the order of the network. With embeddings
`e_j(z_j)`, `x_i = z_i ⊙ σ(s_i) + μ_i` where `(s_i, μ_i) = d_i(e_1(z_1), …, e_{i−1}(z_{i−1}))`;
block 1 has learned constants. The inverse is exact, block by block. Its Jacobian is block
triangular, so it is a gradient only while no block depends on another: with learned conditioners
**it has no potential** and no Bregman divergence, and Theorem 1 of S004 fails
(papers.md#s004-theorem-1); `certificate.symmetry_of_map` measures by how much. `ConvexPotential` is
the map that has one.
Source: S004 §4.1 eq. 8, with `z_j` for the printed `z_i` in eq. 8b (papers.md#s004-eq8b);
spec A8.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._tree import Dual, Primal
from .._views import Axes, as_axes, view_shape
from ._autoregressive import (
    HALVINGS,
    Decoder,
    Equals,
    Shape,
    encode,
    halved,
    want_decoder,
    want_dense,
    want_encoder,
    want_equals,
)
from ._base import AbstractMirrorMap
from ._draws import Draw, drawn
from ._modes import ModeLinear, axes_of, by_name, unviewed, viewed

Variant = Literal["paper", "official"]
Blocks = tuple[tuple[str, ...], ...]


def _as_blocks(blocks: Sequence[Sequence[str]]) -> Blocks:
    return tuple(tuple(block) for block in blocks)


class BlockIAF(AbstractMirrorMap):
    r"""`x_i = z_i ⊙ σ(s_i) + μ_i`, conditioned on the earlier blocks; not a gradient map.

    `variant` chooses `σ` and the start of the heads. `"paper"`: `σ = 2·logistic`, bounded as S004
    asks, and heads that can be trained. `"official"`: `σ = exp` and heads of which all factors are
    zero, as the authors' code; those of arrays with two axes or more then keep zero gradients
    (papers.md#s004-heads), so that only vectors are ever conditioned on earlier blocks. Both start
    at the identity.

    **Arguments:**

    - `encoders`: an encoder for each array but those of the last block, equal ones stacked.
    - `autoregressors`: for each block but the first a dense layer, from the embeddings of all
      earlier blocks to the codes of its arrays.
    - `decoders`: a decoder for each array but those of the first block, equal ones stacked.
    - `raw_scale`, `shift`: the constants `s_1`, `μ_1` of the first block, in the arrays' views.
    - `blocks`: the names of the arrays, block by block; their order is the autoregressors'.
    - `axes`: the names of the arrays with their roles.
    - `variant`: `"paper"` or `"official"`.

    **Raises:**

    - `ValueError`: if the variant is unknown.

    >>> roles = {"a": {"w": ("in", "out")}, "b": {"w": ("in", "out")}}
    >>> template = {"a": {"w": jnp.ones((4, 3))}, "b": {"w": jnp.ones((3, 2))}}
    >>> mirror_map = BlockIAF.like(template, roles, (("a/w",), ("b/w",)), key=jax.random.key(0))
    >>> mirror_map.to_primal(template)["b"]["w"].tolist()
    [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """

    encoders: tuple[Equals, ...]
    autoregressors: tuple[ModeLinear, ...]
    decoders: tuple[Equals, ...]
    raw_scale: dict[str, Float[Array, "..."]]
    shift: dict[str, Float[Array, "..."]]
    blocks: Blocks = eqx.field(static=True, converter=_as_blocks)
    axes: Axes = eqx.field(static=True, converter=as_axes)
    variant: Variant = eqx.field(static=True, default="paper")

    def __check_init__(self):
        if self.variant not in get_args(Variant):
            raise ValueError(
                f"BlockIAF.variant: expected one of {get_args(Variant)}, got {self.variant!r}."
            )

    @classmethod
    def like(
        cls,
        template: PyTree,
        roles: Mapping[str, Any],
        blocks: Sequence[Sequence[str]],
        *,
        variant: Variant = "paper",
        key: PRNGKeyArray,
    ) -> "BlockIAF":
        """The identity, with random networks behind heads that are zero.

        **Arguments:**

        - `template`: parameters, or `jax.ShapeDtypeStruct`s of them.
        - `roles`: as `Model.roles`.
        - `blocks`: as `Model.blocks`: the names of the arrays, block by block.
        - `variant`: `"paper"` or `"official"`.
        - `key`: randomness.

        **Raises:**

        - `ValueError`: if roles or blocks do not fit the parameters.
        """
        axes = axes_of(template, roles, cls.__name__)
        leaves = by_name(template)
        listed = [name for block in blocks for name in block]
        if sorted(listed) != sorted(leaves) or not all(blocks):
            raise ValueError(
                f"BlockIAF.blocks: expected each of {', '.join(leaves)} once, in blocks that are "
                f"not empty, got {_as_blocks(blocks)}."
            )
        shapes = {name: view_shape(leaves[name].shape, axis_roles) for name, axis_roles in axes}
        dtype = jnp.result_type(*(leaf.dtype for leaf in leaves.values()))
        wanted = _wanted(shapes, _as_blocks(blocks), live=variant == "paper")
        arrays = drawn(wanted, dtype, key=key)
        return cls(*arrays, blocks=blocks, axes=axes, variant=variant)

    def scale(self, raw: Array) -> Array:
        """`σ(s)`: `2/(1 + e^{−s})` for the paper's variant, `e^s` for the official one."""
        return jnp.exp(raw) if self.variant == "official" else 2 * jax.nn.sigmoid(raw)

    def to_primal(self, dual: Dual) -> Primal:
        """`z_i ⊙ σ(s_i) + μ_i`, all blocks at once."""
        z = viewed(dual, self.axes, "BlockIAF.to_primal")
        embeddings = self._embeddings(z)
        codes = {}
        for index in range(1, len(self.blocks)):
            codes |= self._codes(index, embeddings, z)

        def forward(decoder: Decoder, code: Array, array: Array) -> Array:
            return self._affine(array, *decoder(code))

        x = {
            name: self._affine(z[name], self.raw_scale[name], move)
            for name, move in self.shift.items()
        }
        for decoders in self.decoders:
            x |= decoders(forward, codes, z)
        return unviewed(x, self.axes, dual)

    def to_dual(self, primal: Primal) -> Dual:
        """`(x_i − μ_i)/σ(s_i)`, one block after the other: each needs the duals before it."""
        x = viewed(primal, self.axes, "BlockIAF.to_dual")

        def backward(decoder: Decoder, code: Array, array: Array) -> Array:
            return self._inverse(array, *decoder(code))

        z = {
            name: self._inverse(x[name], self.raw_scale[name], move)
            for name, move in self.shift.items()
        }
        embeddings = self._embeddings(z)
        for index in range(1, len(self.blocks)):
            codes, block = self._codes(index, embeddings, x), {}
            for decoders in self.decoders:
                block |= decoders(backward, codes, x)
            embeddings |= self._embeddings(block)
            z |= block
        return unviewed(z, self.axes, primal)

    def _affine(self, z: Array, raw: Array, shift: Array) -> Array:
        return z * self.scale(raw) + shift

    def _inverse(self, x: Array, raw: Array, shift: Array) -> Array:
        return (x - shift) / self.scale(raw)

    def _embeddings(self, z: Mapping[str, Array]) -> dict[str, Array]:
        found = {}
        for encoders in self.encoders:
            found |= encoders(encode, z)
        return found

    def _codes(
        self, index: int, embeddings: Mapping[str, Array], arrays: Mapping[str, Array]
    ) -> dict[str, Array]:
        """What the decoders of one block start from, given the embeddings of all before it."""
        earlier = [embeddings[name] for block in self.blocks[:index] for name in block]
        joined = self.autoregressors[index - 1](jnp.concatenate(earlier))
        codes, start = {}, 0
        for name in self.blocks[index]:
            shape = halved(arrays[name].shape, HALVINGS)
            end = start + math.prod(shape)
            codes[name] = joined[start:end].reshape(shape)
            start = end
        return codes


def _wanted(shapes: Mapping[str, Shape], blocks: Blocks, *, live: bool) -> tuple:
    """The arrays of a new map, field by field."""
    encoded = {name: shapes[name] for block in blocks[:-1] for name in block}
    decoded = {name: shapes[name] for block in blocks[1:] for name in block}
    sizes = [sum(math.prod(halved(shapes[name], HALVINGS)) for name in block) for block in blocks]
    constants = {name: Draw(shapes[name]) for name in blocks[0]}
    return (
        want_equals(want_encoder, encoded),
        tuple(want_dense(sum(sizes[:i]), sizes[i]) for i in range(1, len(blocks))),
        want_equals(functools.partial(want_decoder, live=live), decoded),
        constants,
        constants,
    )
