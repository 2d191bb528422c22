r"""The artifact: a learned geometry with its rate and the table of parameters it belongs to.

`_record` says what the file (see `_archive`) holds, `_encoding` how the geometry is described.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from .. import __version__
from .._errors import NumericalError, nearest
from ._archive import write_archive
from ._encoding import Stored, decode, encode
from ._fit import by_name, check_shapes, expected_shapes, leaves_of, whole_table
from ._layout import Expected, Leaf, Shape, join, mismatch
from ._record import START, VERSION, cannot_rebuild, checked_rate, read_record


@dataclass(frozen=True, eq=False)
class Artifact:
    """A learned geometry, ready to be used somewhere else.

    **Arguments:**

    - `geometry`: the geometry.
    - `rate`: the step size `η` it was learned for.
    - `leaves`: the table of parameters, in flattening order; `None` for a geometry that fits any.
    - `record`: how it was learned (recipe, seed, budget, …).
    - `start`: the parameters to start at, by name, where they were learned with the geometry, as
        the file has them.

    >>> from mirrax.geometry import Euclidean
    >>> Artifact(Euclidean(), rate=0.1).names is None
    True
    """

    geometry: Stored
    rate: float
    leaves: tuple[Leaf, ...] | None = None
    record: dict[str, Any] = field(default_factory=dict)
    start: dict[str, np.ndarray] | None = None

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of the parameters."""
        return None if self.leaves is None else tuple(leaf.name for leaf in self.leaves)

    @property
    def shapes(self) -> dict[str, Shape] | None:
        """The shapes of the parameters by name."""
        return None if self.leaves is None else {leaf.name: leaf.shape for leaf in self.leaves}

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """What each axis means, by name, where that is known."""
        return {leaf.name: leaf.roles for leaf in self.leaves or () if leaf.roles is not None}

    @property
    def expected(self) -> Expected:
        """The shapes that parameters must have; `None` for those that are free."""
        return expected_shapes(self.geometry) if self.shapes is None else self.shapes


