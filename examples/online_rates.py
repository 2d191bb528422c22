"""Rates that learn themselves in a training loop of optax that is there already.

The loop is logistic regression on scikit-learn's breast cancer data, whose thirty measurements have
scales from 0.001 to 4000 and are left as they are but for one common factor: a single rate suits
few of them. Only the line that makes the optimiser changes.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_breast_cancer

from mirrax.online import online_sgd

measured, labels = load_breast_cancer(return_X_y=True)
inputs = jnp.asarray(measured / np.abs(measured).mean(), jnp.float32)
targets = jnp.asarray(labels, jnp.float32)


def loss(params):
    logits = inputs @ params["weight"] + params["bias"]
    return optax.sigmoid_binary_cross_entropy(logits, targets).mean()


def trained(optimiser, steps):
    """The loop as it was."""

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimiser.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    params = {"weight": jnp.zeros(30), "bias": jnp.zeros(())}
    start = params, optimiser.init(params)
    (params, state), values = jax.jit(lambda: jax.lax.scan(step, start, None, length=steps))()
    return values, state


def main(steps=2000, rates=(0.03, 0.1, 0.3)):
    results = []
    for rate in rates:
        fixed, _ = trained(optax.sgd(rate), steps)
        # The same loop: every parameter gets a rate of its own, which starts at the same number.
        online = online_sgd(learning_rate=rate, meta_rate=rate / 100)
        learned, state = trained(online, steps)
        own = optax.tree.get(state, "rates")["weight"]
        results.append((rate, fixed[-1], learned[-1], own.min(), own.max()))
    return results


if __name__ == "__main__":
    for rate, fixed, learned, lowest, highest in main(*map(int, sys.argv[1:])):
        print(
            f"rate {rate:<5g} loss {fixed:.4f}   rates of their own {learned:.4f}, "
            f"from {lowest:.3g} to {highest:.3g}"
        )
