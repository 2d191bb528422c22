"""Finding and verifying the published files of a data set.

A data set is either exactly what was published or an error: where the checksum of a file is known
it must match, compressed or not, before one number of it is read.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from .._errors import DataError, nearest
from ._bytes import open_bytes, unreadable
from ._catalogue import SOURCES
from ._editions import DataFile, Edition, Source

_VARIABLE = "MIRRAX_DATA"
_CHUNK = 1 << 20
_MOST_CONTENT = 128 << 20  # the largest uncompressed file of the table has 47 MB
Folder = str | os.PathLike[str] | None


@dataclasses.dataclass(frozen=True)
class Located:
    """A data set found on disk.

    **Arguments:**

    - `source`: its row in the table of data sets.
    - `edition`: which of its editions is complete.
    - `paths`: role to file.
    """

    source: Source
    edition: Edition
    paths: Mapping[str, Path]


@dataclasses.dataclass(frozen=True)
class Verified:
    """What was established about one file.

    **Arguments:**

    - `path`: the file.
    - `size`: its bytes.
    - `evidence`: the checksum that matched, or that none is published and only structure and
        counts are checked on loading.
    """

    path: Path
    size: int
    evidence: str


def find_source(name: str) -> Source:
    """Looks a data set up by name.

    **Arguments:**

    - `name`: one of `SOURCES`.

    **Returns:**

    Its row in the table.

    **Raises:**

    - `DataError`: no such name; the nearest are suggested.

    >>> find_source("mnsit")
    Traceback (most recent call last):
        ...
    mirrax._errors.DataError: unknown data set 'mnsit'. Did you mean 'mnist' or 'qmnist'? Known...
    """
    if name not in SOURCES:
        known = ", ".join(SOURCES)
        raise DataError(f"unknown data set {name!r}.{nearest(name, SOURCES)} Known are: {known}")
    return SOURCES[name]


def data_folder(folder: Folder = None) -> Path:
    """The folder of data sets: the argument, else the environment variable `MIRRAX_DATA`.

    **Arguments:**

    - `folder`: a path, or `None` or an empty text to use the environment.

    **Returns:**

    The folder.

    **Raises:**

    - `DataError`: neither is given, there is no such folder, or it cannot be reached.

    >>> data_folder("nowhere")
    Traceback (most recent call last):
        ...
    mirrax._errors.DataError: data folder nowhere does not exist; pass --data DIR or set ...
    """
    remedy = f"pass --data DIR or set {_VARIABLE} to the folder that holds mnist/, usps/, …"
    chosen = folder or os.environ.get(_VARIABLE)
    if not chosen:
        raise DataError(f"no data folder is given; {remedy}")
    try:
        path = Path(chosen).expanduser()
    except RuntimeError as error:
        raise DataError(f"data folder {chosen} is of a user without a home; {remedy}") from error
    try:
        if path.is_dir():
            return path
        state = "is not a folder" if path.exists() else "does not exist"
    except OSError as error:
        raise unreadable(path, error) from error
    raise DataError(f"data folder {path} {state}; {remedy}")


def locate(name: str, folder: Folder = None) -> Located:
    """Finds the files of a data set, in our layout or torchvision's, compressed or not.

    For MNIST that is `mnist/`, `MNIST/raw/` or `MNIST/` below the data folder.

    **Arguments:**

    - `name`: one of `SOURCES`.
    - `folder`: the data folder; see `data_folder`.

    **Returns:**

    The first edition of which every file is there.

    **Raises:**

    - `DataError`: unknown name, no data folder, a folder that cannot be read, or missing files; the
        line lists them, where they were looked for and who publishes them.

    >>> locate("usps", ".")
    Traceback (most recent call last):
        ...
    mirrax._errors.DataError: USPS is missing zip.train.gz and zip.test.gz (or usps.h5) in ...
    """
    source, root = find_source(name), data_folder(folder)
    found = [find_files(source, edition, root) for edition in source.editions]
    for edition, paths in zip(source.editions, found, strict=True):
        if len(paths) == len(edition.files):
            return Located(source, edition, paths)
    raise DataError(_missing_line(source, found, root))


def missing(folder: Folder = None, names: Iterable[str] | None = None) -> dict[str, str]:
    """Says which data sets are not in the folder, and for each in one line what to do.

    **Arguments:**

    - `folder`: the data folder; see `data_folder`.
    - `names`: the data sets to ask about; all by default.

    **Returns:**

    Name to line, for those with missing files or a folder that cannot be read.

    **Raises:**

    - `DataError`: unknown name, or no data folder.

    >>> sorted(missing(".", ["mnist", "svhn"]))
    ['mnist', 'svhn']
    """
    root, lines = data_folder(folder), {}
    for source in map(find_source, SOURCES if names is None else names):
        try:
            line = missing_line(source, root)
        except DataError as error:  # of one data set, while others may be whole
            line = str(error)
        if line:
            lines[source.name] = line
    return lines


def missing_line(source: Source, root: Path) -> str:
    """Says what to do about a data set that is not in a folder; empty where it is there.

    **Raises:**

    - `DataError`: a folder that cannot be read, in which it may be.
    """
    found = [find_files(source, edition, root) for edition in source.editions]
    files = [edition.files for edition in source.editions]
    if all(len(paths) < len(needed) for paths, needed in zip(found, files, strict=True)):
        return _missing_line(source, found, root)
    return ""


def verify(name: str, folder: Folder = None) -> tuple[Verified, ...]:
    """Compares every file of a data set with its published checksum.

    **Arguments:**

    - `name`: one of `SOURCES`.
    - `folder`: the data folder; see `data_folder`.

    **Returns:**

    One `Verified` a file.

    **Raises:**

    - `DataError`: as `locate`, and a file cut short or with another checksum.

    >>> verify("mnist", "nowhere")
    Traceback (most recent call last):
        ...
    mirrax._errors.DataError: data folder nowhere does not exist; ...
    """
    return verify_located(locate(name, folder))


def verify_located(located: Located) -> tuple[Verified, ...]:
    """Compares every file of a located data set with its published checksum, as `verify`."""
    files = located.edition.files
    return tuple(verify_file(located.paths[file.role], file, located.source) for file in files)


def verify_file(path: Path, file: DataFile, source: Source) -> Verified:
    """Compares one file with what is published about it.

    A copy that was decompressed, or compressed again, is accepted where the content is known.

    **Arguments:**

    - `path`: the file.
    - `file`, `source`: its rows in the table of data sets.

    **Returns:**

    What was established.

    **Raises:**

    - `DataError`: unreadable, cut short, damaged, or another checksum.
    """
    if file.name.endswith("/"):
        return Verified(path, 0, "a folder: structure and counts are checked on loading")
    try:
        size, published = path.stat().st_size, path.name == file.name
        digest = _file_digest(path, file)
    except OSError as error:
        raise unreadable(path, error) from error
    expected = (file.sha256 or file.md5) if published else file.content
    if expected is None:
        what = "of this file" if published else "of the uncompressed file"
        return Verified(
            path, size, f"no checksum {what} is published; structure checked on loading"
        )
    if digest == expected:
        return Verified(path, size, f"{'SHA-256' if len(digest) == 64 else 'MD5'} matches")
    if file.content is not None and published and _content_digest(path) == file.content:
        return Verified(path, size, "SHA-256 of the uncompressed content matches")
    cut = published and file.size is not None and size < file.size
    state = f"cut short ({size:,} of {file.size:,} bytes)" if cut else "not the published file"
    served = source.base and file in source.editions[0].files
    raise DataError(
        f"{path} is {state}: its checksum is {digest[:12]}…, not {expected[:12]}…; delete it and"
        f" get it again{f' from {source.base}{file.name}' if served else ''}"
    )


def find_files(source: Source, edition: Edition, root: Path) -> dict[str, Path]:
    """The files of an edition that are there: role to path; a `DataError` where one cannot see."""
    paths = {}
    for file in edition.files:
        names = [file.name, file.name.removesuffix(".gz")]
        candidates = (root / below / name for name in names for below in source.folders)
        there = Path.is_dir if file.name.endswith("/") else Path.is_file
        try:
            path = next(filter(there, candidates), None)
        except OSError as error:
            raise unreadable(error.filename or root, error) from error
        if path is not None:
            paths[file.role] = path
    return paths


def _missing_line(source: Source, found: list[dict[str, Path]], root: Path) -> str:
    lacks = []
    for edition, paths in zip(source.editions, found, strict=True):
        lacks.append(_listed([file.name for file in edition.files if file.role not in paths]))
    instead = "".join(f" (or {names})" for names in lacks[1:] if names not in lacks[0])
    by_command = f"run `mirrax data {source.name} --fetch`, or " if source.base else ""
    places = ", ".join(f"{below}/" for below in source.folders if below != ".")
    return (
        f"{source.title} is missing {lacks[0]}{instead} in {root} (looked in {places});"
        f" {by_command}get it from {source.site} into {root / source.folders[0]}"
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _file_digest(path: Path, file: DataFile) -> str:
    md5 = path.name == file.name and file.sha256 is None and file.md5 is not None
    digest = hashlib.md5(usedforsecurity=False) if md5 else hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(_CHUNK):
            digest.update(part)
    return digest.hexdigest()


def _content_digest(path: Path) -> str | None:
    """SHA-256 of the content; `None` if it does not decompress, or to more than any set has."""
    digest, rest = hashlib.sha256(), _MOST_CONTENT
    try:
        with open_bytes(path) as source:
            while rest > 0 and (part := source.take_at_most(_CHUNK)):
                digest.update(part)
                rest -= len(part)
    except DataError:
        return None
    return digest.hexdigest() if rest > 0 else None
