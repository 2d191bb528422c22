"""The scripts of `examples/` and the Python of the quick start run, and show what they say."""

import ast
import contextlib
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
pytestmark = pytest.mark.skipif(not EXAMPLES.exists(), reason="needs the repository")


@pytest.fixture
def example(monkeypatch, tmp_path):
    """Imports a script as users run it: 32 bits, JAX's own promotion, files where they are."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    with ordinary():
        yield importlib.import_module


@contextlib.contextmanager
def ordinary():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.slow
def test_a_geometry_of_ones_own_goes_to_pytorch(example, tmp_path, capsys):
    found = example("learn_a_geometry").main(tmp_path, rounds=2, steps=20, baselines=["Adam"])
    assert list(found) == ["learned geometry", "Adam"]
    assert all(np.isfinite(numbers).all() for numbers in found.values())
    ours, theirs = example("from_jax_to_torch").main("geometry.safetensors", steps=20)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert ours[-1] < 0.9 * ours[0]
    assert "layers/0/weight  (32, 64)  0.weight  (32, 64)" in capsys.readouterr().out


def test_from_own_data_to_pytorch_in_forty_lines(example, capsys):
    example("own_model_to_torch")
    first, last = map(float, re.findall(r"\d\.\d+", capsys.readouterr().out.splitlines()[-1]))
    assert last < 0.3 * first
    source = (EXAMPLES / "own_model_to_torch.py").read_text()
    assert len(code_lines(source)) < 40


def code_lines(source):
    """Lines that are neither blank, comment nor the module's docstring."""
    text = ast.parse(source).body[0]
    lines = enumerate(map(str.strip, source.splitlines()), 1)
    told = range(text.lineno, text.end_lineno + 1)
    return [line for number, line in lines if line and line[0] != "#" and number not in told]


def test_own_images(example, tmp_path):
    script = example("few_shot_own_images")
    script.draw_letters(tmp_path, classes=30, images=10)
    found = script.main(tmp_path, method="maml", network="mlp-4", meta_steps=2, count=4)
    assert all(0 <= mean <= 1 for pair in found.values() for mean, _ in pair)


def test_online_rates(example):
    ((_, fixed, learned, lowest, highest),) = example("online_rates").main(400, rates=(0.3,))
    assert learned < fixed and lowest < 0.3  # the one rate is too large, and its own ones fall


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_whole(name, tmp_path):
    """As it stands, in a process of its own."""
    if name == "from_jax_to_torch":
        script([sys.executable, EXAMPLES / "learn_a_geometry.py"], tmp_path)
    assert script([sys.executable, EXAMPLES / f"{name}.py"], tmp_path).strip()


def script(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_shown():
    page = (ROOT / "docs" / "examples.md").read_text()
    assert set(re.findall(r'--8<-- "examples/(\w+)\.py"', page)) == {
        path.stem for path in EXAMPLES.glob("*.py")
    }


def blocks_of(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


ARTIFACT = re.compile(r'"(?:runs/rotated-digits/)?geometry\.safetensors"')


def run_blocks(blocks, names, path):
    """In one namespace, with an artifact in place of the run's."""
    for block in blocks:
        code = ARTIFACT.sub(json.dumps(str(path)), block)
        exec(compile(code, "<documentation>", "exec"), names)


@pytest.fixture
def users_own(tmp_path):
    """What the reader is told to have: parameters, gradients, models, and a run's artifact."""
    import equinox as eqx
    import torch
    from flax import nnx

    import mirrax
    from mirrax.geometry import Diagonal
    from mirrax.models import mlp

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.hidden, self.top = nnx.Linear(64, 8, rngs=rngs), nnx.Linear(8, 10, rngs=rngs)

    with ordinary():
        model, path = mlp((8, 8, 1), (8,), 10), tmp_path / "geometry.safetensors"
        params = model.init(jax.random.key(0))
        mirrax.deploy.save(path, Diagonal.like(params), rate=0.1, roles=model.roles)
        names = {
            "params": params,
            "gradients": jax.tree.map(jax.numpy.ones_like, params),
            "model": torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.Linear(8, 10)),
            "flax_model": Network(nnx.Rngs(0)),
            "equinox_model": eqx.nn.MLP(64, 10, 8, 1, key=jax.random.key(0)),
            "path": path,
        }
        yield names, path


def test_the_quick_start_runs(users_own, tmp_path, monkeypatch):
    names, path = users_own
    monkeypatch.chdir(tmp_path)
    before = names["params"]["dense_0"]["bias"]
    blocks = blocks_of("docs/quickstart.md")
    assert len(blocks) == 6
    run_blocks(blocks, names, path)
    np.testing.assert_allclose(names["params"]["dense_0"]["bias"], before - 0.1, rtol=1e-6)
    np.testing.assert_allclose(names["rates"], [0.19, 0.05, 0.45], rtol=0, atol=0.01)  # as it says
    assert (tmp_path / "my_geometry.safetensors").exists()


def test_the_readme_runs(users_own):
    import optax

    import mirrax

    names, path = users_own
    names |= {"mirrax": mirrax, "optax": optax}
    names["state"] = mirrax.deploy.to_optax(path).init(names["params"])
    blocks = blocks_of("README.md")
    assert len(blocks) == 2
    run_blocks(blocks, names, path)
    assert type(names["optimiser"]).__name__ == "MirrorDescent"
