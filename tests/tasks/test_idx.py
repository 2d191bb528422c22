"""The idx reader: every number type, and nothing but `DataError` for what is not idx."""

import gzip
import io
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrax._errors import DataError
from mirrax.tasks import read_idx
from mirrax.tasks._bytes import ByteSource
from mirrax.tasks._idx import parse_idx
from published import IDX_CODES, idx_bytes, write_idx


def parse(data: bytes, rank: int | None = None) -> np.ndarray:
    return parse_idx(ByteSource(io.BytesIO(data), "some.idx"), rank=rank)


def one_line(raised) -> str:
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_bytes_written_by_hand():
    """The format's description, byte by byte: two images of 1×2 as big-endian 16-bit integers."""
    data = b"\x00\x00\x0b\x03" + b"\x00\x00\x00\x02" + b"\x00\x00\x00\x01" + b"\x00\x00\x00\x02"
    data += b"\x00\x01" + b"\x01\x00" + b"\xff\xff" + b"\x80\x00"
    array = parse(data)
    assert array.dtype == np.int16 and array.dtype.isnative
    np.testing.assert_array_equal(array, [[[1, 256]], [[-1, -32768]]])


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("code", sorted(IDX_CODES))
@pytest.mark.parametrize("shape", [(5,), (3, 8), (4, 3, 2), (2, 3, 2, 2)])
def test_round_trip(tmp_path, rng, code, shape, suffix):
    array = (rng.normal(size=shape) * 100).astype(code)
    read = read_idx(write_idx(tmp_path / f"file{suffix}", array), rank=len(shape))
    assert read.dtype == array.dtype and read.flags.writeable
    np.testing.assert_array_equal(read, array)


def test_compression_is_seen_from_the_bytes_not_the_name(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(gzip.compress(idx_bytes(np.arange(3, dtype=np.uint8))))
    assert read_idx(path).tolist() == [0, 1, 2]


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
def test_cut_anywhere(compress):
    data = compress(idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4)))
    for length in range(len(data)):
        with pytest.raises(DataError) as raised:
            parse(data[:length])
        assert one_line(raised).startswith("some.idx")


def test_cut_gz_says_so():
    data = gzip.compress(idx_bytes(np.zeros((9, 9, 9), np.uint8)))
    with pytest.raises(DataError, match="some.idx is cut short .*get the file again"):
        parse(data[:-9])


def test_every_changed_byte_of_a_gz_body_is_seen(rng):
    """Gzip's own CRC catches what the deflate stream does not; the header's time stamp is free."""
    good = idx_bytes(rng.integers(0, 256, (20, 20), dtype=np.uint8))
    data = gzip.compress(good)
    for place in range(10, len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x55
        with pytest.raises(DataError) as raised:
            parse(bytes(changed))
        one_line(raised)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG\r\n\x1a\n", r"not an idx file \(it begins with 89 50 4e 47\)"),
        (b"\x00\x00\x07\x01\x00\x00\x00\x01a", "not an idx file"),
        (b"\x00\x00\x08\x00a", "not an idx file"),
        (b"\x00\x00\x08\xff" + b"\x00\x00\x00\x01" * 255 + b"a", "not an idx file"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x00", "is empty"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x01ab", "more bytes follow"),
        (b"", "cut short"),
        (struct.pack(">BBBBI", 0, 0, 0x0D, 1, 1) + struct.pack(">f", np.nan), "non-finite"),
        (struct.pack(">BBBBI", 0, 0, 0x0E, 1, 1) + struct.pack(">d", np.inf), "non-finite"),
    ],
)
def test_not_idx(data, message):
    with pytest.raises(DataError, match=message) as raised:
        parse(data)
    one_line(raised)


def test_wrong_dimension():
    data = idx_bytes(np.arange(3, dtype=np.uint8))
    with pytest.raises(DataError, match="1 dimensions where 3 are needed"):
        parse(data, rank=3)


def test_missing_file_and_folder_in_its_place(tmp_path):
    with pytest.raises(DataError, match="cannot read .*absent.gz: No such file"):
        read_idx(tmp_path / "absent.gz")
    with pytest.raises(DataError, match="cannot read"):
        read_idx(tmp_path)


def peak_of_refusing(data: bytes) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            parse(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_header_that_promises_more_than_the_file_can_hold():
    huge = struct.pack(">BBBB4I", 0, 0, 0x0E, 4, *[2**32 - 1] * 4)
    assert peak_of_refusing(huge) < 1 << 20
    assert peak_of_refusing(gzip.compress(huge + bytes(1000))) < 1 << 20


def test_decompression_bomb():
    """A small header over 200 MB of zeros: no more than was promised is ever decompressed."""
    bomb = idx_bytes(np.zeros(10, np.uint8)) + bytes(200 << 20)
    assert peak_of_refusing(gzip.compress(bomb, compresslevel=1)) < 8 << 20


_VALID = idx_bytes(np.arange(12, dtype=np.int16).reshape(3, 4))


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=60).map(lambda tail: b"\x00\x00\x08\x01" + tail),
        st.binary(max_size=60).map(lambda tail: b"\x00\x00\x0d\x02\x00\x00\x00\x01" + tail),
        st.binary(max_size=60).map(lambda tail: b"\x1f\x8b\x08\x00" + tail),
        st.binary(max_size=100).map(gzip.compress),
        st.tuples(st.integers(0, len(_VALID) - 1), st.integers(0, 255)).map(
            lambda change: _VALID[: change[0]] + bytes([change[1]]) + _VALID[change[0] + 1 :]
        ),
    )
)
def test_any_bytes_are_refused_or_valid(data):
    try:
        array = parse(data)
    except DataError as error:
        assert "\n" not in str(error) and str(error).startswith("some.idx")
    else:
        assert array.size and np.isfinite(array).all()
        if data[:2] != b"\x1f\x8b":
            assert idx_bytes(array) == data
