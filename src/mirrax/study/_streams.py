"""Independent streams of randomness of one seed, one for each purpose of a run."""

import jax

META, TUNE, EVALUATE, CERTIFY, VALIDATE, SEEN = range(6)


def stream(seed: int, purpose: int) -> jax.Array:
    """Randomness for one purpose of a run.

    **Arguments:**

    - `seed`: the seed of the run.
    - `purpose`: one of this module's constants.

    **Returns:**

    A key.
    """
    return jax.random.fold_in(jax.random.key(seed), purpose)
