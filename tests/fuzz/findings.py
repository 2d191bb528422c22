"""Files that a reader once took wrongly or fell over, each by what it is; all are refused now."""

import io
import json
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Seeds = tuple[bytes, ...]
Make = Callable[[Seeds], bytes]


def replaced(old: bytes, new: bytes, seed: int = 0) -> Make:
    """A seed in which something stands for something else."""

    def make(seeds: Seeds) -> bytes:
        assert old in seeds[seed], (old, seeds[seed][:2000])
        return seeds[seed].replace(old, new, 1)

    return make


def in_record(old: bytes, new: bytes, seed: int = 0) -> Make:
    """An archive with another record, its header and length put right."""

    def make(seeds: Seeds) -> bytes:
        data = seeds[seed]
        length = int.from_bytes(data[:8], "little")
        header = data[8 : 8 + length]
        assert old in header, (old, header)
        header = header.replace(old, new, 1).rstrip(b" ")
        header += b" " * (-len(header) % 8)
        return len(header).to_bytes(8, "little") + header + data[8 + length :]

    return make


def _zip(files: list[tuple[str, bytes]], kind: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, data in files:
            info = zipfile.ZipInfo(name)
            info.compress_type = kind
            archive.writestr(info, data)
    return stream.getvalue()


def _images_of(seeds: Seeds) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(seeds[0])) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def _twice(seeds: Seeds) -> bytes:
    """Two entries of one name: both would be read as the last."""
    (first, data), (second, other), *_ = _images_of(seeds)
    assert len(first) == len(second)
    return _zip([(first, data), (second, other)]).replace(second.encode(), first.encode())


def _by_lzma(seeds: Seeds) -> bytes:
    """Of lzma a file chooses how much memory its dictionary takes."""
    return _zip(_images_of(seeds), zipfile.ZIP_LZMA)


def _huge_png(seeds: Seeds) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 9_000, 9_000, 8, 6, 0, 0, 0)
    start = (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )
    return start + seeds[0][33:]


def _h5(write: Callable[[Any], None]) -> Make:
    def make(seeds: Seeds) -> bytes:
        import h5py

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "usps.h5")
            path.write_bytes(seeds[0])
            with h5py.File(path, "r+") as file:
                write(file)
            return path.read_bytes()

    return make


def _linked(file: Any) -> None:
    import h5py

    del file["train"]["data"]
    file["train"]["data"] = h5py.ExternalLink("/tmp/other.h5", "data")


def _never_stored(file: Any) -> None:
    for name, tail in (("data", (256,)), ("target", ())):
        del file["train"][name]
        file["train"].create_dataset(name, (100_000, *tail), np.float32)


def _long_list(seeds: Seeds) -> bytes:
    """More than is read: the rest would be missing, and nobody told."""
    return b"filename,label\n" + b"".join(b"%0999d.jpg,a\n" % i for i in range(17_000))


def _padded_tar(seeds: Seeds) -> bytes:
    """An entry that says it has eight gigabytes."""
    data = bytearray(seeds[0])
    data[124:136] = b"77777777777\0"
    return bytes(data)


def _deep(seeds: Seeds) -> bytes:
    """A geometry in a geometry in a geometry, 300 times."""
    node: Any = (inmost := {"class": "Euclidean", "fields": {}, "static": {}})
    for _ in range(300):
        node = {"class": "Scaled", "static": {}, "fields": {"geometry": node}}
    return in_record(_quoted(inmost), _quoted(node), 9)(seeds)


def _quoted(value: Any) -> bytes:
    """JSON as it stands in a header: in a text of JSON in a text of JSON."""
    text = json.dumps(value, separators=(",", ":"))
    return json.dumps(json.dumps(text)[1:-1])[1:-1].encode()


def _not_a_number(seeds: Seeds) -> bytes:
    return seeds[0][:-8] + np.float64(np.nan).tobytes()


def _long_name(seeds: Seeds) -> bytes:
    """The name in front of the first image is said to be as long as what follows."""
    seed = seeds[0]
    return seed[:26] + min(len(seed) - 60, 3000).to_bytes(2, "little") + seed[28:]


