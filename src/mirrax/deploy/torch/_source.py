r"""What an optimiser is made from: the geometry of an artifact, its parts, its fingerprint."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping

from torch import Tensor

from ..._errors import ArtifactError
from .._layout import Leaf
from .._match import Given, Row, matched
from .._record import Record, cannot_rebuild, read_record
from .._reorder import Reorder
from ._maps import CLASSES, Part, decode

_FREE = ("Euclidean", "NegativeEntropy", "PNorm")
"""Geometries that fit any parameters."""

_PRECONDITIONERS = ("KroneckerUpdate", "ModeProducts", "RandomMask")


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A geometry and the parameters it is to move.

    **Arguments:**

    - `rows`: the match, in the order of the model.
    - `parts`: the geometry, cut into what moves alone.
    """

    rows: list[Row]
    parts: list[Part]


def opened(
    path: str | os.PathLike[str],
    record: Record,
    params: Mapping[str, Tensor],
    given: Given,
    ordered: bool,
) -> Source:
    """Matches a geometry with a model's parameters and takes it apart.

    **Arguments:**

    - `path`: the file, for messages.
    - `record`: what it holds.
    - `params`: the model's parameters by name, in its order.
    - `given`: `names`, `axes` and `flatten`, as the user gave them.
    - `ordered`: whether the order of `params` is the model's.

    **Raises:**

    - `ArtifactError`: the parameters are others, or the file holds no mirror map.
    - `ValueError`: what was given does not fit, or something would have to be guessed.
    """
    if record.leaves is None:
        rows = _any(path, record, params, given)
    else:
        shapes = {name: tuple(param.shape) for name, param in params.items()}
        names = {ours: _name_of(found, params) for ours, found in given["names"].items()}
        rows = matched(record.leaves, shapes, **{**given, "names": names}, ordered=ordered)
    try:
        parts = decode(record.geometry, record.arrays, [row.leaf.name for row in rows])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise cannot_rebuild(path, error) from error
    return Source(rows, parts)


def fingerprint(record: Record) -> str:
    """Sixteen digits that tell one geometry from another, whatever else its file says."""
    digest = hashlib.sha256(json.dumps(record.geometry, sort_keys=True).encode())
    for name in sorted(record.arrays):
        digest.update(name.encode() + record.arrays[name].tobytes())
    return digest.hexdigest()[:16]


def read(path: str | os.PathLike[str]) -> Record:
    """Reads an artifact that holds a mirror map.

    **Raises:**

    - `ArtifactError`: the file cannot be used, or holds a preconditioner.
    - `ValueError`: it is not the name of a file.
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(
            f"MirrorDescent.source: expected the name of a file, got {type(path).__name__}; "
            "mirrax.deploy.save writes one."
        )
    record = read_record(path)
    kind = record.geometry.get("class")
    if kind in _PRECONDITIONERS:
        raise ArtifactError(
            f"{path} holds a {kind}, which maps gradients and is no mirror map; PyTorch steps with "
            f"{', '.join(CLASSES)}"
        )
    return record


def _name_of(found: str | Tensor, params: Mapping[str, Tensor]) -> str:
    """The model's name of what `names` gave, which may be the parameter itself."""
    if isinstance(found, str):
        return found
    for name, param in params.items():
        if param is found:
            return name
    raise ValueError("names: a tensor that is not among the parameters given.")


def _any(
    path: str | os.PathLike[str], record: Record, params: Mapping[str, Tensor], given: Given
) -> list[Row]:
    """Rows of a geometry that has no table: each parameter as it is."""
    told = [name for name, mapping in given.items() if mapping]
    if told:
        raise ValueError(
            f"MirrorDescent.{told[0]}: {path} has no table of parameters to which it could refer; "
            "save it again with params_like and roles."
        )
    node = record.geometry
    while node.get("class") == "Scaled":
        node = node["fields"]["geometry"]
    if node.get("class") not in _FREE:
        raise ArtifactError(
            f"{path} has no table of parameters, which a {node.get('class')} needs here; save it "
            "again with params_like and roles"
        )
    static = node.get("static", {})
    axes = max((param.ndim for param in params.values()), default=0)
    if node.get("class") == "NegativeEntropy" and static.get("domain") == "simplex" and axes > 1:
        raise ArtifactError(
            f"{path} does not say along which axis the parameters are probabilities, and PyTorch's "
            "axes are others than the library's; save it again with params_like and roles"
        )
    rows = []
    for name, param in params.items():
        shape = tuple(param.shape)
        leaf = Leaf(name, shape, str(param.dtype).removeprefix("torch."))
        rows.append(Row(leaf, name, Reorder(shape, tuple(range(len(shape)))), "any"))
    return rows
