"""Settings of XLA: what the user has set stands, and the installed version knows them."""

import os
import subprocess
import sys

import pytest

from mirrax import _xla
from mirrax.cli import main
from mirrax.study import commands

COUNT = "--xla_force_host_platform_device_count"
FLAG = "--xla_cpu_use_fusion_emitters"
CACHE = "JAX_COMPILATION_CACHE_DIR"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, f"{FLAG}=false"),
        ("--xla_cpu_enable_fast_math=false", f"--xla_cpu_enable_fast_math=false {FLAG}=false"),
        (f"{FLAG}=true", f"{FLAG}=true"),
    ],
)
def test_flags_are_added_to_those_of_the_user(monkeypatch, before, after):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if before is not None:
        monkeypatch.setenv("XLA_FLAGS", before)
    _xla.set_flags()
    assert os.environ["XLA_FLAGS"] == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, f"{COUNT}=6"),
        ({"XLA_FLAGS": f"{FLAG}=true"}, f"{FLAG}=true {COUNT}=6"),
        ({"XLA_FLAGS": f"{COUNT}=3"}, f"{COUNT}=3"),
        ({"JAX_NUM_CPU_DEVICES": "2"}, None),
    ],
)
def test_there_are_as_many_devices_as_cores_unless_the_user_says_otherwise(
    monkeypatch, before, after
):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    monkeypatch.setattr(_xla, "cores", lambda: 6)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    _xla.set_devices()
    assert os.environ.get("XLA_FLAGS") == after


def test_a_process_of_several_keeps_the_devices_it_was_given(monkeypatch, tmp_path):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    for name in ("run_train", "run_list"):
        monkeypatch.setattr(commands, name, lambda options, rest, command: {})
    assert main(["train", "few-shot-glyphs", "--distributed", "--out", str(tmp_path)]) == 0
    assert COUNT not in os.environ["XLA_FLAGS"]
    assert main(["list"]) == 0
    assert COUNT in os.environ["XLA_FLAGS"]


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("4", "4")])
def test_lapack_has_one_thread_unless_the_user_says_otherwise(monkeypatch, before, after):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if before is not None:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", before)
    _xla.set_flags()
    assert os.environ["OPENBLAS_NUM_THREADS"] == after


@pytest.mark.parametrize("version", ["0.6.2", "0.11.0", "1.0"])
def test_flags_of_versions_that_were_not_tried_are_left_alone(monkeypatch, version):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(_xla.metadata, "version", lambda package: version)
    _xla.set_flags()
    assert "XLA_FLAGS" not in os.environ


def test_the_installed_compiler_knows_the_flags():
    code = "from mirrax._xla import set_flags; set_flags(); import jax; print(jax.jit(abs)(-1))"
    clean = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "1\n", done.stderr


def test_compiled_programs_are_kept_in_the_cache_folder_unless_told_otherwise(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.delenv(CACHE)
    _xla.keep_programs()
    assert os.environ[CACHE] == "/somewhere/mirrax/compiled"
    monkeypatch.setenv(CACHE, "")  # nothing is kept
    _xla.keep_programs()
    assert os.environ[CACHE] == ""


@pytest.mark.parametrize("kept", [None, "/elsewhere"])
def test_a_user_without_a_home_keeps_what_the_environment_says(monkeypatch, kept):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv(CACHE, raising=False)
    monkeypatch.setattr(_xla.Path, "home", homeless)
    if kept:
        monkeypatch.setenv(CACHE, kept)
    _xla.keep_programs()
    assert os.environ.get(CACHE) == kept
