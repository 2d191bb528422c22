"""Run folders: complete or absent, continued to the bit, damage named."""

import errno
import io
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from mirrax._errors import ArtifactError, ConfigError, MirraxError, NumericalError
from mirrax.deploy import save
from mirrax.meta import quadratic
from mirrax.methods import meta_md
from mirrax.study._folder import RunFolder
from mirrax.study._images import ImageStudy
from mirrax.study._learn import learn
from mirrax.study._progress import Progress
from mirrax.study._train import record_of, revise
from mirrax.tasks import sample_quadratics

CONFIG = {"recipe": "quadratics", "seed": 0, "fields": {"rate": 0.1}}
KEY = jax.random.key(4)


def state(value=1.0, size=3):
    return {"m": jnp.full(size, value), "round": jnp.asarray(2), "key": jax.random.key(7)}


def plain(tree):
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        for x in jax.tree.leaves(tree)
    ]


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "runs" / "one", CONFIG)


def test_create_and_open(folder):
    found, record = RunFolder.open(folder.path)
    assert found == folder and CONFIG.items() <= record.items() and "version" in record
    assert not folder.begun


@pytest.mark.parametrize(
    "trace", ["checkpoints/round-000001.safetensors", "pilot.json", "result.json"]
)
def test_a_run_has_begun_when_a_part_of_it_has(folder, trace):
    part = folder.part("maml/seed-0", {"seed": 0})
    assert not folder.begun
    (part / trace).parent.mkdir(exist_ok=True)
    (part / trace).write_bytes(b"{}")
    assert folder.begun


def test_the_number_of_rounds_is_that_of_the_newest_checkpoint(folder):
    assert folder.rounds == 0
    for rounds in (4, 12):
        folder.save_checkpoint(state(), rounds)
    assert folder.rounds == 12


def test_an_existing_folder_is_refused_and_untouched(folder, tmp_path):
    before = (folder / "config.json").read_bytes()
    with pytest.raises(ConfigError, match="exists already; pass --resume"):
        RunFolder.create(folder.path, CONFIG)
    assert (folder / "config.json").read_bytes() == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        RunFolder.create(tmp_path / "file", CONFIG)
    (tmp_path / "empty").mkdir()
    RunFolder.create(tmp_path / "empty", CONFIG)


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def read_only(*_, **__):
    raise OSError(errno.EROFS, "Read-only file system")


def test_a_full_disk_at_the_start_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(MirraxError, match="disk is full"):
        RunFolder.create(tmp_path / "a" / "b", CONFIG)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    RunFolder.create(tmp_path / "a" / "b", CONFIG)


def test_a_read_only_disk_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "mkdir", read_only)
    with pytest.raises(MirraxError, match="read-only"):
        RunFolder.create(tmp_path / "a", CONFIG)


@pytest.mark.parametrize(
    "text", [b"{", b"[]", b"{}", b"3", b'{"recipe": "a", "seed": 0, "fields": 3}', b"\xff\xfe"]
)
def test_a_damaged_configuration_is_named(folder, text):
    (folder / "config.json").write_bytes(text)
    with pytest.raises(ConfigError, match=r"config\.json is damaged"):
        RunFolder.open(folder.path)


def test_what_is_no_run_folder(tmp_path):
    with pytest.raises(ConfigError, match="is not a run folder"):
        RunFolder.open(tmp_path / "nowhere")


def test_damaged_json_is_named(folder):
    assert folder.read_json("comparison.json") is None
    (folder / "comparison.json").write_text('{"rows": ')
    with pytest.raises(ConfigError, match=r"comparison\.json is damaged; delete it"):
        folder.read_json("comparison.json")


