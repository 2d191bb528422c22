r"""Learned random masks: each unit's parameters are adapted on a task, or left as they are.

One unit `u` is adapted with probability `σ(ζ_u)`. The draw is a Gumbel softmax over `(ζ_u, 0)` at
temperature one, rounded: `s_u = σ(ζ_u + G_u − G'_u)`, `m_u = [s_u > 1/2]`, and the derivative of
`m` is that of `s` (straight-through). The step is `x ← x − η m ⊙ g`, with one mask a task.
Source: MT-net, Lee and Choi 2018; spec A3.
"""

import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._tree import Dual, Primal
from ._base import AbstractPreconditioner, AbstractRandomPreconditioner


class Mask(AbstractPreconditioner):
    """`m ⊙ g`, the mask broadcast from the last axes.

    **Arguments:**

    - `mask`: for every layer one vector over its units, which are the last axis of its arrays.

    >>> mask = Mask({"dense_0": jnp.array([1.0, 0.0])})
    >>> mask.apply({"dense_0": {"bias": jnp.ones(2)}})["dense_0"]["bias"].tolist()
    [1.0, 0.0]
    """

    mask: PyTree[Array]

    def apply(self, gradient: Dual) -> Primal:
        """The gradient of the units that are adapted."""
        return jax.tree.map(
            lambda mask, layer: jax.tree.map(lambda g: mask * g, layer), self.mask, gradient
        )


class RandomMask(AbstractRandomPreconditioner):
    """Draws a `Mask` a task, with learned probabilities.

    **Arguments:**

    - `logits`: for every layer one logit `ζ_u` a unit; units are adapted with probability `σ(ζ)`.

    >>> template = {"dense_0": {"weight": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}}
    >>> RandomMask.like(template).logits["dense_0"].tolist()
    [0.0, 0.0, 0.0]
    """

    logits: PyTree[Array]

    @classmethod
    def like(cls, params: Primal) -> "RandomMask":
        """Logits of zero, one an output unit (the last axis) of every layer.

        **Arguments:**

        - `params`: nested dicts, layer by layer, whose arrays end with the same axis of units.

        **Raises:**

        - `ValueError`: if the arrays of a layer have different numbers of units, or none.
        """
        logits = {}
        for name, layer in params.items():
            units = {(0, *jnp.shape(array))[-1] for array in jax.tree.leaves(layer)}
            if len(units) != 1 or 0 in units:
                raise ValueError(
                    f"RandomMask.like: the arrays of layer {name!r} must end with one axis of "
                    f"units, got lengths {sorted(units)}."
                )
            logits[name] = jnp.zeros(units.pop(), jnp.result_type(*jax.tree.leaves(layer)))
        return cls(logits)

    def draw(self, *, key: PRNGKeyArray) -> Mask:
        """One mask: rounded in value, soft in its derivative."""
        leaves, structure = jax.tree.flatten(self.logits)
        # G − G' of two Gumbel variables is logistic. One draw: generators are slow to compile.
        ends = list(itertools.accumulate(leaf.size for leaf in leaves))
        noise = jnp.split(jax.random.logistic(key, (ends[-1],), leaves[0].dtype), ends[:-1])
        return Mask(jax.tree.map(straight_through, self.logits, structure.unflatten(noise)))


def straight_through(logit: Array, noise: Array) -> Array:
    """`[s > 1/2]` with the derivative of `s = σ(ζ + noise)`.

    >>> jax.value_and_grad(straight_through)(1.0, 0.0)[0].item()
    1.0
    """
    soft = jax.nn.sigmoid(logit + noise)
    hard = (soft > 0.5).astype(soft.dtype)
    return soft + jax.lax.stop_gradient(hard - soft)
