"""Own model and own data to an optimiser of PyTorch: learn in JAX, save one file, train in PyTorch.

The tasks are to tell one digit from the others; the last digit is new to the geometry.
"""

import equinox as eqx
import jax
import numpy as np
import optax
import torch
from sklearn.datasets import load_digits

from mirrax import deploy, meta, methods
from mirrax.deploy.torch import MirrorDescent

# Your data: arrays, one task after another.
images, labels = load_digits(return_X_y=True)
pixels = (images / 16).astype(np.float32)
targets = [(labels == digit).astype(np.float32) for digit in range(10)]


# Your model and its loss.
def initialise(key):
    return eqx.filter(eqx.nn.MLP(64, "scalar", 32, 1, key=key), eqx.is_inexact_array)


def loss(params, shared, batch):
    logits = jax.vmap(eqx.combine(params, static))(batch[0])
    return optax.sigmoid_binary_cross_entropy(logits, batch[1]).mean()


static = eqx.nn.MLP(64, "scalar", 32, 1, key=jax.random.key(0))  # what is no parameter of it

# Learn a geometry from nine tasks, and save it.
tasks = meta.stacked([(pixels, y) for y in targets[:9]], loss, batch=64)
learner, geometry = methods.meta_md(initialise, steps=100, rate=0.1, key=jax.random.key(0))
state = learner.init(geometry, key=jax.random.key(1))
for _ in range(5):
    state, _ = learner.round(state, tasks)
roles = deploy.layer_roles(initialise(jax.random.key(0)), "first")  # Equinox: (out, in)
deploy.save("geometry.safetensors", state.geometry, rate=0.1, roles=roles)

# Train a model of PyTorch with it; the table that is printed says which parameter is which.
model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
optimiser, losses = MirrorDescent(model.named_parameters(), "geometry.safetensors"), []
for _ in range(100):
    logits = model(torch.tensor(pixels))[:, 0]
    value = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(targets[9]))
    optimiser.zero_grad()
    value.backward()
    optimiser.step()
    losses.append(value.item())
print(f"loss on the new digit {losses[0]:.4f} at first, {losses[-1]:.4f} at last")
