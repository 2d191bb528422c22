r"""The step of a part that is no diagonal: `x⁺ = x − η ∇ψ*(d)`, or `x⁺ = ∇ψ*(∇ψ(x) − η d)`.

Where `∇ψ` is not linear the dual point `z` is kept, because the parameters alone do not determine
it (on a tie of a maximum) or determine it badly (entropies near the boundary), with the parameters
that it led to: if they are not those found now, to rounding, somebody else moved them, and `z` is
derived from them anew. Weights that decay, `x ← (1 − η λ) x` before the step, move them too; where
`∇ψ(c x)` follows from `∇ψ(x)`, as for entropies and norms, the kept dual decays alike.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .._match import Row
from ._directions import terms_of, working_dtype
from ._maps import Named, Part, placed

Group = Mapping[str, Any]
State = Mapping[Tensor, dict[str, Any]]

PRIMAL = "primal"
"""Where the state of a parameter keeps the point that the last step led to, of its own type."""


@dataclasses.dataclass(frozen=True, eq=False)
class PlacedPart:
    """A part, and where its parameters are.

    **Arguments:**

    - `part`: the map, on their device.
    - `rows`: the match of each parameter.
    - `places`: the number of the group, and the number within it, of each.
    - `dtype`: what is computed in.
    """

    part: Part
    rows: tuple[Row, ...]
    places: tuple[tuple[int, int], ...]
    dtype: torch.dtype

    @property
    def names(self) -> str:
        """The model's names, for messages."""
        return ", ".join(repr(row.name) for row in self.rows)


def place(
    part: Part, rows: Sequence[Row], places: Sequence[tuple[int, int]], params: Sequence[Tensor]
) -> PlacedPart:
    """Puts a part on the device of its parameters, in the type to compute in.

    **Raises:**

    - `ValueError`: its parameters are on several devices.
    """
    devices = {param.device for param in params}
    if len(devices) > 1:
        raise ValueError(
            f"MirrorDescent: {', '.join(row.name for row in rows)} are mixed by the geometry and "
            f"lie on {len(devices)} devices; put them on one."
        )
    dtype = max((working_dtype(param.dtype) for param in params), key=lambda kind: kind.itemsize)
    return PlacedPart(placed(part, dtype, devices.pop()), tuple(rows), tuple(places), dtype)


def check_shared(own: PlacedPart, groups: Sequence[Group]) -> Group:
    """The options that the parameters of one part share.

    **Raises:**

    - `ValueError`: their groups differ in rate or decay.
    """
    found = [groups[group] for group, _ in own.places]
    for option in ("lr", "weight_decay"):
        values = {float(group[option]) for group in found} if len(found) > 1 else set()
        if len(values) > 1:
            raise ValueError(
                f"MirrorDescent.{option}: the geometry mixes {own.names}, which need one value, "
                f"got {sorted(values)}; put them into one group."
            )
    return found[0]


def is_moved(own: PlacedPart, groups: Sequence[Group]) -> bool:
    """Whether the parameters of a part have gradients; none of them may lack one alone.

    **Raises:**

    - `RuntimeError`: some parameters that the part mixes have a gradient and some have none.
    """
    without = [
        row.name
        for row, param in zip(own.rows, _params(own, groups), strict=True)
        if param.grad is None
    ]
    if without and len(without) < len(own.rows):
        raise RuntimeError(
            f"MirrorDescent: the geometry mixes {own.names}, and there is no gradient of "
            f"{', '.join(map(repr, without))}; give those zeros to move with the others, or freeze "
            "all of them."
        )
    return not without


@torch.compiler.disable
def step_by_map(own: PlacedPart, groups: Sequence[Group], state: State) -> None:
    """Moves the parameters of one part.

    **Arguments:**

    - `own`: the part; all its parameters have gradients.
    - `groups`: all groups of the optimiser.
    - `state`: the optimiser's, by parameter.
    """
    params = _params(own, groups)
    shared = check_shared(own, groups)
    rate, kept = float(shared["lr"]), 1 - float(shared["lr"] * shared["weight_decay"])
    direction = _direction(own, params, groups, state)
    if own.part.is_linear:
        moves = own.part.to_primal(direction)
        here = _arrays(own, params)
        _write(own, params, {name: kept * x - rate * moves[name] for name, x in here.items()})
        return
    dual = _dual(own, params, state, kept)
    dual = {name: z - rate * direction[name] for name, z in dual.items()}
    _write(own, params, own.part.to_primal(dual))
    _keep(own, params, state, dual)


def _params(own: PlacedPart, groups: Sequence[Group]) -> list[Tensor]:
    return [groups[group]["params"][number] for group, number in own.places]


def _arrays(own: PlacedPart, tensors: Sequence[Tensor]) -> Named:
    """Tensors as the artifact has them, in the type to compute in."""
    return {
        row.leaf.name: row.reorder.to_array(tensor.to(own.dtype), torch.permute)
        for row, tensor in zip(own.rows, tensors, strict=True)
    }


def _write(own: PlacedPart, tensors: Sequence[Tensor], arrays: Named) -> None:
    for row, tensor in zip(own.rows, tensors, strict=True):
        tensor.copy_(row.reorder.from_array(arrays[row.leaf.name], torch.permute))


def _direction(
    own: PlacedPart, params: Sequence[Tensor], groups: Sequence[Group], state: State
) -> Named:
    found = []
    for param, (number, _) in zip(params, own.places, strict=True):
        terms = terms_of([param], state, groups[number])
        found.append(sum(weight * arrays[0].to(own.dtype) for arrays, weight in terms))
    return _arrays(own, found)


def _dual(own: PlacedPart, params: Sequence[Tensor], state: State, kept: float) -> Named:
    """The dual as kept, or as derived from the parameters if these were moved or decay."""
    known = all("dual" in state[param] for param in params)
    moved = not known or any(_was_moved(param, state[param][PRIMAL]) for param in params)
    if not moved:
        duals = _arrays(own, [state[param]["dual"] for param in params])
        decayed = duals if kept == 1 else own.part.decayed(duals, kept)
        if decayed is not None:
            return decayed
    return own.part.to_dual({name: kept * x for name, x in _arrays(own, params).items()})


def _was_moved(param: Tensor, expected: Tensor) -> bool:
    """Whether a parameter differs from what the last step led to, by more than rounding.

    NaN is never near, and spreads.
    """
    resolution = 2 * torch.finfo(param.dtype).eps
    return not torch.allclose(param, expected.to(param.dtype), rtol=resolution, atol=0)


def _keep(own: PlacedPart, params: Sequence[Tensor], state: State, dual: Named) -> None:
    for row, param in zip(own.rows, params, strict=True):
        mine = state[param]
        if "dual" not in mine or mine[PRIMAL].dtype != param.dtype:
            mine["dual"] = torch.empty_like(param, dtype=dual[row.leaf.name].dtype)
            mine[PRIMAL] = torch.empty_like(param)
        mine["dual"].copy_(row.reorder.from_array(dual[row.leaf.name], torch.permute))
        mine[PRIMAL].copy_(param)
