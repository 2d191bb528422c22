"""The many-shot work of the benchmarks: a long run with a learned rate for each parameter.

Diagonal mirror descent, `θ ← θ − η g/m²`, on minibatches; the objective at its end is
`E = ½ Σ m² (θ_T − θ_1)² + k/min m²`, and it is differentiated by `log m`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from benchmarks._torch_networks import Leaves, named
from mirrax.geometry import Diagonal
from mirrax.hypergradient import Reverse
from mirrax.inner import MirrorDescent, Prior, Problem, Stream
from mirrax.models import Model, build, cross_entropy
from mirrax.objective import LipschitzRegretBound

RATE, WEIGHT, CLASSES = 0.1, 1.0, 10


class Place(NamedTuple):
    """Where a run takes place: a network of mirrax by name, its images, how many a batch."""

    network: str
    shape: tuple[int, int, int]
    batch: int


PLACES = {
    "mlp-32": Place("mlp-32-32", (8, 8, 1), 32),
    "mlp-100": Place("mlp-100-100", (8, 8, 1), 128),
    "mlp-256": Place("mlp-256-256", (8, 8, 1), 128),
    "lenet5": Place("lenet5", (28, 28, 1), 32),
}


@dataclasses.dataclass(frozen=True)
class Work:
    """One problem, as numpy arrays: batches, a start and `log m`, as mirrax's leaves."""

    model: Model
    images: np.ndarray
    labels: np.ndarray
    start: Any
    log_m: Any

    @staticmethod
    def make(name: str, steps: int) -> "Work":
        """Random rows of the digits, and random `log m` so that no two rates are equal."""
        place, rng = PLACES[name], np.random.default_rng(0)
        digits = load_digits()
        precision = jnp.zeros(()).dtype  # that of the process
        images = (digits.images / 16)[..., None].astype(precision)
        repeats = -(-place.shape[0] // 8)
        images = images.repeat(repeats, 1).repeat(repeats, 2)[:, : place.shape[0], : place.shape[1]]
        rows = rng.integers(0, len(digits.target), (steps, place.batch))
        model = build(place.network, place.shape, CLASSES)
        start = jax.tree.map(np.asarray, model.init(jax.random.key(0)))
        noise = jax.tree.map(
            lambda leaf: (0.1 * rng.standard_normal(leaf.shape)).astype(precision), start
        )
        return Work(model, images[rows], digits.target[rows].astype(np.int32), start, noise)

    @property
    def operations(self) -> float:
        """Multiplications and additions of the hypergradient; see `_episodes.Work.operations`.

        Each step takes three products of a layer and two more for each in reverse mode through
        them, two and their two in the first layer, which needs no derivative for its images.
        """
        steps, batch, *_ = self.images.shape
        first, *rest = self._forward()
        return float(steps * batch * (4 * first + 9 * sum(rest)))

    def _forward(self) -> list[float]:
        """Multiplications and additions of each layer for one image."""
        height, width = self.images.shape[2:4]
        layers = []
        for name, weight in named(self.start).items():
            if weight.ndim == 4:
                if layers:
                    height, width = (
                        height - 4,
                        width - 4,
                    )  # LeNet's second kernel does not reach over
                layers.append(2.0 * height * width * weight.size)
                height, width = height // 2, width // 2
            elif name.endswith("weight"):
                layers.append(2.0 * weight.size)
        return layers

    @property
    def bytes(self) -> float:
        """What is read or written at least once: batches, start, rates, hypergradient."""
        learned = sum(leaf.nbytes for leaf in named(self.start).values())
        return float(self.images.nbytes + self.labels.nbytes + 3 * learned)


Result = tuple[float, Leaves]


def with_mirrax(work: Work, checkpoint: bool = False) -> Callable[[], Result]:
    """The library's own estimator, compiled."""

    def loss(params: Any, shared: Any, batch: Any) -> jax.Array:
        images, labels = batch
        return cross_entropy(work.model.apply(params, images), labels)

    inner = MirrorDescent(RATE)
    objective = LipschitzRegretBound(WEIGHT, comparator="last")
    estimator = Reverse(steps=len(work.images), checkpoint=checkpoint)
    prior = Prior(Diagonal(jax.tree.map(jnp.asarray, work.log_m)), start=work.start)
    prior = jax.tree.map(jnp.asarray, prior)
    batches = Stream((jnp.asarray(work.images), jnp.asarray(work.labels)))
    state = estimator.init(inner, prior)

    @jax.jit
    def estimate(prior: Prior, batches: Stream, state: Any) -> Any:
        problem = Problem(loss, batches)
        value, grad, _ = estimator.estimate(
            objective, inner, prior, problem, state, key=jax.random.key(0)
        )
        return value, grad.geometry.log_diagonal

    def run() -> Result:
        value, grad = jax.block_until_ready(estimate(prior, batches, state))
        return float(value), named(grad)

    return run
