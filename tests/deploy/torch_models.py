"""The library's models written again in PyTorch, the layouts changed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

from mirrax.deploy import save
from mirrax.geometry import Diagonal
from mirrax.models import conv4, lenet5, mlp

torch.set_num_threads(1)

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Mlp(nn.Module):
    """The names are the library's."""

    def __init__(self):
        super().__init__()
        self.dense_0, self.dense_1 = nn.Linear(36, 12), nn.Linear(12, 5)

    def forward(self, images):
        return self.dense_1(torch.relu(self.dense_0(images.permute(0, 2, 3, 1).flatten(1))))


def lenet():
    pool = nn.MaxPool2d(2)
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), pool),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), pool, nn.Flatten()),
        *(nn.Linear(64, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 5)),
    )


def four_blocks(filters=4):
    sizes = [1, *[filters] * 4]
    layers = []
    for before, after in zip(sizes[:-1], sizes[1:], strict=True):
        norm = nn.BatchNorm2d(after, track_running_stats=False)
        layers += [nn.Conv2d(before, after, 3, padding=1), norm, nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * filters, 5))


# The library's model, the same in PyTorch, the side of its images, and where leaves are: a layer of
# the library beside the name of a module.
MODELS = {
    "mlp": (mlp((6, 6, 1), (12,), 5), Mlp, 6, {"dense_0": "dense_0", "dense_1": "dense_1"}),
    "lenet": (
        lenet5((16, 16, 1), 5),
        lenet,
        16,
        {"conv_0": "0", "conv_1": "3", "dense_0": "7", "dense_1": "9", "dense_2": "11"},
    ),
    "conv4": (
        conv4((32, 32, 1), 5, filters=4),
        four_blocks,
        32,
        {f"conv_{i}": f"{4 * i}" for i in range(4)}
        | {f"norm_{i}": f"{4 * i + 1}" for i in range(4)}
        | {"dense_0": "17"},
    ),
}
CHANNELS = {"lenet": 16, "conv4": 4}
WORDS = {"weight": "weight", "bias": "bias", "gain": "weight"}


def to_torch(name, layer, array):
    """One array of the library as PyTorch has it: by hand, as the oracle of the adapter."""
    array = np.asarray(array)
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if array.ndim == 2 and layer == "dense_0" and name in CHANNELS:
        inputs, outputs = array.shape
        images = array.reshape(-1, CHANNELS[name], outputs)
        return images.transpose(2, 1, 0).reshape(outputs, inputs)
    return array.T if array.ndim == 2 else array


def named(name, params):
    """Parameters of the library by the names and in the layout of PyTorch."""
    modules = MODELS[name][3]
    return {
        f"{modules[layer]}.{WORDS[word]}": torch.tensor(to_torch(name, layer, array).copy())
        for layer, arrays in params.items()
        for word, array in arrays.items()
    }


def start(name, dtype, seed=0):
    """Parameters of the library, and a PyTorch model that has the same."""
    model, make = MODELS[name][:2]
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), model.init(jax.random.key(seed)))
    module = make().to(DTYPES[dtype])
    module.load_state_dict(named(name, params))
    return params, module


def batch(name, dtype, size=8):
    """Images `(batch, height, width, 1)` and labels."""
    rng, side = np.random.default_rng(3), MODELS[name][2]
    images = rng.standard_normal((size, side, side, 1)).astype(dtype)
    return images, rng.integers(0, 5, size)


def diagonal(params, spread=0.4, seed=1):
    rng = np.random.default_rng(seed)
    return Diagonal(
        jax.tree.map(lambda x: jnp.asarray(rng.normal(0, spread, x.shape), x.dtype), params)
    )


def saved(path, name, geometry, params, rate=0.05):
    save(path, geometry, rate=rate, params_like=params, roles=MODELS[name][0].roles)
    return path
