r"""Configurations of studies: frozen dataclasses whose fields are the command line's options."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from .._errors import ConfigError, nearest

Budget = Literal["smoke", "default", "paper"]
Config = TypeVar("Config")


def positive(owner: Any, *names: str) -> None:
    """Refuses fields that are not positive finite numbers.

    **Arguments:**

    - `owner`: a configuration.
    - `*names`: fields to check.

    **Raises:**

    - `ConfigError`: naming the option and the value.
    """
    for name in names:
        value = getattr(owner, name)
        if not 0 < value < float("inf"):
            raise ConfigError(f"{option(name)}: expected a positive number, got {value!r}.")


def between(owner: Any, name: str, low: float, high: float) -> None:
    """Refuses a field outside `[low, high]`."""
    value = getattr(owner, name)
    if not low <= value <= high:
        raise ConfigError(f"{option(name)}: expected {low} to {high}, got {value!r}.")


def option(name: str) -> str:
    """The command-line option of a field.

    >>> option("held_out")
    '--held-out'
    """
    return "--" + name.replace("_", "-")


def override(config: Config, values: Sequence[str]) -> Config:
    """Replaces fields of a configuration by command-line words.

    **Arguments:**

    - `config`: a dataclass instance with the defaults.
    - `values`: words such as `["--rounds", "5", "--held-out=45"]`.

    **Returns:**

    The configuration with those fields replaced and checked.

    **Raises:**

    - `ConfigError`: for an unknown field (with the nearest names), a missing or unreadable value,
      or a value out of range.
    """
    fields = {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    for name, text in _pairs(values):
        if name not in fields:
            names = ", ".join(sorted(option(field) for field in fields))
            close = difflib.get_close_matches(name, fields, n=2)
            hint = nearest(name, fields).replace("_", "-") if close else f" Known are {names}."
            raise ConfigError(f"no field {option(name)} in this recipe.{hint}")
        config = _replace(config, name, text)
    return config


def _pairs(values: Sequence[str]) -> list[tuple[str, str]]:
    pairs, rest = [], list(values)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ConfigError(f"expected an option such as --rounds 5, got {word!r}.")
        name, equals, text = word[2:].partition("=")
        if not equals:
            if not rest:
                raise ConfigError(f"--{name}: a value is missing.")
            text = rest.pop(0)
        pairs.append((name.replace("-", "_"), text))
    return pairs


def _replace(config: Config, name: str, text: str) -> Config:
    import tyro

    try:
        return tyro.cli(
            type(config), args=[option(name), text], default=config, console_outputs=False
        )
    except SystemExit as error:
        kind = next(f.type for f in dataclasses.fields(config) if f.name == name)  # type: ignore[arg-type]
        expected = getattr(kind, "__name__", None) or str(kind).replace("typing.", "")
        raise ConfigError(f"{option(name)}: cannot read {text!r} as {expected}.") from error


def from_record(kind: type[Config], record: Mapping[str, Any]) -> Config:
    """Reads a configuration back from what `config.json` holds.

    **Arguments:**

    - `kind`: the dataclass.
    - `record`: field names and values.

    **Raises:**

    - `ConfigError`: if a field is unknown, so that a newer run is not misread.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(record) - set(fields))
    if unknown:
        raise ConfigError(
            f"config.json has a field {unknown[0]!r} that this version of mirrax does not know; "
            "use the version named in it."
        )
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in record.items()}
    return kind(**values)
