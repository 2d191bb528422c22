"""What the docstring of a study says of its fields, for `mirrax train RECIPE --help`."""

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_origin

from ._config import expected

_ARGUMENTS = re.compile(r"^- (`\w+`(?:,\s+`\w+`)*): (.+?)(?=\n- |\n\n|\Z)", re.M | re.S)
_ELSEWHERE = re.compile(r"see `([\w.]+)`\.")


def described(config: Any) -> list[dict[str, Any]]:
    """The fields of a configuration, with their values and what its docstring says of them.

    **Arguments:**

    - `config`: a dataclass instance whose docstring has its fields as arguments.

    **Returns:**

    `[{"names", "defaults", "about"}]`: fields that are explained together, in the order of the
    docstring. Words that a field may be stand behind what it is.
    """
    found = []
    for names, about in _arguments(type(config)):
        elsewhere = _ELSEWHERE.fullmatch(about)
        if elsewhere:
            whole = dict(_each(_arguments(_found(elsewhere[1]))))
            found += [_row(config, [name], whole[name]) for name in names]
        else:
            found.append(_row(config, names, about))
    return found


def _row(config: Any, names: Sequence[str], about: str) -> dict[str, Any]:
    kinds = {field.name: field.type for field in dataclasses.fields(config)}
    words = [expected(kinds[name]) for name in names if get_origin(kinds[name]) is Literal]
    said = "; ".join([about.removesuffix("."), *words]).replace("`", "")
    return {
        "names": list(names),
        "defaults": [getattr(config, name) for name in names],
        "about": said + ".",
    }


def _arguments(documented: Any) -> list[tuple[list[str], str]]:
    """The arguments of a docstring, those together that are explained together."""
    found = _ARGUMENTS.findall(inspect.getdoc(documented) or "")
    return [(re.findall(r"\w+", names), " ".join(about.split())) for names, about in found]


def _each(arguments: Sequence[tuple[list[str], str]]) -> Iterator[tuple[str, str]]:
    return ((name, about) for names, about in arguments for name in names)


def _found(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)
