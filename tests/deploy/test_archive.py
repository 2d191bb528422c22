"""The file format: exact content back, or one clear line."""

import errno
import json
import os
import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save

from mirrax._errors import ArtifactError, MirraxError
from mirrax.deploy import _archive
from mirrax.deploy._archive import read_archive, write_archive

ARRAYS = {"a/w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(7)}
RECORD = {"kind": "test", "rounds": [1, 2], "name": 'quoted "sha256":"x" — ü'}


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.safetensors"
    write_archive(path, ARRAYS, RECORD)
    return path


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name, array in left.items():
        assert array.dtype == right[name].dtype and array.shape == right[name].shape
        assert array.tobytes() == right[name].tobytes()


def refused(path, *words):
    with pytest.raises(ArtifactError) as caught:
        read_archive(path)
    line = str(caught.value)
    assert "\n" not in line and str(path) in line and ";" in line, line
    for word in words:
        assert word in line
    return line


def test_round_trip(small):
    arrays, record = read_archive(small)
    assert_same(arrays, ARRAYS)
    assert record == RECORD


def test_equal_content_gives_equal_bytes(small, tmp_path):
    reordered = dict(reversed(RECORD.items()))
    write_archive(tmp_path / "b", dict(reversed(ARRAYS.items())), reordered)
    assert (tmp_path / "b").read_bytes() == small.read_bytes()


def test_any_safetensors_reader_opens_it(small):
    assert_same(load_file(small), ARRAYS)


@pytest.mark.parametrize("name", _archive._DTYPES)
def test_every_type(name, tmp_path):
    arrays = {"x": np.array([[0, 1], [1, 0]], name), "scalar": np.ones((), name)}
    write_archive(tmp_path / "f", {**arrays, "empty": np.zeros((0, 3), name)}, {})
    found, _ = read_archive(tmp_path / "f")
    assert_same(found, {**arrays, "empty": np.zeros((0, 3), name)})


@settings(max_examples=40, deadline=None)
@given(
    array=hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)),
    record=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text('aü"'),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("a\\/"), inner),
            max_leaves=8,
        ),
        max_size=4,
    ),
)
def test_round_trip_of_anything(array, record, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "anything"
    write_archive(path, {"x": array}, record)
    found, read = read_archive(path)
    assert_same(found, {"x": array})
    assert read == record


def test_views_and_byte_orders_keep_their_values(tmp_path):
    grid = np.arange(12.0).reshape(3, 4)
    views = {"transposed": grid.T, "every_other": grid[:, ::2], "big": grid.astype(">f8")}
    write_archive(tmp_path / "f", views, {})
    found, _ = read_archive(tmp_path / "f")
    for name, view in views.items():
        np.testing.assert_array_equal(found[name], view)


def test_numbers_of_numpy_and_no_numbers(tmp_path):
    record = {"rate": np.float64(0.1), "values": np.array([1, 2]), "loss": float("nan")}
    write_archive(tmp_path / "f", {}, record)
    arrays, found = read_archive(tmp_path / "f")
    assert arrays == {} and found["rate"] == 0.1 and found["values"] == [1, 2]
    assert np.isnan(found["loss"])


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_every_changed_byte_is_found(small, mask):
    whole = small.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= mask
        small.write_bytes(changed)
        refused(small)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_random_damage_is_found(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "random"
    write_archive(path, ARRAYS, RECORD)
    whole = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, len(whole) - 1))
    patch = data.draw(st.binary(min_size=0, max_size=9))
    stop = data.draw(st.integers(start, min(len(whole), start + 9)))
    changed = bytes(whole[:start] + patch + whole[stop:])
    path.write_bytes(changed)
    if changed == whole:
        read_archive(path)
    else:
        refused(path)


def test_every_truncation_is_found(small):
    whole = small.read_bytes()
    for length in range(len(whole)):
        small.write_bytes(whole[:length])
        refused(small)
    small.write_bytes(whole + b"\0")
    refused(small, "should have")


def test_a_cut_file_is_called_damaged(small):
    small.write_bytes(small.read_bytes()[:-1])
    refused(small, "damaged", "copy it again")


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"PK\x03\x04" + bytes(100), pickle.dumps({"a": 1}), b"text\n" * 20, bytes(64)],
)
def test_foreign_files(tmp_path, content):
    path = tmp_path / "foreign"
    path.write_bytes(content)
    refused(path, "not a mirrax file", "geometry.safetensors")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_foreign_safetensors(tmp_path, metadata):
    path = tmp_path / "model.safetensors"
    path.write_bytes(save(ARRAYS, metadata=metadata))
    refused(path, "mirrax did not write")


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 50_000,
        b"{" * 50_000,
        b"{\xff\xfe}",
        b"{}",
        b'{"__metadata__":1}',
        b'{"__metadata__":{"mirrax":"[]"}}',
        b'{"__metadata__":{"mirrax":"{}"}}',
        b'{"__metadata__":{"mirrax":"{\\"sha256\\":\\"0\\",\\"format\\":1}"}}',
        b'{"__metadata__":{"mirrax":"{\\"sha256\\":\\"0\\",\\"format\\":true}"}}',
        b'{"__metadata__":{"mirrax":"{\\"sha256\\":1,\\"format\\":1,\\"metadata\\":\\"\\"}"}}',
    ],
)
def test_forged_headers(tmp_path, header):
    path = tmp_path / "forged"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    refused(path)


def test_a_newer_format_asks_for_an_upgrade(tmp_path, monkeypatch):
    path = tmp_path / "newer"
    monkeypatch.setattr(_archive, "FORMAT", 2)
    write_archive(path, ARRAYS, {})
    monkeypatch.undo()
    refused(path, "format 2", "upgrade mirrax")


def test_missing_file_and_folder(tmp_path):
    refused(tmp_path / "absent", "no such file")
    refused(tmp_path, "folder")


def test_memory_is_not_taken_on_the_word_of_a_header(tmp_path):
    path = tmp_path / "liar"
    path.write_bytes((2**62).to_bytes(8, "little") + b"{" + bytes(100))
    tracemalloc.start()
    refused(path, "cut short")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_huge_foreign_file_is_not_read(tmp_path):
    path = tmp_path / "huge"
    with open(path, "wb") as file:
        file.write(b"video")
        file.truncate(2**40)  # sparse: no space is used
    refused(path)
    header = b'{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(2**40)
    refused(path, "mirrax did not write")


def test_objects_are_refused(tmp_path):
    for array in (np.array([{}], object), np.array(["text"]), np.array([1j])):
        with pytest.raises(ValueError, match=r"write_archive.arrays: 'x' has type"):
            write_archive(tmp_path / "f", {"x": array}, {})
    with pytest.raises(ValueError, match=r"write_archive.metadata"):
        write_archive(tmp_path / "f", {}, {"x": object()})
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_the_old_file(small, monkeypatch):
    old = small.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MirraxError, match="disk is full"):
        write_archive(small, {"x": np.ones(1000)}, {})
    assert small.read_bytes() == old
    assert list(small.parent.iterdir()) == [small]


def test_it_needs_neither_jax_nor_torch_nor_pickle():
    code = (
        "import sys, json; import mirrax.deploy, mirrax.deploy._archive, mirrax.deploy._layout; "
        "print(json.dumps(sorted({'jax', 'torch', 'equinox', 'optax'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert json.loads(done.stdout) == []
