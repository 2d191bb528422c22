r"""A geometry as plain data: a description that JSON holds, and named arrays.

A geometry or preconditioner becomes `{"class": "Diagonal", "static": {…}, "fields": {…}}`. A field
is a tree: `{"dict": {…}}`, `{"list": […]}`, `{"tuple": […]}`, `{"none": true}`,
`{"array": "name"}`, or a geometry or a part of one again. Array names are paths, such as
`log_diagonal/dense_0/weight`. Classes are looked up in the registries below and nowhere else, so a
file can name no code.
"""

import dataclasses
from typing import Any, TypeAlias, TypeGuard, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import nearest
from ..geometry import (
    AbstractMirrorMap,
    AbstractPreconditioner,
    AbstractRandomPreconditioner,
    BlockIAF,
    Blockwise,
    ConvexPotential,
    Diagonal,
    Euclidean,
    Factors,
    Kronecker,
    KroneckerUpdate,
    MaxOfDiagonals,
    ModeProducts,
    NegativeEntropy,
    PNorm,
    RandomMask,
    Scaled,
    Transformed,
)
from ..geometry._autoregressive import Decoder, Equals
from ..geometry._modes import ModeLinear
from ._layout import join
from ._record import START

Stored: TypeAlias = AbstractMirrorMap | AbstractPreconditioner | AbstractRandomPreconditioner
"""What a file holds: a map of points, or a linear map of gradients, or the law of one."""

REGISTRY: dict[str, type[Stored]] = {
    "BlockIAF": BlockIAF,
    "Blockwise": Blockwise,
    "ConvexPotential": ConvexPotential,
    "Diagonal": Diagonal,
    "Euclidean": Euclidean,
    "Kronecker": Kronecker,
    "KroneckerUpdate": KroneckerUpdate,
    "MaxOfDiagonals": MaxOfDiagonals,
    "ModeProducts": ModeProducts,
    "NegativeEntropy": NegativeEntropy,
    "PNorm": PNorm,
    "RandomMask": RandomMask,
    "Scaled": Scaled,
    "Transformed": Transformed,
}
"""The classes of this library that a file may contain."""

_OWN: dict[str, type[Stored]] = {}
"""Those that a program has registered."""

_PARTS: dict[str, type[eqx.Module]] = {
    "Decoder": Decoder,
    "Equals": Equals,
    "Factors": Factors,
    "ModeLinear": ModeLinear,
}
"""The classes of which those are made; none of them is stored alone."""

_SCALARS: dict[Any, tuple[type, ...]] = {bool: (bool,), float: (int, float), str: (str,)}
"""What JSON may hold for a field of these types."""

Geometry = TypeVar("Geometry", bound=Stored)
Description = dict[str, Any]
Arrays = dict[str, np.ndarray]


