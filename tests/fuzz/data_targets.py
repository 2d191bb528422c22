"""The readers of data sets: idx, USPS, MATLAB, CIFAR's records, images in folders and zips, csv."""

import gzip
import io
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
from target import Target

from mirrax.tasks import (
    SOURCES,
    DataFile,
    Edition,
    Source,
    load_images,
    read_idx,
    read_usps_h5,
    read_usps_text,
)
from mirrax.tasks._filed import file_by_class, open_images, read_entries
from mirrax.tasks._image_folder import _read as fitted
from mirrax.tasks._listed import read_list
from mirrax.tasks._svhn import read_svhn
from published import (
    idx_bytes,
    image_bytes,
    usps_text,
    write_filed,
    write_idx,
    write_svhn,
    write_usps_h5,
)

_RNG = np.random.default_rng(0)
_SHAPE = (7, 6, 3)
_BATCHES = ("train_1", "train_2", "train_3", "train_4", "train_5", "test")


def _written(write: Callable[[Path], object], name: str) -> bytes:
    """What a writer of files writes."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, name))
        return Path(folder, name).read_bytes()


def _gz(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=1, mtime=0)


def _small(reader: str, shape: tuple[int, int, int], train: int, test: int, files: dict[str, str]):
    """A table of data sets with one small set, of which no checksum is known."""
    edition = Edition(reader, tuple(DataFile(*pair) for pair in files.items()), train, test)
    source = Source("small", "Small", (".",), (edition,), shape, 10, "none", "nowhere", "")
    return mock.patch.dict(SOURCES, {"small": source})


def _check_part(images: np.ndarray, labels: np.ndarray, dtype: type, shape: tuple[int, ...]):
    assert images.dtype == dtype and images.shape[1:] == shape and len(images)
    assert labels.dtype == np.int32 and labels.shape == (len(images),)
    assert (images >= 0).all() and (images <= (255 if dtype is np.uint8 else 1)).all()
    assert (labels >= 0).all() and (labels <= 9).all()


def _idx_seeds() -> tuple[bytes, ...]:
    kinds = ("u1", "i1", "i2", "i4", "f4", "f8")
    plain = [idx_bytes(np.arange(12).reshape(3, 2, 2).astype(kind)) for kind in kinds]
    return (*plain, idx_bytes(np.arange(9, dtype=np.uint8)), _gz(plain[0]))


def _read_idx(path: Path) -> None:
    array = read_idx(path)
    assert array.size and array.dtype.isnative and np.isfinite(array).all()
    data = path.read_bytes()
    assert idx_bytes(array) == (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)


def _label_seeds() -> tuple[bytes, ...]:
    return idx_bytes(np.arange(4, dtype=np.uint8)), idx_bytes(np.arange(4, dtype=np.int32))


def _read_labels(path: Path) -> None:
    images = write_idx(path.with_name("images-idx3"), np.zeros((4, 2, 2), np.uint8)).name
    pairs = {f"{part}_images": images for part in ("train", "test")}
    pairs |= {f"{part}_labels": path.name for part in ("train", "test")}
    with _small("idx", (2, 2, 1), 4, 4, pairs):
        task = load_images("small", path.parent)
    _check_part(task.train_images, task.train_labels, np.uint8, (2, 2, 1))


def _digits() -> tuple[np.ndarray, np.ndarray]:
    return _RNG.random((3, 16, 16), dtype=np.float32), np.arange(3)


def _usps_seeds() -> tuple[bytes, ...]:
    text = usps_text(*_digits(), digits=1).encode()
    return text, text.partition(b"\n")[0], _gz(text)


def _read_usps_text(path: Path) -> None:
    _check_part(*read_usps_text(path), np.float32, (16, 16, 1))


def _usps_h5_seeds() -> tuple[bytes, ...]:
    parts = {"train": _digits(), "test": _digits()}
    return (_written(lambda path: write_usps_h5(path, parts), "usps.h5"),)


def _read_usps_h5(path: Path) -> None:
    _check_part(*read_usps_h5(path, "train"), np.float32, (16, 16, 1))


def _mat_seeds() -> tuple[bytes, ...]:
    import scipy.io

    images = _RNG.integers(0, 9, (2, 32, 32, 3), dtype=np.uint8)
    columns = {"X": images.transpose(1, 2, 3, 0), "y": np.array([[10.0], [3.0]])}
    columns["other"] = np.ones((2, 3))
    return (
        _written(lambda path: write_svhn(path, images, np.array([0, 3])), "a.mat"),
        _written(lambda path: scipy.io.savemat(path, columns), "a.mat"),
    )


def _read_svhn(path: Path) -> None:
    _check_part(*read_svhn(path), np.uint8, (32, 32, 3))


def _records() -> bytes:
    pixels = _RNG.integers(0, 256, (2, 3072), dtype=np.uint8)
    return np.column_stack([np.array([1, 9], np.uint8), pixels]).tobytes()


def _read_records(path: Path) -> None:
    with _small("cifar_binary", (32, 32, 3), 10, 2, dict.fromkeys(_BATCHES, path.name)):
        task = load_images("small", path.parent)
    _check_part(task.train_images, task.train_labels, np.uint8, (32, 32, 3))
    pixels = task.test_images.transpose(0, 3, 1, 2).reshape(2, -1)
    data = path.read_bytes()
    if data[:2] != b"\x1f\x8b":
        assert np.column_stack([task.test_labels, pixels]).astype(np.uint8).tobytes() == data


def _tar_seeds() -> tuple[bytes, ...]:
    names = ["readme.html", *(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    found = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
            for name in names:
                data = _records() if name.endswith(".bin") else b"<html>"
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                member.size, member.mtime = len(data), 0.5 if kind == tarfile.PAX_FORMAT else 0
                archive.addfile(member, io.BytesIO(data))
        found.append(stream.getvalue())
    return tuple(found)


def _mended_tar(data: bytes) -> bytes:
    """Right checksums in whatever looks like a header."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    for number, block in enumerate(blocks):
        if block[257:262] == b"ustar" and len(block) == 512:
            total = sum(block) - sum(block[148:156]) + 8 * 32
            blocks[number] = block[:148] + b"%06o\0 " % total + block[156:]
    return b"".join(blocks)


