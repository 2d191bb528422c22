"""Rounds over grids of devices, printed as JSON: a program of its own, as devices are counted once.

`python grid_program.py MODEL TASKSxBATCH[:turn] …` prints one object a grid, the loss curve, the
learned numbers, and the collectives of the compiled round. Run by `test_grid.py`.
"""

import json
import sys

import equinox as eqx
import jax
import numpy as np
import optax

from mirrax.geometry import Diagonal
from mirrax.hypergradient import Reverse
from mirrax.inner import MirrorDescent
from mirrax.meta import Descent, ManyShot, classification_loss, stacked
from mirrax.models import build
from mirrax.objective import RegretBound

TASKS, ROWS, BATCH, ROUNDS, STEPS, RATE = 8, 24, 8, 4, 3, 0.1


def setting(name, grid, in_turn=False):
    """A learner on a grid, and where it starts."""
    shape, classes = ((16, 16, 1), 3) if name.startswith("conv") else ((4, 4, 1), 3)
    model = build(name, shape, classes)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (TASKS, ROWS, *shape), np.uint8)
    labels = rng.integers(0, classes, (TASKS, ROWS), np.int32)
    data = list(zip(images, labels, strict=True))
    problems = stacked(data, classification_loss(model, 1 / 255), BATCH)
    outer = Descent(RegretBound(RATE, "last"), Reverse(STEPS), optax.sgd(0.05))
    devices, batch = grid
    learner = ManyShot(
        MirrorDescent(RATE), outer, model.init, 1, devices, in_turn, batch_devices=batch
    )
    state = learner.init(Diagonal.like(model.init(jax.random.key(1))), key=jax.random.key(2))
    return learner, learner.grid.place(state), learner.grid.place(problems, "tasks")


def found(name, grid, in_turn):
    """What a few rounds come to."""
    learner, state, problems = setting(name, grid, in_turn)
    compiled = eqx.filter_jit(learner.round).lower(state, problems).compile()
    curve = []
    for _ in range(ROUNDS):
        state, record = compiled(state, problems)
        curve.append(float(np.mean(record.summary.last_loss)))
    leaves = jax.tree.leaves(eqx.filter(state.geometry, eqx.is_array))
    learned = np.concatenate([np.ravel(leaf) for leaf in leaves])
    return {"curve": curve, "learned": learned.tolist(), "hlo": compiled.compiled.as_text()}


if __name__ == "__main__":
    for word in sys.argv[2:]:
        sides, _, turn = word.partition(":")
        grid = tuple(map(int, sides.split("x")))
        print(json.dumps(found(sys.argv[1], grid, turn == "turn")))
