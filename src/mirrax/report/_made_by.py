"""What made a result, as a table: command, seed, budget, and each machine or version at work."""

from collections.abc import Mapping, Sequence
from typing import Any

from ._format import clean, duration, fields, finite
from ._table import Cell, Column, Table

NOT_RECORDED = "not recorded"
_MACHINE = ("processor", "cores", "device", "devices", "system", "python")


def record_table(record: Mapping[str, Any] | None) -> Table:
    """Command, seed, budget, and for each machine or version that had a part: when, how long, what.

    **Arguments:**

    - `record`: the content of `record.json`; `None` of a result that has none.

    **Returns:**

    A `Table` of facts and values.

    >>> made = {"started": "2026-01-31T12:00:00Z", "seconds": 90.0, "cores": 2, "commit": None}
    >>> record = {"command": "mirrax train a", "seed": 0, "budget": "smoke", "made_by": [made]}
    >>> for row in record_table(record).rows:
    ...     print(*(cell.text for cell in row), sep=": ")
    Command: mirrax train a
    Seed: 0
    Budget: smoke
    Wall time: 1 min 30 s
    Started: 2026-01-31T12:00:00Z
    Commit: not recorded
    Hardware: cores 2
    Versions: not recorded
    """
    record, makers = record or {}, parts(record) or [{}]
    facts: list[tuple[str, Any]] = [
        *((name, record.get(name.lower())) for name in ("Command", "Seed", "Budget")),
        ("Wall time", duration(spent) if (spent := wall_seconds(record)) is not None else None),
    ]
    commands = {maker.get("command", record.get("command")) for maker in makers}
    for number, maker in enumerate(makers, 1):
        part = f", part {number}" if len(makers) > 1 else ""
        if len(commands) > 1:
            facts.append((f"Command{part}", maker.get("command")))
        facts.append((f"Started{part}", maker.get("started")))
        if part:
            known = finite(maker.get("seconds"))
            facts.append((f"Wall time{part}", None if known is None else duration(known)))
        facts.append((f"Commit{part}", maker.get("commit")))
        facts.append((f"Hardware{part}", _hardware(maker)))
        facts.append((f"Versions{part}", fields(maker.get("versions") or {}) or None))
    rows = tuple((Cell(name), Cell(_said(value))) for name, value in facts)
    return Table("What made it", (Column("fact", "Fact"), Column("value", "Value")), rows)


def parts(record: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    """What a record says of each machine or version, empty without one."""
    return (record or {}).get("made_by") or ()


def wall_seconds(record: Mapping[str, Any] | None) -> float | None:
    """The time on the clock of all sessions together, `None` where it is not known."""
    known = [finite(part.get("seconds")) for part in parts(record)]
    spent = [value for value in known if value is not None]
    return sum(spent) if known and len(spent) == len(known) else None


def versions_line(record: Mapping[str, Any] | None) -> str | None:
    """Every version of mirrax that had a part, on one line, `None` where none is known.

    **Arguments:**

    - `record`: the content of `record.json`.

    >>> versions_line({"made_by": [{"versions": {"mirrax": v}} for v in ("0.1", "0.2", "0.1")]})
    '0.1, 0.2'
    """
    found = ((part.get("versions") or {}).get("mirrax") for part in parts(record))
    return ", ".join(dict.fromkeys(map(str, filter(None, found)))) or None


def hardware_line(record: Mapping[str, Any] | None) -> str | None:
    """Every machine that had a part, on one line, `None` where none is known.

    **Arguments:**

    - `record`: the content of `record.json`.

    >>> hardware_line({"made_by": [{"cores": 2}, {"cores": 4}, {"cores": 2, "commit": "a"}]})
    'cores 2; cores 4'
    """
    return "; ".join(dict.fromkeys(filter(None, map(_hardware, parts(record))))) or None


def _hardware(part: Mapping[str, Any]) -> str | None:
    return fields({key: part[key] for key in _MACHINE if key in part}) or None


def _said(value: Any) -> str:
    return NOT_RECORDED if value is None else clean(value)
