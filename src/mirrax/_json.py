"""JSON as this library writes it, and as anybody may have written it.

JSON has no NaN and no infinity: what is written has `null` there, and what is read may not have
them unless the reader says so. Nothing is accepted that has no single meaning.
"""

import json
import math
import os
from collections import Counter
from typing import Any

_DEEPEST = 100  # levels of JSON; what is written here has a dozen
_MOST_DIGITS = 300  # of a whole number, so that it is a float as well


def to_json(obj: Any, *, indent: int | None = None) -> str:
    """An object as JSON, in the form of `write_json`.

    >>> to_json({"bound": float("nan")})
    '{"bound": null}'
    """
    return json.dumps(plain(obj), indent=indent, ensure_ascii=False, allow_nan=False)


def plain(obj: Any) -> Any:
    """An object in JSON's own types: lists for tuples, `None` for numbers that are not finite.

    >>> plain({"bounds": (1.0, float("inf"))})
    {'bounds': [1.0, None]}
    """
    if isinstance(obj, str):
        return _writable(obj)
    if isinstance(obj, dict):
        return {_writable(str(key)): plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [plain(value) for value in obj]
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) else None
    if isinstance(obj, os.PathLike):
        return _writable(os.fsdecode(obj))
    if hasattr(obj, "tolist"):  # numpy and JAX, without importing either
        return plain(obj.tolist())
    return obj


def parse_json(data: bytes | str, *, finite: bool = True) -> Any:
    """Parses JSON that anybody may have written, and refuses what has no single meaning.

    **Arguments:**

    - `data`: the whole text, in UTF-8 where it is bytes, with or without a mark at its beginning.
    - `finite`: refuse NaN and infinite numbers, which `write_json` never writes.

    **Raises:**

    - `ValueError`: in one line, for text that is no JSON, a key that stands twice in one object,
        half a character, a number that no float holds, or more than 100 levels.

    >>> parse_json(b'{"rate": 0.5, "rate": 5.0}')
    Traceback (most recent call last):
        ...
    ValueError: the key 'rate' stands twice
    """
    text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
    number = _finite if finite else None
    deep = ValueError(f"it has more than {_DEEPEST} levels")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_without_repeats,
            parse_int=_whole,
            parse_float=number,
            parse_constant=number,
        )
    except RecursionError as error:
        raise deep from error
    level = [value]
    for _ in range(_DEEPEST):
        level = [child for node in level for child in _inner(node)]
    if level:
        raise deep
    if "\\ud" in text.casefold():  # half a pair cannot be written again
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _writable(text: str) -> str:
    r"""A text as UTF-8 can hold it: the bytes of a path that are none are escaped.

    >>> _writable(os.fsdecode(b"run-\xff")), _writable("Δθ")
    ('run-\\udcff', 'Δθ')
    """
    return text.encode(errors="backslashreplace").decode()


def _inner(node: Any) -> list[Any]:
    """The objects and lists in a value."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [child for child in inner if isinstance(child, dict | list)]


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key[:80]!r} stands twice")
    return found


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(text):,} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:80]} is no finite number")
    return value
