"""Image tasks of a few pixels and a network of four hidden units, for whole studies in seconds."""

import numpy as np

from mirrax.models import build
from mirrax.tasks import ImageTask


class InThisThread:
    """Precision is a matter of the thread, so that tests keep to theirs."""

    def __init__(self, workers):
        del workers

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    map = staticmethod(map)


def toy(number, rows=14):
    rng = np.random.default_rng(number)
    images = rng.uniform(0, 16, (rows + 8, 3, 3, 1)).astype(np.float32)
    labels = rng.integers(0, 3, rows + 8).astype(np.int32)
    return ImageTask(
        f"toy/{number}", images[:rows], labels[:rows], images[rows:], labels[rows:], 3, 1 / 16
    )


# Tasks of different sizes, so that padding is tried too.
TASKS = (toy(0), toy(1, 10), toy(2))
MODEL = build("mlp-4", (3, 3, 1), 3)
