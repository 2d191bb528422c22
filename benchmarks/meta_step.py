r"""A second-order meta-step of Conv4-64: mirrax against torchopt, higher and plain PyTorch.

    python -m benchmarks.meta_step [--rounds N] [--threads N ...] [--json FILE]

Four tasks of 5 classes, one support and 15 query images a class, 28×28×1, float32. For each task
five steps `θ ← θ − α ∇L_support(θ)` from a common start; the meta-step is the mean query loss and
its gradient with respect to the start, through all steps. mirrax's side is one step of the learner
that studies run, with drawing the episodes and the outer step; the others are given the same tasks.
All sides start at the same numbers, and their values and gradients are compared before they are
timed, interleaved in one process, PyTorch with one thread and with all cores. A ratio is a side's
median over that of the fastest setting of a peer. Then each side's peak of resident memory is
measured in a process of its own. Needs the extra `[bench]`.
"""

import dataclasses
import functools
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torchopt
from torch.nn import functional

from benchmarks import begin, finish, parser, table
from benchmarks.memory import MEGABYTE, peak, settle
from mirrax._clock import interleave
from mirrax.meta import FewShot, FewShotState
from mirrax.methods import Protocol, maml
from mirrax.models import conv4
from mirrax.tasks import Episode, Episodes

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # higher 0.2.1 has escape sequences that Python now rejects
    import higher

TASKS, WAY, SHOT, QUERY, STEPS, RATE = 4, 5, 1, 15, 5, 0.05
REQUIRED = 0.6
COMPILATION = 20.0
# A rounding can decide which entry of a pooling window is largest, and with it a gradient.
TOLERANCE = {"value": 1e-5, "gradient": 1e-3}

Result = tuple[float, list[np.ndarray]]
Side = Callable[[], Result]


