"""The reader of MATLAB's files, against SciPy's."""

import io

import numpy as np
import pytest
import scipy.io

from mirrax._errors import DataError
from mirrax.tasks import _mat
from mirrax.tasks._bytes import ByteSource
from mirrax.tasks._mat import declared, read_arrays

KINDS = {
    "f8": "double",
    "f4": "single",
    "u1": "uint8",
    "i2": "int16",
    "u4": "uint32",
    "i8": "int64",
}


def source(arrays: dict[str, object], compressed: bool) -> ByteSource:
    stream = io.BytesIO()
    scipy.io.savemat(stream, arrays, do_compression=compressed)
    return ByteSource(stream, "a.mat")


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_as_scipy_writes_them(rng, compressed):
    arrays = {
        f"{kind}_{len(shape)}": rng.integers(0, 99, shape).astype(kind)
        for kind in KINDS
        for shape in ((3, 1), (2, 5), (4, 3, 2), (2, 3, 1, 5))
    }
    found = declared(source(arrays, compressed))
    assert {name: variable.shape for name, variable in found.items()} == {
        name: array.shape for name, array in arrays.items()
    }
    assert all(found[name].kind == KINDS[name[:2]] for name in arrays)
    wanted = [name for name in arrays if not name.endswith("_3")]
    read = read_arrays(source(arrays, compressed), wanted)
    assert sorted(read) == sorted(wanted)
    for name, array in read.items():
        np.testing.assert_array_equal(array, arrays[name])


def test_arrays_are_taken_from_among_other_things():
    others = {"text": "abc", "struct": {"a": 1}, "complex": np.ones((2, 2)) * 1j}
    read = source({**others, "X": np.arange(6.0).reshape(2, 3)}, True)
    np.testing.assert_array_equal(read_arrays(read, ["X"])["X"], np.arange(6.0).reshape(2, 3))
    for name in others:
        assert declared(source(others, False))[name].kind == "other"


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_compressed_parts_are_read_in_chunks(rng, monkeypatch, chunk):
    """Those that are wanted, those that are not, and one that ends within a chunk or behind it."""
    arrays = {name: rng.integers(0, 255, (40, 5)).astype("u1") for name in "abcd"}
    arrays["flat"] = np.zeros((60, 50), "u1")  # a thousand times smaller than what it inflates to
    monkeypatch.setattr(_mat, "_CHUNK", chunk)
    assert list(declared(source(arrays, True))) == list(arrays)
    read = read_arrays(source(arrays, True), ["b", "d", "flat"])
    for name, array in read.items():
        np.testing.assert_array_equal(array, arrays[name])
    whole = source(arrays, True)
    short = whole.take(whole.most - 40)
    with pytest.raises(DataError, match="a.mat is cut short"):
        read_arrays(ByteSource(io.BytesIO(short), "a.mat"), ["flat"])


def test_big_endian():
    """The same file by hand: a 1 by 2 array of 16-bit integers, `A = [1 258]`."""
    head = b"MATLAB 5.0".ljust(124, b" ") + b"\x01\x00MI"
    flags = bytes.fromhex("00000006 00000008 0000000a 00000000")
    sizes = bytes.fromhex("00000005 00000008 00000001 00000002")
    name = bytes.fromhex("00010001 41000000")
    numbers = bytes.fromhex("00040003 00010102")
    body = flags + sizes + name + numbers
    data = head + bytes.fromhex("0000000e") + len(body).to_bytes(4, "big") + body
    (array,) = read_arrays(ByteSource(io.BytesIO(data), "a.mat"), ["A"]).values()
    assert array.tolist() == [[1, 258]]


def test_a_name_twice_and_a_file_of_another_kind():
    once = source({"A": np.ones((2, 2))}, False)
    data = once.take(once.most)
    twice = ByteSource(io.BytesIO(data + data[128:]), "a.mat")
    with pytest.raises(DataError, match="two arrays are named 'A'"):
        declared(twice)
    with pytest.raises(DataError, match="a.mat is not a MATLAB 5 file"):
        declared(ByteSource(io.BytesIO(b"\x89HDF" * 99), "a.mat"))
