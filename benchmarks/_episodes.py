"""The few-shot work of the benchmarks: a learner as a study composes it, and its tasks.

Classes are random images with noise of the same strength on each example. What is learned beside
the start is not where it begins, so that no transposition of it goes unseen.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from benchmarks._torch_networks import Leaves, named
from mirrax.inner import Prior
from mirrax.meta import FewShot, FewShotState, Grid
from mirrax.methods import Protocol, maml, meta_curvature, meta_sgd
from mirrax.models import conv4
from mirrax.tasks import Episode, Episodes

TASKS, WAY, SHOT, QUERY, STEPS, RATE = 4, 5, 1, 15, 5, 0.05
WIDTH = 64
SIZES = {"omniglot": (28, 28, 1), "cifar": (32, 32, 3)}
METHODS = {"maml": maml, "meta-sgd": meta_sgd, "meta-curvature": meta_curvature}
_SHARES = {"meta-sgd": 0.5}  # of the outer rate, for what is learned beside the start


@dataclasses.dataclass(frozen=True)
class Work:
    """A learner, where it stands, and where its tasks come from."""

    size: str
    method: str
    learner: FewShot
    state: FewShotState
    episodes: Episodes
    count: int

    @staticmethod
    def make(size: str, method: str, tasks: int = TASKS) -> "Work":
        """The same numbers at every call; an outer step of rate one is the hypergradient."""
        rng, shape = np.random.default_rng(0), SIZES[size]
        means, noise = (
            rng.integers(256, size=(3 * WAY, images, *shape)) for images in (1, SHOT + QUERY)
        )
        images = ((means + noise) // 2).astype(np.uint8)
        counts = np.full(len(images), SHOT + QUERY, np.int32)
        episodes = Episodes(images, counts, WAY, SHOT, QUERY, 1 / 255)
        model = conv4(shape, WAY, filters=WIDTH)
        grid = Grid.dividing(tasks)
        outer = optax.sgd(1.0)
        protocol = Protocol(lambda **none: model, outer, STEPS, RATE, tasks, devices=grid.tasks)
        learner, prior = METHODS[method](protocol, key=jax.random.key(0))

        def stirred(leaf: Array) -> Array:
            noise = 0.05 * rng.standard_normal(leaf.shape).astype(leaf.dtype)
            return leaf + noise if method != "maml" else leaf

        geometry = jax.tree.map(stirred, eqx.filter(prior.geometry, eqx.is_inexact_array))
        prior = eqx.tree_at(lambda p: p.geometry, prior, eqx.combine(geometry, prior.geometry))
        state = learner.init(prior, key=jax.random.key(1))
        return Work(size, method, learner, *grid.place((state, episodes)), tasks)

    @property
    def start(self) -> Leaves:
        """The common start by name, in mirrax's layout."""
        return named(self.state.prior.start)

    @property
    def learned(self) -> dict[str, tuple[np.ndarray, ...]]:
        """What is learned beside the start: for each parameter `log m`, or its modes' matrices."""
        return _beside(self.state.prior)

    def tasks(self) -> Episode:
        """The episodes of the first meta-step, with a leading axis of tasks."""
        keys = jax.random.split(jax.random.fold_in(self.state.key, self.state.step), self.count)
        return self._drawn(keys)

    def tests(self, key: Array, count: int) -> Episode:
        """The episodes that `FewShot.evaluate` draws, with a leading axis of tasks."""
        return self._drawn(jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count)))

    def _drawn(self, keys: Array) -> Episode:
        return jax.vmap(lambda key: self.episodes.draw(key=jax.random.split(key)[0]))(keys)

    def hypergradient(self, after: FewShotState) -> Leaves:
        """By how much a step of rate one moved the start and what is learned beside it."""
        share = _SHARES.get(self.method, 1.0)
        found = {name: leaf - named(after.prior.start)[name] for name, leaf in self.start.items()}
        moved = _beside(after.prior)
        for name, parts in self.learned.items():
            for i, (old, new) in enumerate(zip(parts, moved[name], strict=True)):
                found[f"{name} {i}"] = (old - new) / share
        return found

    @property
    def forward(self) -> Sequence[float]:
        """Multiplications and additions of each layer for one image."""
        height, width, channels = SIZES[self.size]
        layers = []
        for _ in range(4):
            layers.append(2.0 * height * width * 9 * channels * WIDTH)
            height, width, channels = height // 2, width // 2, WIDTH
        return [*layers, 2.0 * height * width * WIDTH * WAY]

    @property
    def of_modes(self) -> float:
        """Multiplications and additions of one product of a gradient with its modes' matrices."""
        if self.method != "meta-curvature":
            return 0.0
        return sum(
            2.0 * math.prod(map(len, parts)) * sum(map(len, parts))
            for parts in self.learned.values()
            if len(parts) > 1
        )

    @property
    def operations(self) -> float:
        """Those of a meta-step, by the definition of convolutions.

        A layer is a bilinear map, and so are both of its derivatives: an inner gradient takes
        three products, and reverse mode through it two for each of them. The first layer needs no
        derivative for its images, which leaves two products and their two.
        """
        first, rest = self.forward[0], sum(self.forward[1:])
        support, query = WAY * SHOT * STEPS, WAY * QUERY
        inner = support * (4 * first + 9 * rest) + 3 * STEPS * self.of_modes
        return self.count * (inner + query * (2 * first + 3 * rest))

    @property
    def bytes(self) -> float:
        """What a meta-step reads and writes at least once: images, what is learned, its change."""
        learned = sum(leaf.size for leaf in self.start.values())
        learned += sum(leaf.size for parts in self.learned.values() for leaf in parts)
        images = self.count * WAY * (SHOT + QUERY) * np.prod(SIZES[self.size])
        return float(images + 2 * 4 * learned)


def _beside(prior: Prior) -> dict[str, tuple[np.ndarray, ...]]:
    geometry: Any = prior.geometry
    if hasattr(geometry, "log_diagonal"):
        return {name: (leaf,) for name, leaf in named(geometry.log_diagonal).items()}
    factors = getattr(geometry, "factors", {})
    return {name: tuple(map(np.asarray, parts)) for name, parts in factors.items()}
