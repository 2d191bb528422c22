r"""Reverse hypergradients of an unrolled MLP: mirrax against torchopt, higher and plain PyTorch.

    python -m benchmarks.hypergradient [--rounds N] [--json FILE]

Every side runs the same 200 steps of diagonal mirror descent, `θ ← θ − η g/m²`, on the same
minibatches of 8×8 digits from the same start in float32, and differentiates
`E = ½ Σ m² (θ_T − θ_1)² + k/min m²` with respect to one `log m` for each parameter. First all
values and gradients are compared; then all sides are timed, interleaved in one process, each
PyTorch side with one thread and with all cores. A ratio is the median of the fastest setting of a
peer over the median of mirrax. Needs the extra `[bench]`.
"""

import dataclasses
import functools
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torchopt
from sklearn.datasets import load_digits
from torch.nn import functional
from torchopt.base import GradientTransformation

from benchmarks import begin, finish, parser, table
from mirrax._clock import interleave
from mirrax.geometry import Diagonal
from mirrax.hypergradient import Reverse
from mirrax.inner import MirrorDescent, Prior, Problem, Stream
from mirrax.models import Model, cross_entropy, mlp
from mirrax.objective import LipschitzRegretBound

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # higher 0.2.1 has escape sequences that Python now rejects
    import higher

RATE, WEIGHT = 0.1, 1.0
SIZES = {"width 32": (32, 32, 200), "width 100": (100, 128, 200)}
REQUIRED = {"width 32": 5.0, "width 100": 2.0}
TOLERANCE = 1e-3