def save(
    path: str | os.PathLike[str],
    geometry: Stored,
    *,
    rate: float,
    params_like: PyTree | None = None,
    roles: PyTree | None = None,
    start: PyTree | None = None,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Writes a geometry to one file, atomically.

    **Arguments:**

    - `path`: the file to write or replace, usually `geometry.safetensors`.
    - `geometry`: any geometry of `mirrax.geometry`.
    - `rate`: the step size it was learned for, positive.
    - `params_like`: the parameters, or `jax.ShapeDtypeStruct`s of them. Only names, shapes and
        types are kept. Needed where the geometry has no array a parameter (`Euclidean`, `PNorm`,
        `NegativeEntropy`), if other architectures are to be refused.
    - `roles`: what each axis means, a tree like the parameters whose leaves are tuples of
        strings, such as `("in", "out")`.
    - `start`: the parameters to start at, where they were learned with the geometry; they are also
        the `params_like`.
    - `record`: what JSON holds on how it was learned.

    **Raises:**

    - `ValueError`: a rate, role or record that cannot be; a class of geometry that is not known;
        a start and other `params_like`.
    - `ArtifactError`: `params_like` does not fit the geometry; both tables are shown.
    - `NumericalError`: the geometry or the start holds a number that is not finite.
    - `MirraxError`: the file cannot be written; one of that name is then untouched.

    >>> import tempfile, jax.numpy as jnp
    >>> from mirrax.geometry import Diagonal
    >>> geometry = Diagonal.like({"dense_0": {"weight": jnp.zeros((2, 3))}}, diagonal=2.0)
    >>> roles = {"dense_0": {"weight": ("in", "out")}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/geometry.safetensors", geometry, rate=0.1, roles=roles)
    ...     artifact = load(f"{folder}/geometry.safetensors")
    >>> artifact.rate, artifact.shapes, artifact.roles
    (0.1, {'dense_0/weight': (2, 3)}, {'dense_0/weight': ('in', 'out')})
    """
    description, arrays = encode(geometry)
    if start is not None and params_like is not None:
        raise ValueError("save.params_like: the start says it already; pass one of them.")
    like = params_like if start is None else start
    leaves = _with_roles(_table(geometry, like), roles)
    begun = _start_arrays(start)
    _check_numbers("geometry", arrays)
    _check_numbers("start", begun)
    metadata = {
        "kind": "geometry",
        "version": VERSION,
        "mirrax": __version__,
        "geometry": description,
        "rate": checked_rate(rate, "save.rate"),
        "parameters": None if leaves is None else [leaf.to_json() for leaf in leaves],
        START: start is not None,
        "record": dict(record or {}),
    }
    write_archive(path, arrays | begun, metadata)


def load(path: str | os.PathLike[str]) -> Artifact:
    """Reads a geometry that `save` wrote.

    **Arguments:**

    - `path`: the file.

    **Returns:**

    The artifact; its geometry is equal to the bit. Numbers of 64 bits become numbers of 32 where
    JAX has `jax_enable_x64` off.

    **Raises:**

    - `ArtifactError`: the file is missing, cut short, changed in any byte, of another kind, or of
        a newer version. The line names the file and what to do.

    >>> load("no-such.safetensors")
    Traceback (most recent call last):
    mirrax._errors.ArtifactError: cannot read no-such.safetensors: there is no such file; check...
    """
    read = read_record(path)
    try:
        geometry = decode(read.geometry, read.arrays)
        _check_table(geometry, read.leaves)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise cannot_rebuild(path, error) from error
    return Artifact(geometry, read.rate, read.leaves, read.record, read.start)


def _check_table(geometry: Stored, leaves: tuple[Leaf, ...] | None) -> None:
    """Refuses a table of parameters that is not the geometry's."""
    shapes = {leaf.name: leaf.shape for leaf in leaves or ()}
    expected = expected_shapes(geometry)
    if leaves is not None and (len(shapes) < len(leaves) or mismatch(expected, shapes)):
        raise ValueError("its table of parameters does not fit it")


def check_fits(artifact: Artifact, params: PyTree) -> None:
    """Checks that parameters are those a geometry was learned for, by name and shape.

    **Arguments:**

    - `artifact`: the geometry with its table.
    - `params`: parameters, of whatever containers.

    **Raises:**

    - `ArtifactError`: they are not; both tables are shown, differing rows marked.

    >>> import jax.numpy as jnp
    >>> from mirrax.geometry import Diagonal
    >>> check_fits(Artifact(Diagonal({"w": jnp.zeros(2)}), 0.1), {"w": jnp.zeros(3)})
    Traceback (most recent call last):
    mirrax._errors.ArtifactError: the parameters are not those the geometry was learned for; ...
        parameter  geometry  here
      ! w          (2,)      (3,)
    """
    check_shapes(artifact.expected, params)


def _start_arrays(start: PyTree) -> dict[str, np.ndarray]:
    """The arrays of a start as the file names them."""
    return {join(START, name): np.asarray(leaf) for name, leaf in by_name(start).items()}


def _check_numbers(what: str, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if array.dtype not in (np.float16, np.float32, np.float64):
            raise ValueError(
                f"save.{what}: {name!r} is of type {array.dtype}; a file holds float16, float32 "
                "and float64, so cast it."
            )
        if not np.all(np.isfinite(array)):
            raise NumericalError(
                f"the {what} is not saved: {name} holds numbers that are not finite; lower the "
                "outer rate or the inner rate and learn it again"
            )


def _table(geometry: Stored, params_like: PyTree | None) -> tuple[Leaf, ...] | None:
    if params_like is not None:
        check_shapes(expected_shapes(geometry), params_like)
        return leaves_of(params_like)
    return whole_table(geometry)


def _is_role(node: Any) -> bool:
    return isinstance(node, tuple | list) and all(isinstance(item, str) for item in node)


def _with_roles(leaves: tuple[Leaf, ...] | None, roles: PyTree | None) -> tuple[Leaf, ...] | None:
    if roles is None or not jax.tree.leaves(roles, is_leaf=_is_role):
        return leaves
    if leaves is None:
        raise ValueError("save.roles: this geometry has no table of its own; pass params_like.")
    named = by_name(roles, _is_role)
    names = [leaf.name for leaf in leaves]
    for name, role in named.items():
        if name not in names:
            raise ValueError(f"save.roles: no parameter is called {name!r}.{nearest(name, names)}")
        shape = leaves[names.index(name)].shape
        if not _is_role(role) or len(role) != len(shape):
            raise ValueError(
                f"save.roles: expected {len(shape)} strings for {name!r} of shape {shape}, "
                f"got {role!r}."
            )
    return tuple(
        replace(leaf, roles=tuple(named[leaf.name]) if leaf.name in named else None)
        for leaf in leaves
    )
