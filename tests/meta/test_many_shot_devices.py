"""Runs of a round one after another and over several devices: the same round, in another order."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec
from test_many_shot import FLAT, KEY, PROBLEMS, RATE, STEPS, initialise, regression

from mirrax.hypergradient import Direct, Reverse
from mirrax.inner import BregmanProximal, MirrorDescent, Problem, Repeat
from mirrax.meta import Alternating, Descent, ManyShot
from mirrax.meta._sharding import _Spread
from mirrax.objective import RegretBound, ValidationLoss

ROUNDING = 1e-13
"""Sums of a dozen steps, in another order."""


OUTER = {
    "alternating": Alternating(RATE, STEPS, comparator="last"),
    "direct": Descent(RegretBound(RATE, "last"), Direct(STEPS), optax.sgd(0.05)),
    "proximal": Descent(ValidationLoss(), Reverse(STEPS), optax.sgd(0.05)),
}


def learner(outer="alternating", **options):
    inner = BregmanProximal(RATE) if outer == "proximal" else MirrorDescent(RATE)
    return ManyShot(inner, OUTER[outer], initialise, 2, **options)


def whole(problems):
    """The same tasks, each learned from all of its rows."""
    data = problems.batches.data
    return Problem(regression, Repeat(data), query=data)


def learned(problems, **options):
    """Two rounds, for what the first leaves on several devices goes into the second."""
    many = learner(**options)
    state = many.init(FLAT, key=KEY)
    for _ in range(2):
        state, record = many.round(state, problems)
    return [*jax.tree.leaves(state.geometry), record.value, record.summary.last_loss]


def test_one_after_another_is_side_by_side():
    for one, other in zip(learned(PROBLEMS), learned(PROBLEMS, in_turn=True), strict=True):
        np.testing.assert_allclose(one, other, rtol=ROUNDING)


SHARDED = """
import sys
sys.path[:0] = {folders!r}
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
from test_many_shot import PROBLEMS
from test_many_shot_devices import learned, whole
four = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[:1] / 2]), PROBLEMS)
for options in ({{}}, {options!r}):
    with jax.numpy_dtype_promotion("standard"):
        found = learned({tasks}, outer={outer!r}, **options)
    print(",".join(float(x).hex() for leaf in found for x in np.ravel(leaf)))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("outer", "tasks", "options"),
    [
        *(
            (outer, "four", {"devices": 2, "in_turn": in_turn})
            for outer in ("alternating", "direct")
            for in_turn in (True, False)
        ),
        ("proximal", "whole(four)", {"batch_devices": 2}),
    ],
)
def test_two_devices_make_the_round_of_one(outer, tasks, options):
    """In a process of its own, because devices are counted once."""
    here = Path(__file__).parent
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    folders = [str(here), str(here.parent)]
    script = SHARDED.format(folders=folders, outer=outer, tasks=tasks, options=options)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, other = (
        [float.fromhex(word) for word in line.split(",")] for line in done.stdout.splitlines()
    )
    np.testing.assert_allclose(other, one, rtol=ROUNDING)


@pytest.mark.parametrize("devices", [0, 1000])
def test_devices_that_are_not_there(devices):
    with pytest.raises(ValueError, match=f"ManyShot.devices: expected at least 1.*got {devices}"):
        learner(devices=devices)


def test_devices_that_do_not_divide_the_tasks(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    many = learner(devices=2)
    with pytest.raises(ValueError, match="ManyShot.devices: expected a divisor of the 3 tasks"):
        many.round(many.init(FLAT, key=KEY), PROBLEMS)


def test_rows_that_devices_do_not_divide():
    """Of a mesh that need not be there, because devices are counted once."""
    layout = NamedSharding(AbstractMesh((1, 2), ("tasks", "batch")), PartitionSpec("batch"))
    batches = _Spread(Repeat((jnp.ones((3, 2)), jnp.ones(()))), layout)
    with pytest.raises(ValueError, match=r"batch_devices: .* divisor of the 3 rows.* got 2"):
        batches.draw(jnp.array(0), key=jax.random.key(0))
