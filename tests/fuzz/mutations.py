"""Small damages to valid files: a bit, a byte, a length field, a piece, a token of JSON.

Bytes drawn at random hardly pass the first magic number; a valid file with a few damages gets deep
into its reader.
"""

import re
from typing import NamedTuple

from hypothesis import strategies as st

KINDS = ("bit", "byte", "field", "cut", "delete", "repeat", "insert", "splice", "token", "token")
_FIELDS = (0, 1, 2, 7, 8, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
_FIELDS += (2**63, 2**64 - 1, 50_000)
_TOKEN = re.compile(rb'-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|"(?:[^"\\]|\\.)*"|true|false|null|[\[\]{}]')
WORDS = (
    b"null true false NaN Infinity -Infinity 1e999 -1 0 1 2 0.5 1.5 -0.0 [] {} [[]] [{}] [null]"
).split() + [
    b"9" * 400,
    b"1" * 19,
    b"[" * 2000,
    b'{"a":' * 400,
    b'""',
    b'"a"',
    b'"1"',
    b'"nan"',
    b'"../../x"',
    b'"/etc/passwd"',
    b'"\\ud800"',
    b'"\\u0000\\n"',
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x00",
    b"\n",
    b"\r\n",
    b'"',
    b",",
    b"\xe2\x80\xa8",
    b"nan",
    b"-inf",
    b"1e400",
    b"../",
    b"/",
    b"\x1f\x8b\x08\x00",
]


class Edit(NamedTuple):
    """One damage: where, as a share of 65,536, and with what."""

    kind: str
    place: int
    extent: int
    value: int


def edited(data: bytes, edit: Edit, seeds: tuple[bytes, ...]) -> bytes:
    """A file with one damage."""
    kind, place, extent, value = edit
    at = place * (len(data) + 1) >> 16
    end = min(len(data), at + 1 + extent % 64)
    match kind:
        case "bit" | "byte" if at < len(data):
            new = data[at] ^ (1 << value % 8) if kind == "bit" else value % 256
            return data[:at] + bytes([new]) + data[at + 1 :]
        case "field":
            width = (1, 2, 4, 8)[extent % 4]
            number = _FIELDS[value % len(_FIELDS)] % (1 << 8 * width)
            field = number.to_bytes(width, "little" if extent & 4 else "big")
            return data[:at] + field + data[at + width :]
        case "cut":
            return data[:at]
        case "delete":
            return data[:at] + data[end:]
        case "repeat":
            return data[:end] + data[at:end] * (1 + value % 3) + data[end:]
        case "insert":
            return data[:at] + WORDS[value % len(WORDS)] + data[at:]
        case "splice":
            other = seeds[value % len(seeds)]
            start = place * (len(other) + 1) >> 16
            return data[:at] + other[start : start + 4 * extent] + data[end:]
        case "token":
            found = [match.span() for match in _TOKEN.finditer(data[:20_000])]
            if found:
                start, stop = found[place * len(found) >> 16]
                word = WORDS[value % len(WORDS)]
                if extent % 2:  # or another token of the same file
                    word = data[slice(*found[value % len(found)])]
                return data[:start] + word + data[stop:]
    return data


def damaged(data: bytes, edits: list[Edit], seeds: tuple[bytes, ...]) -> bytes:
    """A file with several damages."""
    for edit in edits:
        data = edited(data, edit, seeds)
    return data


EDITS = st.builds(
    Edit,
    st.sampled_from(KINDS),
    st.integers(0, 65_535),
    st.integers(0, 255),
    st.integers(0, 65_535),
)


def files(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Valid files with up to four damages."""
    pairs = st.tuples(st.sampled_from(seeds), st.lists(EDITS, max_size=4))
    return pairs.map(lambda pair: damaged(*pair, seeds))
