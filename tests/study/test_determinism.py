"""Same command, same seed, same number of devices: the same files to the bit, but for the clock.

Every command runs twice in processes of their own. The second has another seed of Python's hashes,
another language and time zone, and no compiled programs. With fewer threads, or with virtual
devices that are not used, results are the same to rounding.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from mirrax.tasks import image_folder
from published import image_bytes

SOURCE = Path(__file__).parents[2] / "src"
FILES = ("geometry.safetensors", "summary.json", "curves.json", "metrics.jsonl", "result.json")
TINY = "--steps 8 --rounds 2 --stride 4 --baselines SGD --seeds 1 --reference-steps 20"
DIGITS = f"train rotated-digits --budget smoke {TINY} --examples 60 --rows 40 --batch 8"
EPISODES = "train few-shot-glyphs --budget smoke --model mlp-8 --meta-steps 4 --validate-every 2"
EPISODES += " --stride 2 --pilot-steps 2 --tasks 2 --steps 1 --curve-steps 1 --method meta_sgd"
COMMANDS = {
    "many-shot": f"{DIGITS} --model mlp-8",
    "bayes": f"{DIGITS} --model linear --tuner bayes --trials 6",
    "few-shot": EPISODES,
    "online": "reproduce s002-fig2 --budget smoke",
    "quadratics": "train quadratics --budget smoke --limit 200",
}
RUN = """
import os, sys
if {core}:
    os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
from mirrax.cli import main
sys.exit(main(sys.argv[1:]))
"""
THERE = {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
ELSEWHERE = {
    "PYTHONHASHSEED": "2",
    "TZ": "Asia/Kathmandu",
    "LC_ALL": "C",
    "JAX_COMPILATION_CACHE_DIR": "",
}
ALONE = {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=4 --xla_cpu_multi_thread_eigen=false",
}


def made(command: str, out: Path, *, core: bool = False, **environment: str) -> Path:
    """The folder of a command, run in a process of its own."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", *ELSEWHERE)}
    cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
    paths = {"PYTHONPATH": str(SOURCE), "JAX_COMPILATION_CACHE_DIR": cache}
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(core=core), *command.split(), "--out", str(out)],
        capture_output=True,
        text=True,
        env={**inherited, **paths, **environment},
    )
    assert done.returncode == 0, done.stderr
    return out


def timeless(value: Any) -> Any:
    """A result without what a clock or the machine says."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if "seconds" not in k and k not in _OF_THE_MACHINE}
        return {k: timeless(v) for k, v in kept.items()}
    return [timeless(entry) for entry in value] if isinstance(value, list) else value


_OF_THE_MACHINE = ("record", "hardware")


_ROUNDING = 1e-6  # of logarithms of rates; differences of 4e-9 were seen


def found(folder: Path) -> dict[str, Any]:
    """The files of a run that hold results, without times."""
    files = {name: folder / name for name in FILES if (folder / name).exists()}
    assert {"summary.json", "result.json"} <= files.keys()
    return {
        name: path.read_bytes()
        if path.suffix == ".safetensors"
        else [timeless(json.loads(line)) for line in path.read_text().splitlines()]
        if path.suffix == ".jsonl"
        else timeless(json.loads(path.read_bytes()))
        for name, path in files.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", COMMANDS)
def test_two_processes_find_the_same(kind, tmp_path):
    first = found(made(COMMANDS[kind], tmp_path / "there", **THERE))
    second = found(made(COMMANDS[kind], tmp_path / "elsewhere", **ELSEWHERE))
    assert first.keys() == second.keys()
    for name, content in first.items():
        assert content == second[name], name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["many-shot", "few-shot"])
def test_with_one_thread_the_same_to_rounding(kind, tmp_path):
    """Threads share the terms of a sum: of few-shot learning some differ in their last digits."""
    one = made(COMMANDS[kind], tmp_path / "alone", core=True, **THERE, **ALONE)
    several = made(COMMANDS[kind], tmp_path / "there", **THERE)
    found_by = [load_file(folder / "geometry.safetensors") for folder in (one, several)]
    assert found_by[0].keys() == found_by[1].keys()
    for name, array in found_by[0].items():
        np.testing.assert_allclose(array, found_by[1][name], rtol=0, atol=_ROUNDING)


@pytest.mark.slow
def test_another_seed_finds_something_else(tmp_path):
    """Else equal files would say nothing."""
    one, other = (made(f"{DIGITS} --seed {seed}", tmp_path / str(seed)) for seed in (0, 1))
    name = "geometry.safetensors"
    assert (one / name).read_bytes() != (other / name).read_bytes()


def test_files_are_read_in_the_order_of_their_names(tmp_path, monkeypatch):
    """Whatever order the file system gives."""
    rng = np.random.default_rng(0)
    for name in ("b/2", "a/1", "c/9", "a/0", "b/1", "c/0", "e/1", "d/1", "d/0"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (6, 6), dtype=np.uint8)
        (tmp_path / f"{name}.png").write_bytes(image_bytes(pixels))
    walk, seen = os.walk, []

    def shuffled(*args: Any, **kwargs: Any) -> Any:
        for folder, below, files in walk(*args, **kwargs):
            random.Random(len(seen)).shuffle(below)
            random.Random(len(seen)).shuffle(files)
            yield folder, below, files

    monkeypatch.setattr(os, "walk", shuffled)
    for _ in range(4):
        family = image_folder(tmp_path, (6, 6, 1))
        parts = (family.train, family.validation, family.test)
        seen.append([(part.class_names, part.images.tobytes()) for part in parts])
    assert all(one == seen[0] for one in seen)
