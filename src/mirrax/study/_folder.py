r"""A run folder: configuration, metrics, checkpoints and results, each complete or absent.

`metrics.jsonl` grows by one line a round; every other file is written under a temporary name and
renamed. A checkpoint is an archive with a checksum; the newest sound one is used, and a damaged
one is named.
"""

import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .. import __version__
from .._errors import ArtifactError, ConfigError, MirraxError
from .._files import append_line, explain, is_temporary, write_atomically, write_json
from .._json import parse_json
from ..deploy._archive import read_archive, write_archive
from ._logging import mirror

_KEPT = 2  # checkpoints; one may be damaged by a crash of the disk, two hardly


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    **Arguments:**

    - `path`: where it is.
    """

    path: Path

    @staticmethod
    def create(path: Path, config: Mapping[str, Any]) -> "RunFolder":
        """Makes the folder of a new run.

        **Arguments:**

        - `path`: a folder that does not exist or is empty.
        - `config`: what `config.json` shall hold.

        **Raises:**

        - `ConfigError`: if the folder holds anything already.
        - `MirraxError`: if it cannot be written.
        """
        RunFolder.check_new(path)
        return RunFolder._make(path, config)

    @staticmethod
    def made_or_opened(path: Path, config: Mapping[str, Any]) -> "RunFolder":
        """The folder of a part of a run that is begun or goes on.

        **Arguments:**

        - `path`: a folder that exists or not.
        - `config`: what `config.json` shall hold where there is none.

        **Raises:**

        - `MirraxError`: if it cannot be written.
        """
        # A run killed while it made the folder may have left an empty one.
        exists = (path / "config.json").exists()
        return RunFolder(path) if exists else RunFolder._make(path, config)

    @staticmethod
    def _make(path: Path, config: Mapping[str, Any]) -> "RunFolder":
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            write_json(path / "config.json", {**config, "version": __version__})
        except (OSError, MirraxError) as error:
            for folder in (path / "checkpoints", *made):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            if isinstance(error, OSError):
                raise MirraxError(f"cannot write {path}: {explain(error)}") from error
            raise
        return RunFolder(path)

    @staticmethod
    def check_new(path: Path) -> None:
        """Refuses a folder that holds anything already."""
        if not RunFolder.is_blank(path):
            raise ConfigError(
                f"{path} exists already; pass --resume to continue it, or --out another folder."
            )

    @staticmethod
    def is_blank(path: Path) -> bool:
        """Whether a path is free, or holds no more than a run killed before its first file left."""
        try:
            if not path.exists():
                return True
            return path.is_dir() and all(
                entry.name == "checkpoints" and entry.is_dir() and not any(entry.iterdir())
                for entry in path.iterdir()
                if not is_temporary(entry)
            )
        except OSError as error:
            raise MirraxError(f"cannot read {path}: {explain(error)}") from error

    @staticmethod
    def open(path: Path) -> tuple["RunFolder", dict[str, Any]]:
        """Opens the folder of an existing run.

        **Arguments:**

        - `path`: the folder.

        **Returns:**

        The folder and its configuration.

        **Raises:**

        - `ConfigError`: if it is no run folder, or its configuration is damaged.
        """
        try:
            text = (path / "config.json").read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{path} is not a run folder (no config.json); start one with mirrax train."
            ) from error
        try:
            record = parse_json(text)
            if isinstance(record, dict) and {"method", "rate", "seed"} <= record.keys():
                raise ConfigError(f"{path} is a part of a run; name the folder of the whole run.")
            kinds = {"recipe": str, "seed": int, "fields": dict}
            if any(type(record[name]) is not kind for name, kind in kinds.items()):
                raise TypeError("recipe, seed or fields")
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path / 'config.json'} is damaged ({error}); start the run again in another "
                "folder."
            ) from error
        return RunFolder(path), record

    @property
    def begun(self) -> bool:
        """Whether a round of meta-training is behind it, or behind a part of it, or has failed."""
        traces = ("checkpoints/round-*.safetensors", "pilot.json", "result.json")
        return any(any(self.path.rglob(trace)) for trace in traces)

    def withdraw(self) -> None:
        """Removes the folder of a run that was refused before its first round."""
        if not self.begun:
            shutil.rmtree(self.path, ignore_errors=True)

    @property
    def rounds(self) -> int:
        """How many rounds the newest checkpoint has by its name; 0 where there is none."""
        return max((rounds for rounds, _ in self._checkpoints()), default=0)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def read_json(
        self, name: str, check: Callable[[dict[str, Any]], object] = lambda found: None
    ) -> dict[str, Any] | None:
        """Reads an object from a JSON file of the folder, or `None` if the file is absent.

        **Arguments:**

        - `name`: the file.
        - `check`: fails, as Python does, where entries are missing or of another type.

        **Raises:**

        - `ConfigError`: if it is damaged, or holds something else.
        - `MirraxError`: if it cannot be read.
        """
        try:
            found = parse_json((self / name).read_bytes())
            if not isinstance(found, dict):
                raise ValueError("no object")
            check(found)
            return found
        except FileNotFoundError:
            return None
        except OSError as error:
            raise MirraxError(f"cannot read {self / name}: {explain(error)}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigError(
                f"{self / name} is damaged; delete it and pass --resume to make it again."
            ) from error

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Adds one line to `metrics.jsonl`, flushed to disk, and to the logs that are open."""
        append_line(self / "metrics.jsonl", json.dumps(record, allow_nan=False))
        mirror(self.path, record)

    def truncate_metrics(self, rounds: int) -> list[dict[str, Any]]:
        """Drops lines of rounds past a checkpoint, and a last line cut short by a crash.

        **Arguments:**

        - `rounds`: how many rounds the checkpoint has.

        **Returns:**

        The records of those rounds.
        """
        path = self / "metrics.jsonl"
        if not path.exists():
            return []
        kept, records = [], []
        for line in path.read_bytes().splitlines():
            try:
                record = parse_json(line)
                if type(record["round"]) is not int:
                    break
                if record["round"] < rounds:
                    kept.append(line)
                    records.append(record)
            except (ValueError, KeyError, TypeError):
                break
        write_atomically(path, b"".join(line + b"\n" for line in kept))
        return records

    def part(self, name: str, record: Mapping[str, Any]) -> "RunFolder":
        """A folder within this one for a part of the run, made or opened.

        **Arguments:**

        - `name`: its path within this folder.
        - `record`: what its `config.json` holds.

        **Raises:**

        - `ConfigError`: if it was made for something else.
        """
        part = RunFolder.made_or_opened(self / name, record)
        found = part.read_json("config.json") or {}
        for field, value in record.items():
            if found.get(field) != value:
                raise ConfigError(
                    f"{part.path} has checkpoints of {field} {found.get(field)!r}, not {value!r}; "
                    "choose another --out."
                )
        return part

    def save_tree(self, name: str, tree: PyTree, metadata: Mapping[str, Any]) -> None:
        """Writes the arrays of a tree to one file, with a checksum."""
        write_archive(self / name, _to_arrays(tree), metadata)

    def load_tree(self, name: str, like: PyTree) -> PyTree:
        """Reads what `save_tree` wrote.

        **Arguments:**

        - `name`: the file.
        - `like`: a tree of the same structure.

        **Raises:**

        - `ArtifactError`: if the file is missing, damaged, or of another structure.
        """
        arrays, _ = read_archive(self / name)
        return _from_arrays(arrays, like, self / name)

    def _checkpoints(self) -> list[tuple[int, Path]]:
        found = []
        for path in (self / "checkpoints").glob("round-*.safetensors"):
            match = re.fullmatch(r"round-(\d+)", path.stem)
            if match:
                found.append((int(match[1]), path))
        return sorted(found)

    def save_checkpoint(self, state: PyTree, rounds: int, **owner: Any) -> None:
        """Writes the state after a number of rounds, and removes the oldest checkpoints.

        **Arguments:**

        - `state`: the state.
        - `rounds`: how many rounds it has.
        - `owner`: whose it is, by any names, which `load_checkpoint` compares.
        """
        name = f"checkpoints/round-{rounds:06d}.safetensors"
        self.save_tree(name, state, {"kind": "checkpoint", "rounds": rounds, **owner})
        self._remove(self._checkpoints()[:-_KEPT])

    def drop_checkpoints(self) -> None:
        """Removes all checkpoints, of a run that is finished."""
        self._remove(self._checkpoints())

    @staticmethod
    def _remove(checkpoints: Sequence[tuple[int, Path]]) -> None:
        for _, path in checkpoints:
            with contextlib.suppress(OSError):  # one too many does no harm
                path.unlink()

    def load_checkpoint(self, like: PyTree, **owner: Any) -> tuple[PyTree, list[str]]:
        """The newest sound checkpoint.

        **Arguments:**

        - `like`: a state of the same structure, returned if there is no checkpoint.
        - `owner`: as `save_checkpoint` was told.

        **Returns:**

        The state, and one line for each damaged checkpoint that was passed over.

        **Raises:**

        - `ArtifactError`: if it is a checkpoint of another owner or architecture.
        """
        warnings, found = [], self._checkpoints()
        for position, (_, path) in reversed([*enumerate(found)]):
            try:
                arrays, metadata = read_archive(path)
            except ArtifactError as error:
                warnings.append(str(error))
                continue
            # A sound checkpoint of something else is no damage: going on would start anew.
            for field, value in owner.items():
                if metadata.get(field, value) != value:
                    raise ArtifactError(
                        f"{path} is a checkpoint of {field} {metadata[field]!r}, not {value!r}; "
                        "start the run again in another folder."
                    )
            state = _from_arrays(arrays, like, path)
            self._remove(found[: position + 1][:-_KEPT])  # where a kill came before it
            return state, warnings
        return like, warnings


