r"""Configurations of studies: frozen dataclasses whose fields are the command line's options."""

import contextlib
import dataclasses
import difflib
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

from .._errors import ConfigError, nearest
from .._json import plain
from .._secrets import masked

Config = TypeVar("Config")


def positive(owner: Any, *names: str) -> None:
    """Refuses fields that are not positive finite numbers, or a tuple of them.

    **Arguments:**

    - `owner`: a configuration.
    - `*names`: fields to check.

    **Raises:**

    - `ConfigError`: naming the option and the value.
    """
    for name in names:
        values = getattr(owner, name)
        for value in values if isinstance(values, tuple) else (values,):
            if not 0 < value < float("inf"):
                raise ConfigError(f"{option(name)}: expected a positive number, got {value!r}.")


def between(owner: Any, name: str, low: float, high: float) -> None:
    """Refuses a field outside `[low, high]`."""
    value = getattr(owner, name)
    if not low <= value <= high:
        raise ConfigError(f"{option(name)}: expected {low} to {high}, got {value!r}.")


def among(owner: Any, name: str, known: Collection[str]) -> None:
    """Refuses a tuple of names one of which is not known."""
    for value in getattr(owner, name):
        if value not in known:
            names = ", ".join(map(repr, known))
            raise ConfigError(
                f"{option(name)}: no {value!r}; known are {names}.{nearest(value, known)}"
            )


def divides(owner: Any, name: str, whole: str) -> None:
    """Refuses a field that does not divide another."""
    value, total = getattr(owner, name), getattr(owner, whole)
    if total % value:
        raise ConfigError(
            f"{option(name)}: expected a divisor of {option(whole)} ({total}), got {value!r}."
        )


def at_budget(
    config: Config, budget: str, smoke: Mapping[str, Any], paper: Mapping[str, Any]
) -> Config:
    """A configuration at a budget.

    **Arguments:**

    - `config`: that of the default budget.
    - `budget`: `"smoke"`, `"default"` or `"paper"`.
    - `smoke`, `paper`: the fields that differ at these.

    **Raises:**

    - `ConfigError`: for another word.
    """
    changes = {"smoke": smoke, "default": {}, "paper": paper}
    if budget not in changes:
        raise ConfigError(
            f"--budget: expected smoke, default or paper, got {budget!r}.{nearest(budget, changes)}"
        )
    return dataclasses.replace(config, **changes[budget])  # type: ignore[type-var]


def fields_of(config: Any) -> dict[str, Any]:
    """A configuration as it is written down: JSON's own types, and no passwords.

    **Arguments:**

    - `config`: a dataclass instance.
    """
    fields = plain(dataclasses.asdict(config))
    return {k: masked(v) if isinstance(v, str) else v for k, v in fields.items()}


def option(name: str) -> str:
    """The command-line option of a field.

    >>> option("held_out")
    '--held-out'
    """
    return "--" + name.replace("_", "-")


def made_otherwise(path: Path, option: str, made: Any, asked: Any) -> ConfigError:
    """The error where a run that shall go on was made with something else.

    **Arguments:**

    - `path`: its folder.
    - `option`: of the command line.
    - `made`, `asked`: what it was, and what it shall be.
    """
    return ConfigError(
        f"{option}: {path} was made with {made}, not {asked}; ask for the same to continue it, or "
        "choose another --out."
    )


def override(config: Config, values: Sequence[str], varies: Collection[str] = ()) -> Config:
    """Replaces fields of a configuration by command-line words.

    **Arguments:**

    - `config`: a dataclass instance with the defaults.
    - `values`: words such as `["--rounds", "5", "--held-out=45"]`.
    - `varies`: fields that take several values in turn, whatever is said.

    **Returns:**

    The configuration with those fields replaced and checked.

    **Raises:**

    - `ConfigError`: for an unknown field (with the nearest names), a missing or unreadable value, a
      value out of range, or a field that would have no effect: one of `varies` or, by name, of
      `config.idle`, which says what it is a field of.
    """
    fields = {field.name: field.type for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    changes = {}
    for name, words in _groups(values):
        if name not in fields:
            names = ", ".join(sorted(option(field) for field in fields))
            close = difflib.get_close_matches(name, fields, n=2)
            hint = nearest(name, fields).replace("_", "-") if close else f" Known are {names}."
            raise ConfigError(f"no field {option(name)} here.{hint}")
        if name in varies:
            raise ConfigError(f"{option(name)}: takes several values in turn here; leave it out.")
        changes[name] = _read(name, fields[name], words)
    # All at once: fields are checked against each other, whatever their order on the command line.
    found = dataclasses.replace(config, **changes)  # type: ignore[type-var]
    idle = getattr(found, "idle", {})
    for name in changes.keys() & idle.keys():
        raise ConfigError(f"{option(name)}: is of {idle[name]}; choose that, or leave it out.")
    return found


def _groups(values: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Options with the words behind each."""
    groups: list[tuple[str, list[str]]] = []
    for word in values:
        if word.startswith("--"):
            name, equals, text = word[2:].partition("=")
            groups.append((name.replace("-", "_"), [text] if equals else []))
        elif groups:
            groups[-1][1].append(word)
        else:
            raise ConfigError(f"expected an option such as --rounds 5, got {word!r}.")
    return groups


def _read(name: str, kind: Any, words: Sequence[str]) -> Any:
    """The value of one field; `true` and `false` are read in any case."""
    import tyro

    if not words:
        raise ConfigError(f"{option(name)}: a value is missing.")
    if kind is bool:
        words = [word.capitalize() for word in words]
    alone = dataclasses.make_dataclass("Field", [(name, kind)])
    silent = io.StringIO()
    try:
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            found = tyro.cli(alone, args=[option(name), *words], console_outputs=False)
    except SystemExit as error:
        raise ConfigError(
            f"{option(name)}: cannot read {' '.join(words)!r} as {expected(kind)}."
        ) from error
    return getattr(found, name)


def expected(kind: Any) -> str:
    """What a field may be, in words.

    >>> expected(Literal["grid", "bayes"]), expected(float)
    ('one of grid, bayes', 'float')
    """
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    return kind.__name__ if isinstance(kind, type) else str(kind)


def from_record(kind: type[Config], record: Mapping[str, Any]) -> Config:
    """Reads a configuration back from what `config.json` holds.

    **Arguments:**

    - `kind`: the dataclass.
    - `record`: field names and values.

    **Raises:**

    - `ConfigError`: if a field is unknown, so that a newer run is not misread, or of another type.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(record) - set(fields))
    if unknown:
        raise ConfigError(
            f"config.json has a field {unknown[0]!r} that this version of mirrax does not know; "
            "use the version named in it."
        )
    for name, value in record.items():
        kind_of = fields[name].type
        if not _is_of(value, kind_of):
            raise ConfigError(
                f"config.json: {name} is {str(value)[:80]!r}, expected {expected(kind_of)}; use "
                "the version of mirrax that made the run."
            )
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in record.items()}
    return kind(**values)


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is one of a field's type, as `fields_of` writes it."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return isinstance(value, str) and value in args
    if origin is tuple:
        return isinstance(value, list) and all(_is_of(entry, args[0]) for entry in value)
    if isinstance(kind, UnionType):
        return any(_is_of(value, one) for one in args)
    allowed = {float: (int, float)}.get(kind, (kind,))
    return type(value) in allowed
