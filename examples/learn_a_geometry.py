"""Learn a geometry for a model and data of your own, and try it on a task it has not seen.

The tasks: tell one digit from the nine others, on the handwritten digits of scikit-learn. Seven
digits are there to learn from, the eighth is for the comparison alone. The model is an Equinox MLP;
any function of a tree of parameters would do.
"""

import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from mirrax import deploy, meta, methods

MODEL = eqx.nn.MLP(64, "scalar", 32, 1, key=jax.random.key(0))
STATIC = eqx.partition(MODEL, eqx.is_inexact_array)[1]
BASELINES = {
    "SGD": optax.sgd,
    "SGD, momentum 0.9": lambda rate: optax.sgd(rate, momentum=0.9),
    "Adam": optax.adam,
}


def initialise(key):
    """Initial parameters: whatever the library that made the model draws."""
    return eqx.filter(eqx.nn.MLP(64, "scalar", 32, 1, key=key), eqx.is_inexact_array)


def logits_of(params, pixels):
    return jax.vmap(eqx.combine(params, STATIC))(pixels)


def loss(params, shared, batch):
    """`shared` is for networks that learn a part in common; this one does not."""
    pixels, targets = batch
    return optax.sigmoid_binary_cross_entropy(logits_of(params, pixels), targets).mean()


def trained(optimiser, task, params, steps, key):
    """Final training loss and parameters: an ordinary loop of optax, compiled as one scan."""

    def step(carry, number):
        params, state = carry
        batch = task.batches.draw(number, key=jax.random.fold_in(key, number))
        value, grads = jax.value_and_grad(loss)(params, None, batch)
        updates, state = optimiser.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    (params, _), values = jax.lax.scan(step, (params, optimiser.init(params)), jnp.arange(steps))
    return jnp.mean(values[-20:]), params


def compared(make, tasks, start, steps, key):
    """The rate that is best on all tasks but the last, and the last one's result with it."""
    rates = jnp.array([0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
    run = jax.vmap(lambda rate, task: trained(make(rate), task, start, steps, key), (None, 0))
    values, params = jax.jit(jax.vmap(run, (0, None)))(rates, tasks)
    best = jnp.nanargmin(values[:, :-1].mean(axis=1))
    return float(rates[best]), float(values[best, -1]), jax.tree.map(lambda x: x[best, -1], params)


def main(folder=".", rounds=10, steps=300, rate=0.1, baselines=tuple(BASELINES)):
    images, labels = load_digits(return_X_y=True)
    pixels = (images / 16).astype(np.float32)
    targets = [(labels == digit).astype(np.float32) for digit in range(8)]
    data = [(pixels[:1200], target[:1200]) for target in targets]  # the rest is for the test

    # Learn: each round runs seven tasks from new weights, and improves the geometry in closed form.
    keys = jax.random.split(jax.random.key(1))
    learner, geometry = methods.meta_md(initialise, steps=steps, rate=rate, key=keys[0])
    state, tasks = learner.init(geometry, key=keys[0]), meta.stacked(data[:7], loss, batch=32)
    for _ in range(rounds):
        state, _ = learner.round(state, tasks)
    path = Path(folder, "geometry.safetensors")
    roles = deploy.layer_roles(initialise(keys[0]), "first")  # Equinox keeps outputs first
    deploy.save(path, state.geometry, rate=rate, roles=roles)

    # Compare: all optimisers choose from the same rates, on the seven tasks.
    learned, tasks, results = deploy.load(path), meta.stacked(data, loss, batch=32), {}
    makers = {"learned geometry": lambda rate: deploy.to_optax(learned, rate)}
    makers |= {name: BASELINES[name] for name in baselines}
    for name, make in makers.items():
        best, value, params = compared(make, tasks, initialise(keys[1]), steps, keys[1])
        right = (logits_of(params, pixels[1200:]) > 0) == (targets[7][1200:] == 1)
        results[name] = best, value, float(right.mean())
    return results


if __name__ == "__main__":
    for name, (rate, value, right) in main(*sys.argv[1:]).items():
        print(f"{name:<18} rate {rate:<6g} training loss {value:.4f}  test accuracy {right:.1%}")
