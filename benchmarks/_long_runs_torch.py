"""The many-shot work in PyTorch: by hand, with torchopt and with higher."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torchopt
from torch.nn.functional import cross_entropy
from torchopt.base import GradientTransformation

from benchmarks._long_runs import RATE, WEIGHT, Result, Work
from benchmarks._torch_networks import (
    Module,
    Tensors,
    images_to_torch,
    inwards,
    lenet5,
    mlp,
    named,
    outwards,
    tensor,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # higher 0.2.1 has escape sequences that Python now rejects
    import higher


class TorchWork:
    """The same problem as tensors."""

    def __init__(self, work: Work):
        self.images = images_to_torch(work.images)
        self.labels = tensor(work.labels).long()
        self.start = {name: tensor(outwards(x)) for name, x in named(work.start).items()}
        log_m = named(work.log_m)
        self.log_m = {name: tensor(outwards(x)).requires_grad_() for name, x in log_m.items()}
        self.network = lenet5 if "conv_0/weight" in self.start else mlp

    def rates(self) -> Tensors:
        """The rate of each parameter, `η/m²`, as a function of `log m`."""
        return {name: RATE * torch.exp(-2 * leaf) for name, leaf in self.log_m.items()}

    def begin(self) -> Tensors:
        """The start, to be differentiated by."""
        return {name: leaf.clone().requires_grad_() for name, leaf in self.start.items()}

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Images and labels of each step."""
        return zip(self.images, self.labels, strict=True)

    def loss(self, params: Tensors, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean cross-entropy."""
        return cross_entropy(self.network(params, images), labels)

    def differentiate(self, last: Tensors) -> Result:
        """The objective at the last point and its derivative, in mirrax's layout."""
        distance = sum(
            ((torch.exp(r) * (last[name] - self.start[name])) ** 2).sum()
            for name, r in self.log_m.items()
        )
        least = torch.stack([leaf.min() for leaf in self.log_m.values()]).min()
        value = distance / 2 + WEIGHT * torch.exp(-2 * least)
        grads = torch.autograd.grad(value, list(self.log_m.values()))
        pairs = zip(self.log_m, grads, strict=True)
        return value.item(), {name: inwards(grad.numpy()) for name, grad in pairs}


def by_hand(problem: TorchWork) -> Callable[[], Result]:
    """A loop: no optimiser objects, no modules."""

    def run() -> Result:
        rates, params = problem.rates(), problem.begin()
        for images, labels in problem.batches():
            value = problem.loss(params, images, labels)
            grads = torch.autograd.grad(value, list(params.values()), create_graph=True)
            moves = zip(params.items(), grads, strict=True)
            params = {name: x - rates[name] * g for (name, x), g in moves}
        return problem.differentiate(params)

    return run


def with_torchopt(problem: TorchWork) -> Callable[[], Result]:
    """The functional optimiser of torchopt (faster than its meta-optimiser on modules).

    Its SGD takes one number as rate, so the rates enter as a gradient transformation, which is
    what its own SGD is made of.
    """

    def run() -> Result:
        rates, params = problem.rates(), problem.begin()

        def update(grads: Any, state: Any, *, params: Any = None, inplace: bool = False) -> Any:
            del params, inplace
            return {name: -rates[name] * g for name, g in grads.items()}, state

        optimiser = torchopt.FuncOptimizer(GradientTransformation(lambda params: (), update))
        for images, labels in problem.batches():
            params = optimiser.step(problem.loss(params, images, labels), params)
        return problem.differentiate(params)

    return run


def with_higher(problem: TorchWork) -> Callable[[], Result]:
    """The differentiable SGD of higher, one parameter group a tensor, rates given by tensors."""
    network = Module(problem.network, problem.start)
    base = torch.optim.SGD([{"params": [p]} for p in network.parameters()], lr=1.0)

    def run() -> Result:
        override = {"lr": list(problem.rates().values())}
        with higher.innerloop_ctx(network, base, override=override) as (net, optimiser):
            for images, labels in problem.batches():
                optimiser.step(cross_entropy(net(images), labels))
            last = dict(zip(problem.start, net.fast_params, strict=True))
            return problem.differentiate(last)

    return run


PEERS: dict[str, Callable[[TorchWork], Callable[[], Result]]] = {
    "torchopt": with_torchopt,
    "higher": with_higher,
    "torch by hand": by_hand,
}