def _named_leaves(state: PyTree) -> list[tuple[str, Any]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(state, eqx.is_array))
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_arrays(state: PyTree) -> dict[str, np.ndarray]:
    return {
        name: np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        for name, leaf in _named_leaves(state)
    }


def _wider(found: np.ndarray, like: Any) -> bool:
    """Whether two arrays differ in nothing but the number of bits."""
    widths = {found.dtype.itemsize, like.dtype.itemsize}
    return (found.shape, found.dtype.kind, widths) == (like.shape, like.dtype.kind, {4, 8})


def _from_arrays(arrays: Mapping[str, np.ndarray], like: PyTree, path: Path) -> PyTree:
    dynamic, static = eqx.partition(like, eqx.is_array)
    leaves, expected = [], {name for name, _ in _named_leaves(like)}
    if surplus := sorted(arrays.keys() - expected):
        raise ArtifactError(
            f"{path} does not fit this run: it has an array {surplus[0]} that is not expected; "
            "start the run again in another folder."
        )
    for name, leaf in _named_leaves(like):
        like_it = jax.random.key_data(leaf) if _is_key(leaf) else leaf
        found = arrays.get(name)
        if found is None or (found.shape, found.dtype) != (like_it.shape, like_it.dtype):
            if found is not None and _wider(found, like_it):
                raise ArtifactError(
                    f"{path} was made with another precision: array {name} is {found.dtype} and "
                    f"not {like_it.dtype}; set JAX_ENABLE_X64 as it was then."
                )
            raise ArtifactError(
                f"{path} does not fit this run: no array {name} of shape {like_it.shape} and type "
                f"{like_it.dtype}; start the run again in another folder."
            )
        value = jnp.asarray(found)
        if _is_key(leaf):
            value = jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf))
        leaves.append(value)
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(dynamic), leaves), static)
