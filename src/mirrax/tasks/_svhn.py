"""SVHN's cropped digits, MATLAB files `train_32x32.mat` and `test_32x32.mat`.

`X` is `(32, 32, 3, n)` uint8, `y` is `(n, 1)` with the digit 0 written as 10 (Netzer et al.,
*Reading digits in natural images with unsupervised feature learning*, 2011).
"""

import os

import numpy as np

from .._errors import DataError
from ._bytes import open_bytes
from ._mat import Variable, declared, read_arrays

_IMAGE = (32, 32, 3)
_MOST_IMAGES = 1_000_000  # the published `extra` part has 531,131


def read_svhn(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Reads one part of SVHN.

    **Arguments:**

    - `path`: `train_32x32.mat`, `test_32x32.mat` or `extra_32x32.mat`.

    **Returns:**

    Images `(n, 32, 32, 3)`, uint8, and labels `(n,)`, int32, where 0 is the digit 0.

    **Raises:**

    - `DataError`: no such file, not a MATLAB file, cut short, variables missing, another shape or
        type (seen before anything large is read), or a label outside 1 … 10.

    >>> read_svhn("train_32x32.mat")
    Traceback (most recent call last):
        ...
    mirrax._errors.DataError: cannot read train_32x32.mat: No such file or directory; ...
    """
    name = os.fspath(path)
    with open_bytes(path) as source:
        _check_declared(declared(source), name)
    with open_bytes(path) as source:
        arrays = read_arrays(source, ("X", "y"))
    images, labels = arrays["X"], arrays["y"].ravel()
    if images.dtype != np.uint8:
        raise DataError(f"{name}: X is stored as {images.dtype}; uint8 is needed")
    wrong = np.flatnonzero(~np.isin(labels, np.arange(1, 11)))
    if wrong.size:
        index = int(wrong[0])
        raise DataError(f"{name}: label {index:,} is {labels[index]}; 1 … 10 are needed")
    # MATLAB's order is the reverse of ours, so each image is moved once.
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.astype(np.int32) % 10


def _check_declared(found: dict[str, Variable], name: str) -> None:
    images, labels = (found.get(key, Variable((), "missing")) for key in ("X", "y"))
    count = images.shape[3] if len(images.shape) == 4 else 0
    fits = images.shape[:3] == _IMAGE and labels.shape == (count, 1)
    if not fits or not 0 < count <= _MOST_IMAGES:
        raise DataError(
            f"{name}: X has shape {images.shape} and y {labels.shape}; (32, 32, 3, n) and (n, 1)"
            " are needed, as in the published 32x32 files"
        )
    if images.kind != "uint8" or labels.kind == "other":
        raise DataError(
            f"{name}: X is {images.kind} and y {labels.kind}; uint8 and numbers are needed"
        )
