"""Lists that say of which class an image is, where folders do not."""

import csv
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from .._errors import DataError
from ._bytes import open_bytes
from ._filed import Entry, FiledImages

_MOST_BYTES = 1 << 24  # of a csv; the largest, of 50,000 images, has a few MB


def read_list(path: Path, header: tuple[str, str]) -> dict[str, str]:
    """Reads a csv of two columns that names the class of every image.

    **Arguments:**

    - `path`: the file.
    - `header`: the names of its columns.

    **Returns:**

    First column to second.

    **Raises:**

    - `DataError`: unreadable, or not of that form.
    """
    with open_bytes(path) as source:
        data = source.take_at_most(_MOST_BYTES)
    try:
        found, *rows = csv.reader(data.decode("utf-8-sig").splitlines())
        if tuple(found) != header or not rows or any(len(row) != len(header) for row in rows):
            raise ValueError(f"the header is {','.join(found)!r}, or a line has not two fields")
    except (ValueError, csv.Error) as error:
        needed = f"{','.join(header)} and a line an image"
        raise DataError(f"{path} is not a list of images ({needed}): {error}") from error
    return {name: label for name, label in rows}


def file_by_list(
    images: FiledImages, listed: Mapping[str, Mapping[str, str]]
) -> dict[str, list[Entry]]:
    """Gathers images by the class their name is listed with; folders, where any, must agree.

    One level of folders that are no classes is the place where all images are kept, `images/`.

    **Arguments:**

    - `images`: where they are.
    - `listed`: a part's name to its list, file name to class.

    **Returns:**

    Class to its images.

    **Raises:**

    - `DataError`: an image that is in no list, or in the folder of another class.
    """
    label_of = {name: label for rows in listed.values() for name, label in rows.items()}
    classes = set(label_of.values())
    entries: dict[str, list[Entry]] = {}
    for path in images.paths:
        *folders, name = PurePosixPath(path).parts
        label = label_of.get(name)
        if label is None:
            raise DataError(f"{images.name}: image {path} is not listed in the csv; remove it")
        filed = len(folders) > 1 or not classes.isdisjoint(folders)
        if filed and folders[-1] != label:
            raise DataError(f"{images.name}: {path} is of class {label} by the csv; get it again")
        entries.setdefault(label, []).append((images, path))
    return entries
