"""What a model is: a name, a way to draw parameters, a pure function of them, and axis roles.

Parameters are nested dicts, `{"dense_0": {"weight": (in, out), "bias": (out,)}}`; a leaf is
named by its path, `dense_0/weight`. Roles say what each axis of a leaf means, so that an artifact
or a Kronecker geometry can tell inputs from outputs without guessing from shapes.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._tree import leaf_names

Parameters = dict[str, dict[str, Any]]
"""Nested dicts of arrays: layer name, then `weight` or `bias`."""

Roles = dict[str, dict[str, tuple[str, ...]]]
"""As `Parameters`, with one tuple of axis roles for each array."""

Blocks = tuple[tuple[str, ...], ...]
"""Names of leaves in the order of computation, grouped into blocks."""


class Apply(Protocol):
    """`logits = apply(θ, images)`, with batch statistics of the first `reference` images."""

    def __call__(
        self,
        params: Parameters,
        images: Float[Array, "batch height width channels"],
        /,
        *,
        reference: int | None = None,
    ) -> Float[Array, "batch classes"]:
        """Logits of every image."""
        ...


# Compared by identity: closures have no other equality, and a model can be a static argument.
@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    r"""A network as two pure functions, `θ ~ init(key)` and `logits = apply(θ, images)`.

    **Arguments:**

    - `name`: what `build` calls it, such as `mlp-128-64`.
    - `init`: draws parameters from a key.
    - `apply`: maps parameters and images `(batch, height, width, channels)` to logits
      `(batch, classes)`; with `reference=n`, batch statistics are those of the first `n` images,
      else of the whole batch. Models without batch statistics ignore it.
    - `roles`: for every leaf its axes' roles, out of `height`, `width`, `in`, `out`.
    - `blocks`: names of leaves in the order of computation, one tuple a block of layers.
    - `normalises`: whether there are batch statistics, so that logits of an image depend on others.

    >>> import jax
    >>> from mirrax.models import linear
    >>> model = linear((8, 8, 1), 10)
    >>> model.count
    650
    >>> model.leaf_shapes
    {'dense_0/bias': (10,), 'dense_0/weight': (64, 10)}
    >>> model.blocks
    (('dense_0/weight', 'dense_0/bias'),)
    """

    name: str
    init: Callable[[PRNGKeyArray], Parameters]
    apply: Apply
    roles: Roles
    blocks: Blocks
    normalises: bool = False

    @property
    def shapes(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes and types of the parameters, found without drawing any."""
        return jax.eval_shape(self.init, jax.random.key(0))

    @property
    def leaf_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each leaf by its name."""
        shapes = self.shapes
        return dict(
            zip(leaf_names(shapes), (s.shape for s in jax.tree.leaves(shapes)), strict=True)
        )

    @property
    def count(self) -> int:
        """The number of parameters, `Σ_leaves Π shape`."""
        return sum(math.prod(shape) for shape in self.leaf_shapes.values())

    def check(self, params: PyTree) -> None:
        """Checks that parameters have this model's leaves and shapes.

        **Arguments:**

        - `params`: any pytree of arrays.

        **Raises:**

        - `ValueError`: if a leaf is missing, unknown, of another shape or not floating-point; the
          first such leaf is named with what it is and what it should be.

        >>> import jax
        >>> from mirrax.models import linear
        >>> linear((8, 8, 1), 10).check(linear((4, 4, 1), 10).init(jax.random.key(0)))
        Traceback (most recent call last):
        ...
        ValueError: Model.check: linear: leaf dense_0/weight has shape (16, 10), expected (64, 10).
        """
        expected = self.leaf_shapes
        received = dict(zip(leaf_names(params), jax.tree.leaves(params), strict=True))
        for leaf in [*expected, *(leaf for leaf in received if leaf not in expected)]:
            problem = _difference(expected.get(leaf), received.get(leaf))
            if problem:
                raise ValueError(f"Model.check: {self.name}: leaf {leaf} {problem}.")


def _difference(shape: tuple[int, ...] | None, array: Any) -> str:
    """What is wrong with one leaf; empty where nothing is."""
    if array is None:
        return f"is missing, expected shape {shape}"
    if shape is None:
        return f"of shape {jnp.shape(array)} does not belong to this model"
    if jnp.shape(array) != shape:
        return f"has shape {jnp.shape(array)}, expected {shape}"
    if not jnp.issubdtype(jnp.result_type(array), jnp.floating):
        return f"has type {jnp.result_type(array)}, expected floating-point"
    return ""
