"""The readers of what mirrax writes: archives, artifacts, checkpoints, run folders, trials."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from target import Target

from mirrax import report
from mirrax._errors import ArtifactError
from mirrax._json import to_json
from mirrax.deploy import load, save
from mirrax.deploy._archive import _PLACE, read_archive, write_archive
from mirrax.geometry import (
    Blockwise,
    Diagonal,
    Euclidean,
    Kronecker,
    MaxOfDiagonals,
    NegativeEntropy,
    PNorm,
    RandomMask,
    Scaled,
    Transformed,
)
from mirrax.methods import find_method
from mirrax.report._made_by import record_table
from mirrax.report._records import _read_metrics
from mirrax.study._config import fields_of, from_record
from mirrax.study._folder import RunFolder
from mirrax.study._recipes import RECIPES, find_recipe

_RESULTS = Path(__file__).parents[2] / "docs" / "results"
_STATE = {"m": np.arange(6.0).reshape(2, 3), "round": np.array(4), "key": jax.random.key(3)}
_PARAMS = {"dense": {"weight": jnp.ones((2, 3)), "bias": jnp.ones(3)}}
_ROLES = {"dense": {"weight": ("in", "out"), "bias": ("out",)}}


def _written(write: Callable[[Path], object], name: str = "file") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return Path(folder, name).read_bytes()


def _signed(data: bytes) -> bytes:
    """An archive with the checksum of its content, whatever that has become."""
    found = _PLACE.search(data)
    if found is None:
        return data
    start, end = data[: found.end()], data[found.end() + 64 :]
    return start + hashlib.sha256(start + b"0" * 64 + end).hexdigest().encode() + end


def _archive_seeds() -> tuple[bytes, ...]:
    arrays = {
        "a/w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "n": np.array(7),
        "é": np.ones(0),
    }
    record = {"kind": "test", "rounds": [1, 2], "name": 'quoted "sha256":"x" — ü', "x": None}
    kinds = {name: np.ones(2, name) for name in ("bool", "int8", "uint64", "float16", "float64")}
    return (
        _written(lambda folder: write_archive(folder / "file", arrays, record)),
        _written(lambda folder: write_archive(folder / "file", kinds, {})),
    )


def _read_archive(path: Path) -> None:
    arrays, record = read_archive(path)
    assert _signed(data := path.read_bytes()) == data
    again = path.with_name("again")
    write_archive(again, arrays, record)
    same, told = read_archive(again)
    # As text, in which 1 and true differ; a record has no order of its own.
    assert json.dumps(told, sort_keys=True) == json.dumps(record, sort_keys=True)
    assert same.keys() == arrays.keys()
    for name, array in arrays.items():
        assert array.dtype == same[name].dtype and array.shape == same[name].shape
        assert array.tobytes() == same[name].tobytes()


def _artifact_seeds() -> tuple[bytes, ...]:
    key = jax.random.key(0)
    owned = [
        Diagonal.like(_PARAMS, diagonal=2.0),
        Scaled(MaxOfDiagonals.like(_PARAMS, key=key), jnp.array(0.5)),
        Kronecker.like(_PARAMS),
        Transformed.like(Diagonal.like(_PARAMS), _PARAMS, _ROLES),
        RandomMask.like(_PARAMS),
    ]
    free = [PNorm(1.5), Euclidean(), NegativeEntropy("orthant")]
    free.append(Blockwise({"dense": Diagonal.like(_PARAMS["dense"]), "other": PNorm(1.5)}))

    def seed(geometry: Any, **told: Any) -> bytes:
        record = {"recipe": "rotated-digits", "seed": 0}
        return _written(
            lambda folder: save(folder / "file", geometry, rate=0.1, record=record, **told)
        )

    told = [{}, {"params_like": _PARAMS, "roles": _ROLES}]
    found = [seed(geometry, **told[1]) for geometry in (*owned[:4], *free[:3])]
    begun = seed(Diagonal.like(_PARAMS), start=jax.tree.map(lambda x: x + 0.5, _PARAMS))
    return (*found, *(seed(geometry) for geometry in (owned[4], *free)), begun)


def _read_artifact(path: Path) -> None:
    artifact = load(path)
    assert 0 < artifact.rate < np.inf and isinstance(artifact.record, dict)
    for leaf in artifact.leaves or ():
        assert all(size >= 0 for size in leaf.shape)
    arrays = jax.tree.leaves(artifact.geometry)
    assert all(np.isfinite(np.asarray(array)).all() for array in arrays)
    start = artifact.start
    if start is not None:
        assert {name: leaf.shape for name, leaf in start.items()} == artifact.shapes
        assert all(np.isfinite(np.asarray(leaf)).all() for leaf in start.values())
    again = path.with_name("again.safetensors")
    save(again, artifact.geometry, rate=artifact.rate, start=start)
    assert jax.tree.structure(load(again).geometry) == jax.tree.structure(artifact.geometry)


def _artifact_seeds_in_torch() -> tuple[bytes, ...]:
    import mirrax.deploy.torch  # noqa: F401  # which opens many files, once

    seeds = _artifact_seeds()
    # No mask, and no blocks without a table of parameters.
    return (*seeds[:7], *seeds[8:11], seeds[-1])


def _read_artifact_in_torch(path: Path) -> None:
    import torch

    from mirrax.deploy.torch._source import opened, read

    record = read(path)
    leaves = record.leaves or ()
    if sum(int(np.prod(leaf.shape, dtype=float)) for leaf in leaves) > 10_000:
        raise ArtifactError("larger than any seed")
    params = {}
    for leaf in leaves:  # as PyTorch names and lays them out
        turned = leaf.shape[::-1] if leaf.roles == ("in", "out") else leaf.shape
        params[leaf.name.replace("/", ".")] = torch.zeros(turned)
    given: Any = {"names": {}, "axes": {}, "flatten": {}}
    try:
        opened(path, record, params, given, True)
    except (ArtifactError, ValueError) as error:  # both tables may follow
        raise ArtifactError(str(error).partition("\n")[0]) from error


def _checkpoint_seeds() -> tuple[bytes, ...]:
    def write(folder: Path) -> None:
        (folder / "checkpoints").mkdir()
        RunFolder(folder).save_checkpoint(_STATE, 3, method="maml")

    return (_written(write, "checkpoints/round-000003.safetensors"),)


def _read_checkpoint(path: Path) -> None:
    like = {"m": np.zeros((2, 3)), "round": np.array(0), "key": jax.random.key(0)}
    like = jax.tree.map(jnp.asarray, like)
    state, notes = RunFolder(path.parents[1]).load_checkpoint(like, method="maml")
    assert jax.tree.structure(state) == jax.tree.structure(like)
    for old, new in zip(jax.tree.leaves(like), jax.tree.leaves(state), strict=True):
        assert old.dtype == new.dtype and old.shape == new.shape
    if notes:
        raise ArtifactError(notes[0])


def _json(value: Any) -> bytes:
    return to_json(value, indent=1).encode()


def _config_seeds() -> tuple[bytes, ...]:
    names = ("rotated-digits", "quadratics", "few-shot-glyphs")
    return tuple(
        _json({"recipe": name, "seed": 0, "fields": fields_of(RECIPES[name].config)})
        for name in names
    )


def _read_config(path: Path) -> None:
    _, record = RunFolder.open(path.parent)
    config = from_record(type(find_recipe(record["recipe"]).config), record["fields"])
    again = fields_of(config)
    assert {name: again[name] for name in record["fields"]} == record["fields"]


def _metrics_seeds() -> tuple[bytes, ...]:
    rows = [
        {"round": i, "value": 0.5, "first_loss": 2.0, "last_loss": None, "seconds": 1.5}
        for i in range(3)
    ]
    rows[1] |= {"activation": [0.5, 0.5], "activation_by_step": [[0.5], [1.0]], "tasks": ["a"]}
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return text.encode(), text[:-9].encode()


def _read_metrics_file(path: Path) -> None:
    try:
        rounds, _ = _read_metrics(path)
        numbers = [record["round"] for record in rounds]
        assert numbers == sorted(set(numbers))
    finally:  # a run that goes on takes what it can
        kept = RunFolder(path.parent).truncate_metrics(2)
        assert all(type(record["round"]) is int and record["round"] < 2 for record in kept)
        assert path.read_bytes().count(b"\n") == len(kept)


def _short(value: Any) -> Any:
    """A result with two entries of every list."""
    if isinstance(value, dict):
        return {key: _short(entry) for key, entry in value.items()}
    return [_short(entry) for entry in value[:2]] if isinstance(value, list) else value


def _result(name: str) -> dict[str, Any]:
    return _short(json.loads((_RESULTS / f"{name}.json").read_bytes()))


_CURVE = {"steps": [0, 5], "train": [{"loss": 1.0}, {}], "test": [{"accuracy": 0.5}, {}]}
_SWEEP = {"rates": [0.1, 1.0], "cumulative": [[1.0, None]]}
_ONLINE = {
    "kind": "online",
    "curve_steps": [1, 10],
    "settings": [
        {
            "minimiser": "fixed",
            "problems": [{"dimension": 2, "condition": 10.0}],
            "methods": [
                {"method": "AdaGrad", "final": [0.5], "loss": [[1.0, 0.5]], "sensitivity": _SWEEP}
            ],
        }
    ],
}


def _summary_seeds() -> tuple[bytes, ...]:
    names = ("s000-fig1", "s000-table2", "rotated-digits", "few-shot-glyphs", "hypergradients")
    network = {
        "kind": "online-network",
        "task": "digits",
        "methods": [{"optimiser": "SGD", "curve": _CURVE}],
    }
    found = [_result(name) for name in (*names, "omniglot-recipe", "s002-bounds")]
    steps = {"steps": [1, 2], "regret": [0.5, 1.0], "bounds": {"tight": [1.0, None]}}
    certificate = {"bounds": {"tight": 1.0}, "regret": 1.0, "notes": [], "by_step": steps}
    return tuple(map(_json, [*found, network, _ONLINE, {**found[2], "certificate": certificate}]))


def _curves_seeds() -> tuple[bytes, ...]:
    curve = {"mean": [1.0, 0.5], "low": [0.9, None], "high": [1.1, 0.6]}
    named = {"metric": "training loss", "steps": [0, 1], "curves": {"SGD": curve}}
    tasks = {"steps": [0, 1], "tasks": {"0 degrees": {"SGD": curve, "Adam": {"mean": [1, 2]}}}}
    return _json(named), _json(tasks)


def _geometry_seeds() -> tuple[bytes, ...]:
    histogram = {"edges": [0.0, 1.0, 2.0], "counts": [3, 4]}
    leaf = {"name": "dense/weight", "shape": [2, 3], "roles": ["in", "out"]}
    return (_json({"leaves": [{**leaf, "spectrum": [0.5, 1.0], "histogram": histogram}, leaf]}),)


def _trajectories_seeds() -> tuple[bytes, ...]:
    found = {"matrix": [[2.0, 0.5], [0.5, 1.0]], "vector": [1.0, -1.0], "steps": {"SGD": 3}}
    return (_json({**found, "metric": [[1, 0], [0, 1]], "trajectories": {"SGD": [[0, 0.5]]}}),)


def _record_seeds() -> tuple[bytes, ...]:
    return tuple(_json(_result(name)["record"]) for name in ("rotated-digits", "s002-bounds"))


def _read_run(path: Path) -> None:
    config = path.with_name("config.json")
    if not config.exists():
        config.write_bytes(_config_seeds()[0])
    if not path.with_name("summary.json").exists():
        path.with_name("summary.json").write_bytes(_json({"recipe": "rotated-digits"}))
    run = report.Run.read(path.parent)
    for table in report.summary_tables(run.summary or {}):
        assert table.markdown()
    if path.name == "record.json":
        record = RunFolder(path.parent).read_json("record.json")
        assert record and record_table(record).markdown()


def _journal_seeds() -> tuple[bytes, ...]:
    from mirrax.study._search import open_storage

    def write(folder: Path) -> None:
        search = _search(open_storage(str(folder / "file")))
        for _ in range(2):
            asked = search.ask()
            assert asked is not None
            search.tell(asked, 0.5)
        search.ask()

    return (_written(write),)


def _search(storage: Any) -> Any:
    from mirrax.study._ranges import Range
    from mirrax.study._search import Search

    space = {"learning_rate": Range(1e-3, 1.0)}
    propose = lambda points, scores, awaited: np.full(1, 0.5)  # noqa: E731
    return Search(storage, "SGD", space, 5, propose, {"optimiser": "SGD"}, worker="a:1")


def _read_journal(path: Path) -> None:
    from mirrax.study._search import guarded, open_storage

    for lock in path.parent.glob("*.lock"):
        lock.unlink()
    with guarded(str(path)):
        done = _search(open_storage(str(path))).done
    assert all(set(values) == {"learning_rate"} for values, _ in done)


def _name_seeds() -> tuple[bytes, ...]:
    return b"maml", b"mirrax.methods:maml", b"mirrax.methods._mirror:block_iaf"


def _read_name(path: Path) -> None:
    assert callable(find_method(path.read_bytes().decode("latin-1")))


_CHECKPOINT = "checkpoints/round-000003.safetensors"


def _run(name: str, seeds: Callable[[], Sequence[bytes]]) -> Target:
    return Target(name, lambda: tuple(seeds()), _read_run)


RUN_TARGETS = {
    "archive": Target("a.safetensors", _archive_seeds, _read_archive),
    "archive-signed": Target("a.safetensors", _archive_seeds, _read_archive, _signed),
    "artifact": Target("a.safetensors", _artifact_seeds, _read_artifact, _signed),
    "artifact-torch": Target(
        "a.safetensors", _artifact_seeds_in_torch, _read_artifact_in_torch, _signed
    ),
    "checkpoint": Target(_CHECKPOINT, _checkpoint_seeds, _read_checkpoint),
    "checkpoint-signed": Target(_CHECKPOINT, _checkpoint_seeds, _read_checkpoint, _signed),
    "config": Target("config.json", _config_seeds, _read_config),
    "metrics": Target("metrics.jsonl", _metrics_seeds, _read_metrics_file),
    "summary": _run("summary.json", _summary_seeds),
    "curves": _run("curves.json", _curves_seeds),
    "geometry": _run("geometry.json", _geometry_seeds),
    "trajectories": _run("trajectories.json", _trajectories_seeds),
    "record": _run("record.json", _record_seeds),
    "journal": Target("trials.log", _journal_seeds, _read_journal),
    "method": Target("name", _name_seeds, _read_name),
}
