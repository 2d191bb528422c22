"""The library's models written again in Flax NNX and Equinox, and their parameters by hand."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx
from torch_models import MODELS, to_torch

from mirrax._tree import leaf_names

MLP = {"dense_0": "hidden", "dense_1": "top"}
LENET = {"conv_0": "conv1", "conv_1": "conv2", "dense_0": "fc1", "dense_1": "fc2", "dense_2": "fc3"}
CONV4 = {f"conv_{i}": f"convs/{i}" for i in range(4)} | {
    f"norm_{i}": f"norms/{i}" for i in range(4)
}
CONV4 |= {"dense_0": "head"}
EQUINOX = {
    "mlp": {"dense_0": "layers/0", "dense_1": "layers/1"},
    "lenet": {"conv_0": "layers/0", "conv_1": "layers/3", "dense_0": "layers/7"}
    | {"dense_1": "layers/9", "dense_2": "layers/11"},
    "conv4": CONV4,
}
FLAX = {"mlp": MLP, "lenet": LENET, "conv4": CONV4}


class FlaxMlp(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(36, 12, rngs=rngs, param_dtype=jnp.float64)
        self.top = nnx.Linear(12, 5, rngs=rngs, param_dtype=jnp.float64)

    def __call__(self, images):
        return self.top(nnx.relu(self.hidden(images.reshape(len(images), -1))))


class FlaxLenet(nnx.Module):
    def __init__(self, rngs):
        make = functools.partial(nnx.Conv, kernel_size=(5, 5), rngs=rngs, param_dtype=jnp.float64)
        self.conv1, self.conv2 = make(1, 6), make(6, 16, padding="VALID")
        dense = functools.partial(nnx.Linear, rngs=rngs, param_dtype=jnp.float64)
        self.fc1, self.fc2, self.fc3 = dense(64, 120), dense(120, 84), dense(84, 5)

    def __call__(self, images):
        pool = functools.partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2))
        seen = pool(nnx.relu(self.conv2(pool(nnx.relu(self.conv1(images))))))
        hidden = nnx.relu(self.fc1(seen.reshape(len(images), -1)))
        return self.fc3(nnx.relu(self.fc2(hidden)))


class FlaxConv4(nnx.Module):
    def __init__(self, rngs):
        sizes = [1, 4, 4, 4, 4]
        kinds = {"rngs": rngs, "param_dtype": jnp.float64}
        self.convs = nnx.List([nnx.Conv(a, b, (3, 3), **kinds) for a, b in zip(sizes, sizes[1:])])  # noqa: B905
        self.norms = nnx.List([nnx.BatchNorm(4, **kinds) for _ in range(4)])
        self.head = nnx.Linear(16, 5, **kinds)


class EquinoxConv4(eqx.Module):
    convs: list
    norms: list
    head: eqx.nn.Linear

    def __init__(self, key):
        sizes = [1, 4, 4, 4, 4]
        self.convs = [
            eqx.nn.Conv2d(a, b, 3, padding=1, key=key)
            for a, b in zip(sizes, sizes[1:])  # noqa: B905
        ]
        self.norms = [eqx.nn.LayerNorm(4) for _ in range(4)]
        self.head = eqx.nn.Linear(16, 5, key=key)


def equinox_lenet(key):
    pool = eqx.nn.MaxPool2d(2, 2)
    relu = eqx.nn.Lambda(jax.nn.relu)
    return eqx.nn.Sequential(
        [
            *(eqx.nn.Conv2d(1, 6, 5, padding=2, key=key), relu, pool),
            *(eqx.nn.Conv2d(6, 16, 5, key=key), relu, pool, eqx.nn.Lambda(jnp.ravel)),
            *(eqx.nn.Linear(64, 120, key=key), relu, eqx.nn.Linear(120, 84, key=key), relu),
            eqx.nn.Linear(84, 5, key=key),
        ]
    )


def equinox_mlp(key):
    return eqx.nn.MLP(36, 5, 12, 1, key=key)


def flax_model(name):
    """Its parameters, and logits of them and images with channels last."""
    make = {"mlp": FlaxMlp, "lenet": FlaxLenet, "conv4": FlaxConv4}[name]
    graph, params, rest = nnx.split(make(nnx.Rngs(0)), nnx.Param, ...)
    return params, lambda point, images: nnx.merge(graph, point, rest)(images)


def equinox_model(name):
    """Its parameters, and logits of them and images with channels last."""
    make = {"mlp": equinox_mlp, "lenet": equinox_lenet, "conv4": EquinoxConv4}[name]
    params, static = eqx.partition(make(jax.random.key(0)), eqx.is_inexact_array)

    def logits(point, images):
        first = images.reshape(len(images), -1) if name == "mlp" else images.transpose(0, 3, 1, 2)
        return jax.vmap(eqx.combine(point, static))(first)

    return params, logits


MODELS_OF = {"flax": flax_model, "equinox": equinox_model}


def written_as(library, name, ours, like):
    """The library's parameters in the tree and the layout of another, by hand."""
    layers = {"flax": FLAX, "equinox": EQUINOX}[library][name]
    words = {"weight": "kernel", "gain": "scale"} if library == "flax" else {"gain": "weight"}
    named = {}
    for layer, arrays in ours.items():
        for word, array in arrays.items():
            own = array if library == "flax" else to_torch(name, layer, array)
            named[f"{layers[layer]}/{words.get(word, word)}"] = own
    names = [found.removesuffix("/value") for found in leaf_names(like)]
    leaves = [
        jnp.asarray(named[found]).reshape(leaf.shape)
        for found, leaf in zip(names, jax.tree.leaves(like), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def start_of(name, seed=0):
    """The library's own parameters."""
    params = MODELS[name][0].init(jax.random.key(seed))
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
