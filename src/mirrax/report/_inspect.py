"""What a geometry has learned, as text: the rate of every leaf, its spectrum, its components.

The rate of a parameter is the length of the step per unit of gradient, η/D for a diagonal geometry
ψ = ½ θᵀDθ: large where the family of tasks allows large steps.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ._format import ABSENT, clean, finite, number
from ._labels import array_label
from ._table import Cell, Column, Table

BARS = " ▁▂▃▄▅▆▇█"
_WIDTH = 16


def rate_range(geometry: Mapping[str, Any]) -> tuple[float, float] | None:
    """The lowest and the highest rate of all leaves.

    **Arguments:**

    - `geometry`: the content of `geometry.json`.

    **Returns:**

    `(lowest, highest)`, or `None` where no leaf has a positive rate.

    >>> rate_range({"leaves": [{"name": "w", "rate_low": 0.1, "rate_high": 0.4}]})
    (0.1, 0.4)
    """
    found: list[float] = []
    for leaf in geometry.get("leaves") or ():
        for key in ("rate_low", "rate_median", "rate_high"):
            value = finite(leaf.get(key))
            found += [] if value is None else [value]
        for left, right, count in _bins(leaf):
            found += [left, right] if count > 0 else []
    found = [value for value in found if value > 0]
    return (min(found), max(found)) if found else None


def condition(leaf: Mapping[str, Any]) -> float | None:
    """The condition number of an array's block of the learned metric.

    **Arguments:**

    - `leaf`: an entry of `leaves`; its `spectrum` falls from the largest value to the smallest.

    **Returns:**

    The largest over the smallest, or `None` where the spectrum is not known.

    >>> condition({"spectrum": [0.4, 0.2, 0.1]}), condition({})
    (4.0, None)
    """
    spectrum = leaf.get("spectrum") or ()
    ends = [finite(spectrum[i]) for i in (0, -1)] if spectrum else []
    high, low = ends if len(ends) == 2 else (None, None)
    return high / low if high is not None and low is not None and low > 0 else None


def components_of(geometry: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """The arrays of every component, by the name of the component and that of the array.

    **Arguments:**

    - `geometry`: the content of `geometry.json`.

    **Returns:**

    One entry, named `""`, where the geometry has no components.

    >>> components_of({"leaves": [{"name": "w [component 2]"}]})
    {'component 2': {'w': {'name': 'w [component 2]'}}}
    """
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for leaf in geometry.get("leaves") or ():
        base, _, held = array_label(leaf["name"]).partition(" [")
        found.setdefault(held.removesuffix("]"), {})[base] = leaf
    return found


def sparkline(leaf: Mapping[str, Any], low: float, high: float, width: int = _WIDTH) -> str:
    """A leaf's histogram as one line of block characters on a logarithmic scale.

    **Arguments:**

    - `leaf`: an entry of `leaves`, with `histogram`.
    - `low`, `high`: the ends of the scale, the same for every leaf so that lines compare.
    - `width`: characters.

    **Returns:**

    A string of `width` characters, empty where the leaf has no histogram.

    >>> leaf = {"histogram": {"edges": [1, 10, 100], "counts": [1, 2]}}
    >>> sparkline(leaf, 1, 100, width=4)
    '▄▄██'
    """
    bins = [(a, b, c) for a, b, c in _bins(leaf) if a > 0 and c > 0]
    if not bins:
        return ""
    if high <= low:
        return BARS[-1].center(width)
    start, span = math.log(low), math.log(high) - math.log(low)
    heights = [0.0] * width
    for left, right, count in bins:
        first = (math.log(left) - start) / span * width
        last = max((math.log(right) - start) / span * width, first + 1e-9)
        for i in range(width):
            overlap = min(last, i + 1) - max(first, i)
            heights[i] += count * max(overlap, 0.0) / (last - first)
    top = max(heights) or 1.0
    # A bin with anything in it is visible, however small.
    return "".join(BARS[max(math.ceil(8 * h / top), 1)] if h > 1e-9 else BARS[0] for h in heights)


def inspect_table(geometry: Mapping[str, Any]) -> Table:
    """One row for each leaf: name, shape, axis roles, rates and their distribution.

    **Arguments:**

    - `geometry`: the content of `geometry.json`.

    **Returns:**

    A `Table`; the column of distributions has the same logarithmic scale in every row.

    >>> leaf = {"name": "w", "shape": [2, 3], "roles": ["in", "out"], "rate_low": 0.1}
    >>> [cell.text for cell in inspect_table({"leaves": [leaf]}).rows[0]][:4]
    ['w', '2 × 3', 'in × out', '0.1']
    """
    span = rate_range(geometry)
    spectral = any(leaf.get("spectrum") for leaf in geometry.get("leaves") or ())
    rows = []
    for leaf in geometry.get("leaves") or ():
        shape, roles = leaf.get("shape") or (), leaf.get("roles") or ()
        size = math.prod(n for n in shape if isinstance(n, int))
        line = sparkline(leaf, *span) if span else ""
        rows.append(
            (
                Cell(array_label(leaf["name"]), array_label(leaf["name"])),
                Cell(" × ".join(map(clean, shape)) or "scalar", float(size)),
                Cell(" × ".join(map(clean, roles)) or ABSENT),
                *(_rate(leaf.get(f"rate_{key}")) for key in ("low", "median", "high")),
                *([_condition(leaf)] if spectral else []),
                Cell(f"|{line}|" if line else ABSENT),
            )
        )
    scale = f" from {number(span[0])} to {number(span[1])}" if span else ""
    columns = (
        Column("leaf", "Parameter"),
        Column("shape", "Shape"),
        Column("roles", "Axes"),
        Column("rate_low", "Lowest rate", numeric=True),
        Column("rate_median", "Median rate", numeric=True),
        Column("rate_high", "Highest rate", numeric=True),
        *([Column("condition", "Condition", numeric=True)] if spectral else []),
        Column("histogram", f"Distribution (log scale{scale})"),
    )
    return Table(_title(geometry), columns, tuple(rows), tuple(_summary(geometry, span)))


def inspect_text(geometry: Mapping[str, Any]) -> str:
    """The text of `mirrax inspect`.

    **Arguments:**

    - `geometry`: the content of `geometry.json`, or the same made from an artifact; `activation`
        (one share a component) is shown where it is present.

    **Returns:**

    Several lines of plain text.

    >>> print(inspect_text({"geometry": "Euclidean", "rate": 0.1, "leaves": []}).splitlines()[0])
    Learned geometry: Euclidean, base rate 0.1
    """
    return inspect_table(geometry).text()


def active_components(shares: Sequence[float | None]) -> str:
    """Which components of a mixture are in use.

    **Arguments:**

    - `shares`: for each component, the share of steps at which it is active.

    **Returns:**

    One sentence.

    >>> active_components([0.7, 0.3, 0.0])
    'Active components: 2 of 3 (1: 70 %, 2: 30 %, 3: never active).'
    """
    said = []
    for i, share in enumerate(shares, 1):
        value = finite(share) or 0.0
        percent = f"{100 * value:.0f} %" if value >= 0.005 else f"{100 * value:.2g} %"
        said.append(f"{i}: {percent if value > 0 else 'never active'}")
    active = sum((finite(share) or 0.0) > 0 for share in shares)
    return f"Active components: {active} of {len(shares)} ({', '.join(said)})."


def _bins(leaf: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    histogram = leaf.get("histogram") or {}
    edges, counts = histogram.get("edges") or (), histogram.get("counts") or ()
    bins = []
    for left, right, count in zip(edges, edges[1:], counts, strict=False):
        if finite(left) is not None and finite(right) is not None:
            bins.append((float(left), float(right), finite(count) or 0.0))
    return bins


def _rate(value: object) -> Cell:
    return Cell(number(finite(value)), finite(value))


def _condition(leaf: Mapping[str, Any]) -> Cell:
    found = condition(leaf)
    return Cell(number(found), found)


def _title(geometry: Mapping[str, Any]) -> str:
    title = f"Learned geometry: {clean(geometry.get('geometry') or 'unnamed')}"
    rate = finite(geometry.get("rate"))
    return title if rate is None else f"{title}, base rate {number(rate)}"


def _summary(geometry: Mapping[str, Any], span: tuple[float, float] | None) -> list[str]:
    """The number of rates, their extremes, the active components, what the columns mean."""
    lines = []
    shapes = [leaf.get("shape") or () for leaf in geometry.get("leaves") or ()]
    count = sum(math.prod(n for n in shape if isinstance(n, int)) for shape in shapes)
    if shapes:
        lines.append(f"{count:,} rates in {len(shapes)} array{'' if len(shapes) == 1 else 's'}.")
    if span:
        lowest = _holder(geometry, span[0], "rate_low")
        highest = _holder(geometry, span[1], "rate_high")
        lines.append(
            f"Lowest rate {number(span[0])}{lowest}, highest {number(span[1])}{highest}, "
            f"ratio {number(span[1] / span[0])}."
        )
    if any(leaf.get("spectrum") for leaf in geometry.get("leaves") or ()):
        lines.append("Condition: largest eigenvalue of the learned metric over the smallest.")
    if geometry.get("activation"):
        lines.append(active_components(geometry["activation"]))
    known = "Rate: step length for a gradient of one, in each parameter."
    lines.append(known if shapes else "Its rates are not numbers of single parameters.")
    return lines


def _holder(geometry: Mapping[str, Any], value: float, key: str) -> str:
    """` in NAME` for the leaf that has the extreme value, where one records it."""
    for leaf in geometry.get("leaves") or ():
        if finite(leaf.get(key)) == value:
            return f" in {array_label(leaf['name'])}"
    return ""
