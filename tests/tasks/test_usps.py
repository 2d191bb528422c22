"""USPS as text and as HDF5: exact values, and `DataError` for anything else."""

import gzip
import io
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrax._errors import DataError
from mirrax.tasks import read_usps_h5, read_usps_text
from mirrax.tasks._bytes import ByteSource
from mirrax.tasks._usps import parse_usps_text
from published import usps_text, write_usps_h5, write_usps_text


@pytest.fixture
def digits(rng):
    images = np.round(rng.uniform(-1, 1, (7, 16, 16)), 4)
    return images, np.array([0, 1, 9, 3, 3, 6, 8])


def parse(text: str | bytes):
    data = text.encode() if isinstance(text, str) else text
    return parse_usps_text(ByteSource(io.BytesIO(data), "zip.train"))


def test_text(tmp_path, digits):
    images, labels = digits
    read_images, read_labels = read_usps_text(
        write_usps_text(tmp_path / "zip.train.gz", images, labels)
    )
    assert read_images.dtype == np.float32 and read_labels.dtype == np.int32
    np.testing.assert_array_equal(read_labels, labels)
    np.testing.assert_allclose(read_images[..., 0], (images + 1) / 2, rtol=0, atol=1e-7)


def test_text_as_the_test_part_is_written():
    """`zip.test` has bare integers and no space at the line's end."""
    line = " ".join(["9"] + ["-1"] * 255 + ["0.148"])
    images, labels = parse(line + "\n" + line + "\n")
    assert labels.tolist() == [9, 9] and images[1, -1, -1, 0] == np.float32(1.148 / 2)


LINE = " ".join(["6.0000"] + ["-1.0000"] * 256) + " \n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line has 0"),
        ("\n \n", "the first line has 0"),
        ("6 0.5 0.5\n", "the first line has 3"),
        (LINE + "6 1 1\n", "not USPS text"),
        (LINE.replace("6.0000", "6.5000"), "label 0 is 6.5, no digit"),
        (LINE + LINE.replace("6.0000", "10"), "label 1 is 10, no digit"),
        (LINE.replace("6.0000", "nan"), "label 0 is nan, no digit"),
        (LINE.replace("-1.0000", "nan", 1), "image 0 has the value nan"),
        (LINE + LINE.replace("-1.0000", "1e400", 1), "image 1 has the value inf"),
        (LINE.replace("-1.0000", "255", 1), r"image 0 has the value 255, outside \[-1, 1\]"),
        (LINE.replace("-1.0000", "one", 1), "not USPS text.*could not convert"),
        (LINE.encode() + b"\xff\xfe\n", "byte 2,056 is no text"),
    ],
)
def test_not_usps_text(text, message):
    with pytest.raises(DataError, match=message) as raised:
        parse(text)
    assert "\n" not in str(raised.value) and str(raised.value).startswith("zip.train")


def test_cut_gz(tmp_path, digits):
    path = write_usps_text(tmp_path / "zip.train.gz", *digits)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="zip.train.gz is cut short"):
        read_usps_text(path)


def test_decompression_bomb(tmp_path):
    path = tmp_path / "zip.train.gz"
    path.write_bytes(gzip.compress(b"1 " * (20 << 20), compresslevel=1))
    with pytest.raises(DataError, match="more than 32 MB"):
        read_usps_text(path)


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.text(alphabet="0123456789-+.e naif#,\t\r\n", max_size=300).map(str.encode),
        st.text(alphabet="0123456789.- \t\r\n\x0b\x0c\x00#", max_size=30).map(
            lambda tail: (LINE + tail).encode()
        ),
        st.tuples(st.integers(0, len(LINE) - 1), st.binary(max_size=3)).map(
            lambda change: LINE[: change[0]].encode() + change[1] + LINE[change[0] + 1 :].encode()
        ),
        st.binary(max_size=60).map(lambda tail: b"\x1f\x8b\x08\x00" + tail),
    )
)
def test_any_bytes_are_refused_or_valid(data):
    try:
        images, labels = parse(data)
    except DataError as error:
        assert "\n" not in str(error) and str(error).startswith("zip.train")
    else:
        assert images.shape == (len(labels), 16, 16, 1)
        assert 0 <= images.min() and images.max() <= 1 and set(labels) <= set(range(10))


def test_text_values_survive(digits):
    images, labels = digits
    again, _ = parse(usps_text(images, labels))
    np.testing.assert_allclose(again[..., 0] * 2 - 1, images, rtol=0, atol=1e-6)


def test_h5(tmp_path, digits):
    images, labels = digits
    pixels = (images + 1) / 2
    parts = {"train": (pixels, labels), "test": (pixels[:2], labels[:2])}
    path = write_usps_h5(tmp_path / "usps.h5", parts)
    for part, (expected, expected_labels) in parts.items():
        read_images, read_labels = read_usps_h5(path, part)
        assert read_images.dtype == np.float32 and read_labels.dtype == np.int32
        np.testing.assert_array_equal(read_labels, expected_labels)
        np.testing.assert_array_equal(read_images[..., 0], expected.astype(np.float32))


def broken_h5(path, change):
    import h5py

    write_usps_h5(path, {"train": (np.zeros((3, 256)), np.zeros(3))})
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replace(key, value):
    def change(file):
        del file[key]
        if value is not None:
            file[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replace("train", None), "no data set of numbers 'train/data'"),
        (replace("train/target", None), "no data set of numbers 'train/target'"),
        (replace("train/data", np.zeros((3, 255))), r"shape \(3, 255\); \(n, 256\) is needed"),
        (replace("train/data", np.zeros((3, 16, 16))), r"\(n, 256\) is needed"),
        (replace("train/data", np.zeros((4, 256))), "4 images and 3 labels"),
        (replace("train/target", np.zeros((3, 1))), r"\(n\) is needed"),
        (replace("train/target", np.full(3, 10)), "label 0 is 10, no digit"),
        (replace("train/data", np.full((3, 256), np.nan)), "the value nan"),
        (replace("train/data", np.full((3, 256), 2.0)), r"the value 2, outside \[0, 1\]"),
        (replace("train/data", [b"text"] * 3), "no data set of numbers"),
    ],
)
def test_not_usps_h5(tmp_path, change, message):
    with pytest.raises(DataError, match=message) as raised:
        read_usps_h5(broken_h5(tmp_path / "usps.h5", change), "train")
    assert "\n" not in str(raised.value)


def test_damaged_h5(tmp_path):
    path = write_usps_h5(tmp_path / "usps.h5", {"train": (np.zeros((30, 256)), np.zeros(30))})
    data = path.read_bytes()
    for length in (0, 7, 100, len(data) // 2):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match="is not HDF5 or is damaged"):
            read_usps_h5(path, "train")


def test_without_h5py(tmp_path, monkeypatch):
    path = tmp_path / "usps.h5"
    path.touch()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"needs h5py; install mirrax with the extra \[data\]"):
        read_usps_h5(path, "train")
