r"""Every geometry with every estimator: what each hypergradient is worth, or why it is refused.

An exact estimator is compared with central differences of the value in float64, with the closed
form on the linear model where there is one, and with every other exact estimator of its case; the
error is the largest absolute one over the largest entry. An approximation is compared with the
exact derivative by error and angle, a random estimator by its error in its own standard errors.
Source: spec B4, B5.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from .. import report
from .._errors import NumericalError
from ..hypergradient import AbstractHypergradient, EstimatorState, Reverse
from ..inner import evaluate
from ._config import among, between
from ._gradient_cases import (
    ALL_PARTS,
    GEOMETRIES,
    STEPWISE,
    Column,
    GradientCase,
    differentiated,
    estimators,
    make_case,
)
from ._gradient_closed_forms import closed_form, has_closed_form
from ._progress import Phase
from ._reproduction import Reproduction, Request, budgets

INNERS = {"run": False, "solution": True}
_STEP = 1e-5
_SMOKE = {
    "geometries": ("Diagonal", "BlockIAF"),
    "estimators": ("Reverse", "Implicit, CG", "Direct", "Evolution"),
    "pairs": 256,
}


@dataclasses.dataclass(frozen=True)
class GradientStudy:
    """The matrix of hypergradients.

    **Arguments:**

    - `geometries`, `estimators`: names of rows and of columns; all by default.
    - `pairs`: of runs, for evolution strategies.
    """

    geometries: tuple[str, ...] = tuple(GEOMETRIES)
    estimators: tuple[str, ...] = tuple(estimators(1))
    pairs: int = 512

    def __post_init__(self):
        """Checks every field."""
        between(self, "pairs", 2, 10**6)
        among(self, "geometries", GEOMETRIES)
        among(self, "estimators", estimators(1))

    def columns(self) -> dict[str, Column]:
        """The estimators by name."""
        known = estimators(self.pairs)
        return {name: known[name] for name in self.estimators}


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What an estimator gave for the numbers it differentiates, with standard errors if it has."""

    slope: np.ndarray
    error: np.ndarray | None
    parts: tuple[str, ...]


def estimate(estimator: AbstractHypergradient, case: GradientCase) -> Estimate:
    """The derivative over one run, as one compiled program.

    **Arguments:**

    - `estimator`, `case`: what is computed.

    **Raises:**

    - `ValueError`: where the estimator does not apply.
    - `NumericalError`: where its own checks did not hold.
    """

    @jax.jit
    def run(inner: Any, prior: Any, problem: Any) -> tuple[Any, Any, EstimatorState]:
        _value, slope, state = estimator.over_a_run(
            case.objective, inner, prior, problem, key=case.key
        )
        # Costs fall due at the end: what early windows are owed is zero, and so is its error.
        error = None if state.error is None else differentiated(state.error, estimator.wrt)
        return differentiated(slope, estimator.wrt), error, state

    slope, error, state = run(case.inner, case.prior, case.problem)
    if state.implicit is not None:
        state.implicit.require_sound()
    return Estimate(np.asarray(slope), None if error is None else np.asarray(error), estimator.wrt)


def central_differences(case: GradientCase) -> np.ndarray:
    """The derivative of the value, all parts, by central differences.

    **Arguments:**

    - `case`: what is computed.
    """
    moving, fixed = eqx.partition(case.prior, eqx.is_inexact_array)
    flat, restore = ravel_pytree(moving)

    @jax.jit
    def values(points: jax.Array) -> jax.Array:
        def value(point: jax.Array) -> jax.Array:
            prior = eqx.combine(restore(point), fixed)
            return evaluate(
                case.objective, case.inner, prior, case.problem, case.steps, key=case.key
            )[0]

        return jax.lax.map(value, points)

    shifts = _STEP * jnp.eye(len(flat))
    ahead, behind = np.split(np.asarray(values(jnp.concatenate([flat + shifts, flat - shifts]))), 2)
    return (ahead - behind) / (2 * _STEP)


def entries(
    geometry: str, inner: str, columns: Mapping[str, Column], seed: int = 0
) -> list[dict[str, Any]]:
    """One row of the matrix.

    **Arguments:**

    - `geometry`: a name in `GEOMETRIES`.
    - `inner`: `"run"` or `"solution"`.
    - `columns`: estimators by name. Without an exact one, the others are compared with `Reverse`.
    - `seed`: of the problem.

    **Returns:**

    One dictionary an estimator: `estimator`, `kind`, and `reason` where it is refused or flagged;
    otherwise `differences`, `closed_form` and `others` (exact), `error` and `cosine`
    (approximate), or `mean_square` and `largest` in standard errors (random).
    """
    solved = INNERS[inner]
    case, plain = (
        make_case(geometry, solved=solved, quadratic=quadratic, seed=seed)
        for quadratic in (False, True)
    )
    found, reasons = _try_all(columns, case)
    exact = {name: one.slope for name, one in found.items() if columns[name].kind == "exact"}
    references: dict[str, np.ndarray] = {}
    if exact and geometry not in STEPWISE:
        references["differences"] = central_differences(case)
    linear: dict[str, Estimate] = {}
    if exact and has_closed_form(plain.prior.geometry):
        references["closed_form"] = closed_form(plain, solved=solved)
        linear, unsound = _try_all({name: columns[name] for name in exact}, plain)
        reasons |= {name: (kind, f"linear model: {why}") for name, (kind, why) in unsound.items()}
    truth = next(iter(exact.values()), np.zeros(0))
    if found and not exact:
        truth = estimate(Reverse(case.steps, wrt=ALL_PARTS), case).slope
    rows = []
    for name, column in columns.items():
        row: dict[str, Any] = {"estimator": name, "kind": column.kind}
        if name in reasons:
            row["kind"], row["reason"] = reasons[name]
        elif column.kind == "exact":
            row |= _exact(name, exact, linear, references)
        else:
            one = found[name] if geometry not in STEPWISE else _smooth(found[name], case)
            row |= _approximate(one, _select(truth, case, one.parts))
        rows.append(row)
    return rows


