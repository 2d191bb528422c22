"""mirrax's sides of `benchmarks.estimators`; one is compiled and run in a process of its own."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._estimator_problem import HORIZON, NEAR, Numbers, Result, Size, measure
from mirrax.geometry import Diagonal
from mirrax.hypergradient import (
    AbstractHypergradient,
    Direct,
    Evolution,
    Forward,
    Implicit,
    Pathwise,
    Reverse,
    Truncated,
)
from mirrax.inner import (
    AbstractObjective,
    BregmanProximal,
    MirrorDescent,
    Prior,
    Problem,
    Repeat,
    Step,
    evaluate,
)

WINDOW, PAIRS, SPREAD = 10, 8, 0.01

SIDES: dict[str, Callable[[int], AbstractHypergradient | None]] = {
    "run": lambda steps: None,
    "reverse": lambda steps: Reverse(steps),
    "reverse, checkpoints": lambda steps: Reverse(steps, checkpoint=True),
    "reverse, mixed": lambda steps: Reverse(steps, mixed=True),
    "forward": lambda steps: Forward(steps),
    "reverse, first order": lambda steps: Reverse(steps, first_order=True),
    "truncated, K = 10": lambda steps: Truncated(steps, WINDOW),
    "truncated, K = 1": lambda steps: Truncated(steps, 1),
    "direct": lambda steps: Direct(steps),
    "pathwise": lambda steps: Pathwise(steps, wrt=("geometry",)),
    "evolution": lambda steps: Evolution(steps, PAIRS, SPREAD),
    "evolution, windows": lambda steps: Evolution(steps, PAIRS, SPREAD, WINDOW),
    "implicit, cg": lambda steps: Implicit(steps),
    "implicit, neumann": lambda steps: Implicit(steps, "neumann"),
    "implicit, gmres": lambda steps: Implicit(steps, "gmres"),
}
"""Estimators by name, for a run's length; `run` is the run alone."""


class Worth(AbstractObjective):
    """The loss on the query data, plus the divergence of the end from the start."""

    @property
    def judges_steps(self) -> bool:
        """False, so that implicit sides can differentiate it too."""
        return False

    def stage(self, prior: Prior, problem: Problem, step: Step) -> jax.Array:
        """Zero."""
        return jnp.zeros_like(step.loss)

    def terminal(self, prior: Prior, problem: Problem, first: Any, last: Any) -> jax.Array:
        """`ℓ(θ_T; query) + D(θ_T‖θ_1)`."""
        assert isinstance(prior.geometry, Diagonal)
        near = prior.geometry.divergence(last, first)
        return problem.loss(last, prior.shared, problem.query) + near


def loss(params: jax.Array, shared: None, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    """`Σ w (√(1 + (θ − c)²) − 1)`."""
    weight, centre = batch
    return jnp.sum(weight * (jnp.sqrt(1 + (params - centre) ** 2) - 1))


def program(side: str, steps: int, numbers: Numbers) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A side's function, and its arguments."""
    estimator, key = SIDES[side](steps), jax.random.key(0)
    solution = isinstance(estimator, Implicit)
    inner = BregmanProximal(NEAR) if solution else MirrorDescent(HORIZON / steps)

    def estimate(prior: Prior, data: Any, query: Any) -> Any:
        problem = Problem(loss, Repeat(data), query=query)
        if estimator is None:
            return evaluate(Worth(), inner, prior, problem, steps, key=key)[0], None, None
        value, slope, state = estimator.over_a_run(Worth(), inner, prior, problem, key=key)
        return value, slope.geometry, state.implicit

    # One number for several parameters: the geometry's formulas broadcast.
    geometry = Diagonal(jnp.asarray(numbers.log_m))
    prior = Prior(geometry, start=jnp.zeros(numbers.centre.shape, jnp.float32))
    weight = jnp.asarray(numbers.weight)
    return estimate, (
        prior,
        (weight, jnp.asarray(numbers.centre)),
        (weight, jnp.asarray(numbers.query)),
    )


def result_of(outputs: Any) -> Result:
    """Outputs of the compiled function as numbers."""
    value, slope, report = jax.block_until_ready(outputs)
    if slope is None:
        return Result(float(value), None)
    told: dict[str, Any] = {}
    if report is not None:
        told = {
            "inner_steps": int(report.inner_steps),
            "linear_steps": int(report.linear_steps),
            "flags": [
                flag
                for flag in ("inner_unconverged", "indefinite", "expanding", "linear_unconverged")
                if bool(getattr(report, flag))
            ],
        }
    return Result(float(value), np.asarray(slope.log_diagonal), told)


def case(
    side: str, steps: int, size: Size, rounds: int, memory: float
) -> tuple[Result, dict[str, Any]]:
    """Compiles and measures one side; refuses one whose plan exceeds `memory` bytes."""
    function, arguments = program(side, steps, Numbers.make(size))
    clock = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - clock
    planned = compiled.memory_analysis().temp_size_in_bytes
    record = {"compile_seconds": seconds, "planned_bytes": planned}
    if planned > memory:
        return Result(float("nan"), None), record | {"skipped": "memory"}
    jax.block_until_ready(jax.jit(lambda x: x + 1)(1.0))  # the runtime's own allocations
    result, found = measure(lambda: result_of(compiled(*arguments)), rounds)
    return result, record | found
