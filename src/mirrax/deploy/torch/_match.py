r"""The table of a match: every parameter of the artifact beside one of the model.

What differs is shown as two tables side by side; what was inferred is a report to read.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..._errors import ArtifactError, nearest
from .._layout import Leaf, columns
from ._flatten import inferred_channels
from ._pairs import Pairs, pairs_of
from ._reorder import Reorder, found_axes, torch_shape, with_channels

Given = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """One pair.

    **Arguments:**

    - `leaf`: the artifact's parameter.
    - `name`: the model's name of it.
    - `reorder`: how the two hold the same numbers.
    - `how`: `given`, `name`, `order`, `shape`, or `any` for a geometry that fits everything;
        with what was inferred of its axes behind it.
    """

    leaf: Leaf
    name: str
    reorder: Reorder
    how: str

    @property
    def is_inferred(self) -> bool:
        """Whether more than names and roles was needed."""
        return self.how not in ("given", "name", "any")

    def cells(self) -> tuple[str, ...]:
        """What the report says of it."""
        axes = " ".join(map(str, self.reorder.axes)) or "-"
        if self.reorder.channels > 1:
            axes += f", inputs of {self.reorder.channels} channels"
        return (
            self.leaf.name,
            str(self.leaf.shape),
            self.name,
            str(self.reorder.own),
            axes,
            self.how,
        )


def matched(
    leaves: Sequence[Leaf],
    params: Mapping[str, Tensor],
    names: Mapping[str, str | Tensor],
    axes: Mapping[str, Sequence[int]],
    flatten: Mapping[str, int],
    ordered: bool = True,
) -> list[Row]:
    """Matches a model's parameters with an artifact's.

    **Arguments:**

    - `leaves`: the artifact's parameters.
    - `params`: the model's by name, in its order.
    - `names`: pairs that are given: the model's name, or the parameter itself.
    - `axes`: orders of axes that are given.
    - `flatten`: channels of flattened images that are given.
    - `ordered`: whether the order of `params` is the model's.

    **Returns:**

    One row a parameter, in the order of the model.

    **Raises:**

    - `ArtifactError`: they are not the same; both tables are shown.
    - `ValueError`: an argument names nothing, or something would have to be guessed.
    """
    for argument, mapping in {"names": names, "axes": axes, "flatten": flatten}.items():
        _check_keys(argument, mapping, [leaf.name for leaf in leaves])
    pairs: Pairs = {name: (_named(found, params), "given") for name, found in names.items()}
    taken = {name for name, _ in pairs.values()}
    if len(taken) < len(pairs):
        raise ValueError("MirrorDescent.names: two names lead to one parameter of the model.")
    rest = {name: tuple(p.shape) for name, p in params.items() if name not in taken}
    pairs |= pairs_of([leaf for leaf in leaves if leaf.name not in pairs], rest, ordered)
    orders = {
        leaf.name: _order(leaf, params[pairs[leaf.name][0]], axes)
        for leaf in leaves
        if leaf.name in pairs
    }
    if len(pairs) < max(len(leaves), len(params)) or None in orders.values():
        raise ArtifactError(_difference(leaves, params, pairs, orders))
    rows = [
        Row(leaf, pairs[leaf.name][0], order, pairs[leaf.name][1] + _guessed(leaf, axes))
        for leaf in leaves
        if (order := orders[leaf.name]) is not None
    ]
    places = {name: place for place, name in enumerate(params)}
    return _flattened(sorted(rows, key=lambda row: places[row.name]), flatten, ordered)


def report(rows: Sequence[Row]) -> str:
    """The table of a match, to be read.

    >>> row = Row(Leaf("w", (2, 3), "float32"), "fc.weight", Reorder((3, 2), (1, 0)), "name")
    >>> print(report([row]))
    geometry  shape   model      shape   axes  matched by
    w         (2, 3)  fc.weight  (3, 2)  1 0   name
    """
    header = ("geometry", "shape", "model", "shape", "axes", "matched by")
    return "\n".join(columns([header, *(row.cells() for row in rows)]))


def _check_keys(argument: str, mapping: Given, known: Sequence[str]) -> None:
    for name in mapping:
        if name not in known:
            raise ValueError(
                f"MirrorDescent.{argument}: the geometry has no parameter {name!r}."
                f"{nearest(name, known)}"
            )


def _named(found: str | Tensor, params: Mapping[str, Tensor]) -> str:
    if isinstance(found, Tensor):
        for name, param in params.items():
            if param is found:
                return name
        raise ValueError("MirrorDescent.names: a tensor that is not among the parameters given.")
    if found not in params:
        raise ValueError(
            f"MirrorDescent.names: the model has no parameter {found!r}.{nearest(found, params)}"
        )
    return found


def _order(leaf: Leaf, param: Tensor, axes: Mapping[str, Sequence[int]]) -> Reorder | None:
    own = tuple(param.shape)
    if leaf.name not in axes:
        found = found_axes(leaf, own)
        return None if found is None else Reorder(own, found)
    given = tuple(axes[leaf.name])
    if sorted(given) != list(range(len(own))):
        raise ValueError(
            f"MirrorDescent.axes: expected an order of {len(own)} axes for {leaf.name!r}, got "
            f"{given!r}."
        )
    reorder = Reorder(own, given)
    return reorder if reorder.shape == leaf.shape else None


def _guessed(leaf: Leaf, axes: Mapping[str, Sequence[int]]) -> str:
    """A remark where only shapes told which axis is which."""
    return ", axes by shape" if torch_shape(leaf) is None and leaf.name not in axes else ""


def _flattened(rows: list[Row], given: Mapping[str, int], ordered: bool) -> list[Row]:
    found = inferred_channels([(row.leaf.name, row.reorder) for row in rows], given, ordered)
    channels = {**found, **given}
    return [
        dataclasses.replace(
            row,
            reorder=with_channels(name, row.reorder, channels[name]),
            how=row.how + (", channels in front" if name in found else ""),
        )
        if (name := row.leaf.name) in channels
        else row
        for row in rows
    ]


def _difference(
    leaves: Sequence[Leaf],
    params: Mapping[str, Tensor],
    pairs: Pairs,
    orders: Mapping[str, Reorder | None],
) -> str:
    """Both tables, side by side."""
    rows = [(" ", "geometry", "shape", "model", "shape")]
    for leaf in leaves:
        other = pairs[leaf.name][0] if leaf.name in pairs else None
        shape = "-" if other is None else str(tuple(params[other].shape))
        mark = " " if orders.get(leaf.name) is not None else "!"
        rows.append((mark, leaf.name or "(one array)", str(leaf.shape), other or "absent", shape))
    taken = {name for name, _ in pairs.values()}
    for name, param in params.items():
        if name not in taken:
            rows.append(("!", "absent", "-", name, str(tuple(param.shape))))
    table = "\n".join(f"  {line}" for line in columns(rows))
    return (
        "the parameters are not those the geometry was learned for; build the same model, or say "
        "which is which with names={'name in the geometry': 'name in the model'} and "
        f"axes={{…}}:\n{table}"
    )