@dataclasses.dataclass(frozen=True)
class Work:
    """A learner as a study composes it, and the tasks of its first meta-step."""

    learner: FewShot
    state: FewShotState
    episodes: Episodes

    @staticmethod
    def make() -> "Work":
        """A random image for each class, and random noise of the same strength on each example.

        The outer optimiser is descent of rate one, so that its step is the hypergradient.
        """
        rng = np.random.default_rng(0)
        means, noise = (
            rng.integers(256, size=(3 * WAY, images, 28, 28, 1)) for images in (1, SHOT + QUERY)
        )
        images = ((means + noise) // 2).astype(np.uint8)
        counts = np.full(len(images), SHOT + QUERY, np.int32)
        episodes = Episodes(images, counts, WAY, SHOT, QUERY, 1 / 255)
        model = conv4((28, 28, 1), WAY)
        protocol = Protocol(lambda **none: model, optax.sgd(1.0), STEPS, RATE, TASKS)
        learner, prior = maml(protocol, key=jax.random.key(0))
        return Work(learner, learner.init(prior, key=jax.random.key(1)), episodes)

    @property
    def start(self) -> dict[str, dict[str, np.ndarray]]:
        """The common start, in mirrax's layout."""
        return jax.tree.map(np.asarray, self.state.prior.start)

    @property
    def tasks(self) -> Episode:
        """The episodes of the first meta-step, with a leading axis of tasks."""
        keys = jax.random.split(jax.random.fold_in(self.state.key, self.state.step), TASKS)
        return jax.vmap(lambda key: self.episodes.draw(key=jax.random.split(key)[0]))(keys)


# mirrax


def with_mirrax(work: Work) -> Side:
    """One meta-step of the library's learner, with its draws of episodes and its outer step."""

    def run() -> Result:
        after, record = jax.block_until_ready(work.learner.run(work.state, work.episodes, 1))
        moved = jax.tree.map(jnp.subtract, work.state.prior.start, after.prior.start)
        return float(record.value[0]), [np.asarray(leaf) for leaf in jax.tree.leaves(moved)]

    return run


def seconds_to_compile(work: Work) -> float:
    """Seconds of a first call, tracing and compiling, less those of a second."""
    run, clocks = with_mirrax(work), []
    jax.config.update("jax_enable_compilation_cache", False)
    jax.clear_caches()
    for _ in range(2):
        clock = time.perf_counter()
        run()
        clocks.append(time.perf_counter() - clock)
    return clocks[0] - clocks[1]


# PyTorch: what all three sides share


class TorchWork:
    """The same problem in PyTorch's conventions: NCHW, kernels OIHW, weights `(out, in)`."""

    def __init__(self, work: Work):
        start = work.start
        arrays = []
        for i in range(4):
            conv, norm = start[f"conv_{i}"], start[f"norm_{i}"]
            arrays += [conv["weight"].transpose(3, 2, 0, 1), conv["bias"]]
            arrays += [norm["gain"], norm["bias"]]
        arrays += [start["dense_0"]["weight"].T, start["dense_0"]["bias"]]
        self.start = [torch.from_numpy(a.copy(order="C")).requires_grad_() for a in arrays]
        tasks = work.tasks
        parts = (tasks.support_images, tasks.support_labels, tasks.query_images, tasks.query_labels)
        whole = zip(*map(np.asarray, parts), strict=True)
        self.tasks = [tuple(map(self._tensor, part)) for part in whole]

    @staticmethod
    def _tensor(array: np.ndarray) -> torch.Tensor:
        if array.ndim == 4:
            return torch.from_numpy(array.transpose(0, 3, 1, 2).copy(order="C"))
        return torch.from_numpy(array).long()

    def result(self, pairs: Sequence[tuple[torch.Tensor, Sequence[torch.Tensor]]]) -> Result:
        """The means over tasks, gradients in mirrax's layout and order of leaves."""
        value = sum(value.item() for value, _ in pairs) / TASKS
        means = [
            torch.stack(leaves).mean(0).numpy()
            for leaves in zip(*(g for _, g in pairs), strict=True)
        ]
        tree: dict[str, dict[str, np.ndarray]] = {
            "dense_0": {"weight": means[16].T, "bias": means[17]}
        }
        for i in range(4):
            weight, bias, gain, shift = means[4 * i : 4 * i + 4]
            tree[f"conv_{i}"] = {"weight": weight.transpose(2, 3, 1, 0), "bias": bias}
            tree[f"norm_{i}"] = {"gain": gain, "bias": shift}
        return value, jax.tree.leaves(tree)


def _loss(params: Sequence[torch.Tensor], images: torch.Tensor, labels: torch.Tensor):
    hidden = images
    for i in range(0, 16, 4):
        hidden = functional.conv2d(hidden, params[i], params[i + 1], padding=1)
        hidden = functional.batch_norm(hidden, None, None, params[i + 2], params[i + 3], True)
        hidden = functional.max_pool2d(functional.relu(hidden), 2)
    return functional.cross_entropy(functional.linear(hidden.flatten(1), *params[16:]), labels)


# PyTorch: the three sides


def with_torch(work: Work) -> Side:
    """A loop written by hand: no optimiser objects, no modules."""
    problem = TorchWork(work)

    def single(support: Any, support_labels: Any, query: Any, query_labels: Any) -> Any:
        params = problem.start
        for _ in range(STEPS):
            loss = _loss(params, support, support_labels)
            grads = torch.autograd.grad(loss, params, create_graph=True)
            params = [x - RATE * g for x, g in zip(params, grads, strict=True)]
        value = _loss(params, query, query_labels)
        return value, torch.autograd.grad(value, problem.start)

    return lambda: problem.result([single(*task) for task in problem.tasks])


def with_torchopt(work: Work) -> Side:
    """The functional optimiser of torchopt, without the bookkeeping of modules."""
    problem = TorchWork(work)

    def single(support: Any, support_labels: Any, query: Any, query_labels: Any) -> Any:
        optimiser, params = torchopt.FuncOptimizer(torchopt.sgd(lr=RATE)), tuple(problem.start)
        for _ in range(STEPS):
            params = optimiser.step(_loss(params, support, support_labels), params)
        value = _loss(params, query, query_labels)
        return value, torch.autograd.grad(value, problem.start)

    return lambda: problem.result([single(*task) for task in problem.tasks])


def with_higher(work: Work) -> Side:
    """The differentiable SGD of higher on modules, as its examples have it."""
    problem = TorchWork(work)
    layers = []
    for i in range(0, 16, 4):
        layers += [
            torch.nn.Conv2d(problem.start[i].shape[1], problem.start[i].shape[0], 3, padding=1),
            torch.nn.BatchNorm2d(problem.start[i].shape[0], track_running_stats=False),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
        ]
    network = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(64, WAY))
    with torch.no_grad():
        for parameter, leaf in zip(network.parameters(), problem.start, strict=True):
            parameter.copy_(leaf)
    base = torch.optim.SGD(network.parameters(), lr=RATE)

    def single(support: Any, support_labels: Any, query: Any, query_labels: Any) -> Any:
        with higher.innerloop_ctx(network, base, copy_initial_weights=False) as (net, optimiser):
            for _ in range(STEPS):
                optimiser.step(functional.cross_entropy(net(support), support_labels))
            value = functional.cross_entropy(net(query), query_labels)
            return value, torch.autograd.grad(value, list(network.parameters()))

    return lambda: problem.result([single(*task) for task in problem.tasks])