def test_two_checkpoints_are_kept_and_the_newest_is_read(folder):
    for number in range(1, 5):
        folder.save_checkpoint(state(float(number)), number)
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["round-000003.safetensors", "round-000004.safetensors"]
    found, notes = folder.load_checkpoint(state(0.0))
    assert notes == [] and folder.begun
    for a, b in zip(plain(found), plain(state(4.0)), strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("damage", ["cut", "byte", "empty"])
def test_a_damaged_newest_checkpoint_is_passed_over_and_named(folder, damage):
    for number in (1, 2):
        folder.save_checkpoint(state(float(number)), number)
    newest = folder / "checkpoints" / "round-000002.safetensors"
    data = bytearray(newest.read_bytes())
    if damage == "byte":
        data[-3] ^= 1
    newest.write_bytes({"cut": data[:-5], "byte": data, "empty": b""}[damage])
    found, notes = folder.load_checkpoint(state(0.0))
    assert float(found["m"][0]) == 1.0
    assert len(notes) == 1 and "round-000002" in notes[0] and "\n" not in notes[0]
    (folder / "checkpoints" / "round-000001.safetensors").write_bytes(b"x")
    found, notes = folder.load_checkpoint(state(0.0))
    assert float(found["m"][0]) == 0.0 and len(notes) == 2


def test_a_checkpoint_of_another_precision_says_so(folder):
    folder.save_checkpoint(jax.tree.map(lambda x: x.astype(jnp.float32), {"m": jnp.ones(2)}), 1)
    with pytest.raises(ArtifactError, match=r"array m is float32 and not float64; set JAX_ENABLE_"):
        folder.load_checkpoint({"m": jnp.ones(2)})


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_keys_come_back_as_what_they_were(folder, kind):
    key = jax.random.key(3, impl=kind)
    folder.save_checkpoint({"key": key}, 1)
    found, _ = folder.load_checkpoint({"key": jax.random.key(0, impl=kind)})
    assert found["key"] == key and jax.random.key_impl(found["key"]) == jax.random.key_impl(key)


def test_a_checkpoint_of_other_shapes_is_refused(folder):
    folder.save_checkpoint(state(size=3), 1)
    with pytest.raises(ArtifactError, match=r"does not fit this run: no array m of shape \(4,\)"):
        folder.load_checkpoint(state(size=4))
    with pytest.raises(ArtifactError, match="does not fit"):
        folder.load_checkpoint({**state(), "more": jnp.zeros(2)})
    folder.save_checkpoint({**state(), "more": jnp.zeros(2)}, 2)
    with pytest.raises(ArtifactError, match="does not fit this run: it has an array more"):
        folder.load_checkpoint(state())


def test_a_checkpoint_knows_whose_it_is(folder):
    folder.save_checkpoint(state(2.0), 1, seed=0, rate=0.1)
    assert float(folder.load_checkpoint(state(), seed=0, rate=0.1)[0]["m"][0]) == 2.0
    with pytest.raises(ArtifactError, match="is a checkpoint of rate 0.1, not 0.2; start the run"):
        folder.load_checkpoint(state(), seed=0, rate=0.2)


def test_metrics_lose_a_line_cut_short_and_rounds_past_the_checkpoint(folder):
    for number in range(4):
        folder.append_metrics({"round": number, "value": None})
    path = folder / "metrics.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(whole[:-9])
    assert [line["round"] for line in folder.truncate_metrics(4)] == [0, 1, 2]
    assert path.read_bytes() == b"".join(lines[:3])
    folder.truncate_metrics(1)
    assert path.read_bytes() == lines[0]
    path.write_bytes(lines[0] + b"\x00\xff\x00")
    folder.truncate_metrics(4)
    assert path.read_bytes() == lines[0]


QUIET = Progress(Console(file=io.StringIO(), quiet=True))


def meta_train(folder, rounds, rate=0.05):
    """A small study on quadratics, in the folder."""
    learner, initial = meta_md(
        zeros, steps=20, rate=rate, comparator="solution", damping=0.0, key=KEY
    )
    names = [f"quadratic {i}" for i in range(3)]
    learned = learn(
        learner,
        initial,
        quadratic(sample_quadratics(KEY, 3)),
        names,
        rounds=rounds,
        rate=rate,
        folder=folder,
        progress=QUIET,
        key=KEY,
    )
    save(folder / "geometry.safetensors", learned.geometry, rate=rate)
    return learned


def zeros(key):
    del key
    return jnp.zeros(2)


def outcome(folder):
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return (folder / "geometry.safetensors").read_bytes(), [
        {key: value for key, value in line.items() if key != "seconds"} for line in metrics
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = RunFolder.create(tmp_path_factory.mktemp("whole") / "run", CONFIG)
    meta_train(folder, 4)
    return outcome(folder)


def test_metrics_have_the_form_of_the_contract(uninterrupted):
    _, lines = uninterrupted
    assert [line["round"] for line in lines] == [0, 1, 2, 3]
    keys = {"round", "value", "first_loss", "last_loss", "tasks"}
    assert all(keys <= set(line) for line in lines)
    assert all(np.isfinite(line["value"]) for line in lines)


@pytest.mark.parametrize("failure", ["stopped", "full", "metrics full", "damaged", "cut line"])
def test_an_interrupted_run_continues_to_the_bit(folder, uninterrupted, failure, monkeypatch):
    if failure in ("full", "metrics full"):
        calls = []
        whole = os.write if failure == "full" else os.fsync

        def later(*arguments):
            calls.append(1)
            if len(calls) > (2 if failure == "full" else 6):
                full()
            return whole(*arguments)

        monkeypatch.setattr(os, "write" if failure == "full" else "fsync", later)
        with pytest.raises(MirraxError, match="disk is full") as error:
            meta_train(folder, 4)
        assert "\n" not in str(error.value)
        monkeypatch.undo()
        assert folder.begun and not list(folder.path.rglob("*.tmp"))
    else:
        meta_train(folder, 2)
    if failure == "damaged":
        (folder / "checkpoints" / "round-000002.safetensors").write_bytes(b"damaged")
    if failure == "cut line":
        with open(folder / "metrics.jsonl", "a") as file:
            file.write('{"round": 2, "val')
    learned = meta_train(RunFolder.open(folder.path)[0], 4)
    assert outcome(folder) == uninterrupted
    assert len(learned.notes) == (failure == "damaged")


def test_divergence_names_round_task_step_and_rate_and_stays_resumable(folder):
    words = r"diverged: round 0, task quadratic \d, step \d+, rate 1e\+80, loss .*--resume"
    with pytest.raises(NumericalError, match=words):
        meta_train(folder, 4, rate=1e80)
    assert not folder.begun and not (folder / "geometry.safetensors").exists()
    assert not (folder / "metrics.jsonl").exists()
    meta_train(folder, 2)
    assert folder.begun
    with pytest.raises(ConfigError, match="--rounds: 2 rounds are made already, got 1"):
        meta_train(RunFolder.open(folder.path)[0], 1)


def test_a_part_is_made_where_a_kill_left_an_empty_one(tmp_path):
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    (folder / "maml/seed-0/checkpoints").mkdir(parents=True)
    part = folder.part("maml/seed-0", {"method": "maml"})
    assert part.read_json("config.json")["method"] == "maml"
    with pytest.raises(ConfigError, match="has checkpoints of method 'maml', not 'anil'"):
        folder.part("maml/seed-0", {"method": "anil"})


def revised(folder, record, **changes):
    study = ImageStudy(**changes)
    return revise(folder, record, study)


def test_a_summary_of_other_fields_does_not_stay(tmp_path):
    """It would be read, and shown, as that of the run as it goes on."""
    kept = {"recipe": "rotated-digits", "seed": 0, "budget": "default", "command": "mirrax"}
    folder = RunFolder.create(tmp_path / "run", record_of(ImageStudy(), **kept))
    folder.save_checkpoint(state(), 5)
    for name in ("summary.json", "result.json", "result.md"):
        (folder / name).write_text("{}")
    _, record = RunFolder.open(folder.path)
    assert not revised(folder, record)
    assert revised(folder, record, devices=2) and (folder / "summary.json").exists()
    with pytest.raises(ConfigError, match="--rounds: 5 rounds are made already, got 3"):
        revised(folder, record, rounds=3)
    with pytest.raises(ConfigError, match="--model: cannot change"):
        revised(folder, record, model="linear")
    assert (folder / "summary.json").exists()
    _, record = RunFolder.open(folder.path)
    assert record["fields"]["rounds"] == 6
    assert revised(folder, record, devices=2, seeds=7)
    assert not any((folder / name).exists() for name in ("summary.json", "result.json"))
