"""What learned mirror maps are like, as tables: have they a potential, and do they descend?"""

from collections.abc import Mapping
from typing import Any

from ._format import number
from ._labels import method_label
from ._table import Cell, Column, Table

_NOTES = (
    "J is the Jacobian of the learned map at the dual points of runs on {tasks} test tasks, the "
    "worst of them in each line; eigenvalues are Ritz values: a negative one is proof, a positive "
    "one evidence.",
    "A gradient of a convex function has a symmetric J with positive eigenvalues. Asymmetry is "
    "‖J − Jᵀ‖/‖J‖, estimated; float32 leaves about 1e-7.",
)


def map_tables(certificate: Mapping[str, Any]) -> list[Table]:
    """Diagnoses of learned maps along runs, and the counterexample to Theorem 1 of S004.

    **Arguments:**

    - `certificate`: what `mirrax certify` returns for a few-shot run.

    **Returns:**

    Two tables.

    >>> step = {"k": 0, "smallest": 0.9, "largest": 1.1, "asymmetry": 0.0}
    >>> maps = [{"method": "convex_potential", "potential": True, "steps": [step]}]
    >>> first, *_ = map_tables({"tasks": 4, "maps": maps, "counterexample": {}})
    >>> [cell.text for cell in first.rows[0]]
    ['convex potential', 'yes', '0', '0.9', '1.1', '0']
    """
    columns = (
        Column("method", "Method"),
        Column("potential", "Has a potential"),
        Column("k", "Step k", numeric=True),
        Column("smallest", "Smallest eigenvalue of sym J", numeric=True),
        Column("largest", "Largest", numeric=True),
        Column("asymmetry", "Asymmetry", numeric=True),
    )
    rows = []
    for row in certificate["maps"]:
        for step in row["steps"]:
            rows.append(
                (
                    Cell(method_label(row["method"])),
                    Cell("yes" if row["potential"] else "no"),
                    Cell(str(step["k"]), float(step["k"])),
                    *(
                        Cell(number(step[key]), step[key])
                        for key in ("smallest", "largest", "asymmetry")
                    ),
                )
            )
    notes = tuple(note.format(tasks=certificate["tasks"]) for note in _NOTES)
    notes += tuple(
        f"{method_label(row['method'])}: by its form, the eigenvalues are between "
        f"{number(row['bounds'][0])} and {number(row['bounds'][1])} at every point."
        for row in certificate["maps"]
        if row.get("bounds")
    )
    along = Table("Learned mirror maps along runs on new tasks", columns, tuple(rows), notes)
    return [along, _counterexample(certificate["counterexample"])]


_MEANINGS = {
    "monotonicity": ("⟨z − z′, g(z) − g(z′)⟩ for two points", "≥ 0"),
    "eigenvalues": ("eigenvalues of sym J", "> 0"),
    "inverse_eigenvalues": ("eigenvalues of sym J⁻¹", "> 0"),
    "loop_integral": ("∮ g⁻¹·dx round the unit square", "= 0"),
    "contraction_eigenvalues": ("eigenvalues of J H for a convex quadratic", "> 0"),
}


def _counterexample(found: Mapping[str, Any]) -> Table:
    columns = (
        Column("what", "Of g(z) = (½z₁, ½z₂ + 10 relu(z₁))"),
        Column("mirror", "A mirror map has"),
        Column("found", "It is", numeric=True),
    )
    rows = tuple(
        (Cell(what), Cell(needed), Cell(_numbers(found[key])))
        for key, (what, needed) in _MEANINGS.items()
        if key in found
    )
    notes = (
        "The map has the form of S004 eq. 8 and a positive diagonal, as Theorem 1 asks; the last "
        "line is of g(z) = (z₁, z₂ − 10 relu(z₁)), with which no step size converges.",
    )
    return Table("Why Theorem 1 of S004 does not hold", columns, rows, notes)


def _numbers(value: Any) -> str:
    values = value if isinstance(value, list | tuple) else [value]
    return ", ".join(f"{v:.3g}" for v in values)
