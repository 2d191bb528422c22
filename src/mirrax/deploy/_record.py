r"""The record of an artifact, read without JAX: what the geometry is, its rate, its parameters.

It is `{"kind": "geometry", "version": 1, "mirrax": …, "geometry": …, "rate": η,
"parameters": [{"name", "shape", "dtype", "roles"}, …] | null, "start": true | false,
"record": {…}}`; the geometry is described as `_encoding` says. A start is one array a parameter,
`start/NAME`. Only numpy and safetensors are imported here.
"""

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._errors import ArtifactError
from ._archive import read_archive
from ._layout import Leaf, is_below, join

VERSION = 1
"""The version of the record that is written, and the newest that is read."""

START = "start"
"""Under which name the arrays of a start are, and the word that says whether there are any."""


@dataclass(frozen=True, eq=False)
class Record:
    """What a file says of a geometry.

    **Arguments:**

    - `geometry`: the description of the geometry, plain data.
    - `arrays`: the arrays that the description names.
    - `rate`: the step size `η` it was learned for.
    - `leaves`: the table of parameters; `None` for a geometry that fits any.
    - `start`: the parameters to start at, by name; `None` where none were learned.
    - `record`: how it was learned.
    """

    geometry: dict[str, Any]
    arrays: dict[str, np.ndarray]
    rate: float
    leaves: tuple[Leaf, ...] | None
    start: dict[str, np.ndarray] | None
    record: dict[str, Any]


def read_record(path: str | os.PathLike[str]) -> Record:
    """Reads the record and the arrays of an artifact.

    **Arguments:**

    - `path`: the file.

    **Returns:**

    The record; nothing of the geometry's description has been looked at.

    **Raises:**

    - `ArtifactError`: the file is missing, cut short, changed in any byte, of another kind, or of
        a newer version. The line names the file and what to do.

    >>> read_record("no-such.safetensors")
    Traceback (most recent call last):
    mirrax._errors.ArtifactError: cannot read no-such.safetensors: there is no such file; check...
    """
    arrays, metadata = read_archive(path)
    kind, version = metadata.get("kind"), metadata.get("version")
    if kind != "geometry":
        what = f"a {kind}" if isinstance(kind, str) else "something else"
        raise ArtifactError(f"{path} holds {what}, not a geometry; give a geometry.safetensors")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise ArtifactError(
            f"{path} holds a geometry of version {version}, written by mirrax "
            f"{metadata.get('mirrax')}, and this one reads up to {VERSION}; upgrade mirrax"
        )
    try:
        rows = metadata["parameters"]
        leaves = None if rows is None else tuple(Leaf.from_json(row) for row in rows)
        rate, geometry, record = (metadata[key] for key in ("rate", "geometry", "record"))
        if not (isinstance(geometry, dict) and isinstance(record, dict)):
            raise ValueError("its geometry or record is no object")
        if type(rate) not in (int, float):
            raise ValueError(f"its rate is {str(rate)[:80]!r}")
        _check_finite(arrays)
        start = _taken_out(arrays, leaves, metadata.get(START, False))
        return Record(geometry, arrays, checked_rate(rate), leaves, start, record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise cannot_rebuild(path, error) from error


def _check_finite(arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name!r} holds a number that is not finite")


def _taken_out(
    arrays: dict[str, np.ndarray], leaves: tuple[Leaf, ...] | None, told: Any
) -> dict[str, np.ndarray] | None:
    """Moves the arrays of a start, of which it is told, from the others into their own table."""
    if type(told) is not bool:
        raise ValueError(f"its word on a start is {str(told)[:80]!r}")
    if told and not leaves:
        raise ValueError("it has a start and no table of parameters")
    shapes = {leaf.name: leaf.shape for leaf in leaves or ()} if told else {}
    start = {name: arrays.pop(join(START, name)) for name in shapes}
    for name, array in start.items():
        if array.shape != shapes[name] or array.dtype.kind != "f":
            raise ValueError(f"its start has other parameters than its table at {name!r}")
    left = sorted(name for name in arrays if is_below(name, START))
    if left:
        raise ValueError(f"{left[0]!r} is the start of no parameter")
    return start if told else None


def check_reach(name: str, start: np.ndarray, largest: float, dtype: str) -> None:
    """Refuses a learned start that would be infinite in the type of a parameter.

    **Arguments:**

    - `name`: the parameter.
    - `start`: its start.
    - `largest`: the largest number of its type.
    - `dtype`: the type, for the message.

    **Raises:**

    - `ArtifactError`: with the name and the type.

    >>> check_reach("w", np.array([1.0, -2.0], "float32"), 65504.0, "float16")
    """
    if float(np.abs(start).max(initial=0)) > largest:
        raise ArtifactError(
            f"the learned start of {name!r} has numbers that are infinite in {dtype}; give the "
            "parameters a wider type"
        )


def checked_rate(rate: Any, name: str = "rate") -> float:
    """A step size as a number.

    **Arguments:**

    - `rate`: what it was given as.
    - `name`: what the message calls it.

    **Raises:**

    - `ValueError`: if it is not positive and finite.

    >>> checked_rate("0.1")
    0.1
    """
    try:
        value = float(rate)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: expected a positive finite number, got {rate!r}.")
    return value


def cannot_rebuild(path: str | os.PathLike[str], error: Exception) -> ArtifactError:
    """The error of a record whose content makes no geometry.

    >>> str(cannot_rebuild("a.safetensors", ValueError("no rate"))).split(";")[0]
    'a.safetensors holds a geometry that this mirrax cannot rebuild (no rate)'
    """
    return ArtifactError(
        f"{path} holds a geometry that this mirrax cannot rebuild ({error}); upgrade mirrax, "
        "or save the geometry again"
    )
