r"""blockIAF, `x_i = z_i ⊙ σ(s_i) + μ_i` with `(s_i, μ_i)` from the embeddings of earlier blocks.

The first block has learned constants. The map is inverted block by block, exactly; it has no
potential. Source: S004 §4.1 eq. 8; spec A8, as `mirrax.geometry.BlockIAF`.
"""

import dataclasses
import math

import torch
from torch import Tensor

from ...._views import Roles
from ._modes import ModeLinear, unview, view
from ._part import Named, Part


@dataclasses.dataclass(frozen=True, eq=False)
class Decoder:
    """From a code to the raw scale and the shift of one array.

    **Arguments:**

    - `hidden`: the layers between, each behind a ReLU.
    - `scale`, `shift`: the heads.
    """

    hidden: tuple[ModeLinear, ...]
    scale: ModeLinear
    shift: ModeLinear

    def __call__(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """The raw scale and the shift."""
        for layer in self.hidden:
            code = layer(torch.relu(code))
        code = torch.relu(code)
        return self.scale(code), self.shift(code)

    @property
    def code_shape(self) -> tuple[int, ...]:
        """The shape of the code."""
        first = self.hidden[0] if self.hidden else self.scale
        return tuple(factor.shape[1] for factor in first.factors)


@dataclasses.dataclass(frozen=True, eq=False)
class Autoregression(Part):
    """The whole map.

    **Arguments:**

    - `encoders`: the layers of each array's encoder; the last block has none.
    - `autoregressors`: for each block but the first, from all earlier embeddings to its codes.
    - `decoders`: for each array but those of the first block.
    - `raw_scale`, `shift`: the constants of the first block, in the arrays' views.
    - `blocks`: the names of the arrays, block by block.
    - `roles`: what the axes of each parameter mean.
    - `official`: whether `σ = exp`, else `σ = 2·logistic`.
    """

    encoders: dict[str, tuple[ModeLinear, ...]]
    autoregressors: tuple[ModeLinear, ...]
    decoders: dict[str, Decoder]
    raw_scale: Named
    shift: Named
    blocks: tuple[tuple[str, ...], ...]
    roles: dict[str, Roles]
    official: bool

    @property
    def names(self) -> tuple[str, ...]:
        """All parameters."""
        return tuple(name for block in self.blocks for name in block)

    def to_primal(self, dual: Named) -> Named:
        """`z_i ⊙ σ(s_i) + μ_i`, all blocks at once."""
        z = {name: view(dual[name], self.roles[name]) for name in self.names}
        embeddings = {name: self._embedding(name, z[name]) for name in self.encoders}
        x = {}
        for index in range(len(self.blocks)):
            for name, (raw, shift) in self._conditions(index, embeddings).items():
                x[name] = z[name] * self._scale(raw) + shift
        return {name: unview(x[name], self.roles[name], dual[name].shape) for name in self.names}

    def to_dual(self, primal: Named) -> Named:
        """`(x_i − μ_i)/σ(s_i)`, one block after the other: each needs the duals before it."""
        z, embeddings = {}, {}
        for index in range(len(self.blocks)):
            for name, (raw, shift) in self._conditions(index, embeddings).items():
                z[name] = (view(primal[name], self.roles[name]) - shift) / self._scale(raw)
            for name in self.blocks[index]:
                if name in self.encoders:
                    embeddings[name] = self._embedding(name, z[name])
        return {name: unview(z[name], self.roles[name], primal[name].shape) for name in self.names}

    def _scale(self, raw: Tensor) -> Tensor:
        return torch.exp(raw) if self.official else 2 * torch.sigmoid(raw)

    def _embedding(self, name: str, array: Tensor) -> Tensor:
        for layer in self.encoders[name]:
            array = torch.relu(layer(array))
        return array.flatten()

    def _conditions(self, index: int, embeddings: Named) -> dict[str, tuple[Tensor, Tensor]]:
        """The raw scale and the shift of each array of one block."""
        if index == 0:
            return {name: (self.raw_scale[name], self.shift[name]) for name in self.blocks[0]}
        earlier = [embeddings[name] for block in self.blocks[:index] for name in block]
        joined, found, start = self.autoregressors[index - 1](torch.cat(earlier)), {}, 0
        for name in self.blocks[index]:
            shape = self.decoders[name].code_shape
            end = start + math.prod(shape)
            found[name] = self.decoders[name](joined[start:end].reshape(shape))
            start = end
        return found
