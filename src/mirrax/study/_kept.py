"""Parts of a long computation, kept in a folder until the whole has been written.

A part is known by a digest of its compiled program and of every number that it is given, so it is
never taken for another: no list of fields decides, and a change of code, data or geometry makes it
anew. They are a cache: a damaged or missing one is computed again.
"""

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._errors import ArtifactError, MirraxError
from .._files import explain
from .._machine import machine
from ..deploy._archive import read_archive, write_archive


@dataclasses.dataclass(frozen=True)
class Kept:
    """A folder of parts.

    **Arguments:**

    - `folder`: where; made with the first part.
    """

    folder: Path

    @staticmethod
    def within(run: Path) -> "Kept":
        """The parts of a run's tuning and trials, `trials` in its folder.

        **Arguments:**

        - `run`: the run folder.
        """
        return Kept(run / "trials")

    def once(self, digest: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A part as it was kept; where there is none, or a damaged one, it is computed and kept.

        **Arguments:**

        - `digest`: from `fingerprint`.
        - `compute`: gives its arrays by name.

        **Raises:**

        - `MirraxError`: if it cannot be written.
        """
        place = self.folder / f"{digest[:32]}.safetensors"
        with suppress(ArtifactError):
            return dict(read_archive(place)[0])
        found = compute()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MirraxError(f"cannot write {self.folder}: {explain(error)}") from error
        try:
            write_archive(place, found, {"kind": "part"})
        except MirraxError:
            if self.folder.exists():  # else another command has written the whole and cleared it
                raise
        return found

    def clear(self) -> None:
        """Removes all parts, of a whole that has been written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def fingerprint(*given: PyTree) -> str:
    """A digest of texts and arrays, and of the versions that compute with them.

    **Arguments:**

    - `given`: texts, numpy's and JAX's arrays, keys; anything else in a tree is passed over, so a
        program's text must stand for it.

    >>> fingerprint("f", jnp.ones(2)) == fingerprint("f", jnp.ones(2))
    True
    >>> fingerprint("f", jnp.ones(2)) == fingerprint("f", jnp.ones((2, 1)))
    False
    """
    found = hashlib.sha256(repr(sorted(machine()["versions"].items())).encode())
    for leaf in jax.tree.leaves(given):
        if isinstance(leaf, str):
            content: Any = np.frombuffer(leaf.encode(), np.uint8)
        elif isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            content = np.asarray(jax.random.key_data(leaf))
        elif isinstance(leaf, jax.Array | np.ndarray):
            content = np.asarray(leaf)
        else:
            continue
        found.update(f"{content.dtype}{content.shape}".encode())
        found.update(np.ascontiguousarray(content).view(np.uint8).data)
    return found.hexdigest()