def _read_tar(path: Path) -> None:
    with _small("cifar_binary", (32, 32, 3), 10, 2, {"all": path.name}):
        task = load_images("small", path.parent)
    _check_part(task.train_images, task.train_labels, np.uint8, (32, 32, 3))
    assert len(task.train_images) == 10 and len(task.test_images) == 2


def _image(kind: str = "PNG") -> bytes:
    return image_bytes(_RNG.integers(0, 256, _SHAPE, dtype=np.uint8), kind)


def _image_seeds() -> tuple[bytes, ...]:
    from PIL import Image

    grey = image_bytes(_RNG.random(_SHAPE[:2]) < 0.5)
    found = [
        _image(),
        _image("JPEG"),
        grey,
        image_bytes(np.arange(42, dtype=np.uint16).reshape(7, 6)),
    ]
    for mode in ("P", "LA", "RGBA"):
        stream = io.BytesIO()
        extra = {"transparency": 0} if mode == "P" else {}
        Image.open(io.BytesIO(found[0])).convert(mode).save(stream, "PNG", dpi=(72, 72), **extra)
        found.append(stream.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.open(io.BytesIO(found[0])).save(stream, "JPEG", exif=exif)
    return (*found, stream.getvalue())


def _mended_png(data: bytes) -> bytes:
    """Right checksums of chunks."""
    at, parts = 8, [data[:8]]
    while data[:4] == b"\x89PNG" and at + 12 <= len(data):
        end = at + 8 + struct.unpack(">I", data[at : at + 4])[0]
        if end + 4 > len(data):
            break
        parts += [data[at:end], struct.pack(">I", zlib.crc32(data[at + 4 : end]))]
        at = end + 4
    return b"".join(parts) + data[at:] if len(parts) > 1 else data


def _read_image(path: Path) -> None:
    with open_images(path.parents[1]) as filed:
        entries = file_by_class([filed])
        part = fitted("own", entries, (5, 4, 3))
        assert part.images.shape == (1, 1, 5, 4, 3) and part.images.dtype == np.uint8
        images = read_entries(entries[path.parent.name], _SHAPE)
        assert images.shape == (1, *_SHAPE) and images.dtype == np.uint8


def _zip_seeds() -> tuple[bytes, ...]:
    files = {f"class-{i}/{j}.png": _image() for i in range(2) for j in range(2)}
    stored = _written(lambda path: write_filed(path, files), "a.zip")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {"ä/": b"", "../up.png": _image(), **files, "ä/1.png": _image()}.items():
            archive.writestr(name, data)
    return stored, stream.getvalue()


def _read_zip(path: Path) -> None:
    with open_images(path) as filed:
        assert len(set(filed.paths)) == len(filed.paths) > 0
        for name, entries in file_by_class([filed]).items():
            assert name.isprintable() and entries
            assert read_entries(entries, _SHAPE).shape == (len(entries), *_SHAPE)


def _csv_seeds() -> tuple[bytes, ...]:
    rows = ["filename,label", "n01-1.jpg,n01", '"n01,2.jpg",n01', 'n02-1.jpg,"n""02"']
    return "\n".join(rows).encode(), ("\ufeff" + "\r\n".join(rows) + "\r\n").encode()


def _read_csv(path: Path) -> None:
    listed = read_list(path, ("filename", "label"))
    assert listed and all(name and label for name, label in listed.items())
    assert all(text.isprintable() for pair in listed.items() for text in pair)
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    assert len(listed) <= len(lines) - 1


DATA_TARGETS = {
    "idx": Target("a-idx3", _idx_seeds, _read_idx),
    "idx.gz": Target("a-idx3.gz", lambda: _idx_seeds()[:-1], _read_idx, _gz),
    "labels": Target("labels-idx1", _label_seeds, _read_labels),
    "usps-text": Target("zip.train", _usps_seeds, _read_usps_text),
    "usps-h5": Target("usps.h5", _usps_h5_seeds, _read_usps_h5),
    "svhn": Target("train_32x32.mat", _mat_seeds, _read_svhn),
    "cifar-records": Target("test_batch.bin", lambda: (_records(),), _read_records),
    "cifar-tar": Target("cifar-10-binary.tar", _tar_seeds, _read_tar, _mended_tar),
    "image": Target("images/class-0/a.png", _image_seeds, _read_image, _mended_png),
    "zip": Target("images.zip", _zip_seeds, _read_zip),
    "csv": Target("train.csv", _csv_seeds, _read_csv),
}
