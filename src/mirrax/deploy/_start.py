"""Where a new task starts: the parameters that were learned with a geometry, in a model of JAX."""

import os
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._errors import ArtifactError
from .._tree import check_floating
from ._align import Table, align
from ._artifact import Artifact, load
from ._fit import by_name
from ._record import check_reach
from ._state import placed_like


def learned_start(
    source: str | os.PathLike[str] | Artifact,
    params: PyTree,
    *,
    names: Mapping[str, str] | None = None,
    axes: Mapping[str, Sequence[int]] | None = None,
    flatten: Mapping[str, int] | None = None,
) -> PyTree:
    """The parameters that were learned with a geometry, as those of a model.

    Few-shot learning learns both: each new task starts at these and descends in the geometry.

    **Arguments:**

    - `source`: the file of a geometry, or an artifact.
    - `params`: the model's parameters; only their names, shapes, types and places matter. What is
        no parameter, such as running statistics, is to be left out.
    - `names`, `axes`, `flatten`: as for `to_optax`.

    **Returns:**

    A tree like `params`, with the learned numbers in the types and on the devices of `params`.

    **Raises:**

    - `ArtifactError`: the file cannot be used or holds no start, the parameters are not those it
        was learned for, with both tables, or a number would be infinite in the type of its
        parameter (small ones become 0).
    - `ValueError`: parameters that are no floating-point arrays, or a match that would be a guess.

    >>> import tempfile
    >>> from mirrax.deploy import save
    >>> from mirrax.geometry import Euclidean
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(folder + "/g", Euclidean(), rate=0.1, start={"w": jnp.array([1.0, 2.0])})
    ...     learned_start(folder + "/g", {"w": jnp.zeros(2)})["w"].tolist()
    [1.0, 2.0]
    """
    if not isinstance(source, str | os.PathLike | Artifact):
        raise ValueError(
            "learned_start.source: expected a file name or an Artifact, got "
            f"{type(source).__name__}."
        )
    check_floating("learned_start", params, "equinox.filter or nnx.state")
    artifact = source if isinstance(source, Artifact) else load(source)
    if artifact.start is None:
        what = "the artifact" if isinstance(source, Artifact) else source
        raise ArtifactError(
            f"{what} holds no start; start where the model does, or give the geometry of a run "
            "that learned one, such as few-shot-glyphs"
        )
    given = {"names": names or {}, "axes": axes or {}, "flatten": flatten or {}}
    here = align(Table(artifact.expected, artifact.leaves, given), params)
    named = by_name(params)
    for row in here.rows:
        dtype = jnp.result_type(named[row.name])
        largest = float(jnp.finfo(dtype).max)
        check_reach(row.name, artifact.start[row.leaf.name], largest, dtype.name)
    found = here.tree(artifact.start, params)
    return placed_like(jax.tree.map(_typed, found, params), params)


def _typed(array: Array, like: Array) -> Array:
    # A copy: donating the parameters of one task must not delete the start of the next.
    return jnp.array(array, dtype=jnp.result_type(like), copy=True)
