"""What checkpoints, metrics and the progress bar take of a run, by the time spent inside them.

    python -m benchmarks.overheads [--runs N] [--log KIND] [--json FILE]

Each run is `mirrax train` in a process that counts the seconds inside what saves checkpoints and
inside what appends metrics (with `--log`, into a log too), moves bars and keeps the record. Seconds
are those of the clock, as flushing to disk takes no processor time, and the whole is that of the
command without its imports. A busy machine makes both longer.
"""

import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import begin, finish, parser, table

KINDS = {
    "many-shot": ("train", "rotated-digits"),
    "few-shot": ("train", "few-shot-glyphs", "--baselines", "maml", "--meta-steps", "100"),
}
"""The recipes as a user runs them, the few-shot one with fewer methods and steps."""

_CALL = "print(json.dumps(overheads.measured({!r})))"
MOST = {"checkpoints": 0.03, "progress and logging": 0.01}


class Meter:
    """Seconds inside some functions, by name; calls within others of the same name count once."""

    def __init__(self):
        self.seconds = dict.fromkeys(MOST, 0.0)
        self._inside: set[str] = set()

    def measure(self, owner: Any, name: str, part: str) -> None:
        """Replaces a function by one that is timed."""
        whole: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(whole)
        def run(*arguments: Any, **named: Any) -> Any:
            if self._inside:
                return whole(*arguments, **named)
            self._inside.add(part)
            clock = time.perf_counter()
            try:
                return whole(*arguments, **named)
            finally:
                self.seconds[part] += time.perf_counter() - clock
                self._inside.discard(part)

        setattr(owner, name, run)


def measured(words: Sequence[str]) -> dict[str, float]:
    """The seconds of one command in this process, and of its parts."""
    import mirrax.study._kinds  # noqa: F401
    from mirrax.cli import main
    from mirrax.study._folder import RunFolder
    from mirrax.study._progress import Phase
    from mirrax.study._provenance import Recorder

    meter = Meter()
    for name in ("save_checkpoint", "truncate_metrics"):
        meter.measure(RunFolder, name, "checkpoints")
    meter.measure(RunFolder, "append_metrics", "progress and logging")
    for name in ("advance", "share"):
        meter.measure(Phase, name, "progress and logging")
    meter.measure(Recorder, "keep", "progress and logging")
    clock = time.perf_counter()
    status = main(words)
    whole = time.perf_counter() - clock
    if status:
        raise SystemExit(status)
    return {"whole": whole, **meter.seconds}


def _of_kind(words: Sequence[str]) -> dict[str, float]:
    """The same in a new process, whose last line says it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*words, "--out", str(Path(folder) / "run")]
        code = f"import json; from benchmarks import overheads; {_CALL.format(command)}"
        found = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
    return json.loads(found.stdout.strip().splitlines()[-1])


def main(argv: Sequence[str] | None = None) -> int:
    """Measures; the exit status is 1 where a share is above what is allowed."""
    options = parser(__doc__)
    options.add_argument("--runs", type=int, default=3, metavar="N", help="of each kind")
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="NAME")
    options.add_argument("--log", metavar="KIND", help="as of mirrax train")
    chosen = options.parse_args(argv)
    record, found, missed = begin(), {}, False
    log = ["--log", chosen.log] if chosen.log else []
    rows = []
    for name in chosen.kinds:
        words = [*KINDS[name], *log]
        runs = sorted((_of_kind(words) for _ in range(chosen.runs)), key=lambda one: one["whole"])
        middle = runs[len(runs) // 2]
        shares = {part: middle[part] / middle["whole"] for part in MOST}
        missed |= any(shares[part] > most for part, most in MOST.items())
        found[name] = {"runs": runs, "shares": shares}
        rows.append(
            [name, f"{middle['whole']:.1f}", *(f"{100 * s:.2f} %" for s in shares.values())]
        )
        print(f"{name}: {middle['whole']:.1f} s", flush=True)
    print("\n" + table(["kind", "seconds", *MOST], rows))
    print("allowed: " + ", ".join(f"{part} {100 * most:g} %" for part, most in MOST.items()))
    finish({**record, "kinds": found, "allowed": MOST, "met": not missed}, chosen.json)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