def register(kind: type[Geometry]) -> type[Geometry]:
    """Lets files hold geometries of a class of your own; a decorator.

    A file names its classes and holds no code, so whatever reads it has to register them too,
    before it does. Fields that are static hold what JSON holds. In `to_optax` its methods are given
    parameters as one flat dictionary, `{"dense_0/weight": …}`, and return such. PyTorch's
    optimisers know the classes of this library alone.

    **Arguments:**

    - `kind`: a mirror map or preconditioner, made by its fields.

    **Returns:**

    The class. Made once more, as a notebook does, it takes the place of the one before.

    **Raises:**

    - `ValueError`: if it is no such class, is derived from one of this library's that is no
      abstract one, has a field `start`, or another is known by its name.

    >>> import mirrax
    >>> @mirrax.deploy.register
    ... class Plain(mirrax.geometry.AbstractPreconditioner):
    ...     def apply(self, gradient):
    ...         return gradient
    >>> storable(Plain())
    True
    """
    name = getattr(kind, "__name__", repr(kind))
    if not (isinstance(kind, type) and issubclass(kind, Stored)):
        raise ValueError(
            f"register: expected a class of mirror maps or preconditioners, got {name}."
        )
    if base := derived_from(kind):
        raise ValueError(
            f"register: {name} is derived from {base}, which is final; derive it from "
            "AbstractGeometry, AbstractMirrorMap or AbstractPreconditioner."
        )
    if any(field.name == START for field in dataclasses.fields(kind)):
        raise ValueError(
            f"register: {name} has a field {START!r}, the name that files have for the start of "
            "tasks; give it another."
        )
    known = _known().get(name, kind)
    if (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
        raise ValueError(
            f"register: {name!r} is the name of {known.__module__}.{known.__qualname__}; choose "
            "another."
        )
    _OWN[name] = kind
    return kind


def derived_from(kind: type) -> str | None:
    """The class of this library, none of the abstract ones, that a class is derived from."""
    bases = [name for name, known in REGISTRY.items() if known in kind.__mro__[1:]]
    return bases[0] if bases else None


def _known() -> dict[str, type[eqx.Module]]:
    """All classes that a description may name."""
    return REGISTRY | _PARTS | _OWN


def storable(geometry: Any) -> TypeGuard[Stored]:
    """Whether a file can hold a geometry.

    >>> from mirrax.geometry import Euclidean
    >>> storable(Euclidean())
    True
    """
    return (REGISTRY | _OWN).get(type(geometry).__name__) is type(geometry)


def encode(geometry: Stored) -> tuple[Description, Arrays]:
    """Takes a geometry apart.

    Containers other than dictionaries with string keys, lists and tuples are kept as dictionaries
    of the same names.

    **Arguments:**

    - `geometry`: an instance of a class in `REGISTRY`.

    **Returns:**

    The description and the arrays.

    **Raises:**

    - `ValueError`: the geometry, or one inside it, is of a class that is not in `REGISTRY`, or two
        arrays have one name.

    >>> description, arrays = encode(Diagonal({"w": jnp.zeros(2)}))
    >>> description["fields"], list(arrays)
    ({'log_diagonal': {'dict': {'w': {'array': 'log_diagonal/w'}}}}, ['log_diagonal/w'])
    """
    arrays: Arrays = {}
    return _encode_module(geometry, "", arrays), arrays


def _encode_module(geometry: eqx.Module, prefix: str, arrays: Arrays) -> Description:
    name = type(geometry).__name__
    if _known().get(name) is not type(geometry):
        raise ValueError(
            f"save.geometry: cannot store a geometry of class {name}; the classes that a file "
            f"holds are {', '.join(REGISTRY | _OWN)}. deploy.register adds one of your own."
        )
    static, fields = {}, {}
    for field in dataclasses.fields(geometry):
        value = getattr(geometry, field.name)
        if field.metadata.get("static", False):
            static[field.name] = value
        else:
            fields[field.name] = _encode_tree(value, join(prefix, field.name), arrays)
    return {"class": name, "static": static, "fields": fields}


def _encode_tree(node: Any, name: str, arrays: Arrays) -> Description:
    if isinstance(node, (Stored, *_PARTS.values())):
        return _encode_module(node, name, arrays)
    if node is None:
        return {"none": True}
    if type(node) in (list, tuple):
        items = [_encode_tree(item, join(name, str(i)), arrays) for i, item in enumerate(node)]
        return {type(node).__name__: items}
    if jax.tree_util.all_leaves([node]):
        if name in arrays:
            raise ValueError(f"save.geometry: {name!r} names two arrays; rename a parameter.")
        arrays[name] = np.asarray(node)
        return {"array": name}
    children = {key: _encode_tree(child, join(name, key), arrays) for key, child in _children(node)}
    return {"dict": children}


def _children(node: Any) -> list[tuple[str, Any]]:
    """The children of any other container, named as `leaf_names` names them."""
    paths, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda other: other is not node)
    keys = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    if len(set(keys)) < len(keys):
        raise ValueError(f"save.geometry: keys {sorted(keys)} are not distinct; rename one.")
    return list(zip(keys, [child for _, child in paths], strict=True))


def decode(description: Description, arrays: Arrays) -> Stored:
    """Puts a geometry together again, to the bit.

    **Arguments:**

    - `description`, `arrays`: as from `encode`.

    **Returns:**

    The geometry. Numbers of 64 bits become numbers of 32 where JAX has `jax_enable_x64` off.

    **Raises:**

    - `ValueError`: the description names an unknown class, field or array.

    >>> decode(*encode(PNorm(1.5)))
    PNorm(p=1.5)
    """
    node = _decode_tree(description, arrays)
    if not isinstance(node, Stored):
        raise ValueError("it describes no geometry")
    return node


def _decode_tree(node: Description, arrays: Arrays) -> Any:
    match node:
        case {"class": name, "static": static, "fields": fields}:
            return _decode_module(name, static, fields, arrays)
        case {"none": True}:
            return None
        case {"array": name} if name in arrays:
            return jnp.asarray(arrays[name])
        case {"dict": dict(items)}:
            return {key: _decode_tree(item, arrays) for key, item in items.items()}
        case {"list": list(items)}:
            return [_decode_tree(item, arrays) for item in items]
        case {"tuple": list(items)}:
            return tuple(_decode_tree(item, arrays) for item in items)
    raise ValueError(f"part of its description is unknown: {str(node)[:80]}")


def _decode_module(name: str, static: Any, fields: Any, arrays: Arrays) -> eqx.Module:
    known = _known()
    if name not in known:
        raise ValueError(
            f"unknown class {name!r}; one of your own is registered first, by deploy.register."
            f"{nearest(str(name), known)}"
        )
    kinds = {field.name: field.type for field in dataclasses.fields(known[name])}
    for key, value in static.items():
        if kinds.get(key) in _SCALARS and type(value) not in _SCALARS[kinds[key]]:
            raise ValueError(f"{name}.{key} is {str(value)[:80]!r}")
    built = {key: _decode_tree(item, arrays) for key, item in fields.items()}
    try:
        return known[name](**static, **built)
    except TypeError as error:  # another set of fields
        raise ValueError(f"{name} has other fields: {error}") from error
