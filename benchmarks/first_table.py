"""How long a stranger waits: from an empty clone and environment to the first comparison table.

The README's main command, in its two parts: installation (from the package index, or pip's cache)
and the run. `python -m benchmarks.first_table` prints both, with the load of the machine, and fails
above the limit.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def timed(command, folder):
    """Seconds of a command; its output is shown as it comes."""
    begun = time.perf_counter()
    # Nothing of this environment: neither its packages nor programs compiled before.
    own = {key: os.environ[key] for key in os.environ if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(command, cwd=folder, check=True, env={**own, "JAX_COMPILATION_CACHE_DIR": ""})
    return time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", default=str(ROOT), help="what is cloned")
    parser.add_argument("--limit", type=float, default=300, help="seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "clone")
        install = timed(["git", "clone", "--quiet", options.repository, clone], folder)
        install += timed([sys.executable, "-m", "venv", ".venv"], clone)
        pip = [".venv/bin/pip", "install", "--quiet", "-c", "constraints.txt", "-e", "."]
        install += timed(pip, clone)
        run = timed([".venv/bin/mirrax", "train", "rotated-digits"], clone)
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    print(
        f"clone and installation {install:.0f} s, run {run:.0f} s, together {install + run:.0f} s"
    )
    print(f"{os.cpu_count()} cores, load {load}")
    if install + run > options.limit:
        sys.exit(f"above the limit of {options.limit:.0f} s")


if __name__ == "__main__":
    main()
