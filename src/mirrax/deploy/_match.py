r"""The table of a match: every parameter of the artifact beside one of the model.

What differs is shown as two tables side by side; what was inferred is a report to read.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._errors import ArtifactError, nearest
from ._flatten import inferred_channels
from ._layout import Leaf, Shape, columns
from ._pairs import Pairs, pairs_of
from ._reorder import (
    CHANNELS_FIRST,
    Convention,
    Reorder,
    found_axes,
    shape_in,
    with_channels,
)

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
    shapes: Mapping[str, Shape],
    names: Mapping[str, str],
    axes: Mapping[str, Sequence[int]],
    flatten: Mapping[str, int],
    ordered: bool = True,
    convention: Convention = CHANNELS_FIRST,
) -> list[Row]:
    """Matches a model's parameters with an artifact's.

    **Arguments:**

    - `leaves`: the artifact's parameters.
    - `shapes`: those of the model by name, in its order.
    - `names`: pairs that are given: the model's name by the artifact's.
    - `axes`: orders of axes that are given.
    - `flatten`: channels of flattened images that are given.
    - `ordered`: whether the order of `shapes` is the model's.
    - `convention`: what the axes of the model's layers mean.

    **Returns:**

    One row a parameter, in the order of the model.

    **Raises:**

    - `ArtifactError`: they are not the same; both tables are shown.
    - `ValueError`: an argument names nothing, or something would have to be guessed.
    """
    for argument, mapping in {"names": names, "axes": axes, "flatten": flatten}.items():
        _check_keys(argument, mapping, [leaf.name for leaf in leaves])
    _check_known(names.values(), shapes)
    pairs: Pairs = {name: (found, "given") for name, found in names.items()}
    taken = {name for name, _ in pairs.values()}
    if len(taken) < len(pairs):
        raise ValueError("names: two names lead to one parameter of the model.")
    rest = {name: shape for name, shape in shapes.items() if name not in taken}
    others = [leaf for leaf in leaves if leaf.name not in pairs]
    pairs |= pairs_of(others, rest, ordered, convention)
    orders = {
        leaf.name: _order(leaf, shapes[pairs[leaf.name][0]], axes, convention)
        for leaf in leaves
        if leaf.name in pairs
    }
    if len(pairs) < max(len(leaves), len(shapes)) or None in orders.values():
        raise ArtifactError(_difference(leaves, shapes, pairs, orders))
    rows = [
        Row(
            leaf, pairs[leaf.name][0], order, pairs[leaf.name][1] + _guessed(leaf, axes, convention)
        )
        for leaf in leaves
        if (order := orders[leaf.name]) is not None
    ]
    places = {name: place for place, name in enumerate(shapes)}
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
                f"{argument}: the geometry has no parameter {name!r}.{nearest(name, known)}"
            )


def _check_known(names: Iterable[str], shapes: Mapping[str, Shape]) -> None:
    for name in names:
        if name not in shapes:
            raise ValueError(f"names: the model has no parameter {name!r}.{nearest(name, shapes)}")


def _order(
    leaf: Leaf, own: Shape, axes: Mapping[str, Sequence[int]], convention: Convention
) -> Reorder | None:
    first = convention is CHANNELS_FIRST
    if leaf.name not in axes:
        found = found_axes(leaf, own, convention)
        units = len(leaf.shape) - len(own)  # where it is a vector; axes are as many elsewhere
        return None if found is None else Reorder(own, found, first=first, units=units)
    given = tuple(axes[leaf.name])
    if sorted(given) != list(range(len(own))):
        raise ValueError(
            f"axes: expected an order of {len(own)} axes for {leaf.name!r}, got {given!r}."
        )
    reorder = Reorder(own, given, first=first)
    return reorder if reorder.shape == leaf.shape else None


def _guessed(leaf: Leaf, axes: Mapping[str, Sequence[int]], convention: Convention) -> str:
    """A remark where only shapes told which axis is which."""
    known = shape_in(leaf, convention) is not None or leaf.name in axes
    return "" if known else ", axes by shape"


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
    shapes: Mapping[str, Shape],
    pairs: Pairs,
    orders: Mapping[str, Reorder | None],
) -> str:
    """Both tables, side by side."""
    rows = [(" ", "geometry", "shape", "model", "shape")]
    for leaf in leaves:
        other = pairs[leaf.name][0] if leaf.name in pairs else None
        shape = "-" if other is None else str(shapes[other])
        mark = " " if orders.get(leaf.name) is not None else "!"
        rows.append((mark, leaf.name or "(one array)", str(leaf.shape), other or "absent", shape))
    taken = {name for name, _ in pairs.values()}
    for name, shape in shapes.items():
        if name not in taken:
            rows.append(("!", "absent", "-", name, str(shape)))
    table = "\n".join(f"  {line}" for line in columns(rows))
    return (
        "the parameters are not those the geometry was learned for; build the same model, or say "
        "which is which with names={'name in the geometry': 'name in the model'} and "
        f"axes={{…}}:\n{table}"
    )
