"""Where the batch of each inner step comes from: the same data, a stream, or random rows.

Batches are drawn on the device inside the compiled loop. A draw depends on the step and the key
only, so a run can be cut anywhere and continued to the bit.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from .._checks import check_count


class AbstractBatches(eqx.Module):
    """A rule that gives the batch of every step."""

    @abc.abstractmethod
    def draw(self, step: Int[Array, ""], *, key: PRNGKeyArray) -> PyTree[Any]:
        """The batch of one step.

        **Arguments:**

        - `step`: the step's number, from zero.
        - `key`: randomness of this step.

        **Returns:**

        The batch, in whatever form the problem's loss takes.
        """

    def fixed(self, owner: str) -> PyTree[Any]:
        """The batch of every step, where all are the same.

        **Arguments:**

        - `owner`: the class that needs it.

        **Raises:**

        - `ValueError`: if batches may differ.
        """
        raise ValueError(
            f"{owner}: problem.batches must be Repeat, got {type(self).__name__}; "
            "every step needs the same data."
        )

    def check_steps(self, steps: int) -> None:
        """Refuses a run from its beginning that is too long; here none is.

        **Arguments:**

        - `steps`: of the run.

        **Raises:**

        - `ValueError`: if there are not as many batches.
        """
        del steps


class Repeat(AbstractBatches):
    """The same data at every step: full-batch learning.

    **Arguments:**

    - `data`: any pytree.

    >>> import jax
    >>> Repeat(3.0).draw(jnp.array(5), key=jax.random.key(0))
    3.0
    """

    data: PyTree[Any]

    def draw(self, step: Int[Array, ""], *, key: PRNGKeyArray) -> PyTree[Any]:
        """The data."""
        del step, key
        return self.data

    def fixed(self, owner: str) -> PyTree[Any]:
        """The data."""
        del owner
        return self.data


class Stream(AbstractBatches):
    """Slice `t` of the leading axis at step `t`: online learning.

    A run from its beginning must not be longer. Where one that goes on gets past the end, there is
    no data: numbers are NaN there, integers with a sign the smallest, those without the largest.

    **Arguments:**

    - `data`: a pytree of arrays with one leading axis of steps.

    >>> import jax
    >>> int(Stream(jnp.array([5, 6, 7])).draw(jnp.array(1), key=jax.random.key(0)))
    6
    """

    data: PyTree[Array]

    def draw(self, step: Int[Array, ""], *, key: PRNGKeyArray) -> PyTree[Any]:
        """Slice `step` of every leaf."""
        del key
        return jax.tree.map(lambda leaf: jnp.asarray(leaf).at[step].get(mode="fill"), self.data)

    def check_steps(self, steps: int) -> None:
        """Refuses a run of more steps than there are slices."""
        slices = min((len(leaf) for leaf in jax.tree.leaves(self.data)), default=steps)
        if slices < steps:
            raise ValueError(
                f"Stream.data: a run of {steps} steps needs as many slices, got {slices}."
            )


class Minibatch(AbstractBatches):
    """`size` rows drawn uniformly with replacement.

    **Arguments:**

    - `data`: a pytree of arrays with one leading axis of examples.
    - `size`: rows a batch.
    - `count`: draw from the first `count` rows only, so that data sets of different sizes can be
      padded to one shape and vectorised: with one number for each task, `data` has their axis in
      front. All rows by default.

    **Raises:**

    - `ValueError`: if `size` is not positive, the leaves disagree on the number of rows, or a
      `count` is not between 1 and that number.

    >>> import jax
    >>> Minibatch(jnp.arange(10), size=4).draw(jnp.array(0), key=jax.random.key(0)).shape
    (4,)
    """

    data: PyTree[Array]
    size: int = eqx.field(static=True)
    count: Int[Array, ""]

    def __init__(self, data: PyTree[Array], size: int, count: int | Array | None = None):
        axis = jnp.ndim(0 if count is None else count)  # behind those of stacked tasks
        shapes = [jnp.shape(leaf)[axis:] for leaf in jax.tree.leaves(data)]
        rows = {shape[0] if shape else 0 for shape in shapes}
        check_count("Minibatch", "size", size)
        if len(rows) != 1 or 0 in rows:
            raise ValueError(
                f"Minibatch.data: expected leaves of one length, got lengths {sorted(rows)}."
            )
        (available,) = rows
        self.data = data
        self.size = size
        self.count = _checked(available if count is None else count, available)

    def draw(self, step: Int[Array, ""], *, key: PRNGKeyArray) -> PyTree[Any]:
        """Random rows of every leaf."""
        del step
        # One draw, and a modulus whose bias is below rows/2³²: generators are slow to compile.
        bits = jax.random.bits(key, (self.size,), jnp.uint32)
        rows = bits % self.count.astype(jnp.uint32)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], self.data)


def _checked(count: Any, available: int) -> Int[Array, "..."]:
    """Numbers of rows, if there are that many."""
    count = count if isinstance(count, Tracer) else np.asarray(count)
    within = (count >= 1) & (count <= available)
    holds = within.all() & np.issubdtype(count.dtype, np.integer)
    expected = f"Minibatch.count: expected whole numbers from 1 to the {available} rows of data"
    if isinstance(count, Tracer):
        count = eqx.error_if(count, ~holds, f"{expected}.")
    elif not holds:
        raise ValueError(f"{expected}, got {count}.")
    return jnp.asarray(count, int)
