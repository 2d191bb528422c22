"""The reader of tars, against what `tarfile` writes in each of its formats."""

import gzip
import io
import tarfile

import pytest

from mirrax._errors import DataError
from mirrax.tasks._bytes import ByteSource
from mirrax.tasks._tar import read_members

FILES = {"a.bin": b"", "folder/b.bin": b"b" * 512, "folder/c.bin": b"c" * 1300}
LONG = "long/" + "n" * 120 + "/d.bin"


def tar(kind: int, files: dict[str, bytes], link: str | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        if link is not None:
            member = tarfile.TarInfo("folder/link.bin")
            member.type, member.linkname = tarfile.SYMTYPE, link
            archive.addfile(member)
    return stream.getvalue()


def source(data: bytes) -> ByteSource:
    return ByteSource(io.BytesIO(data), "a.tar")


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_of_every_format(kind, compress):
    files = {**FILES, LONG: b"d", "z.bin": b"z" * 5}
    sizes = {name: len(data) for name, data in files.items() if name != LONG}
    found = read_members(source(compress(tar(kind, files))), sizes)
    assert found == {name: files[name] for name in sizes}


def test_a_long_name_of_ustar():
    name = "p" * 60 + "/" + "n" * 60
    assert read_members(source(tar(tarfile.USTAR_FORMAT, {name: b"1"})), {name: 1}) == {name: b"1"}


def test_links_are_not_followed():
    data = tar(tarfile.GNU_FORMAT, FILES, link="/etc/passwd")
    with pytest.raises(DataError, match="no file folder/link.bin"):
        read_members(source(data), {"folder/link.bin": 0})


def test_every_cut_and_every_damaged_header_is_seen():
    data = tar(tarfile.GNU_FORMAT, FILES)
    sizes = {name: len(content) for name, content in FILES.items()}
    end = data.rstrip(b"\0").__len__() // 512 * 512
    for length in range(0, end, 97):
        with pytest.raises(DataError):
            read_members(source(data[:length]), sizes)
    for place in range(512):
        changed = bytearray(data)
        changed[place] ^= 0x21
        with pytest.raises(DataError) as raised:
            read_members(source(bytes(changed)), sizes)
        assert "\n" not in str(raised.value)


def test_a_changed_byte_of_a_gzipped_file_is_seen():
    """The checksum of gzip is compared, though files lie in the middle."""
    data = bytearray(gzip.compress(tar(tarfile.GNU_FORMAT, FILES), compresslevel=0))
    place = data.index(b"cccc")
    data[place] ^= 1
    with pytest.raises(DataError, match="is damaged"):
        read_members(source(bytes(data)), {"folder/c.bin": 1300})


def test_a_file_twice():
    member = tar(tarfile.GNU_FORMAT, {"a": b"1"})[:1024]
    twice = member + tar(tarfile.GNU_FORMAT, {"a": b"2"})
    with pytest.raises(DataError, match="two files a"):
        read_members(source(twice), {"a": 1})
