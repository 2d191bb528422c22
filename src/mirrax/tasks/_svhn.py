"""SVHN's cropped digits, MATLAB files `train_32x32.mat` and `test_32x32.mat`.

`X` is `(32, 32, 3, n)` uint8, `y` is `(n, 1)` with the digit 0 written as 10 (Netzer et al.,
*Reading digits in natural images with unsupervised feature learning*, 2011).

The reader is not exported: SciPy's parser trusts its input, and a changed byte can end the process.
`load_images` compares the published checksum before it calls this.
"""

import os
from typing import Any

import numpy as np

from .._errors import DataError
from ._bytes import unreadable

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
    _check_declared({entry[0]: entry[1:] for entry in _parsed("whosmat", path)}, name)
    variables = _parsed("loadmat", path)
    images, labels = np.asarray(variables["X"]), np.asarray(variables["y"]).ravel()
    if images.dtype != np.uint8 or labels.dtype.kind not in "iuf":
        found = f"X is {images.dtype} and y {labels.dtype}"
        raise DataError(f"{name}: {found}; uint8 and numbers are needed")
    wrong = np.flatnonzero(~np.isin(labels, np.arange(1, 11)))
    if wrong.size:
        index = int(wrong[0])
        raise DataError(f"{name}: label {index:,} is {labels[index]}; 1 … 10 are needed")
    # MATLAB's order is the reverse of ours, so each image is moved once.
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.astype(np.int32) % 10


def _parsed(function: str, path: str | os.PathLike[str]) -> Any:
    import scipy.io

    options = {"variable_names": ("X", "y")} if function == "loadmat" else {}
    try:
        stream = open(path, "rb")
    except OSError as error:
        raise unreadable(path, error) from error
    with stream:
        try:
            return getattr(scipy.io, function)(stream, **options)
        except Exception as error:  # a damaged file makes the parser fail in a dozen ways
            raise DataError(
                f"{os.fspath(path)} is not a MATLAB 5 file or is damaged; get the file again"
            ) from error


def _check_declared(declared: dict[str, tuple[Any, ...]], name: str) -> None:
    shapes = {variable: tuple(entry[0]) for variable, entry in declared.items()}
    images, labels = shapes.get("X", ()), shapes.get("y", ())
    count = images[3] if len(images) == 4 else 0
    if images[:3] != _IMAGE or not 0 < count <= _MOST_IMAGES or labels != (count, 1):
        raise DataError(
            f"{name}: X has shape {images} and y {labels}; (32, 32, 3, n) and (n, 1) are needed, as"
            " in the published 32x32 files"
        )
    if declared["X"][1] != "uint8":
        raise DataError(f"{name}: X is {declared['X'][1]}; uint8 is needed")
