"""Memory: what a program plans, what a machine and its limits leave, one line where it is short."""

import dataclasses
import io
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from mirrax import cli
from mirrax._errors import ConfigError
from mirrax._memory import GIB, allowed, free_memory
from mirrax.meta import ManyShot, quadratic
from mirrax.methods import meta_md
from mirrax.study import _kinds, _memory, commands
from mirrax.study._folder import RunFolder
from mirrax.study._learn import learn
from mirrax.study._memory import planned, require_memory
from mirrax.study._progress import Progress
from mirrax.study._quadratics import QuadraticStudy
from mirrax.tasks import sample_quadratics

MEMINFO = "MemTotal: 8000 kB\nMemFree: 100 kB\nMemAvailable:    3000 kB\nSwapFree:   500 kB\n"
KEY = jax.random.key(0)


def machine(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return free_memory(root)


def test_what_a_machine_without_limits_has(tmp_path):
    assert machine(tmp_path, {}) is None
    assert machine(tmp_path, {"proc/meminfo": MEMINFO}) == 3500 * 1024
    assert machine(tmp_path, {"proc/meminfo": "nonsense\n"}) is None


def test_the_tightest_group_counts_and_its_cache_is_free(tmp_path):
    """Version 2: the limit of a group above, less what is used, and what can be given back."""
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/job/step\n",
        "sys/fs/cgroup/job/step/memory.max": "max\n",
        "sys/fs/cgroup/job/step/memory.current": "10\n",
        "sys/fs/cgroup/job/memory.max": "2000000\n",
        "sys/fs/cgroup/job/memory.current": "1500000\n",
        "sys/fs/cgroup/job/memory.stat": "anon 7\ninactive_file 200000\nactive_file 90000\n"
        "slab_reclaimable 10000\nslab_unreclaimable 5\n",
    }
    assert machine(tmp_path, files) == 800_000
    assert machine(tmp_path, {"sys/fs/cgroup/job/memory.max": "1000000\n"}) == 0


def test_groups_of_version_1(tmp_path):
    files = {
        "proc/self/cgroup": "9:cpu:/other\n4:memory,blkio:/job\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "900\n",
        "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "600\n",
        "sys/fs/cgroup/memory/job/memory.stat": "total_inactive_file 40\ntotal_active_file 10\n",
    }
    assert machine(tmp_path, files) == 350


def test_this_machine_has_some():
    if sys.platform != "linux":
        pytest.skip("only Linux says")
    there = free_memory()
    assert there is not None and 0 < there < 2**50


@pytest.mark.parametrize("text", ["many", "0", "-1", "nan"])
def test_a_number_of_gib_that_is_none_is_named(monkeypatch, text):
    monkeypatch.setenv("MIRRAX_MEMORY", text)
    with pytest.raises(ConfigError, match="MIRRAX_MEMORY: expected a positive number of GiB"):
        allowed()


@eqx.filter_jit
def outer(x):
    return x[:, None] * x[None, :]


def test_the_plan_is_that_of_what_is_made(monkeypatch):
    program = outer.lower(jnp.ones(1000)).compile()
    plan = planned(program)
    assert plan is not None and 8_000_000 <= plan < 8_100_000  # the result, in float64
    require_memory(program, "it", "no")
    monkeypatch.setenv("MIRRAX_MEMORY", str(1e7 / GIB))
    require_memory(program, "it", "no")
    with pytest.raises(ConfigError) as error:
        require_memory(program, "it", "try less", copies=3)
    assert str(error.value) == (
        "it takes about 0.0224 GiB of memory and 0.00931 GiB are free; try less, or set "
        "MIRRAX_MEMORY to the GiB it may take."
    )


def test_what_an_accelerator_has_left(monkeypatch):
    """The fullest device of this process; those of others may not be asked."""

    class Device:
        platform = "gpu"

        def __init__(self, in_use: int | None):
            self._stats = None if in_use is None else {"bytes_limit": 100, "bytes_in_use": in_use}

        def memory_stats(self):
            return self._stats

    def left(*in_use):
        monkeypatch.setattr(_memory.jax, "local_devices", lambda: [*map(Device, in_use)])
        return _memory.available()

    assert left(30) == 70
    assert left(30, 90, 0) == 10
    assert left(30, None) is None


