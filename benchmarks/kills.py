"""SIGKILL at random moments and in the middle of writes: where it hit, whether anything is lost.

    python -m benchmarks.kills [--kills N] [--kinds NAME …] [--seed N] [--json FILE]

Runs of every kind are killed after a random part of the time that an undisturbed one takes, or at a
random one of its calls that change a file, a write halfway. They are continued with `--resume`,
killed again, up to three times, and finished. Between a kill and the next command every file must
be readable, and what `mirrax report` reads be tables or one line. At the end everything but the
record of sessions must be that of the undisturbed run, to the bit but for what a clock says. Every
other run begins with an empty cache of compiled programs, so that compilation and the cache are
killed too.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import begin, finish, parser, table
from benchmarks._mortal import PHASES
from mirrax._errors import ArtifactError, MirraxError
from mirrax.deploy._archive import read_archive
from mirrax.report import Run

_DIGITS = ("--budget", "smoke", "--timed", "false", "--steps", "20", "--stride", "10")
_FEW_SHOT = (
    *("--budget", "smoke", "--meta-steps", "8", "--stride", "2", "--validate-every", "4"),
    *("--validation-tasks", "4", "--test-tasks", "8", "--model", "mlp-8", "--tasks", "2"),
)
KINDS = {
    "many-shot": ("train", "rotated-digits", *_DIGITS, "--rounds", "3"),
    "many-shot, halving": (
        *("train", "rotated-digits", *_DIGITS, "--estimator", "reverse", "--rounds", "3"),
        *("--on-failure", "halve", "--outer-rate", "2"),
    ),
    "quadratics": ("train", "quadratics", "--budget", "smoke"),
    "few-shot": ("train", "few-shot-glyphs", *_FEW_SHOT),
    "few-shot, rates": (
        *("train", "few-shot-glyphs", *_FEW_SHOT),
        *("--rate", "0.1", "0.2", "--pilot-steps", "4"),
    ),
    "leave-one-out": ("reproduce", "rotated-digits", *_DIGITS, "--rounds", "2"),
    "online": ("reproduce", "s002-fig2", "--budget", "smoke"),
}
"""Commands by name; how they end is compared."""

_IN_A_ROW = 3
_CLOCK = ("seconds", "meta_training_seconds", "seconds_per_step", "wall_seconds", "hardware")
_OF_SESSIONS = ("command", "record")
_NO_RESULT = ("record.json", "result.md")  # the record of the sessions, and a text that has it
_LIVES_A_KILL = 4


class Mortal:
    """The process that runs commands and kills them."""

    def __init__(self, cache: Path, log: Path):
        self._log = log.open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._mortal"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={
                **os.environ,
                "JAX_COMPILATION_CACHE_DIR": str(cache),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            },
        )

    def run(self, words: Sequence[str], **how: Any) -> dict[str, Any]:
        """One command; `delay` or `aim` says when it is killed."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"words": list(words), **how}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process that runs commands ended: {' '.join(words)}")
        return json.loads(answer)

    def said(self) -> str:
        """The last thing a command said."""
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        self._log.close()


def outcome(folder: Path) -> dict[str, Any]:
    """What a finished run left, by file, without what a clock says."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): _content(path)
        for path in files
        if path.name not in _NO_RESULT
    }


def _content(path: Path) -> Any:
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_bytes()))
    if path.name == "metrics.jsonl":
        return [_timeless(json.loads(line)) for line in path.read_bytes().splitlines()]
    return path.read_bytes()


def _timeless(content: Any) -> Any:
    if isinstance(content, dict):
        return {k: _timeless(v) for k, v in content.items() if k not in _CLOCK + _OF_SESSIONS}
    return [_timeless(entry) for entry in content] if isinstance(content, list) else content


def examine(folder: Path) -> Iterator[str]:
    """What is wrong with the files of a run that was killed: nothing, it should be."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".json":
            try:
                json.loads(path.read_bytes())
            except ValueError:
                yield f"{path.name} is no JSON"
        elif path.name == "metrics.jsonl":
            lines = path.read_bytes().split(b"\n")
            for line in lines[:-1]:  # what stands behind the last end of a line was cut short
                try:
                    json.loads(line)
                except ValueError:
                    yield "metrics.jsonl has a line that is no JSON"
        elif path.suffix == ".safetensors":
            try:
                read_archive(path)
            except ArtifactError as error:
                yield str(error)
    try:
        Run.read(folder)
    except MirraxError as error:
        if "\n" in str(error) or "damaged" in str(error):
            yield f"report: {error}"


