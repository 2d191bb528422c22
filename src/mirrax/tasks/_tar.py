"""Files of a tar, plain or gzipped, read forward; only those that are asked for are kept.

A file is a header of 512 bytes (name at 0, size at 124 and checksum at 148 in octal, type at 156,
in `ustar` the folder at 345) and its content in blocks of 512; a block of zeros ends the tar
(POSIX.1-1988). Links are not followed, and what extends a header (long names, attributes) is passed
over.
"""

from collections.abc import Mapping

from .._errors import DataError
from ._bytes import ByteSource

_BLOCK = 512
_MOST_PADDING = 1 << 20  # zeros behind the end, which fill the last record of a tape
_REGULAR = (b"0", b"\0")


def read_members(source: ByteSource, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Reads some files of a tar, each of a size that is known.

    **Arguments:**

    - `source`: the tar.
    - `sizes`: their names, and how many bytes each must have.

    **Returns:**

    Name to content.

    **Raises:**

    - `DataError`: damaged, cut short, or a file that is absent, there twice or of another size.
    """
    found: dict[str, bytes] = {}
    while (header := source.take(_BLOCK)) != bytes(_BLOCK):
        name, size = _name_and_size(header, source)
        padding = -size % _BLOCK
        if name not in sizes or header[156:157] not in _REGULAR:
            source.skip(size + padding)
            continue
        if name in found:
            raise DataError(f"{source.name} has two files {name}; get it again")
        if size != sizes[name]:
            how = "is cut short" if size < sizes[name] else "is wrong: more bytes follow"
            raise DataError(
                f"{source.name} ({name}) {how} ({size:,} for {sizes[name]:,} bytes); get it again"
            )
        found[name] = source.take(size)
        source.skip(padding)
    if source.take_at_most(_MOST_PADDING).strip(b"\0"):
        raise _damaged(source, "something follows its end")
    source.finish()
    for name in sizes:
        if name not in found:
            raise DataError(f"{source.name} has no file {name}; get it again")
    return found


def _name_and_size(header: bytes, source: ByteSource) -> tuple[str, int]:
    told = _octal(header[148:156], source)
    if told != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        raise _damaged(source, "a header has another checksum")
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return name.decode("latin-1"), _octal(header[124:136], source)


def _octal(field: bytes, source: ByteSource) -> int:
    digits = field.strip(b" \0")
    if not digits.isdigit() or digits.strip(b"01234567"):
        raise _damaged(source, "a header has a number that is not octal")
    return int(digits, 8)


def _damaged(source: ByteSource, how: str) -> DataError:
    return DataError(f"{source.name} is damaged, or no tar ({how}); get it again")
