"""Downloading the published files of a data set, each compared with its checksum."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._errors import DataError
from .._files import explain
from ._editions import DataFile, Source
from ._sources import Folder, Verified, data_folder, find_files, find_source, missing_line, verify


def fetch(name: str, folder: Folder = None, *, progress: Any = False) -> tuple[Verified, ...]:
    """Downloads what is missing of a data set's first edition, with checksums.

    **Arguments:**

    - `name`: one of `SOURCES`.
    - `folder`: the data folder, which must exist; see `data_folder`. Files go to our layout in it.
    - `progress`: an object with `total`, `update`, `reset` and `close` that is told of each part
        received (see pooch's `HTTPDownloader`); `False` for none.

    **Returns:**

    One `Verified` a file, as `verify`.

    **Raises:**

    - `DataError`: a set that nobody serves, no network, another checksum, or a disk that cannot be
        written; no half-written file is left.

    >>> fetch("mnist", "nowhere")
    Traceback (most recent call last):
        ...
    mirrax._errors.DataError: data folder nowhere does not exist; ...
    """
    source, root = find_source(name), data_folder(folder)
    if not source.base and not missing_line(source, root):
        return verify(name, root)
    if not source.base:
        by_hand = _by_hand(source, root / source.folders[0])
        raise DataError(f"{source.title} is not served for download; {by_hand}")
    edition = source.editions[0]
    present = find_files(source, edition, root)
    for file in edition.files:
        if file.role not in present:
            _download(source, file, root / source.folders[0], progress)
    return verify(name, root)


def _download(source: Source, file: DataFile, folder: Path, progress: Any) -> None:
    try:
        import pooch
        import requests
    except ImportError as error:
        raise DataError(
            f"fetching needs pooch; install it or {_by_hand(source, folder)}"
        ) from error
    known = f"sha256:{file.sha256}" if file.sha256 else f"md5:{file.md5}" if file.md5 else None
    url = source.base + file.name
    downloader: Any = pooch.HTTPDownloader(progressbar=progress, timeout=30)
    try:
        with _quiet(pooch.get_logger()):
            pooch.retrieve(url, known, fname=file.name, path=folder, downloader=downloader)
    except requests.RequestException as error:
        reason = f"cannot fetch {url} ({type(error).__name__})"
        raise DataError(f"{reason}; check the network, or {_by_hand(source, folder)}") from error
    except OSError as error:
        raise DataError(f"cannot write {folder / file.name}: {explain(error)}") from error
    except ValueError as error:  # pooch's answer to another checksum
        reason = f"what {url} sent has another checksum than published"
        raise DataError(f"{reason}; try again later, or {_by_hand(source, folder)}") from error


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Leaves announcing downloads to whoever shows the progress."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _by_hand(source: Source, folder: Path) -> str:
    return f"get the files from {source.site} into {folder} by hand"