Result = tuple[float, list[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Work:
    """One problem, as numpy arrays: batches, a start and `log m`, as mirrax's leaves."""

    model: Model
    images: np.ndarray
    labels: np.ndarray
    start: dict[str, dict[str, np.ndarray]]
    log_m: dict[str, dict[str, np.ndarray]]

    @staticmethod
    def make(width: int, batch: int, steps: int) -> "Work":
        """Random rows of the digits, and random `log m` so that no two rates are equal."""
        digits = load_digits()
        rng = np.random.default_rng(0)
        rows = rng.integers(0, len(digits.target), (steps, batch))
        model = mlp((8, 8, 1), (width, width), 10)
        start = jax.tree.map(np.asarray, model.init(jax.random.key(0)))
        noise = jax.tree.map(
            lambda leaf: (0.1 * rng.standard_normal(leaf.shape)).astype(np.float32), start
        )
        images = (digits.images / 16)[..., None].astype(np.float32)
        return Work(model, images[rows], digits.target[rows].astype(np.int32), start, noise)


# mirrax


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
        return float(value), [np.asarray(leaf) for leaf in jax.tree.leaves(grad)]

    return run


# PyTorch: what all three sides share


@dataclasses.dataclass(frozen=True)
class TorchWork:
    """The same problem in PyTorch's conventions: weights `(out, in)`, before their biases."""

    images: torch.Tensor
    labels: torch.Tensor
    start: list[torch.Tensor]
    log_m: list[torch.Tensor]

    @staticmethod
    def of(work: Work) -> "TorchWork":
        """The same numbers as tensors."""
        images = torch.from_numpy(work.images).flatten(2)
        return TorchWork(
            images,
            torch.from_numpy(work.labels).long(),
            _tensors(work.start),
            [leaf.requires_grad_() for leaf in _tensors(work.log_m)],
        )

    def rates(self) -> list[torch.Tensor]:
        """The rate of each parameter, `η/m²`, as a function of `log m`."""
        return [RATE * torch.exp(-2 * leaf) for leaf in self.log_m]

    def differentiate(self, last: Sequence[torch.Tensor]) -> Result:
        """The objective at the last point and its derivative, in mirrax's order of leaves."""
        parts = zip(self.log_m, last, self.start, strict=True)
        distance = sum(((torch.exp(r) * (x - y)) ** 2).sum() for r, x, y in parts) / 2
        least = torch.stack([leaf.min() for leaf in self.log_m]).min()
        value = distance + WEIGHT * torch.exp(-2 * least)
        grads = torch.autograd.grad(value, self.log_m)
        pairs = zip(grads[1::2], grads[::2], strict=True)
        return value.item(), [leaf.numpy().T for pair in pairs for leaf in pair]


def _tensors(params: dict[str, dict[str, np.ndarray]]) -> list[torch.Tensor]:
    layers = [params[name] for name in sorted(params)]
    arrays = [array for layer in layers for array in (layer["weight"].T, layer["bias"])]
    return [torch.from_numpy(np.array(array, order="C")) for array in arrays]


def _loss(params: Sequence[torch.Tensor], images: torch.Tensor, labels: torch.Tensor):
    hidden = images
    for weight, bias in zip(params[:-2:2], params[1:-2:2], strict=True):
        hidden = functional.relu(functional.linear(hidden, weight, bias))
    return functional.cross_entropy(functional.linear(hidden, *params[-2:]), labels)


# PyTorch: the three sides


def with_torch(work: Work) -> Callable[[], Result]:
    """A loop written by hand: no optimiser objects, no modules."""
    problem = TorchWork.of(work)

    def run() -> Result:
        rates = problem.rates()
        params = [leaf.clone().requires_grad_() for leaf in problem.start]
        for images, labels in zip(problem.images, problem.labels, strict=True):
            grads = torch.autograd.grad(_loss(params, images, labels), params, create_graph=True)
            params = [x - r * g for x, r, g in zip(params, rates, grads, strict=True)]
        return problem.differentiate(params)

    return run


def with_torchopt(work: Work) -> Callable[[], Result]:
    """The functional optimiser of torchopt (faster than its meta-optimiser on modules).

    Its SGD takes one number as rate, so the rates enter as a gradient transformation, which is
    what its own SGD is made of.
    """
    problem = TorchWork.of(work)

    def run() -> Result:
        rates = problem.rates()

        def update(grads: Any, state: Any, *, params: Any = None, inplace: bool = False) -> Any:
            del params, inplace
            return [-r * g for r, g in zip(rates, grads, strict=True)], state

        optimiser = torchopt.FuncOptimizer(GradientTransformation(lambda params: (), update))
        params = [leaf.clone().requires_grad_() for leaf in problem.start]
        for images, labels in zip(problem.images, problem.labels, strict=True):
            params = optimiser.step(_loss(params, images, labels), params)
        return problem.differentiate(params)

    return run


def with_higher(work: Work) -> Callable[[], Result]:
    """The differentiable SGD of higher, one parameter group a tensor, rates given by tensors."""
    problem = TorchWork.of(work)
    layers = [torch.nn.Linear(weight.shape[1], weight.shape[0]) for weight in problem.start[::2]]
    activations = [torch.nn.ReLU() for _ in layers]
    pairs = zip(layers, activations, strict=True)
    network = torch.nn.Sequential(*[module for pair in pairs for module in pair][:-1])
    with torch.no_grad():
        for parameter, leaf in zip(network.parameters(), problem.start, strict=True):
            parameter.copy_(leaf)
    base = torch.optim.SGD([{"params": [p]} for p in network.parameters()], lr=1.0)

    def run() -> Result:
        override = {"lr": problem.rates()}
        with higher.innerloop_ctx(network, base, override=override) as (net, optimiser):
            for images, labels in zip(problem.images, problem.labels, strict=True):
                optimiser.step(functional.cross_entropy(net(images), labels))
            return problem.differentiate(list(net.fast_params))

    return run


# comparison


def threads(count: int, run: Callable[[], Result]) -> Result:
    torch.set_num_threads(count)
    return run()


def sides_of(work: Work, counts: Sequence[int]) -> dict[str, Callable[[], Result]]:
    """All sides by name; PyTorch once for each number of threads."""
    sides: dict[str, Callable[[], Result]] = {
        "mirrax": with_mirrax(work),
        "mirrax, checkpoints": with_mirrax(work, checkpoint=True),
    }
    peers = {"torchopt": with_torchopt, "higher": with_higher, "torch by hand": with_torch}
    for name, make in peers.items():
        run = make(work)
        for count in counts:
            label = f"{name}, {count} thread{'s' if count > 1 else ''}"
            sides[label] = functools.partial(threads, count, run)
    return sides


def disagreement(one: Result, other: Result) -> float:
    """The relative difference of two results: of the values or of the gradients, the larger."""
    first, second = (np.concatenate([g.ravel() for g in grads]) for _, grads in (one, other))
    gradient = np.linalg.norm(first - second) / np.linalg.norm(second)
    return max(float(gradient), abs(one[0] - other[0]) / abs(other[0]))


def compare(name: str, rounds: int, counts: Sequence[int]) -> dict[str, Any]:
    """Checks that all sides agree, times them, prints a table and returns the record."""
    width, batch, steps = SIZES[name]
    work = Work.make(width, batch, steps)
    sides = sides_of(work, counts)
    reference = list(sides.values())[-1]()
    difference = {side: disagreement(run(), reference) for side, run in sides.items()}
    wrong = {side: d for side, d in difference.items() if not d < TOLERANCE}
    if wrong:
        raise SystemExit(f"{name}: these sides compute something else: {wrong}")
    times = interleave(sides, rounds)
    ours = times["mirrax"]["median"]
    rows = [
        [
            side,
            f"{t['median']:.4f}",
            f"{t['fastest']:.4f}",
            f"{t['median'] / ours:.2f}",
            f"{t['median_cpu']:.4f}",
            f"{t['median_cpu'] / times['mirrax']['median_cpu']:.2f}",
            f"{difference[side]:.0e}",
        ]
        for side, t in times.items()
    ]
    print(f"{name}: MLP 64-{width}-{width}-10, batch {batch}, {steps} steps, {rounds} rounds")
    print(
        table(["side", "median s", "fastest s", "ratio", "CPU s", "CPU ratio", "difference"], rows)
    )
    libraries = {s: t for s, t in times.items() if s.startswith(("torchopt", "higher"))}
    peer = min(libraries, key=lambda side: libraries[side]["median"])
    ratio = libraries[peer]["median"] / ours
    least = min(t["median_cpu"] for t in libraries.values()) / times["mirrax"]["median_cpu"]
    print(
        f"{ratio:.2f} times faster than the fastest library ({peer}); required {REQUIRED[name]}. "
        f"In processor time: {least:.2f}.\n"
    )
    return {
        "width": width,
        "batch": batch,
        "steps": steps,
        "rounds": rounds,
        "seconds": times,
        "difference": difference,
        "fastest_library": peer,
        "ratio": ratio,
        "ratio_of_processor_time": least,
        "required": REQUIRED[name],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison; the exit status is 1 where a required ratio is missed."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=15, help="timed runs of each side")
    options.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    counts = sorted({1, torch.get_num_threads()})
    options.add_argument("--threads", nargs="+", type=int, default=counts, help="of PyTorch")
    arguments = options.parse_args(argv)
    record = begin()
    record["hypergradient"] = {
        name: compare(name, arguments.rounds, arguments.threads) for name in arguments.sizes
    }
    finish(record, arguments.json)
    results = record["hypergradient"].values()
    return int(any(result["ratio"] < result["required"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
