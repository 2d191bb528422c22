"""PyTorch's sides of `benchmarks.estimators`: torchopt, higher and betty on the same problem.

Unrolled sides use the optimisers of the libraries. Implicit sides find the solution by the same
mirror steps of fixed length, written here, without a graph, until the force has fallen as far as
mirrax's solver demands; then the library's own solver and derivative follow. Neumann's series has
the number of terms that the known spectrum asks for, `c = 1/λ_max`. betty's functions are called
as its engine calls them, with an object that has what they ask of a problem.
"""

import importlib
import math
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks._estimator_problem import (
    HORIZON,
    NEAR,
    TOLERANCE,
    Numbers,
    Result,
    Size,
    measure,
)

CHECK_EVERY = 8
UNSOLVED = "inner_unconverged"


class Task:
    """The problem as tensors."""

    def __init__(self, numbers: Numbers, steps: int):
        self.steps = steps
        self.weight, self.centre, self.query = (
            torch.from_numpy(array) for array in (numbers.weight, numbers.centre, numbers.query)
        )
        self.log_m = torch.from_numpy(numbers.log_m.copy()).requires_grad_()
        # All eigenvalues of the proximal system lie between these.
        near = np.exp(2 * numbers.log_m) / (2 * NEAR)
        self.least, self.most = float(near.min()), numbers.curvature_at_most + float(near.max())

    @property
    def start(self) -> torch.Tensor:
        return torch.zeros_like(self.centre)

    def rates(self) -> torch.Tensor:
        """`η/m²`."""
        return HORIZON / self.steps * torch.exp(-2 * self.log_m)

    def loss(self, params: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
        return (self.weight * (torch.sqrt(1 + (params - centre) ** 2) - 1)).sum()

    def worth(self, last: torch.Tensor) -> torch.Tensor:
        near = (torch.exp(2 * self.log_m) * last**2).sum() / 2
        return self.loss(last, self.query) + near

    def differentiate(self, last: torch.Tensor, report: dict[str, Any] | None = None) -> Result:
        value = self.worth(last)
        (slope,) = torch.autograd.grad(value, self.log_m)
        return Result(value.item(), slope.numpy(), report or {})

    def gradient(self, params: torch.Tensor) -> torch.Tensor:
        """`∇ℓ`, in closed form, so that the libraries' solvers differentiate it once."""
        gap = params - self.centre
        return self.weight * gap / torch.sqrt(1 + gap**2)

    def force(self, params: torch.Tensor, log_m: torch.Tensor) -> torch.Tensor:
        return self.gradient(params) + torch.exp(2 * log_m) * params / (2 * NEAR)

    def solve(self) -> tuple[torch.Tensor, dict[str, Any]]:
        """The solution of the proximal problem; the steps made, and whether they were enough."""
        with torch.no_grad():
            params, log_m = self.start, self.log_m
            scale = torch.exp(-2 * log_m)
            length = scale / (float((self.weight * scale).max()) + 1 / (2 * NEAR))
            enough = TOLERANCE * self.force(params, log_m).norm()
            solved, count = False, 0
            while not solved and count < self.steps:
                for _ in range(min(CHECK_EVERY, self.steps - count)):
                    params, count = params - length * self.force(params, log_m), count + 1
                solved = bool(self.force(params, log_m).norm() <= enough)
            return params, {"inner_steps": count, "flags": [] if solved else [UNSOLVED]}

    @property
    def terms(self) -> int:
        """How many terms of Neumann's series reach the tolerance."""
        return math.ceil(math.log(TOLERANCE) / math.log(1 - self.least / self.most))


def torchopt_unroll(task: Task) -> Callable[[], Result]:
    """Its functional optimiser, rates entering as a gradient transformation."""
    torchopt = importlib.import_module("torchopt")
    base = importlib.import_module("torchopt.base")

    def run() -> Result:
        rates = task.rates()

        def update(grads: Any, state: Any, *, params: Any = None, inplace: bool = False) -> Any:
            del params, inplace
            return [-rates * grad for grad in grads], state

        rule = base.GradientTransformation(lambda params: (), update)
        optimiser = torchopt.FuncOptimizer(rule)
        params = [task.start.requires_grad_()]
        for _ in range(task.steps):
            params = optimiser.step(task.loss(params[0], task.centre), params)
        return task.differentiate(params[0])

    return run


def higher_unroll(task: Task) -> Callable[[], Result]:
    """Its differentiable SGD with the rates as tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escape sequences that Python now rejects
        higher = importlib.import_module("higher")

    class Point(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.point = torch.nn.Parameter(task.start)

        def forward(self) -> torch.Tensor:
            return task.loss(self.point, task.centre)

    model = Point()
    base = torch.optim.SGD(model.parameters(), lr=1.0)

    def run() -> Result:
        override = {"lr": [task.rates()]}
        with higher.innerloop_ctx(model, base, override=override) as (net, optimiser):
            for _ in range(task.steps):
                optimiser.step(net())
            return task.differentiate(next(iter(net.fast_params)))

    return run


def torchopt_implicit(solver: str) -> Callable[[Task], Callable[[], Result]]:
    """Its `custom_root` with conjugate gradients or Neumann's series."""

    def make(task: Task) -> Callable[[], Result]:
        torchopt = importlib.import_module("torchopt")
        solve = {
            "cg": lambda: torchopt.linear_solve.solve_cg(rtol=TOLERANCE),
            "neumann": lambda: torchopt.linear_solve.solve_inv(
                ns=True, maxiter=task.terms, alpha=1 / task.most
            ),
        }[solver]()
        report: dict[str, Any] = {}

        @torchopt.diff.implicit.custom_root(task.force, argnums=1, solve=solve)
        def solution(params: torch.Tensor, log_m: torch.Tensor) -> torch.Tensor:
            del params, log_m
            found, told = task.solve()
            report.update(told)
            return found

        def run() -> Result:
            last = solution(task.start, task.log_m)
            return task.differentiate(last, report)

        return run

    return make


def betty_implicit(solver: str) -> Callable[[Task], Callable[[], Result]]:
    """Its `cg` or `neumann`."""

    def make(task: Task) -> Callable[[], Result]:
        indirect = getattr(importlib.import_module("betty.hypergradient"), solver)
        config = types.SimpleNamespace(
            cg_iterations=20,
            cg_alpha=1.0,
            neumann_iterations=task.terms,
            neumann_alpha=1 / task.most,
        )

        def run() -> Result:
            found, report = task.solve()
            params = found.requires_grad_()

            def objective(batch: None) -> torch.Tensor:
                near = (torch.exp(2 * task.log_m) * params**2).sum() / (4 * NEAR)
                return task.loss(params, task.centre) + near

            lower = types.SimpleNamespace(
                paths=[],
                config=config,
                cur_batch=None,
                training_step_exec=objective,
                parameters=lambda: [params],
                trainable_parameters=lambda: [params],
            )
            upper = types.SimpleNamespace(trainable_parameters=lambda: [task.log_m])
            value = task.worth(params)
            direct, slope = torch.autograd.grad(value, [task.log_m, params])
            (rest,) = indirect([slope], lower, upper)
            return Result(value.item(), (direct + rest).numpy(), report)

        return run

    return make


SIDES: dict[str, Callable[[Task], Callable[[], Result]]] = {
    "torchopt, unroll": torchopt_unroll,
    "higher": higher_unroll,
    "torchopt, cg": torchopt_implicit("cg"),
    "torchopt, neumann": torchopt_implicit("neumann"),
    "betty, cg": betty_implicit("cg"),
    "betty, neumann": betty_implicit("neumann"),
}


def case(side: str, steps: int, size: Size, rounds: int) -> tuple[Result, dict[str, Any]]:
    """Measures one side."""
    torch.set_num_threads(1)
    SIDES[side](Task(Numbers.make(Size(2)), 2))()  # what a library loads at its first use
    return measure(SIDES[side](Task(Numbers.make(size), steps)), rounds)
