"""How long a stranger waits: from an empty clone and environment to the first comparison table.

    python -m benchmarks.first_table [--repository DIR] [--json FILE]

The README's main command, in its two parts: installation (from the package index, or pip's cache)
and the run.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import begin, finish, parser, table

ROOT = Path(__file__).parents[1]
SECONDS = 300


def timed(command: Sequence[str], folder: str | Path) -> float:
    """Seconds of a command; its output is shown as it comes."""
    begun = time.perf_counter()
    # Nothing of this environment: neither its packages nor programs compiled before.
    own = {key: os.environ[key] for key in os.environ if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(command, cwd=folder, check=True, env={**own, "JAX_COMPILATION_CACHE_DIR": ""})
    return time.perf_counter() - begun


def main(argv: Sequence[str] | None = None) -> int:
    """Times the way; the exit status is 1 where it takes longer than it may."""
    options = parser(__doc__)
    options.add_argument("--repository", default=str(ROOT), help="what is cloned")
    arguments = options.parse_args(argv)
    record = begin()
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "clone")
        install = timed(["git", "clone", "--quiet", arguments.repository, str(clone)], folder)
        install += timed([sys.executable, "-m", "venv", ".venv"], clone)
        pip = [".venv/bin/pip", "install", "--quiet", "-c", "constraints.txt", "-e", "."]
        install += timed(pip, clone)
        run = timed([".venv/bin/mirrax", "train", "rotated-digits"], clone)
    found = {"installation": install, "run": run, "together": install + run}
    rows = [[name, f"{seconds:.0f}"] for name, seconds in found.items()]
    print(table(["", "seconds"], rows), f"allowed together: {SECONDS}", sep="\n\n")
    record["first_table"] = {"seconds": found, "allowed": SECONDS}
    finish(record, arguments.json)
    return int(install + run > SECONDS)


if __name__ == "__main__":
    sys.exit(main())
