"""One registry: geometries × objectives × batches × problems, and what an exact estimator owes.

Every geometry meets every objective once; batches and problems alternate so that every pair of
entries of two different columns occurs.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mirrax.geometry import Blockwise, Diagonal, MaxOfDiagonals, PNorm, Scaled
from mirrax.hypergradient import AbstractHypergradient
from mirrax.inner import (
    AbstractObjective,
    Minibatch,
    MirrorDescent,
    Prior,
    Problem,
    Repeat,
    evaluate,
)
from mirrax.objective import LipschitzRegretBound, RegretBound

KEY = jax.random.key(3)
STEPS = 6
RATE = 0.15
EVERYTHING = ("geometry", "start", "shared")


class Validation(AbstractObjective):
    """The loss on other data at the end, and a little of the losses on the way."""

    def stage(self, prior, problem, step):
        return 0.01 * step.loss + 0.02 * jnp.sum(ravel_pytree(step.gradient)[0] ** 2)

    def terminal(self, prior, problem, first, last):
        held_out = jax.tree.map(lambda rows: rows[::-1][:5] * 0.9, problem.batches.data)
        return problem.loss(last, prior.shared, held_out) + 0.1 * prior.geometry.potential(last)


def quadratic(x, shared, rows):
    """Mean over rows of `½ s (⟨a, (left, right)⟩ − y)²`, a quadratic."""
    features, values = rows
    point = jnp.concatenate([x["left"], x["right"]])
    return shared["scale"] * jnp.mean((features @ point - values) ** 2) / 2


def logistic(x, shared, rows):
    features, values = rows
    margins = jnp.sign(values) * (features @ x["weight"] + x["bias"][0])
    return shared["scale"] * jnp.mean(jnp.logaddexp(0.0, -margins))


def network(x, shared, rows):
    features, values = rows
    hidden = jnp.tanh(features @ x["hidden"]["weight"] + x["hidden"]["bias"])
    return jnp.mean((hidden @ x["out"] * shared["scale"] - values) ** 2)


def _normal(seed: int, shapes: Any) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(0.6 * rng.normal(size=shape)),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


PROBLEMS: dict[str, tuple[Callable, Any]] = {
    "quadratic": (quadratic, {"left": (2,), "right": (2,)}),
    "logistic": (logistic, {"bias": (1,), "weight": (4,)}),
    "network": (network, {"hidden": {"bias": (2,), "weight": (4, 2)}, "out": (2,)}),
}


def _diagonal(start: Any, seed: int = 0) -> Diagonal:
    return Diagonal(_normal(seed, jax.tree.map(jnp.shape, start)))


def _two_blocks(first: Callable, second: Callable) -> Callable:
    def build(start: Any) -> Blockwise:
        (one, left), (two, right) = start.items()
        return Blockwise({one: first(left), two: second(right)})

    return build


GEOMETRIES: dict[str, Callable[[Any], Any]] = {
    "Diagonal": _diagonal,
    "MaxOfDiagonals": lambda start: MaxOfDiagonals.like(
        start, components=2, spread=0.5, key=jax.random.key(5)
    ),
    "Scaled": lambda start: Scaled(_diagonal(start, 1), jnp.asarray(0.3)),
    "Blockwise": _two_blocks(_diagonal, lambda x: Scaled(_diagonal(x, 2), jnp.asarray(-0.2))),
    "PNorm in Blockwise": _two_blocks(_diagonal, lambda x: Scaled(PNorm(1.5), jnp.asarray(0.4))),
}

OBJECTIVES: dict[str, AbstractObjective] = {
    "tight": RegretBound(RATE),
    "paper": LipschitzRegretBound(0.3, comparator="last"),
    "validation": Validation(),
}

BATCHES: dict[str, Callable[[Any], Any]] = {
    "full": Repeat,
    "minibatch": lambda rows: Minibatch(rows, size=3),
}


@dataclass(frozen=True)
class Case:
    """A hypergradient to compute."""

    name: str
    objective: AbstractObjective
    inner: MirrorDescent
    prior: Prior
    problem: Problem


def make_case(geometry: str, objective: str, batches: str, problem: str) -> Case:
    loss, shapes = PROBLEMS[problem]
    start = _normal(7, shapes)
    rng = np.random.default_rng(8)
    rows = (jnp.asarray(rng.normal(size=(12, 4))), jnp.asarray(rng.normal(size=12)))
    return Case(
        f"{geometry}-{objective}-{batches}-{problem}",
        OBJECTIVES[objective],
        MirrorDescent(RATE),
        Prior(GEOMETRIES[geometry](start), start, {"scale": jnp.asarray(1.2)}),
        Problem(loss, BATCHES[batches](rows), _normal(9, shapes)),
    )


def _covering() -> list[tuple[str, str, str, str]]:
    batches, problems = list(BATCHES), list(PROBLEMS)
    return [
        (geometry, objective, batches[(i + j) % 2], problems[(i + j) % 3])
        for (i, geometry), (j, objective) in itertools.product(
            enumerate(GEOMETRIES), enumerate(OBJECTIVES)
        )
    ]


COVERING = _covering()


def learned(prior: Prior, wrt: tuple[str, ...] = EVERYTHING) -> jax.Array:
    """The differentiated numbers, in the order of `Prior`."""
    parts = [getattr(prior, name) for name in ("geometry", "start", "shared") if name in wrt]
    return ravel_pytree(eqx.filter(parts, eqx.is_inexact_array))[0]


@functools.lru_cache
def central_differences(key: tuple[str, str, str, str], step: float = 1e-5) -> tuple:
    """The value and its derivative by central differences, in float64."""
    case = make_case(*key)
    moving, fixed = eqx.partition(case.prior, eqx.is_inexact_array)
    flat, restore = ravel_pytree(moving)

    @jax.jit
    def values(points):
        def value(point):
            prior = eqx.combine(restore(point), fixed)
            return evaluate(case.objective, case.inner, prior, case.problem, STEPS, key=KEY)[0]

        return jax.lax.map(value, points)

    shifts = step * jnp.eye(len(flat))
    found = np.asarray(values(jnp.concatenate([flat[None], flat + shifts, flat - shifts])))
    ahead, behind = np.split(found[1:], 2)
    return found[0], (ahead - behind) / (2 * step)


def estimate(estimator: AbstractHypergradient, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The value and the flat derivative that an estimator gives, compiled."""

    @jax.jit
    def run(inner, prior, problem):
        state = estimator.init(inner, prior)
        value, slope, _ = estimator.estimate(case.objective, inner, prior, problem, state, key=KEY)
        return value, learned(slope, estimator.wrt)

    value, slope = run(case.inner, case.prior, case.problem)
    return np.asarray(value), np.asarray(slope)


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Compares derivatives on one common scale, that of the largest entry."""
    assert found.shape == expected.shape
    error = np.max(np.abs(found - expected)) / np.max(np.abs(expected))
    assert error < tolerance, f"relative error {error:.1e}"


def assert_exact(estimator: AbstractHypergradient, key: tuple[str, str, str, str]) -> np.ndarray:
    """What every exact estimator owes: value and derivative agree with central differences."""
    expected_value, expected = central_differences(key)
    value, slope = estimate(estimator, make_case(*key))
    np.testing.assert_allclose(value, expected_value, rtol=1e-12)
    assert_close(slope, expected, 1e-6)
    return slope
