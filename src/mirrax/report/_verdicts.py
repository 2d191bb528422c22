"""Which bounds of a certificate hold, as the certificate itself judged them."""

from collections.abc import Mapping
from typing import Any

from ._format import finite

_SLACK = 1e-4  # relative: that of certificates in float32 over some hundred steps


def verdicts(certificate: Mapping[str, Any]) -> dict[str, bool | None]:
    """Whether each bound holds.

    The bounds are on the linearised regret, which is the larger one for convex losses; records of
    earlier versions have no verdicts, and are judged by it anew.

    **Arguments:**

    - `certificate`: `{"regret", "linearised_regret", "bounds": {name: number}, "satisfied": {name:
        bool}}`; only `bounds` is needed.

    **Returns:**

    Name of a bound to its verdict, `None` where it or the regret is not known.

    >>> verdicts({"regret": 2.0, "bounds": {"exact": 2.0 - 1e-7, "local norm": 1.0}})
    {'exact': True, 'local norm': False}
    """
    recorded = certificate.get("satisfied") or {}
    regret = finite(certificate.get("linearised_regret"))
    regret = finite(certificate.get("regret")) if regret is None else regret
    found: dict[str, bool | None] = {}
    for name, entry in (certificate.get("bounds") or {}).items():
        value = finite(entry)
        if value is None or regret is None:
            found[name] = None
        elif isinstance(recorded.get(name), bool):
            found[name] = recorded[name]
        else:
            found[name] = regret <= value + _SLACK * (abs(value) + abs(regret))
    return found
