"""The networks of the benchmarks in PyTorch, as functions of parameters with mirrax's names.

Layouts are PyTorch's: images NCHW, kernels OIHW, weights `(out, in)`. The last images are flattened
in mirrax's order, so that no dense layer needs another one.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

Leaves = dict[str, np.ndarray]
Tensors = dict[str, torch.Tensor]
Network = Callable[[Mapping[str, torch.Tensor], torch.Tensor], torch.Tensor]


def named(tree: Any) -> Leaves:
    """Mirrax's parameters by `layer/part`."""
    return {
        f"{layer}/{part}": np.asarray(leaf)
        for layer, parts in tree.items()
        for part, leaf in parts.items()
    }


def outwards(array: np.ndarray) -> np.ndarray:
    """A parameter of mirrax in PyTorch's layout."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def inwards(array: np.ndarray) -> np.ndarray:
    """A parameter of PyTorch in mirrax's layout."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def tensor(array: np.ndarray) -> torch.Tensor:
    """A copy whose entries lie in order."""
    return torch.from_numpy(np.array(array, order="C"))


def images_to_torch(images: Any) -> torch.Tensor:
    """Images whose channels are last, as PyTorch has them."""
    return tensor(np.moveaxis(np.asarray(images), -1, -3))


def conv4(params: Mapping[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """`mirrax.models.conv4`, by the batch's own statistics."""
    hidden = images
    for i in range(4):
        weight, bias = params[f"conv_{i}/weight"], params[f"conv_{i}/bias"]
        gain, shift = params[f"norm_{i}/gain"], params[f"norm_{i}/bias"]
        hidden = functional.conv2d(hidden, weight, bias, padding=1)
        hidden = functional.batch_norm(hidden, None, None, gain, shift, True)
        hidden = functional.max_pool2d(functional.relu(hidden), 2)
    return _dense(params, 0, _flat(hidden))


def lenet5(params: Mapping[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """`mirrax.models.lenet5`."""
    hidden = images
    for i, padding in enumerate((2, 0)):
        weight, bias = params[f"conv_{i}/weight"], params[f"conv_{i}/bias"]
        hidden = functional.conv2d(hidden, weight, bias, padding=padding)
        hidden = functional.relu(functional.max_pool2d(hidden, 2))
    return mlp(params, hidden)


def mlp(params: Mapping[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """`mirrax.models.mlp`: the dense layers alone."""
    hidden, last = _flat(images), sum(name.startswith("dense_") for name in params) // 2 - 1
    for i in range(last):
        hidden = functional.relu(_dense(params, i, hidden))
    return _dense(params, last, hidden)


def _flat(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 2, 3, 1).flatten(1)


def _dense(params: Mapping[str, torch.Tensor], i: int, rows: torch.Tensor) -> torch.Tensor:
    return functional.linear(rows, params[f"dense_{i}/weight"], params[f"dense_{i}/bias"])


class Module(torch.nn.Module):
    """A network as a module, for libraries that want one."""

    def __init__(self, network: Network, start: Mapping[str, torch.Tensor]):
        super().__init__()
        self._network = network
        self._own = {name: name.replace("/", "_") for name in start}
        for name, own in self._own.items():
            self.register_parameter(own, torch.nn.Parameter(start[name].detach().clone()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Its logits."""
        params = {name: getattr(self, own) for name, own in self._own.items()}
        return self._network(params, images)
