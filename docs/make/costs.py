"""What the page on choosing an estimator says of `docs/results/estimator-cost.json`."""

import functools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

Case = dict[str, Any]

_RESULTS = Path(__file__).parents[1] / "results"
SIDES = {
    "run": "the run alone",
    "reverse": "`Reverse`",
    "reverse, checkpoints": "`Reverse(checkpoint=True)`",
    "reverse, mixed": "`Reverse(mixed=True)`",
    "reverse, first order": "`Reverse(first_order=True)`",
    "forward": "`Forward`",
    "truncated, K = 10": "`Truncated`, K = 10",
    "truncated, K = 1": "`Truncated`, K = 1",
    "direct": "`Direct`",
    "pathwise": "`Pathwise`",
    "evolution": "`Evolution`, 8 pairs",
    "evolution, windows": "`Evolution`, windows of 10",
    "implicit, cg": "`Implicit`, cg",
    "implicit, neumann": "`Implicit`, neumann",
    "implicit, gmres": "`Implicit`, gmres",
    "torchopt, unroll": "torchopt, unrolled",
    "higher": "higher",
    "torchopt, cg": "torchopt, cg",
    "torchopt, neumann": "torchopt, neumann",
    "betty, neumann": "betty, neumann",
}
"""How the page calls the sides that it shows."""
_INSTEAD = {"cpu": "predicted_cpu", "measured_bytes": "planned_bytes"}
_UNITS = {"cpu": 1e3, "measured_bytes": 1e-6}
_LEAST = 0.07  # of a megabyte: less is within what a process grows by itself


@functools.cache
def _cases(record: str) -> dict[tuple[str, str, int], Case]:
    text = (_RESULTS / f"{record}.json").read_text(encoding="utf-8")
    found = json.loads(text)["estimators"]["cases"]
    return {(case["side"], case["size"], case["steps"]): case for case in found}


def case(
    side: str, steps: int = 1000, size: str = "100000", record: str = "estimator-cost"
) -> Case:
    """What is known of a side at one length and size."""
    return _cases(record)[side, size, steps]


def cases() -> list[Case]:
    """All of them."""
    return list(_cases("estimator-cost").values())


def ms(side: str, *where: Any) -> float:
    """Processor time in milliseconds."""
    return _UNITS["cpu"] * case(side, *where)["cpu"]


def mb(side: str, *where: Any) -> float:
    """Memory in megabytes."""
    return _UNITS["measured_bytes"] * case(side, *where)["measured_bytes"]


def short(value: float) -> str:
    """Two digits, or all before the point.

    >>> short(0.4561), short(1234.5)
    ('0.46', '1,234')
    """
    return f"{value:.2g}" if value < 9.95 else f"{value:,.0f}"


def power(value: float, digits: int) -> str:
    """A power of ten with so many digits behind the point.

    >>> power(1.36e-4, 1)
    '1.4e-4'
    """
    return f"{value:.{digits}e}".replace("e-0", "e-")


def cell(field: str, found: Case) -> str:
    """A figure of a table: in parentheses what was predicted, `†` where the case is flagged."""
    if field in found:
        value = _UNITS[field] * found[field]
        mark = "†" if found.get("flags") else ""
        return "< 0.1" if field != "cpu" and value < _LEAST else short(value) + mark
    other = _INSTEAD[field]
    return f"({short(_UNITS[field] * found[other])})" if other in found else "–"


def by_default(side: str) -> float:
    """Processor time in milliseconds where XLA emits fusions as JAX has it do by default."""
    return ms(side, 1000, "100000", "estimator-cost-mlir")


def by_length(lengths: Sequence[int]) -> str:
    """Time and memory of all sides at 100,000 learned numbers, by the length of the run."""
    fields = [(field, steps) for field in _UNITS for steps in lengths]
    header = [f"{'ms' if field == 'cpu' else 'MB'}, T = {steps:,}" for field, steps in fields]
    return _table(header, SIDES, lambda side: [cell(field, case(side, n)) for field, n in fields])


def by_size(sides: Sequence[str], field: str, sizes: Sequence[str]) -> str:
    """One figure of some sides at 1,000 steps, by how much is learned."""
    header = [f"{int(size):,}" if size.isdecimal() else "10 of 100,000" for size in sizes]
    return _table(header, sides, lambda side: [cell(field, case(side, 1000, n)) for n in sizes])


def _table(header: Sequence[str], sides: Iterable[str], cells: Callable[[str], list[str]]) -> str:
    rows = [header, *(cells(side) for side in sides)]
    names = ["", *(SIDES[side] for side in sides)]
    lines = [f"| {' | '.join([name, *row])} |" for name, row in zip(names, rows, strict=True)]
    lines.insert(1, "|---" * (len(header) + 1) + "|")
    return "\n".join(lines).replace("|  |", "| |", 1)


def worst(sides: Sequence[str], reference: str) -> float:
    """The largest relative difference of some sides from a reference, where they converged."""
    return max(
        found["difference"]
        for found in cases()
        if found["side"] in sides and found.get("reference") == reference and not found.get("flags")
    )


def busiest() -> float:
    """The highest load by others before a case."""
    return max(found["load_before"] - found["own_load"] for found in cases() if "cpu" in found)


def clocks() -> float:
    """By how much the clock and processor time differ at most, over a millisecond."""
    long = (found for found in cases() if found.get("cpu", 0) > 1e-3)
    return max(abs(found["seconds"] / found["cpu"] - 1) for found in long)


def count(field: str) -> int:
    """How many cases have a field."""
    return sum(field in found for found in cases())


def meets(side: str, size: str, by_run: bool = True) -> float:
    """At how many steps `Reverse` takes the time, or the memory, of a side that does not grow."""
    if by_run:
        return 1000 * ms(side, 1000, size) / ms("reverse", 1000, size)
    return 1000 * mb(side, 1000, size) / mb("reverse", 1000, size)


COSTS = {
    function.__name__: function
    for function in (
        case,
        cases,
        ms,
        mb,
        by_default,
        by_length,
        by_size,
        worst,
        busiest,
        clocks,
        count,
        meets,
    )
}
