"""Few-shot learning on your own images: a folder with one folder a class, as PNG or JPEG.

So that it runs anywhere, the folder is made here, from the letters of a font: forty classes, twelve
images each. With a folder of your own, pass its name.
"""

import string
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from PIL import Image, ImageDraw, ImageFont

from mirrax import methods, models, tasks


def draw_letters(folder, classes=40, images=12):
    """Letters, each drawn a little differently every time."""
    rng, fonts = np.random.default_rng(0), Path(matplotlib.get_data_path(), "fonts/ttf")
    for character in string.ascii_letters[:classes]:
        place = Path(folder, f"letter-{ord(character)}")
        place.mkdir()
        for number in range(images):
            face = ImageFont.truetype(fonts / "DejaVuSans.ttf", int(rng.integers(16, 24)))
            image = Image.new("L", (32, 32), 255)
            offset = tuple(rng.uniform(5, 11, 2))
            ImageDraw.Draw(image).text(offset, character, fill=0, font=face)
            image.rotate(rng.uniform(-20, 20), fillcolor=255).save(place / f"{number}.png")


def main(folder, method="meta_sgd", network="conv4-8", meta_steps=100, count=40):
    # Classes are shared out to learn from, to choose by and to test on; none is in two parts.
    family = tasks.image_folder(folder, shape=(28, 28, 1), seed=0)
    train, _, test = family.episodes(way=5, shot=1, query=5, test_query=5)

    # What all methods share; a method says what is learned and how a task adapts.
    protocol = methods.Protocol(
        network=lambda: models.build(network, family.train.image_shape, 5),
        optimiser=optax.adam(3e-3),
        steps=3,
        rate=0.1,
    )
    accuracies = {}
    for name in ("maml", method):
        learner, prior = methods.FEW_SHOT[name](protocol, key=jax.random.key(0))
        state = learner.init(prior, key=jax.random.key(1))
        before = judged(learner, state.prior, test, count)
        state, records = learner.run(state, train, meta_steps)
        if bool(records.failed.any()):
            raise SystemExit(f"{name} diverged: choose a smaller rate.")
        accuracies[name] = before, judged(learner, state.prior, test, count)
    return accuracies


def judged(learner, prior, episodes, count):
    """Mean accuracy on new classes, and its standard error; the tasks are the same each time."""
    scores = learner.evaluate(prior, episodes, jnp.arange(count), key=jax.random.key(2))
    found = np.asarray(scores.query_accuracy)
    return found.mean(), found.std(ddof=1) / np.sqrt(count)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        if not sys.argv[1:]:
            draw_letters(made)
        results = main(*(sys.argv[1:] or [made]))
    for name, ((first, _), (last, error)) in results.items():
        print(f"{name:<10} accuracy on new classes {first:.1%} at first, {last:.1%} ± {error:.1%}")
