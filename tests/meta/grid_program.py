"""Rounds over grids of devices, printed as JSON: in a process where devices are counted anew.

`python grid_program.py MODEL DTYPE GRIDS …` prints one object for each word such as `2x4`,
`2x1:turn` or `1x1,8x1`: the loss curve, the learned numbers, and the compiled rounds. Grids of one
word take turns, and what one has learned reaches the next by a checkpoint.
"""

import json
import sys
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import optax

from mirrax.geometry import Diagonal
from mirrax.hypergradient import Reverse
from mirrax.inner import MirrorDescent
from mirrax.meta import Descent, ManyShot, classification_loss, stacked
from mirrax.models import _pooled, build
from mirrax.objective import RegretBound
from mirrax.study._folder import RunFolder

_pooled._CACHE = 1 << 12  # so that small images are taken in groups, as large ones are
TASKS, ROWS, BATCH, ROUNDS, STEPS, RATE = 8, 24, 8, 4, 3, 0.1


def setting(name, word):
    """A learner on a grid, where it starts, and its tasks."""
    sides, _, turn = word.partition(":")
    devices, batch = map(int, sides.split("x"))
    shape, classes = ((16, 16, 1) if name.startswith("conv") else (4, 4, 1)), 3
    model = build(name, shape, classes)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (TASKS, ROWS, *shape), np.uint8)
    labels = rng.integers(0, classes, (TASKS, ROWS), np.int32)
    data = list(zip(images, labels, strict=True))
    problems = stacked(data, classification_loss(model, 1 / 255), BATCH)
    outer = Descent(RegretBound(RATE, "last"), Reverse(STEPS), optax.sgd(0.05))
    rule, turn = MirrorDescent(RATE), turn == "turn"
    learner = ManyShot(rule, outer, model.init, 1, devices, turn, batch_devices=batch)
    state = learner.init(Diagonal.like(model.init(jax.random.key(1))), key=jax.random.key(2))
    return learner, state, learner.grid.place(problems, "tasks")


def found(name, words, folder):
    """What a few rounds come to."""
    compiled, curve = {}, []
    for number in range(ROUNDS):
        word = words[number % len(words)]
        learner, state, problems = setting(name, word)
        state = learner.grid.place(folder.load_checkpoint(state)[0])
        if word not in compiled:
            compiled[word] = eqx.filter_jit(learner.round).lower(state, problems).compile()
        state, record = compiled[word](state, problems)
        folder.save_checkpoint(state, number + 1)
        curve.append(float(np.mean(record.summary.last_loss)))
    leaves = jax.tree.leaves(eqx.filter(state.geometry, eqx.is_array))
    learned = np.concatenate([np.ravel(leaf) for leaf in leaves])
    programs = {word: program.compiled.as_text() for word, program in compiled.items()}
    return {"curve": curve, "learned": learned.tolist(), "programs": programs}


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", sys.argv[2] == "float64")
    for words in sys.argv[3:]:
        with tempfile.TemporaryDirectory() as place:
            folder = RunFolder.create(Path(place) / "run", {})
            print(json.dumps(found(sys.argv[1], words.split(","), folder)))
