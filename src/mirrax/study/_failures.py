"""What a run says of rounds and meta-steps that went on where some of their runs failed.

The notes are made of the lines of `metrics.jsonl`, so that a run that was stopped says the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any


def failure_notes(lines: Sequence[Mapping[str, Any]], whole: str) -> list[str]:
    """At most one sentence.

    **Arguments:**

    - `lines`: of metrics; `failed` names the tasks whose runs failed, or counts them, and `halved`
      says how often the step before was made half as long.
    - `whole`: of how many rounds or meta-steps they are.

    >>> line = {"round": 1, "failed": ["a", "b"], "halved": 0}
    >>> failure_notes([line, {"round": 2}], "3 rounds")
    ['On failure: runs of a, b failed and were left out, in 1 line of metrics of 3 rounds.']
    """
    touched = [line for line in lines if line.get("failed")]
    if not touched:
        return []
    if isinstance(touched[0]["failed"], int):
        told = f"runs of {sum(line['failed'] for line in touched)} tasks"
    else:
        told = "runs of " + ", ".join(sorted({name for line in touched for name in line["failed"]}))
    halved = sum(line["halved"] for line in touched)
    became = (
        f"the outer step before them was halved, {halved} times in all, and the outer rate with it"
        if halved
        else "were left out"
    )
    count = f"{len(touched)} line{'s' * (len(touched) > 1)} of metrics"
    return [f"On failure: {told} failed and {became}, in {count} of {whole}."]