FINDINGS: dict[str, tuple[str, Make]] = {
    "zip of a later version": ("zip", replaced(b"PK\1\2\x14\3\x14", b"PK\1\2\x14\3\x60")),
    "zip with a name that is no text": ("zip", lambda s: s[1].replace(b"\xc3\xa4/", b"\xff\xa4/")),
    "zip with a name twice": ("zip", _twice),
    "zip by lzma": ("zip", _by_lzma),
    "zip with two names, one of them long": ("zip", _long_name),
    "zip with a line break in a name": ("zip", lambda s: _zip([("a\nb/c.png", b"")])),
    "png of 81 million pixels in 300 bytes": ("image", _huge_png),
    "h5 with a link to another file": ("usps-h5", _h5(_linked)),
    "h5 of numbers that were never stored": ("usps-h5", _h5(_never_stored)),
    "csv with an image twice": ("csv", replaced(b"n02-1.jpg", b"n01-1.jpg")),
    "csv with an open quote": ("csv", replaced(b'""02"', b"02")),
    "csv of more than is read": ("csv", _long_list),
    "tar whose entry has eight gigabytes": ("cifar-tar", _padded_tar),
    "tar with a size that is no number": (
        "cifar-tar",
        replaced(b"00000006\0", b"\x80\0\0\0\0\0\0\xff\0"),
    ),
    "archive that ends at infinity": ("archive-signed", in_record(b"[0,8]", b"[0,1e999]")),
    "archive whose record is a list": (
        "archive-signed",
        in_record(rb"\"metadata\":\"{}", rb"\"metadata\":\"[]", 1),
    ),
    "archive with a key twice": (
        "archive-signed",
        in_record(rb"\"format\"", rb"\"format\":1,\"format\""),
    ),
    "artifact nested 300 times": ("artifact", _deep),
    "artifact with a rate in quotes": (
        "artifact",
        in_record(rb"\\\"rate\\\":0.1", rb"\\\"rate\\\":\\\"0.1\\\""),
    ),
    "artifact with a rate that is true": (
        "artifact",
        in_record(rb"\\\"rate\\\":0.1", rb"\\\"rate\\\":true"),
    ),
    "artifact of version zero": (
        "artifact",
        in_record(rb"\\\"version\\\":1", rb"\\\"version\\\":0"),
    ),
    "artifact with half a row": (
        "artifact",
        in_record(rb"\\\"shape\\\":[2,3]", rb"\\\"shape\\\":[2.5,3]"),
    ),
    "artifact with the table of another": (
        "artifact",
        in_record(rb"\\\"shape\\\":[2,3]", rb"\\\"shape\\\":[3,2]"),
    ),
    "artifact with a number for true": (
        "artifact",
        in_record(rb"\\\"separable\\\":false", rb"\\\"separable\\\":3", 8),
    ),
    "artifact with NaN": ("artifact", _not_a_number),
    "checkpoint of another type": ("checkpoint-signed", in_record(b'"F64"', b'"I64"')),
    "config with text for a number": ("config", replaced(b'"steps": ', b'"steps": "9", "_": ')),
    "config with true for a number": ("config", replaced(b'"seed": 0', b'"seed": true')),
    "config with a field twice": ("config", replaced(b'"seed": 0', b'"seed": 0, "seed": 1')),
    "config with an infinite rate": ("config", replaced(b'"seed": 0', b'"seed": 0, "x": 1e999')),
    "config with a field of a long name": (
        "config",
        replaced(b'"steps": ', b'"' + b"s" * 3000 + b'": '),
    ),
    "config of a recipe of a long name": (
        "config",
        replaced(b'"recipe": "', b'"recipe": "r' + b"[" * 3000),
    ),
    "config of a thousand levels": ("config", replaced(b'"seed": 0', b'"seed": ' + b"[" * 1000)),
    "summary with a number that is no float": (
        "summary",
        replaced(b'"seeds": ', b'"seeds": 1' + b"0" * 400),
    ),
    "summary without what its table shows": ("summary", replaced(b'"task": ', b'"_": ', 7)),
    "metrics whose round is true": ("metrics", replaced(b'"round": 1', b'"round": true')),
    "journal of a thousand levels": ("journal", lambda s: s[0] + b"[" * 1000 + b"\n"),
    "journal with a cut line": ("journal", lambda s: s[0] + b'{"op_code":1\n'),
    "journal with a value of something else": (
        "journal",
        replaced(b'"params":{"learning_rate"', b'"params":{"learning_sate"'),
    ),
    "journal with two values of a trial": (
        "journal",
        replaced(b'"values":[0.5]', b'"values":[0,5]'),
    ),
    "record whose command is a list": ("record", replaced(b'"command": ', b'"command": [], "_": ')),
    "record whose versions are a list": (
        "record",
        replaced(b'"versions": ', b'"versions": [1], "_": '),
    ),
    "method in a package above": ("method", lambda s: b".json:dumps"),
    "method of no module": ("method", lambda s: b":dumps"),
    "method of a long name": ("method", lambda s: b"maml" + b"9" * 3000),
    "method of a module with a long name": ("method", lambda s: b"m" * 3000 + b":maml"),
    "method of a long name in a module": ("method", lambda s: b"mirrax.methods:" + b"m" * 3000),
}
