"""Lists that say of which class an image is, where folders do not."""

import csv
import io
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

    - `DataError`: unreadable, not of that form, or with an image twice.
    """
    with open_bytes(path) as source:
        data = source.take_at_most(_MOST_BYTES)
        source.finish()
    try:
        found, *rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        _check_rows(found, rows, header)
    except (ValueError, csv.Error) as error:
        needed = f"{','.join(header)} and a line an image"
        raise DataError(f"{path} is not a list of images ({needed}): {error}") from error
    return {name: label for name, label in rows}


def _check_rows(found: list[str], rows: list[list[str]], header: tuple[str, str]) -> None:
    if tuple(found) != header or not rows:
        raise ValueError(f"the header is {','.join(found)[:80]!r}, or no line follows")
    seen: set[str] = set()
    for number, row in enumerate(rows, 2):
        if len(row) != len(header) or not all(field and field.isprintable() for field in row):
            raise ValueError(f"line {number} has not two fields of text")
        if row[0] in seen:
            raise ValueError(f"line {number} names {row[0][:80]!r} again")
        seen.add(row[0])


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

    - `DataError`: an image that is in no list, in two, or in the folder of another class.
    """
    label_of: dict[str, str] = {}
    for part, rows in listed.items():
        for name in sorted(label_of.keys() & rows.keys()):
            raise DataError(f"the list {part} names {name}, which another has named; get it again")
        label_of |= rows
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