def _command(words: Sequence[str], folder: Path) -> list[str]:
    """The command that begins or continues a run."""
    begun = any(folder.rglob("config.json"))
    return [*words, "--out", str(folder), *(["--resume"] if begun else [])]


def one_life(
    mortal: Mortal, words: Sequence[str], folder: Path, whole: dict[str, Any], chance: random.Random
) -> tuple[list[dict[str, Any]], list[str]]:
    """Kills a run up to some times in a row, and finishes it; the kills, and what was wrong."""
    kills, wrong = [], []
    for _ in range(_IN_A_ROW):
        if chance.random() < 0.5:
            how = {"delay": chance.uniform(0, whole["seconds"])}
        else:
            how = {"aim": chance.randint(1, whole["calls"])}
        found = mortal.run(_command(words, folder), **how)
        if found["status"] == 0:
            break
        if found["status"] != -9:
            wrong.append(f"exit status {found['status']} after {how}: {mortal.said()}")
            break
        kills.append({**how, **found})
        wrong += list(examine(folder))
    last = mortal.run(_command(words, folder))
    if last["status"] != 0:
        wrong.append(f"could not be finished: {mortal.said()}, after {kills}")
        return kills, wrong
    found = outcome(folder)
    for name in sorted(found.keys() | whole["outcome"].keys()):
        if found.get(name) != whole["outcome"].get(name):
            wrong.append(f"{name} differs, after {kills}")
    return kills, wrong


def of_kind(name: str, count: int, seed: int) -> dict[str, Any]:
    """So many kills of runs of one kind, or fewer where commands fail without being killed."""
    chance = random.Random(f"{name} {seed}")
    with tempfile.TemporaryDirectory() as scratch:
        folder, cache = Path(scratch) / "run", Path(scratch) / "cache"
        mortal = Mortal(cache, Path(scratch) / "said")
        try:
            for made in ("cold", "warm"):  # the second takes as long as those to be killed
                shutil.rmtree(folder, ignore_errors=True)
                whole = mortal.run(_command(KINDS[name], folder))
                if whole["status"] != 0:
                    raise RuntimeError(f"{name}, {made}: {whole['status']}, {mortal.said()}")
            whole["outcome"] = outcome(folder)
            kills, wrong, lives = [], [], 0
            while len(kills) < count and lives < _LIVES_A_KILL * count:
                shutil.rmtree(folder)
                if lives % 2:
                    shutil.rmtree(cache)
                one, faults = one_life(mortal, KINDS[name], folder, whole, chance)
                kills, wrong, lives = kills + one, wrong + faults, lives + 1
        finally:
            mortal.close()
    return {
        "kills": len(kills),
        "runs": lives,
        "phases": dict(Counter(kill["phase"] for kill in kills)),
        "aimed": sum("aim" in kill for kill in kills),
        "wrong": wrong,
        "seconds": round(whole["seconds"], 2),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Kills runs; the exit status is 1 where anything was lost."""
    options = parser(__doc__)
    options.add_argument("--kills", type=int, default=120, metavar="N", help="how many in all")
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="NAME")
    options.add_argument("--seed", type=int, default=0, metavar="N")
    chosen = options.parse_args(argv)
    told = {**begin(), "seed": chosen.seed, "phases": PHASES}
    each = -(-chosen.kills // len(chosen.kinds))
    found, lost = {}, 0
    for name in chosen.kinds:
        found[name] = of_kind(name, each, chosen.seed)
        lost += len(found[name]["wrong"])
        print(f"{name}: {found[name]['kills']} kills", flush=True)
        for fault in found[name]["wrong"]:
            print(f"  {fault}", flush=True)
        finish({**told, "kinds": found, "lost": lost}, chosen.json)
    rows = [
        [name, one["kills"], one["runs"], *(one["phases"].get(p, 0) for p in PHASES)]
        for name, one in found.items()
    ]
    rows.append(["all", *(sum(row[i] for row in rows) for i in range(1, len(rows[0])))])
    print("\n" + table(["kind", "kills", "runs", *PHASES], rows))
    print(f"\n{rows[-1][1]} kills, {lost} things lost")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
