"""Parameters spread over four devices: states lie as they do, and steps are those of one device."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from repeats import slow

FOLDERS = [str(Path(__file__).parents[2] / "src"), str(Path(__file__).parents[1])]

STEPS = """
import sys
sys.path[:0] = {folders!r}
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec
from mirrax.deploy import save, to_optax
from mirrax.geometry import Diagonal, Kronecker, MaxOfDiagonals

# The geometry's weights are (in, out), those of the model (out, in) and sharded by outputs.
learned = {{"dense_0": {{"weight": jnp.ones((4, 8)), "bias": jnp.ones(8)}}}}
roles = {{"dense_0": {{"weight": ("in", "out"), "bias": ("out",)}}}}
noise = np.random.default_rng(0)
kind = {{
    "diagonal": lambda: Diagonal.like(learned),
    "max": lambda: MaxOfDiagonals.like(learned, 3, spread=0.2, key=jax.random.key(0)),
    "kronecker": lambda: Kronecker.like(learned),
}}[{kind!r}]()
geometry = jax.tree.map(lambda x: x + 0.2 * noise.normal(size=x.shape), kind)
save({path!r}, geometry, rate=0.1, roles=roles)
optimiser = to_optax({path!r}, momentum=0.5, weight_decay=0.1, verbose=False)
start = {{"layers": [{{"weight": noise.normal(size=(8, 4)), "bias": noise.normal(size=8)}}]}}
x, y = noise.normal(size=(16, 4)), noise.normal(size=(16, 8))


def loss(params):
    layer = params["layers"][0]
    return jnp.mean((x @ layer["weight"].T + layer["bias"] - y) ** 2)


# Where types say how arrays lie, a loss has to say so too: this gradient needs none.
gradient = jax.grad(loss) if {axes!r} == "Auto" else lambda p: jax.tree.map(lambda x: x - 0.3, p)


def trained(params, shardings):
    state = optimiser.init(params)
    first = state

    def step(params, state):
        updates, state = optimiser.update(gradient(params), state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, out_shardings=(shardings, None))
    for _ in range(20):
        params, state = step(params, state)
    return params, first, state


mesh = jax.make_mesh((4,), ("model",), axis_types=(jax.sharding.AxisType.{axes},))
by_rows = NamedSharding(mesh, PartitionSpec("model"))
shardings = jax.tree.map(lambda _: by_rows, start)
alone = trained(jax.tree.map(jnp.asarray, start), None)[0]
params, first, last = trained(jax.device_put(start, shardings), shardings)
for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(alone)):
    assert one.sharding == by_rows and len(other.devices()) == 1
    # Sums over parts have another order: found 2.2e-16, of numbers up to 0.9.
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-15)
names = {{"diagonal": ("rates",), "max": ("dual", "primal"), "kronecker": ()}}[{kind!r}]
trees = [first[0].trace, *(getattr(first[1], name) for name in names)]
for leaf in jax.tree.leaves(trees):
    assert leaf.sharding.is_equivalent_to(by_rows, leaf.ndim), leaf.sharding
print("same", len(jax.tree.leaves(trees)))
"""


@pytest.mark.parametrize("axes", ["Auto", "Explicit"])
@pytest.mark.parametrize(("kind", "arrays"), [("diagonal", 4), slow("max", 6), ("kronecker", 2)])
def test_four_devices(tmp_path, kind, arrays, axes):
    path = str(tmp_path / "g.safetensors")
    code = STEPS.format(folders=FOLDERS, kind=kind, path=path, axes=axes)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"same {arrays}"
