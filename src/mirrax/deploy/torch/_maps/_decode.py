r"""From the description in an artifact to parts; `mirrax.deploy._encoding` says how one is made.

Numbers that are derived (`1/m²`, `L`, `c`) are computed in 64 bits and rounded when a part is
placed, so they are as good as the type they are used in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...._views import as_axes
from ..._layout import is_below, join
from ._block_iaf import Autoregression, Decoder
from ._combined import Coordinates, Scale
from ._convex_potential import Ridges
from ._dual_system import softplus
from ._leafwise import Entropy, Factored, Power, Rates, cholesky_of
from ._max_of_diagonals import Maximum
from ._modes import ModeLinear
from ._norm import Norm
from ._part import Part

Node = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]


def decode(node: Node, arrays: Arrays, names: Sequence[str]) -> list[Part]:
    """The parts of a geometry.

    **Arguments:**

    - `node`: the description.
    - `arrays`: the arrays that it names.
    - `names`: the parameters that it acts on, as the artifact calls them.

    **Returns:**

    Parts, in 64 bits, whose names are those given, each in one of them.

    **Raises:**

    - `ValueError`: the description is of an unknown class, or of one that is no mirror map.

    >>> node = {"class": "Euclidean", "static": {}, "fields": {}}
    >>> [part.names for part in decode(node, {}, ["w", "b"])]
    [('w',), ('b',)]
    """
    return _module(node, arrays, {name: name for name in names})


# Below, `names` leads from the names that a node knows to those of the whole artifact.
Names = Mapping[str, str]


def _module(node: Node, arrays: Arrays, names: Names) -> list[Part]:
    kind = node["class"]
    if kind not in _BUILDERS:
        raise ValueError(f"unknown class {kind!r}")
    return _BUILDERS[kind](node, arrays, names)


def _array(node: Node, arrays: Arrays) -> Tensor:
    return torch.tensor(arrays[node["array"]], dtype=torch.float64)


def _leaves(node: Node, name: str = "") -> Iterator[tuple[str, Node]]:
    """The arrays and modules of a tree by their names."""
    match node:
        case {"none": True}:
            return
        case {"dict": items}:
            pairs = items.items()
        case {"list": items} | {"tuple": items}:
            pairs = ((str(number), item) for number, item in enumerate(items))
        case _:
            yield name, node
            return
    for key, item in pairs:
        yield from _leaves(item, join(name, key))


def _tensors(node: Node, arrays: Arrays) -> dict[str, Tensor]:
    return {name: _array(leaf, arrays) for name, leaf in _leaves(node)}


def _euclidean(node: Node, arrays: Arrays, names: Names) -> list[Part]:
    return [Rates(name, torch.ones((), dtype=torch.float64)) for name in names.values()]


def _diagonal(node: Node, arrays: Arrays, names: Names) -> list[Part]:
    logs = _tensors(node["fields"]["log_diagonal"], arrays)
    return [Rates(names[name], torch.exp(-2 * log)) for name, log in logs.items()]


def _entropy(node: Node, arrays: Arrays, names: Names) -> list[Part]:
    return [Entropy(name, node["static"]["domain"] == "simplex") for name in names.values()]


def _pnorm(node: Node, arrays: Arrays, names: Names) -> list[Part]:
    p = float(node["static"]["p"])
    if node["static"]["separable"]:
        return [Power(name, p) for name in names.values()]
    return [Norm(tuple(names.values()), p)]


def _maximum(node: Node, arrays: Arrays, names: Names) -> list[Part]:
    logs = _tensors(node["fields"]["log_diagonals"], arrays)
    return [Maximum({names[name]: torch.exp(2 * log) for name, log in logs.items()})]


def _kronecker(node: Node, arrays: Arrays, names: Names) -> list[Part]:
    parts: list[Part] = []
    for name, leaf in _leaves(node["fields"]["factors"]):
        if leaf.get("class") == "Factors":
            sides = (_array(leaf["fields"][side], arrays) for side in ("rows", "columns"))
            parts.append(Factored(names[name], *map(cholesky_of, sides)))
        else:
            parts.append(Rates(names[name], torch.exp(-2 * _array(leaf, arrays))))
    return parts


def _scaled(node: Node, arrays: Arrays, names: Names) -> list[Part]:
    scale = torch.exp(_array(node["fields"]["log_scale"], arrays))
    inner = _module(node["fields"]["geometry"], arrays, names)
    return [
        Rates(part.name, part.rate / scale) if isinstance(part, Rates) else Scale(part, scale)
        for part in inner
    ]


def _blockwise(node: Node, arrays: Arrays, names: Names) -> list[Part]:
    blocks = dict(_leaves(node["fields"]["blocks"]))
    inside: dict[str, dict[str, str]] = {block: {} for block in blocks}
    for name, whole in names.items():
        # Keys may contain "/", so the longest block name that fits is the right one.
        block = max((block for block in blocks if is_below(name, block)), key=len)
        inside[block][name.removeprefix(block).removeprefix("/")] = whole
    return [part for block, own in inside.items() for part in _module(blocks[block], arrays, own)]


def _transformed(node: Node, arrays: Arrays, names: Names) -> list[Part]:
    raw = node["fields"]["raw_factors"]["dict"]
    factors = {
        names[name]: tuple(cholesky_of(_array(leaf, arrays)) for _, leaf in _leaves(found))
        for name, found in raw.items()
    }
    roles = {names[name]: found for name, found in as_axes(node["static"]["axes"])}
    parts: list[Part] = []
    for part in _module(node["fields"]["geometry"], arrays, names):
        own = {name: factors[name] for name in part.names}
        around = Coordinates(part, own, {name: roles[name] for name in own})
        parts.append(around if any(own.values()) else part)
    return parts


def _convex_potential(node: Node, arrays: Arrays, names: Names) -> list[Part]:
    fields, static = node["fields"], node["static"]
    rates = {
        names[name]: static["smallest_rate"] + softplus(raw)
        for name, raw in _tensors(fields["raw_rates"], arrays).items()
    }
    encoders = {
        names[name]: tuple(_array(leaf, arrays) for _, leaf in _leaves(found))
        for name, found in fields["encoders"]["dict"].items()
    }
    units = (_array(fields[field], arrays) for field in ("directions", "amplitudes", "offsets"))
    directions, amplitudes, offsets = units
    axes = tuple((names[name], roles) for name, roles in as_axes(static["axes"]))
    return [Ridges(rates, encoders, directions, amplitudes.clamp_min(0), offsets, axes)]


def _block_iaf(node: Node, arrays: Arrays, names: Names) -> list[Part]:
    fields, static = node["fields"], node["static"]

    def mode_linear(leaf: Node, row: int | None = None) -> ModeLinear:
        own = leaf["fields"]
        found = [_array(item, arrays) for _, item in _leaves(own["factors"])]
        whole = [*found, _array(own["bias"], arrays)]
        *factors, bias = whole if row is None else [stacked[row] for stacked in whole]
        return ModeLinear(tuple(factors), bias)

    def encoder(leaf: Node, row: int) -> tuple[ModeLinear, ...]:
        return tuple(mode_linear(layer, row) for _, layer in _leaves(leaf))

    def decoder(leaf: Node, row: int) -> Decoder:
        own = leaf["fields"]
        scale, shift = mode_linear(own["scale"], row), mode_linear(own["shift"], row)
        return Decoder(encoder(own["hidden"], row), scale, shift)

    def unstacked(network: Callable[[Node, int], Any], stacks: Node) -> dict[str, Any]:
        return {
            names[name]: network(equals["fields"]["stacked"], row)
            for _, equals in _leaves(stacks)
            for row, name in enumerate(equals["static"]["names"])
        }

    roles = {names[name]: found for name, found in as_axes(static["axes"])}
    constants = (_tensors(fields[field], arrays) for field in ("raw_scale", "shift"))
    raw_scale, shift = ({names[n]: x for n, x in found.items()} for found in constants)
    return [
        Autoregression(
            unstacked(encoder, fields["encoders"]),
            tuple(mode_linear(layer) for _, layer in _leaves(fields["autoregressors"])),
            unstacked(decoder, fields["decoders"]),
            raw_scale,
            shift,
            tuple(tuple(names[name] for name in block) for block in static["blocks"]),
            roles,
            static["variant"] == "official",
        )
    ]


_BUILDERS: dict[str, Callable[[Node, Arrays, Names], list[Part]]] = {
    "BlockIAF": _block_iaf,
    "Blockwise": _blockwise,
    "ConvexPotential": _convex_potential,
    "Diagonal": _diagonal,
    "Euclidean": _euclidean,
    "Kronecker": _kronecker,
    "MaxOfDiagonals": _maximum,
    "NegativeEntropy": _entropy,
    "PNorm": _pnorm,
    "Scaled": _scaled,
    "Transformed": _transformed,
}

CLASSES = tuple(_BUILDERS)
"""The geometries that PyTorch steps with."""
