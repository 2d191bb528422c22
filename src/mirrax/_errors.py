"""Errors that end a command: one clear line that says what to do, and an exit code.

Only the standard library is imported here, so that the command line can fail without loading JAX.
"""

import difflib
from collections.abc import Iterable

_LONGEST = 1000
"""Characters of a line; a damaged file can have names of any length, and lines quote them."""


class MirraxError(Exception):
    """Any failure the user can act on; its text is a line that names the remedy, or has a table.

    `exit_code` is what the command line returns: 2 for what was asked or given, 3 for numbers, 4
    for another process.

    **Arguments:**

    - `text`: the line, or lines; the middle of a very long one is left out.

    >>> MirraxError("run folder exists; pass --resume").exit_code
    2
    >>> print(MirraxError(f"no recipe 'x{900 * '['}{900 * ']'}y'; see mirrax list"))
    no recipe 'x[[...[ […] ]...]y'; see mirrax list
    """

    exit_code = 2

    def __init__(self, text: str):
        super().__init__("\n".join(map(_in_short, text.split("\n"))))


def _in_short(line: str) -> str:
    cut = " […] "
    half = (_LONGEST - len(cut)) // 2
    return line if len(line) <= _LONGEST else f"{line[:half]}{cut}{line[-half:]}"


class NumericalError(MirraxError):
    """The mathematics failed: divergence, non-finite values, no convergence.

    >>> NumericalError.exit_code
    3
    """

    exit_code = 3


class LostProcess(MirraxError):
    """Another process of a distributed run has ended, without which this one cannot go on.

    >>> LostProcess.exit_code
    4
    """

    exit_code = 4


class DataError(MirraxError):
    """A data set is missing, damaged, or not what its name says."""


class ArtifactError(MirraxError):
    """A saved geometry is damaged, or belongs to another architecture."""


class ConfigError(MirraxError):
    """A recipe, field or value that does not exist or is not allowed."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Suggests what a misspelt name may have meant, by difflib's similarity ratio.

    **Arguments:**

    - `name`: the name as received; capitals do not matter.
    - `choices`: the names that exist.

    **Returns:**

    `" Did you mean 'x'?"` or `" Did you mean 'x' or 'y'?"`, with a leading space so that it can
    follow a sentence; the empty string where nothing is near.

    >>> nearest("Adma", ["Adam", "SGD", "RMSprop"])
    " Did you mean 'Adam'?"
    >>> nearest("quantum", ["Adam", "SGD", "RMSprop"])
    ''
    """
    by_folded = {choice.casefold(): choice for choice in choices}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=2, cutoff=0.6)
    if not close:
        return ""
    return " Did you mean " + " or ".join(repr(by_folded[choice]) for choice in close) + "?"
