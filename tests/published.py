"""Writes small files in exactly the published formats, from the formats' descriptions alone."""

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    """`0 0 type rank`, big-endian sizes, big-endian entries."""
    code = IDX_CODES[array.dtype.str[1:]]
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx(path: Path, array: np.ndarray) -> Path:
    """Writes idx, gzipped where the name says so."""
    data = idx_bytes(array)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def usps_text(images: np.ndarray, labels: np.ndarray, digits: int = 4) -> str:
    """A line an image: the digit, then 256 values, a space after each as in `zip.train`."""
    lines = []
    for image, label in zip(images.reshape(len(images), -1), labels, strict=True):
        values = [f"{float(value):.{digits}f}" for value in (label, *image)]
        lines.append(" ".join(values) + " \n")
    return "".join(lines)


def write_usps_text(path: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(usps_text(images, labels).encode()))
    return path


def write_usps_h5(path: Path, parts: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    """Groups `train` and `test` with `data` (n, 256) float32 and `target` (n,) int64."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for part, (images, labels) in parts.items():
            group = file.create_group(part)
            group["data"] = images.reshape(len(images), -1).astype(np.float32)
            group["target"] = labels.astype(np.int64)
    return path


def write_svhn(path: Path, images: np.ndarray, digits: np.ndarray) -> Path:
    """`X` (32, 32, 3, n) and `y` (n, 1) with 10 for the digit 0, compressed as published."""
    import scipy.io

    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.where(digits == 0, 10, digits).astype(np.uint8)[:, None]
    variables = {"X": images.transpose(1, 2, 3, 0), "y": labels}
    scipy.io.savemat(path, variables, do_compression=True)
    return path


def image_bytes(image: np.ndarray, kind: str = "PNG") -> bytes:
    """A 1-bit PNG of booleans, an RGB one of `(h, w, 3)` bytes, or a JPEG."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind)
    return stream.getvalue()


def write_filed(path: Path, files: dict[str, bytes]) -> Path:
    """A zip where the name says so, else a folder; names that end in `/` are empty folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path
    for name, data in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            target.mkdir()
        else:
            target.write_bytes(data)
    return path


def cifar_records(coarse: np.ndarray, fine: np.ndarray, images: np.ndarray) -> bytes:
    """`coarse fine`, then 1,024 bytes each of red, green and blue, a record an image."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.column_stack([coarse, fine, planes]).astype(np.uint8).tobytes()


def write_cifar_tar(path: Path, parts: dict[str, bytes]) -> Path:
    """`cifar-100-binary/train.bin` and `test.bin` in a gzipped tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for part, data in parts.items():
            member = tarfile.TarInfo(f"cifar-100-binary/{part}.bin")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path
