"""The sides of `benchmarks.estimators`, and which of them must compute the same number.

Hypergradients are compared from what their records hold, whenever and in whatever order they were
measured. A record holds a derivative of up to `PROJECTIONS` numbers itself. A longer one is held
as so many projections: every number is added, with a random sign, to one of as many sums. Places
and signs are the same for every side, so that the projections of a difference are a difference of
projections. Their squared length is that of the derivative on average, and its standard deviation
at most `√(2/PROJECTIONS)` of it: a relative difference, the ratio of two, is known to about 6%.
"""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

Case = dict[str, Any]

EXACT = ("reverse", "reverse, checkpoints", "reverse, mixed", "forward")
APPROXIMATE = (
    "reverse, first order",
    "truncated, K = 10",
    "truncated, K = 1",
    "direct",
    "pathwise",
    "evolution",
    "evolution, windows",
)
SOLUTION = ("implicit, cg", "implicit, neumann", "implicit, gmres")
UNROLLED_PEERS = ("torchopt, unroll", "higher")
SOLUTION_PEERS = ("torchopt, cg", "torchopt, neumann", "betty, cg", "betty, neumann")
OURS = ("run", *EXACT, *APPROXIMATE, *SOLUTION)
SIDES = (*OURS, *UNROLLED_PEERS, *SOLUTION_PEERS)
AGREEMENT = 1e-3
PROJECTIONS = 256


def key(case: Case) -> tuple[str, str, int]:
    """What tells a case from all others."""
    return case["side"], case["size"], case["steps"]


def named(case: Case) -> str:
    """A case in words."""
    return f"{case['side']}, {case['size']}, T = {case['steps']:,}"


def references(side: str) -> Sequence[str]:
    """The sides whose derivative a side's is compared with: the first that could run."""
    if side == "run":
        return ()
    return SOLUTION if side in SOLUTION + SOLUTION_PEERS else EXACT


def sketch(slope: np.ndarray) -> str:
    """A derivative as a record holds it: in float32, and base 64."""
    flat = slope.ravel().astype(np.float64)
    if flat.size > PROJECTIONS:
        rng = np.random.default_rng(0)
        place, sign = rng.integers(PROJECTIONS, size=flat.size), rng.integers(2, size=flat.size)
        flat = np.bincount(place, (2 * sign - 1) * flat, PROJECTIONS)
    return base64.b64encode(flat.astype("<f4").tobytes()).decode()


def _numbers(case: Case) -> np.ndarray:
    """What `sketch` held."""
    return np.frombuffer(base64.b64decode(case["slope"]), "<f4").astype(np.float64)


def judged(cases: Sequence[Case]) -> list[Case]:
    """All cases, each with how far its derivative is from its reference."""
    found = {key(case): case for case in cases}
    return [
        _without_judgement(case)
        | _judgement(
            case,
            {name: found.get((name, *key(case)[1:])) for name in references(case["side"])},
        )
        for case in cases
    ]


def _without_judgement(case: Case) -> Case:
    made = ("reference", "difference", "cosine", "missing", "incomparable")
    return {name: value for name, value in case.items() if name not in made}


def _judgement(case: Case, others: dict[str, Case | None]) -> Case:
    """The comparison with the first other that is exact, or why there is none.

    One that exceeds its limits, or did not converge, gives way to the next; one that was never run
    is `missing`.
    """
    if "slope" not in case:
        return {}
    for name, other in others.items():
        if other is None or "failed" in other:
            return {"missing": f"{name} {'failed' if other else 'was not run'}"}
        if _is_sound(other):
            itself = name == case["side"]
            return {} if itself else {"reference": name, **_distance(case, other)}
    return {"incomparable": "no exact side of mirrax stays within its limits and converges"}


def _is_sound(case: Case) -> bool:
    """Whether others can be compared with a case."""
    return "slope" in case and not case.get("flags") and bool(np.isfinite(_numbers(case)).all())


def _distance(case: Case, other: Case) -> Case:
    """The difference relative to the reference, and the cosine."""
    mine, theirs = _numbers(case), _numbers(other)
    if not np.isfinite(mine).all():
        return {"difference": None}
    scale = np.linalg.norm(theirs)
    product = np.linalg.norm(mine) * scale
    return {
        "difference": float(np.linalg.norm(mine - theirs) / scale),
        "cosine": float(mine @ theirs / product) if product else 0.0,
    }


def disagrees(case: Case) -> bool:
    """Whether a side computes another number than it should; a flagged one says so itself."""
    if case["side"] in APPROXIMATE or "difference" not in case or case.get("flags"):
        return False
    return case["difference"] is None or case["difference"] > AGREEMENT
