"""What is imported when, and which way imports go."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("jax", "jaxlib", "torch", "numpy", "matplotlib", "equinox", "optax", "tyro")


def python(code):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOADED = f"import sys; print([n for n in {HEAVY!r} if n in sys.modules])"


@pytest.mark.parametrize("module", ["mirrax", "mirrax.cli"])
def test_importing_is_light(module):
    assert python(f"import {module}; {LOADED}").strip() == "[]"


def test_help_is_light():
    code = (
        "import sys, mirrax.cli\n"
        "try: mirrax.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"{LOADED}"
    )
    lines = python(code).splitlines()
    assert lines[-1] == "[]" and any("reproduce" in line for line in lines)


def test_every_package_is_reached_by_name():
    import mirrax

    for name in mirrax._PACKAGES:
        assert getattr(mirrax, name).__name__ == f"mirrax.{name}" and name in dir(mirrax)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mirrax.nothing  # noqa: B018


@pytest.mark.skipif(not (ROOT / ".importlinter").exists(), reason="needs the repository")
def test_imports_only_go_down():
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(tool), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": "src"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
