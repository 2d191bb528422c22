"""What PyTorch users import: no JAX, and one line where PyTorch is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from deployed import BY_ROLES, GEOMETRIES, ROLES, make_params

from mirrax.deploy import save
from repeats import slow

SOURCE = str(Path(__file__).parents[2] / "src")
STEP = """
import sys, torch
from mirrax.deploy.torch import MirrorDescent
shapes = {"dense_0.weight": (2, 3), "dense_0.bias": (2,), "mixture.0": (4,)}
params = {name: torch.nn.Parameter(torch.ones(shape) / 4) for name, shape in shapes.items()}
optimiser = MirrorDescent(params.items(), sys.argv[1], verbose=False)
for param in params.values():
    param.grad = torch.ones_like(param)
optimiser.step()
print(sorted({"jax", "jaxlib", "equinox", "optax", "mirrax.geometry"} & set(sys.modules)))
"""


def python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": SOURCE},
    )


@pytest.mark.parametrize(
    "name", [slow("diagonal"), slow("blockiaf"), "convex", "transformed-blockwise"]
)
def test_a_step_needs_no_jax(tmp_path, name):
    geometry = (GEOMETRIES | BY_ROLES)[name]
    save(tmp_path / "g", geometry, rate=0.1, params_like=make_params(), roles=ROLES)
    done = python(STEP, str(tmp_path / "g"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_without_pytorch_the_line_says_what_to_install():
    code = (
        "import importlib.util as u; found = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'torch' else found(name, *rest)\n"
        "import mirrax.deploy.torch"
    )
    done = python(code)
    assert done.returncode == 1
    assert "needs PyTorch; pip install 'mirrax[torch]'" in done.stderr.splitlines()[-1]


def test_it_is_reached_by_name():
    import mirrax

    assert mirrax.deploy.torch.MirrorDescent.__name__ == "MirrorDescent"
