"""The few-shot work in PyTorch: by hand, with torchopt and with higher.

Tasks are tensors in PyTorch's layouts before any clock runs.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torchopt
from torch.nn.functional import cross_entropy
from torchopt.base import GradientTransformation

from benchmarks._episodes import RATE, STEPS, Work
from benchmarks._torch_networks import (
    Leaves,
    Module,
    Tensors,
    conv4,
    images_to_torch,
    inwards,
    outwards,
    tensor,
)
from mirrax.tasks import Episode

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # higher 0.2.1 has escape sequences that Python now rejects
    import higher

Task = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
Result = tuple[float, Leaves]
Along = Callable[[Tensors], Tensors]


class TorchWork:
    """The same start, the same numbers beside it."""

    def __init__(self, work: Work):
        self.method = work.method
        self.start = {n: tensor(outwards(x)).requires_grad_() for n, x in work.start.items()}
        turn = outwards if self._diagonal else np.asarray
        self.learned = {
            name: [tensor(turn(part)).requires_grad_() for part in parts]
            for name, parts in work.learned.items()
        }
        self.beside = [part for parts in self.learned.values() for part in parts]
        self.everything = [*self.start.values(), *self.beside]

    @property
    def _diagonal(self) -> bool:
        return self.method == "meta-sgd"

    def along(self) -> Along:
        """What an inner step follows instead of the gradients."""
        if self.method == "maml":
            return lambda grads: grads
        if self._diagonal:
            shares = {name: torch.exp(-2 * log_m) for name, (log_m,) in self.learned.items()}
            return lambda grads: {name: shares[name] * g for name, g in grads.items()}
        return lambda grads: {name: _by_modes(g, self.learned[name]) for name, g in grads.items()}

    def result(self, pairs: Sequence[tuple[torch.Tensor, Sequence[torch.Tensor]]]) -> Result:
        """The means over tasks, in mirrax's layout."""
        value = sum(value.item() for value, _ in pairs) / len(pairs)
        means = iter([torch.stack(g).mean(0).numpy() for g in zip(*(g for _, g in pairs))])  # noqa: B905
        found = {name: inwards(next(means)) for name in self.start}
        turn = inwards if self._diagonal else np.asarray
        for name, parts in self.learned.items():
            found |= {f"{name} {i}": turn(next(means)) for i in range(len(parts))}
        return value, found


def _by_modes(grad: torch.Tensor, modes: Sequence[torch.Tensor]) -> torch.Tensor:
    if grad.ndim == 1:
        return modes[0] * grad
    if grad.ndim == 2:
        return modes[0] @ grad @ modes[1].T
    moved = (modes[0] @ grad.flatten(1)).reshape(*grad.shape[:2], -1)
    return (modes[1] @ (moved @ modes[2].T)).reshape(grad.shape)


def _tasks(episodes: Episode) -> list[Task]:
    """Episodes with a leading axis, one by one."""
    parts = (
        images_to_torch(episodes.support_images),
        tensor(np.asarray(episodes.support_labels)).long(),
        images_to_torch(episodes.query_images),
        tensor(np.asarray(episodes.query_labels)).long(),
    )
    return list(zip(*parts, strict=True))


Adapt = Callable[[Task, bool], Any]
"""Learns a task; returns the query's logits, and what its gradients are taken with respect to."""


def by_hand(problem: TorchWork) -> Adapt:
    """A loop: no optimiser objects, no modules."""

    def adapt(task: Task, differentiable: bool) -> Any:
        images, labels, query, _ = task
        params, along = problem.start, problem.along()
        for _ in range(STEPS):
            value, leaves = cross_entropy(conv4(params, images), labels), list(params.values())
            grads = torch.autograd.grad(value, leaves, create_graph=differentiable)
            with torch.set_grad_enabled(differentiable):
                moves = along(dict(zip(params, grads, strict=True)))
                params = {name: x - RATE * moves[name] for name, x in params.items()}
            if not differentiable:
                params = {name: x.requires_grad_() for name, x in params.items()}
        with torch.set_grad_enabled(differentiable):
            return conv4(params, query), problem.everything

    return adapt


def with_torchopt(problem: TorchWork) -> Adapt:
    """The functional optimiser of torchopt, without the bookkeeping of modules.

    What a gradient is multiplied by enters as a gradient transformation, which is what torchopt's
    own SGD is made of.
    """

    def rule() -> GradientTransformation:
        along = problem.along()

        def update(grads: Any, state: Any, *, params: Any = None, inplace: bool = False) -> Any:
            del params, inplace
            return {name: -RATE * move for name, move in along(grads).items()}, state

        own = GradientTransformation(lambda params: (), update)
        return torchopt.sgd(lr=RATE) if problem.method == "maml" else own

    def adapt(task: Task, differentiable: bool) -> Any:
        images, labels, query, _ = task
        params, moves = problem.start, rule()
        optimiser, state = torchopt.FuncOptimizer(moves), moves.init(params)
        for _ in range(STEPS):
            value = cross_entropy(conv4(params, images), labels)
            if differentiable:
                params = optimiser.step(value, params)
                continue
            grads = torch.autograd.grad(value, list(params.values()))
            with torch.no_grad():
                along = dict(zip(params, grads, strict=True))
                updates, state = moves.update(along, state, params=params, inplace=False)
                params = torchopt.apply_updates(params, updates, inplace=False)
            params = {name: x.requires_grad_() for name, x in params.items()}
        with torch.set_grad_enabled(differentiable):
            return conv4(params, query), problem.everything

    return adapt


def with_higher(problem: TorchWork) -> Adapt:
    """The differentiable SGD of higher on a module, as its examples have it."""
    network = Module(conv4, problem.start)
    base = torch.optim.SGD(network.parameters(), lr=RATE)
    inputs = [*network.parameters(), *problem.beside]

    def adapt(task: Task, differentiable: bool) -> Any:
        images, labels, query, _ = task
        along, names = problem.along(), list(problem.start)

        def moves(grads: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            return list(along(dict(zip(names, grads, strict=True))).values())

        with higher.innerloop_ctx(
            network, base, copy_initial_weights=False, track_higher_grads=differentiable
        ) as (net, optimiser):
            for _ in range(STEPS):
                value = cross_entropy(net(images), labels)
                optimiser.step(value, grad_callback=moves)
            with torch.set_grad_enabled(differentiable):
                return net(query), inputs

    return adapt


PEERS: dict[str, Callable[[TorchWork], Adapt]] = {
    "torch by hand": by_hand,
    "torchopt": with_torchopt,
    "higher": with_higher,
}


def meta_step(name: str, work: Work) -> Callable[[], Result]:
    """The mean query loss of a meta-step and its derivatives, by a peer."""
    problem, tasks = TorchWork(work), _tasks(work.tasks())
    adapt = PEERS[name](problem)

    def one(task: Task) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        logits, inputs = adapt(task, True)
        value = cross_entropy(logits, task[3])
        return value, torch.autograd.grad(value, inputs)

    return lambda: problem.result([one(task) for task in tasks])


def evaluation(name: str, work: Work, episodes: Episode) -> Callable[[], np.ndarray]:
    """The query losses of tasks learned one after another, by a peer."""
    problem, tasks = TorchWork(work), _tasks(episodes)
    adapt = PEERS[name](problem)

    def one(task: Task) -> float:
        logits, _ = adapt(task, False)
        return cross_entropy(logits, task[3]).item()

    return lambda: np.array([one(task) for task in tasks])
