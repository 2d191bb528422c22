"""What `benchmarks.estimators` prints: tables of one size, the plan, and what is wrong."""

import functools
from collections.abc import Callable, Sequence

from benchmarks import table
from benchmarks._estimator_agreement import OURS, SIDES, Case, disagrees, key, named
from benchmarks._estimator_case import BUSY, busy
from benchmarks._estimator_problem import LONG, Size
from benchmarks._estimator_record import Job

START = 1.5
"""Seconds that a process needs beside compilation and runs."""

INSTEAD = {"cpu": "predicted_cpu", "measured_bytes": "planned_bytes"}
"""What stands for a figure of a case that was not run."""


def grid(cases: Sequence[Case], cell: Callable[[Case], str]) -> str:
    """A table of one figure: sides by lengths of the run."""
    steps = sorted({case["steps"] for case in cases})
    found = {(case["side"], case["steps"]): case for case in cases}
    rows = []
    for side in SIDES:
        own = [found.get((side, count)) for count in steps]
        if any(own):
            rows.append([side, *("" if case is None else cell(case) for case in own)])
    return table(["T =", *(f"{count:,}" for count in steps)], rows)


def by_size(cases: Sequence[Case]) -> dict[Size, list[Case]]:
    """Cases of each size, the small ones first."""
    sizes = sorted({Size.read(case["size"]) for case in cases})
    return {size: [case for case in cases if case["size"] == str(size)] for size in sizes}


def title(size: Size) -> str:
    """A size as a heading."""
    return f"## {size.learned:,} learned numbers, {size.parameters:,} parameters\n"


# what was measured


def figure(field: str, scale: float, case: Case) -> str:
    """One number: `*` if the side disagrees, `†` if flagged, `‡` if timed on a busy machine."""
    if field in case:
        mark = "*" if disagrees(case) else "†" if case.get("flags") else ""
        timed = "‡" if busy(case) and field != "measured_bytes" else ""
        return f"{case[field] * scale:,.4g}{mark}{timed}"
    other = INSTEAD.get(field, "")
    return f"({case[other] * scale:,.4g})" if other in case else "–"


def show(cases: Sequence[Case]) -> None:
    """Prints the tables of every size."""
    for size, own in by_size(cases).items():
        print(title(size))
        figures = {"ms": ("seconds", 1e3), "CPU ms": ("cpu", 1e3), "MB": ("measured_bytes", 1e-6)}
        for name, (field, scale) in figures.items():
            print(f"{name}\n{grid(own, functools.partial(figure, field, scale))}\n")
        print(f"relative difference\n{grid(own, _difference)}\n")
        for case in own:
            for line in _remarks(case):
                print(f"{case['side']}, T = {case['steps']:,}: {line}")
        print(flush=True)


def _difference(case: Case) -> str:
    value = case.get("difference")
    return "–" if value is None else f"{value:.1e}"


def _remarks(case: Case) -> list[str]:
    """What a reader of the tables should know of a case."""
    flags = ", ".join(case.get("flags") or [])
    reference = case.get("reference")
    usual = (None, "reverse", "implicit, cg")
    return [
        *([case["skipped"]] if "skipped" in case else []),
        *([f"flagged: {flags}"] if flags else []),
        *([f"compared with {reference}"] if reference not in usual else []),
        *([f"not compared: {case['incomparable']}"] if "incomparable" in case else []),
    ]


def faults(cases: Sequence[Case]) -> list[str]:
    """Prints how much was compared; the lines that make the command fail."""
    measured = [case for case in cases if "cpu" in case]
    compared = sum("difference" in case for case in measured)
    print(f"{len(cases)} cases, {len(measured)} of them run, {compared} of those compared")
    print(f"{sum(map(busy, cases))} run while the load by others was above {BUSY} (‡)")
    for case in filter(disagrees, cases):
        if case["side"] not in OURS:
            print(f"{named(case)}: computes something else")
    return [
        *(
            f"{named(c)}: computes something else"
            for c in cases
            if disagrees(c) and c["side"] in OURS
        ),
        *(f"{named(c)}: not compared: {c['missing']}" for c in cases if "missing" in c),
        *(f"{named(c)}: failed: {c['failed']}" for c in cases if "failed" in c),
    ]


# what is to be run


def expected(earlier: Case | None, limits: Case) -> float | None:
    """Seconds that a case will take, from an earlier record of it."""
    if earlier is None:
        return None
    begin = START + earlier["compile_seconds"] if "compile_seconds" in earlier else START
    if "cpu" in earlier:
        again = max(earlier["rounds"] - (earlier["first"] > LONG), 1)
        return begin + earlier["first"] + again * earlier["cpu"]
    cpu = earlier.get("predicted_cpu")
    if cpu is not None and cpu <= limits["seconds"]:
        return begin + 2 * cpu
    return begin if "compile_seconds" in earlier else 0.0


def show_plan(left: Sequence[Job], earlier: Sequence[Case], limits: Case) -> None:
    """Prints the cases to be run, with the seconds that each is expected to take."""
    known = {key(case): case for case in earlier}
    cases = [job.case | {"expected": expected(known.get(key(job.case)), limits)} for job in left]
    for size, own in by_size(cases).items():
        print(f"{title(size)}\nseconds\n{grid(own, _expected)}\n{_total(own)}\n")
    print(f"altogether {_total(cases)}")


def _expected(case: Case) -> str:
    return "?" if case["expected"] is None else f"{case['expected']:.1f}"


def _total(cases: Sequence[Case]) -> str:
    known = [case["expected"] for case in cases if case["expected"] is not None]
    unknown = (
        f", and {len(cases) - len(known)} of unknown length" if len(known) < len(cases) else ""
    )
    return f"{len(cases)} cases, about {sum(known) / 60:.1f} minutes{unknown}"