# comparison

PEERS = {"torch by hand": with_torch, "torchopt": with_torchopt, "higher": with_higher}
MAKERS = {"mirrax": with_mirrax, **PEERS}


def threads(count: int, run: Side) -> Result:
    torch.set_num_threads(count)
    return run()


def sides_of(work: Work, counts: Sequence[int]) -> dict[str, Side]:
    """All sides by name; PyTorch once for each number of threads."""
    sides = {"mirrax": with_mirrax(work)}
    for name, make in PEERS.items():
        run = make(work)
        for count in counts:
            label = f"{name}, {count} thread{'s' if count > 1 else ''}"
            sides[label] = functools.partial(threads, count, run)
    return sides


def differences(one: Result, other: Result) -> dict[str, float]:
    """Relative differences of values and of gradients, the latter on one common scale."""
    first, second = (np.concatenate([g.ravel() for g in grads]) for _, grads in (one, other))
    gradient = np.linalg.norm(first - second) / np.linalg.norm(second)
    return {"value": abs(one[0] - other[0]) / abs(other[0]), "gradient": float(gradient)}


def rise(name: str) -> int:
    """By how much one more run of a side, of one thread, lifts the peak of resident memory."""
    run = MAKERS[name](Work.make())
    torch.set_num_threads(1)
    run()
    before = settle()
    run()
    return peak() - before


def fresh(name: str) -> int:
    """As `rise`, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.meta_step", "--rise", name]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(rounds: int, counts: Sequence[int]) -> dict[str, Any]:
    """Checks that all sides agree, times them, prints a table and returns the record."""
    work = Work.make()
    compilation = seconds_to_compile(work)  # before PyTorch's threads are there to spin
    sides = sides_of(work, counts)
    reference = sides[next(name for name in sides if name != "mirrax")]()
    difference = {side: differences(run(), reference) for side, run in sides.items()}
    wrong = {s: d for s, d in difference.items() if any(d[k] > TOLERANCE[k] for k in d)}
    if wrong:
        raise SystemExit(f"these sides compute something else: {wrong}")
    times = interleave(sides, rounds)
    others = [side for side in times if side != "mirrax"]
    fields = ("median", "fastest", "median_cpu")
    best = {field: min(times[side][field] for side in others) for field in fields}
    ratios = {s: {field: t[field] / best[field] for field in fields} for s, t in times.items()}
    rows = [
        [
            side,
            *(f"{times[side][field]:.3f}" for field in fields),
            *(f"{ratios[side][field]:.2f}" for field in fields),
            f"{difference[side]['gradient']:.0e}",
        ]
        for side in times
    ]
    header = ["side", "median s", "fastest s", "CPU s", "ratio", "of fastest", "of CPU", "differs"]
    print(f"Conv4-64, {TASKS} tasks, {WAY}-way {SHOT}-shot, {STEPS} steps, {rounds} rounds")
    print(table(header, rows))
    memory = {name: fresh(name) for name in MAKERS}
    print(f"\ncompilation {compilation:.1f} s (allowed {COMPILATION:.0f})")
    print("memory: " + ", ".join(f"{s} {b / MEGABYTE:.0f} MB" for s, b in memory.items()))
    ours = ratios["mirrax"]
    print(
        f"mirrax takes {ours['median']:.2f} of the time of the fastest peer "
        f"({ours['median_cpu']:.2f} of its processor time); required {REQUIRED}."
    )
    return {
        "rounds": rounds,
        "seconds": times,
        "ratios": ratios,
        "difference": difference,
        "compilation": compilation,
        "memory_bytes": memory,
        "required": REQUIRED,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison; the exit status is 1 where the required ratio is missed."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=9, help="timed runs of each side")
    counts = sorted({1, torch.get_num_threads()})
    options.add_argument("--threads", nargs="+", type=int, default=counts, help="of PyTorch")
    options.add_argument("--rise", choices=list(MAKERS), help="print one side's memory, in bytes")
    arguments = options.parse_args(argv)
    if arguments.rise:
        print(json.dumps(rise(arguments.rise)))
        return 0
    record = begin()
    record["meta_step"] = compare(arguments.rounds, arguments.threads)
    finish(record, arguments.json)
    return int(record["meta_step"]["ratios"]["mirrax"]["median"] > REQUIRED)


if __name__ == "__main__":
    sys.exit(main())