def _try_all(
    columns: Mapping[str, Column], case: GradientCase
) -> tuple[dict[str, Estimate], dict[str, tuple[str, str]]]:
    """What every estimator gives, and why some give nothing."""
    found, reasons = {}, {}
    for name, column in columns.items():
        try:
            found[name] = estimate(column.make(case.steps), case)
        except ValueError as fault:
            reasons[name] = ("refused", str(fault))
        except NumericalError as fault:
            reasons[name] = ("flagged", str(fault))
    return found, reasons


def _smooth(found: Estimate, case: GradientCase) -> Estimate:
    """Without the geometry's numbers where values alone are used: those see the steps in them."""
    if found.error is None:
        return found
    count, parts = len(differentiated(case.prior, ("geometry",))), ("start", "shared")
    return Estimate(found.slope[count:], found.error[count:], parts)


def _select(slope: np.ndarray, case: GradientCase, parts: tuple[str, ...]) -> np.ndarray:
    """The entries of some parts of a derivative with respect to all."""
    wanted = [
        np.full(len(differentiated(case.prior, (part,))), part in parts) for part in ALL_PARTS
    ]
    return slope[np.concatenate(wanted)]


def distance(found: np.ndarray, truth: np.ndarray) -> float:
    """The largest absolute error over the largest entry."""
    return float(np.max(np.abs(found - truth)) / np.max(np.abs(truth)))


def _exact(
    name: str,
    exact: Mapping[str, np.ndarray],
    linear: Mapping[str, Estimate],
    references: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "others": max(
            (distance(exact[name], slope) for other, slope in exact.items() if other != name),
            default=None,
        )
    }
    if "differences" in references:
        row["differences"] = distance(exact[name], references["differences"])
    if "closed_form" in references and name in linear:
        row["closed_form"] = distance(linear[name].slope, references["closed_form"])
    return row


def _approximate(found: Estimate, truth: np.ndarray) -> dict[str, Any]:
    if found.error is None:
        sizes = np.linalg.norm(found.slope) * np.linalg.norm(truth)
        cosine = float(found.slope @ truth / sizes) if sizes > 0 else None
        return {"error": distance(found.slope, truth), "cosine": cosine}
    moved = found.error > 0  # what nothing depends on has no derivative and no error
    scores = (found.slope - truth)[moved] / found.error[moved]
    return {
        "mean_square": float(np.sqrt(np.mean(scores**2))),
        "largest": float(np.max(np.abs(scores))),
        "count": int(moved.sum()),
    }


def fill_matrix(config: GradientStudy, seed: int, phase: Phase) -> dict[str, Any]:
    """All rows, for a run and for a solution.

    **Arguments:**

    - `config`: the study.
    - `seed`: of the problems, and of evolution strategies.
    - `phase`: is moved by one a row.

    **Returns:**

    What `summary.json` holds.
    """
    rows = []
    with jax.enable_x64(True):
        for inner in INNERS:
            for geometry in config.geometries:
                case = make_case(geometry, solved=False)
                row = {
                    "inner": inner,
                    "geometry": geometry,
                    "learned": len(differentiated(case.prior, ("geometry",))),
                    "stepwise": STEPWISE.get(geometry),
                    "entries": entries(geometry, inner, config.columns(), seed),
                }
                rows.append(row)
                phase.advance(f"{geometry}, {inner}")
    about = {name: column.about for name, column in estimators(1).items() if column.about}
    return {"recipe": "hypergradients", "kind": "hypergradients", "about": about, "rows": rows}


def _make(request: Request, config: GradientStudy) -> dict[str, Any]:
    """The matrix."""

    def fill() -> dict[str, Any]:
        total = len(INNERS) * len(config.geometries)
        with request.progress.phase("hypergradients", total) as phase:
            return fill_matrix(config, request.seed, phase)

    return request.once(config, "hypergradients", lambda: fill)


HYPERGRADIENTS = Reproduction(
    "every geometry with every hypergradient estimator, against differences and closed forms",
    budgets(GradientStudy(), _SMOKE),
    _make,
    report.hypergradient_tables,
)
