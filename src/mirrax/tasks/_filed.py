"""Image files filed by class, `…/class/image.png`, in a folder or a zip alike.

Nothing is extracted and nothing is trusted: every image states its size before it is decoded.
"""

import contextlib
import io
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .._errors import DataError
from ._bytes import LARGEST_RATIO, unreadable

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif")
# Images too, which must not be lost unseen.
_NOT_READ = tuple(".webp .gif .bmp .tif .tiff .heic .heif .avif .ppm .pgm .jp2 .jxl".split())
_MOST_BYTES = 1 << 20  # of one file; a noisy 84×84 image has 20 kB

_MOST_PIXELS = (1 << 30) // 12  # more are a bomb to Pillow
_MOST_PIXELS_A_BYTE = LARGEST_RATIO * 8  # black and white

_PNG = b"\x89PNG\r\n\x1a\n"

_GET_AGAIN = "get it again"  # the remedy for a published set

Found = TypeVar("Found")


class FiledImages:
    """The images of a folder or a zip.

    **Arguments:**

    - `name`: what errors call it.
    - `entries`: every file and folder in it, folders with a `/` at the end.
    - `archive`: the zip; `None` where `name` is a folder.
    - `remedy`: what errors tell to do.

    **Raises:**

    - `DataError`: a folder without images, no image at all, or one of a format that is not read.
    """

    def __init__(
        self,
        name: str,
        entries: Iterable[str],
        archive: zipfile.ZipFile | None,
        remedy: str = _GET_AGAIN,
    ) -> None:
        self.name, self.remedy, self._archive = name, remedy, archive
        seen = [entry for entry in entries if not _is_hidden(entry)]
        _check_names(name, seen)
        images = (path for path in seen if path.lower().endswith(_SUFFIXES))
        self.paths = sorted(images, key=_normal)
        other = next((path for path in seen if path.lower().endswith(_NOT_READ)), None)
        if other:
            raise DataError(f"{name}: {other} is not read; make a PNG or JPEG file of it")
        if not self.paths:
            raise DataError(f"{name} holds no image ({', '.join(_SUFFIXES)}); {remedy}")
        filled = {str(parent) for path in self.paths for parent in PurePosixPath(path).parents}
        empty = [entry for entry in seen if entry.endswith("/") and _normal(entry) not in filled]
        if empty:
            raise DataError(f"{name}: folder {empty[0]} holds no image; {remedy}")

    def read(self, path: str, shape: tuple[int, int, int]) -> np.ndarray:
        """Decodes one image.

        **Arguments:**

        - `path`: one of `paths`.
        - `shape`: the height, width and channels it must have; one channel is grey.

        **Returns:**

        `shape`, uint8.

        **Raises:**

        - `DataError`: unreadable, damaged, or of another size.
        """

        def fit(image: "Picture") -> tuple[tuple[int, int], np.ndarray | None]:
            size = image.height, image.width
            if size != shape[:2]:
                return size, None
            return size, np.asarray(image.convert("L" if shape[2] == 1 else "RGB")).reshape(shape)

        size, pixels = self.convert(path, fit)
        if pixels is None:
            raise DataError(
                f"{self.name}: {path} is of {size[0]} × {size[1]} pixels; all images must be of"
                f" {shape[0]} × {shape[1]}, as published"
            )
        return pixels

    def convert(
        self, path: str, use: Callable[["Picture"], Found], most: int = _MOST_BYTES
    ) -> Found:
        """Opens one image, of any size.

        **Arguments:**

        - `path`: one of `paths`.
        - `use`: decodes it, and makes of it what is wanted.
        - `most`: bytes that the file may have.

        **Returns:**

        What `use` gives.

        **Raises:**

        - `DataError`: unreadable, damaged, or too large.
        """
        data = self._bytes(path, most)
        try:
            with _opened(data) as image:
                pixels = image.width * image.height
                if pixels <= min(_MOST_PIXELS, len(data) * _MOST_PIXELS_A_BYTE):
                    return use(image)
        except MemoryError:
            raise
        except Exception as error:  # a damaged file makes the decoders fail in a dozen ways
            raise DataError(
                f"{self.name}: {path} is no image or is damaged; {self.remedy}"
            ) from error
        raise DataError(
            f"{self.name}: {path} states {pixels:,} pixels, more than its {len(data):,} bytes can"
            f" hold, or than {_MOST_PIXELS:,}; {self.remedy}"
        )

    def _bytes(self, path: str, most: int) -> bytes:
        try:
            with self._open(path) as stream:
                data = stream.read(most + 1)
        except MemoryError:
            raise
        except Exception as error:  # zipfile and its decompressors fail in many ways as well
            why = str(error).partition("\n")[0]
            raise DataError(f"{self.name}: cannot read {path} ({why}); {self.remedy}") from error
        if len(data) > most:
            raise DataError(f"{self.name}: {path} is too large for an image of the set")
        return data

    def _open(self, path: str) -> contextlib.AbstractContextManager:
        if self._archive is None:
            file = Path(self.name, path)
            if file.exists() and not file.is_file():  # of a pipe there may be no end
                raise ValueError("it is no file")
            return file.open("rb")
        entry = self._archive.getinfo(path)
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("it is compressed in another way than by deflate")
        return self._archive.open(entry)


