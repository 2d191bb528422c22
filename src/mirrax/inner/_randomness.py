"""What a run draws besides its steps, each from a key of its own.

A run draws step `t` from `fold_in(key, t)`. What else it needs is drawn at numbers that no step
has, so that two purposes never share randomness, nor one of them with a step.
"""

import enum

import jax
from jaxtyping import PRNGKeyArray

from ._problem import Prior


class Purpose(enum.IntEnum):
    """What else is drawn."""

    REFERENCE = 2**32 - 1
    PRIOR = 2**32 - 2
    PERTURBATION = 2**32 - 3
    SPECTRUM = 2**32 - 4


def aside(key: PRNGKeyArray, purpose: Purpose) -> PRNGKeyArray:
    """The key that the run with `key` has for a purpose.

    **Arguments:**

    - `key`: randomness of the run.
    - `purpose`: what is drawn.
    """
    return jax.random.fold_in(key, int(purpose))


def drawn(prior: Prior, key: PRNGKeyArray) -> Prior:
    """The prior of the run whose randomness is `key`, see `Prior.drawn`.

    **Arguments:**

    - `prior`: what is learned across tasks.
    - `key`: randomness of the run.
    """
    return prior.drawn(key=aside(key, Purpose.PRIOR))
