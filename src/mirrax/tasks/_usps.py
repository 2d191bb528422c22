"""USPS digits, 16×16 grey, in its two published forms.

- *text*, `zip.train.gz` and `zip.test.gz` (Hastie, Tibshirani and Friedman, *The Elements of
  Statistical Learning*): a line is the digit and 256 values in `[-1, 1]`;
- *HDF5*, `usps.h5`: groups `train` and `test`, each with `data` `(n, 256)` in `[0, 1]` and `target`
  `(n,)`.

Both are brought to pixels in `[0, 1]`, white ink on black.
"""

import io
import os
from typing import Any

import numpy as np

from .._errors import DataError
from ._bytes import LARGEST_RATIO, ByteSource, open_bytes, unreadable

_SIDE = 16
_FIELDS = 1 + _SIDE * _SIDE
_MOST_TEXT = 32 << 20  # the published training part has 14.5 MB
_MOST_IMAGES = 100_000


def read_usps_text(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    r"""Reads one part of USPS from text, plain or gzipped.

    **Arguments:**

    - `path`: `zip.train.gz` or `zip.test.gz`.

    **Returns:**

    Images `(n, 16, 16, 1)`, float32 in `[0, 1]`, and labels `(n,)`, int32.

    **Raises:**

    - `DataError`: no such file, cut short, damaged, not text, a line without exactly 257 numbers, a
        label that is no digit, a value that is not finite or outside `[-1, 1]`.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "zip.train"
    ...     _ = path.write_text("6.0000" + " -1.0000" * 255 + " 1.0000 \n")
    ...     images, labels = read_usps_text(path)
    >>> images.shape, labels.tolist(), float(images[0, -1, -1, 0])
    ((1, 16, 16, 1), [6], 1.0)
    """
    with open_bytes(path) as source:
        return parse_usps_text(source)


def parse_usps_text(source: ByteSource) -> tuple[np.ndarray, np.ndarray]:
    """Reads USPS text from an open source; see `read_usps_text`."""
    data = source.take_at_most(_MOST_TEXT + 1)
    if len(data) > _MOST_TEXT:
        raise DataError(
            f"{source.name} holds more than {_MOST_TEXT >> 20} MB of text, which USPS does not;"
            " get the published file"
        )
    table = _table(data, source.name)
    _check_range(table[:, 1:], -1.0, source.name)
    return _task_arrays((table[:, 1:] + 1) / 2, table[:, 0], source.name)


def read_usps_h5(path: str | os.PathLike[str], part: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads one part of USPS from HDF5; needs h5py, the extra `mirrax[data]`.

    **Arguments:**

    - `path`: `usps.h5`.
    - `part`: `"train"` or `"test"`.

    **Returns:**

    As `read_usps_text`.

    **Raises:**

    - `DataError`: h5py is absent, no such file, not HDF5, cut short, groups or data sets missing,
        another shape, a label that is no digit, a value that is not finite or outside `[0, 1]`.

    >>> read_usps_h5("usps.h5", "train")
    Traceback (most recent call last):
        ...
    mirrax._errors.DataError: cannot read usps.h5: No such file or directory; ...
    """
    try:
        with open(path, "rb"):  # h5py's own messages for these are long
            pass
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        import h5py
    except ImportError as error:
        raise DataError(
            f"{os.fspath(path)} is HDF5, which needs h5py; install mirrax with the extra [data], or"
            " use the text files zip.train.gz and zip.test.gz"
        ) from error
    name = f"{os.fspath(path)} ({part})"
    try:
        with h5py.File(path, "r") as file:
            images = _h5_array(file, f"{part}/data", (_SIDE * _SIDE,), name)
            labels = _h5_array(file, f"{part}/target", (), name)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # as h5py fails
        raise DataError(f"{name} is not HDF5 or is damaged; get the file again") from error
    if len(images) != len(labels):
        raise DataError(
            f"{name} has {len(images):,} images and {len(labels):,} labels; get the file again"
        )
    _check_range(images, 0.0, name)
    return _task_arrays(images, labels, name)


def _table(data: bytes, name: str) -> np.ndarray:
    wrong = f"{name} is not USPS text ({_FIELDS} numbers a line: a digit and 256 values)"
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        raise DataError(f"{wrong}: byte {error.start:,} is no text; get the file again") from error
    # Looking at one line first keeps a file of another kind from becoming a huge table.
    first = text.lstrip().partition("\n")[0].split()
    if len(first) != _FIELDS:
        raise DataError(f"{wrong}: the first line has {len(first)}; get the file again")
    try:
        return np.loadtxt(io.StringIO(text), dtype=np.float64, comments=None, ndmin=2)
    except (ValueError, OverflowError) as error:
        reason = str(error).partition(";")[0].partition("\n")[0]
        raise DataError(f"{wrong}: {reason}; get the file again") from error


def _h5_array(file: Any, key: str, tail: tuple[int, ...], name: str) -> np.ndarray:
    import h5py

    dataset: Any = file
    for part in key.split("/"):
        # Links to other files, and numbers kept in them, would be read on the word of this one.
        own = isinstance(dataset, h5py.Group) and isinstance(
            dataset.get(part, getlink=True), h5py.HardLink
        )
        dataset = dataset[part] if own else None
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "iuf":
        raise DataError(f"{name}: it has no data set of numbers {key!r}; get the published usps.h5")
    shape: Any = dataset.shape or ()
    if len(shape) != 1 + len(tail) or shape[1:] != tail or not 0 < shape[0] <= _MOST_IMAGES:
        needed = ", ".join(["n", *map(str, tail)])
        raise DataError(f"{name}: {key!r} has shape {shape}; ({needed}) is needed")
    if dataset.external or dataset.is_virtual or dataset.nbytes > _most_bytes(dataset):
        raise DataError(f"{name}: {key!r} is not all in the file; get the published usps.h5")
    with np.errstate(invalid="ignore"):  # what is no number is refused below
        return np.asarray(dataset[...], dtype=np.float64)


def _most_bytes(dataset: Any) -> int:
    """What the stored bytes of a data set may expand to."""
    return dataset.id.get_storage_size() * (LARGEST_RATIO if dataset.compression else 1)


def _check_range(values: np.ndarray, low: float, name: str) -> None:
    wrong = ~((values >= low) & (values <= 1.0))  # true for NaN as well
    if wrong.any():
        image = int(np.argwhere(wrong)[0][0])
        value = values[image][wrong[image]][0]
        raise DataError(
            f"{name}: image {image:,} has the value {value:g}, outside [{low:g}, 1]; mend or"
            " replace the file"
        )


def _task_arrays(
    pixels: np.ndarray, labels: np.ndarray, name: str
) -> tuple[np.ndarray, np.ndarray]:
    wrong = np.flatnonzero(~np.isin(labels, np.arange(10)))
    if wrong.size:
        index = int(wrong[0])
        raise DataError(f"{name}: label {index:,} is {labels[index]:g}, no digit; get it again")
    images = pixels.reshape(-1, _SIDE, _SIDE, 1).astype(np.float32)
    return images, labels.astype(np.int32)