Entry = tuple[FiledImages, str]


@contextlib.contextmanager
def open_images(path: Path, remedy: str = _GET_AGAIN) -> Iterator[FiledImages]:
    """Opens a folder or a zip of images.

    **Arguments:**

    - `path`: the folder or zip.
    - `remedy`: what errors tell to do.

    **Returns:**

    A context manager that gives `FiledImages`.

    **Raises:**

    - `DataError`: unreadable, not a zip or one cut short, a folder without images, or no image.
    """
    name = os.fspath(path)
    try:
        is_folder = path.is_dir()
    except OSError as error:  # of what lies in a folder that is closed to us
        raise unreadable(path, error) from error
    if is_folder:
        yield FiledImages(name, _walk(path), None, remedy)
        return
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:  # as zipfile fails
        raise DataError(f"{name} is no zip or is cut short ({error}); {remedy}") from error
    except OSError as error:
        raise unreadable(path, error) from error
    with archive:
        yield FiledImages(name, archive.namelist(), archive, remedy)


def file_by_class(filed: Iterable[FiledImages], levels: int | None = 1) -> dict[str, list[Entry]]:
    """Gathers images by the folders they lie in.

    **Arguments:**

    - `filed`: where they are; a class may be in several.
    - `levels`: of how many folders above the image the class name is made; `None` for all of them.

    **Returns:**

    Class to its images, classes and images in the order of their names.

    **Raises:**

    - `DataError`: an image that lies in too few folders.
    """
    entries: dict[str, list[Entry]] = {}
    for images in filed:
        for path in images.paths:
            folders = _normal(path).split("/")[:-1][-(levels or 0) :]
            if len(folders) < (levels or 1):
                raise DataError(f"{images.name}: {path} is not filed by class; {images.remedy}")
            entries.setdefault("/".join(folders), []).append((images, path))
    return dict(sorted(entries.items()))


def read_entries(entries: Sequence[Entry], shape: tuple[int, int, int]) -> np.ndarray:
    """Decodes the images of a class, `(n, *shape)`, uint8."""
    stacked = np.empty((len(entries), *shape), np.uint8)
    for row, (images, path) in zip(stacked, entries, strict=True):
        row[:] = images.read(path, shape)
    return stacked


def _check_names(where: str, names: Sequence[str]) -> None:
    """Refuses names that two images share, or that no line of text can show."""
    for name in names:
        if not name.isprintable() and name.lower().endswith((*_SUFFIXES, *_NOT_READ, "/")):
            raise DataError(f"{where}: the name {name!r} is not printable; rename the file")
    images = Counter(_normal(name) for name in names if name.lower().endswith(_SUFFIXES))
    for name, count in images.most_common(1):
        if count > 1:
            raise DataError(f"{where} has two files {name!r}; remove one of them")


def _normal(entry: str) -> str:
    """An entry's name without what means nothing: some archivers write `./class/image.png`.

    >>> _normal("./class//image.png"), _normal("class/")
    ('class/image.png', 'class')
    """
    odd = entry.endswith("/") or "./" in entry or "//" in entry
    return str(PurePosixPath(entry)) if odd else entry  # of ImageNet's million, none


def _is_hidden(entry: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in _normal(entry).split("/"))


def _opened(data: bytes) -> "Picture":
    # Not by `Image.open`, which warns of many pixels, or fails, before their number can be said.
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    kind = PngImageFile if data.startswith(_PNG) else JpegImageFile
    return kind(io.BytesIO(data))


def _walk(root: Path) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise unreadable(error.filename or root, error) from error

    seen: set[str] = set()
    for folder, below, files in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            raise DataError(
                f"{root}: {folder} is a link to a folder that is in it; remove the link"
            )
        seen.add(real)
        relative = Path(folder).relative_to(root).as_posix()
        prefix = "" if relative == "." else f"{relative}/"
        yield from (f"{prefix}{name}/" for name in below)
        yield from (f"{prefix}{name}" for name in files)
