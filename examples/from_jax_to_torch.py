"""The artifact of `learn_a_geometry.py` in both frameworks: one network, the same steps.

The model is Equinox's there and PyTorch's here. What is printed first says which parameter is which
and how its axes lie; then the losses of the two runs stand side by side.
"""

import sys

import jax
import numpy as np
import optax
import torch
from sklearn.datasets import load_digits

from learn_a_geometry import initialise, loss
from mirrax.deploy import to_optax
from mirrax.deploy.torch import MirrorDescent

OPTIONS = {"momentum": 0.5, "nesterov": True, "weight_decay": 1e-3}


def in_jax(path, params, batch, steps):
    slopes, optimiser, losses = jax.jit(jax.value_and_grad(loss)), to_optax(path, **OPTIONS), []
    state = optimiser.init(params)
    for _ in range(steps):
        value, grads = slopes(params, None, batch)
        updates, state = optimiser.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(value))
    return losses


def in_torch(path, params, batch, steps):
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    for own, start in zip(model.parameters(), jax.tree.leaves(params), strict=True):
        own.data = torch.tensor(np.asarray(start)).reshape(own.shape)
    optimiser, losses = MirrorDescent(model.named_parameters(), path, **OPTIONS), []
    pixels, targets = map(torch.tensor, batch)
    for _ in range(steps):
        optimiser.zero_grad()
        logits = model(pixels)[:, 0]
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
        value.backward()
        optimiser.step()
        losses.append(value.item())
    return losses


def main(path="geometry.safetensors", steps=100):
    images, labels = load_digits(return_X_y=True)
    batch = (images / 16).astype(np.float32), (labels == 9).astype(np.float32)
    params = initialise(jax.random.key(3))
    return in_jax(path, params, batch, steps), in_torch(path, params, batch, steps)


if __name__ == "__main__":
    for step, (ours, theirs) in enumerate(zip(*main(*sys.argv[1:]), strict=True)):
        if step % 20 == 19:
            print(f"step {step + 1:<4} loss in JAX {ours:.5f}, in PyTorch {theirs:.5f}")