def zeros(key):
    del key
    return jnp.zeros(2)


def meta_train(path):
    learner, initial = meta_md(zeros, steps=7, rate=0.05, comparator="solution", key=KEY)
    return learn(
        learner,
        initial,
        quadratic(sample_quadratics(KEY, 3)),
        ["a", "b", "c"],
        rounds=2,
        rate=0.05,
        folder=RunFolder.create(path, {"recipe": "quadratics", "seed": 0, "fields": {}}),
        progress=Progress(Console(file=io.StringIO(), quiet=True)),
        key=KEY,
    )


def test_a_study_that_does_not_fit_stops_before_its_first_round(tmp_path, monkeypatch):
    monkeypatch.setenv("MIRRAX_MEMORY", "1e-7")
    with pytest.raises(ConfigError, match="a round of meta-training takes about .* --in-turn"):
        meta_train(tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_round_whose_plan_was_asked_for_is_not_compiled_again():
    learner, initial = meta_md(zeros, steps=9, rate=0.05, comparator="solution", key=KEY)
    state, problems = learner.init(initial, key=KEY), quadratic(sample_quadratics(KEY, 3))
    events = []

    def record(event, duration_secs, **kwargs):
        del duration_secs, kwargs
        events.append(event)

    jax.monitoring.register_event_duration_secs_listener(record)
    try:
        ManyShot.round.lower(learner, state, problems).compile()
        assert "/jax/core/compile/backend_compile_duration" in events
        events.clear()
        learner.round(state, problems)
    finally:
        jax.monitoring.unregister_event_duration_listener(record)
    assert "/jax/core/compile/backend_compile_duration" not in events


@pytest.mark.parametrize(
    "error, size",
    [
        (MemoryError(), ""),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes."), " (123 bytes"),
        (MemoryError("Unable to allocate 1.5 TiB for an array"), " (1.5 TiB"),
    ],
)
def test_what_found_no_memory_is_told_in_a_line(monkeypatch, capsys, error, size):
    def run(*_):
        raise error

    monkeypatch.setattr(commands, "run_list", run)
    assert cli.main(["list"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"mirrax: out of memory{size}") and told.count("\n") == 1
    assert "--in-turn" in told and "--resume" in told
    with pytest.raises(type(error)):
        cli.main(["list", "--debug"])


def test_a_run_refused_before_its_first_round_is_not_in_the_way(tmp_path, monkeypatch, capsys):
    path = tmp_path / "run"
    words = ["train", "quadratics", "--budget", "smoke", "--out", str(path)]

    def refused(config, folder, *_):
        folder.append_metrics({"round": 0})
        raise ConfigError("a round takes about 9 GiB of memory and 1 GiB are free")

    kind = dataclasses.replace(_kinds._KINDS[QuadraticStudy], train=refused)
    monkeypatch.setitem(_kinds._KINDS, QuadraticStudy, kind)
    assert cli.main(words) == 2 and not path.exists()

    def begun(config, folder, *_):
        folder.save_checkpoint({"x": jnp.zeros(2)}, 1)
        refused(config, folder)

    monkeypatch.setitem(_kinds._KINDS, QuadraticStudy, dataclasses.replace(kind, train=begun))
    assert cli.main(words) == 2 and (path / "config.json").exists()
    assert "9 GiB" in capsys.readouterr().err


def test_other_errors_of_the_runtime_are_not_taken_for_it(monkeypatch):
    def run(*_):
        raise RuntimeError("INTERNAL: something else")

    monkeypatch.setattr(commands, "run_list", run)
    with pytest.raises(RuntimeError, match="something else"):
        cli.main(["list"])


@pytest.mark.slow
def test_xla_says_what_the_command_line_looks_for():
    """A real failure, of an array larger than any machine, in a process of its own."""
    code = "import jax.numpy as jnp; jnp.zeros(2**52, jnp.uint8).block_until_ready()"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 1 and "RESOURCE_EXHAUSTED" in found.stderr
