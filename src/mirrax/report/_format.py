"""How numbers and foreign words are written.

One rule for estimates: all rows of a column carry the same number of decimals, chosen so that the
smallest entry keeps three significant digits. Words that come out of files are stripped of control
characters, because tables are printed to terminals.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NOT_REACHED = "not reached"
ABSENT = "–"


def clean(text: object, limit: int | None = None) -> str:
    r"""One printable line of `text`, cut to `limit` characters.

    **Arguments:**

    - `text`: anything; it is converted with `str`.
    - `limit`: the largest length, or `None`.

    **Returns:**

    The text with control characters and line breaks turned into single spaces.

    >>> clean("a\x1b[31m\nb")
    'a [31m b'
    >>> clean("a long name", 7)
    'a long…'
    """
    line = " ".join(printable(text).split())
    if limit is not None and len(line) > limit:
        line = line[: limit - 1].rstrip() + "…"
    return line


def printable(text: object) -> str:
    r"""`text` with a space for every control character and line break, and all spaces kept.

    **Arguments:**

    - `text`: anything; it is converted with `str`.

    **Returns:**

    One line.

    >>> printable("a\n  b")
    'a   b'
    """
    return "".join(c if c.isprintable() else " " for c in str(text))


def finite(value: object) -> float | None:
    """`value` as a finite float, or `None` where it is absent, not a number or infinite.

    **Arguments:**

    - `value`: a number read from JSON.

    **Returns:**

    A float or `None`.

    >>> finite(2), finite(None), finite(float("nan")), finite("2")
    (2.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def estimate(entry: object, spread: str = "se") -> tuple[float | None, float | None]:
    """The mean and spread of an entry `{"mean": …, "se": …}`, a pair, or a bare number.

    **Arguments:**

    - `entry`: what a summary holds for one quantity.
    - `spread`: the name of its uncertainty: `"se"` or `"ci95"`.

    **Returns:**

    The pair `(mean, spread)`; either is `None` where it is unknown.

    >>> estimate({"mean": 0.5, "se": 0.1}), estimate(3), estimate(None)
    ((0.5, 0.1), (3.0, None), (None, None))
    """
    if isinstance(entry, Mapping):
        return finite(entry.get("mean")), finite(entry.get(spread))
    if isinstance(entry, Sequence) and not isinstance(entry, str) and len(entry) == 2:
        return finite(entry[0]), finite(entry[1])
    return finite(entry), None


def decimals(values: Iterable[float | None], at_most: int = 5) -> int | None:
    """The number of decimals which leaves the smallest of `values` three significant digits.

    **Arguments:**

    - `values`: the entries of one column; `None` and zero are passed over.
    - `at_most`: more decimals than this are never shown.

    **Returns:**

    A number of decimals, or `None` where scientific notation is needed.

    >>> decimals([0.0342, 1.5]), decimals([108.0, 205.0]), decimals([1e-9])
    (4, 0, None)
    """
    sizes = [abs(v) for v in values if v]
    if not sizes:
        return 0
    needed = 2 - math.floor(math.log10(min(sizes)))
    if needed > at_most + 1 or max(sizes) >= 1e7:
        return None
    return min(max(needed, 0), at_most)


def number(value: float | None, places: int | None = None) -> str:
    """A number with `places` decimals, or with four significant digits where it is `None`.

    **Arguments:**

    - `value`: the number; `None` is shown as a dash.
    - `places`: decimals.

    **Returns:**

    The text, with a true minus sign.

    >>> number(-1.9412, 2), number(12345.678), number(None)
    ('−1.94', '1.235e+04', '–')
    """
    if value is None:
        return ABSENT
    text = f"{value:.4g}" if places is None else f"{value:,.{places}f}"
    return text.replace("-", "−", 1) if text.startswith("-") else text


def plus_minus(mean: float | None, error: float | None, places: int | None) -> str:
    """`mean ± error`, or the mean alone where no error is known.

    **Arguments:**

    - `mean`, `error`: the estimate and its uncertainty.
    - `places`: decimals of both; `None` for four significant digits.

    **Returns:**

    The text of one table cell.

    >>> plus_minus(97.41, 0.12, 2), plus_minus(3.0, None, 0)
    ('97.41 ± 0.12', '3')
    """
    if mean is None or error is None:
        return number(mean, places)
    return f"{number(mean, places)} ± {number(error, places)}"


def count(value: object) -> str:
    """A number that something has, empty where there is none.

    >>> count(1280), count(None)
    ('1,280', '')
    """
    found = finite(value)
    return "" if found is None else f"{found:,.0f}"


def plural(value: object, noun: str, rest: str = "") -> str:
    """How many of something there are, empty where it is not known.

    **Arguments:**

    - `value`: how many.
    - `noun`: of what one is.
    - `rest`: what follows.

    >>> plural(1, "seed"), plural(1000, "test task"), plural(None, "seed")
    ('1 seed', '1,000 test tasks', '')
    """
    found = count(value)
    return f"{found} {noun}{'' if found == '1' else 's'}{rest}" if found else ""


def words(key: str) -> str:
    """A field name as words.

    **Arguments:**

    - `key`: a name such as `learning_rate`.

    **Returns:**

    The name with spaces.

    >>> words("learning_rate")
    'learning rate'
    """
    return clean(key).replace("_", " ")


def fields(mapping: Mapping[str, Any]) -> str:
    """Named values on one line, for hyper-parameters and hardware.

    **Arguments:**

    - `mapping`: names to values.

    **Returns:**

    `"name value, name value"`.

    >>> fields({"learning_rate": 0.1, "weight_decay": 1e-4})
    'learning rate 0.1, weight decay 0.0001'
    """
    return ", ".join(f"{words(k)} {_plain(v)}" for k, v in mapping.items())


def duration(seconds: float | None) -> str:
    """A length of time in the units one would say.

    **Arguments:**

    - `seconds`: a time in seconds, or `None`.

    **Returns:**

    Text such as `2 min 5 s`.

    >>> duration(12.34), duration(125), duration(7300)
    ('12.3 s', '2 min 5 s', '2 h 2 min')
    """
    if seconds is None:
        return ABSENT
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{minutes // 60} h {minutes % 60} min"


def file_size(count: float) -> str:
    """The size of a file in the unit one would say.

    **Arguments:**

    - `count`: bytes.

    **Returns:**

    Text such as `12 kB`.

    >>> file_size(800), file_size(12_345), file_size(3_400_000)
    ('800 B', '12.3 kB', '3.4 MB')
    """
    for unit, size in (("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.3g} {unit}" if count < 1e9 else f"{count / size:,.0f} {unit}"
    return f"{count:.0f} B"


def _plain(value: object) -> str:
    """A value of a JSON field without Python's quotes and brackets."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "(" + fields(value) + ")"
    if isinstance(value, list | tuple):
        return " ".join(_plain(v) for v in value)
    return clean(value)
