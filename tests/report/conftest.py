"""A made-up run folder with the files of a finished run. No number here is a measurement."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mirrax import report

OPTIMISERS = {
    "SGD": (0.9, {"learning_rate": 0.1, "weight_decay": 1e-4}),
    "SGD-M": (1.2, {"learning_rate": 0.05, "momentum": 0.9, "weight_decay": 1e-4}),
    "Adam": (1.4, {"learning_rate": 0.01, "weight_decay": 5e-4}),
    "RMSprop": (0.7, {"learning_rate": 0.001, "weight_decay": 1e-3}),
    "MetaMD": (1.7, {"rate": 1.0}),
}
LEAVES = {
    "dense_0/weight": ((64, 128), ("in", "out")),
    "dense_0/bias": ((128,), ("out",)),
    "dense_1/weight": ((128, 64), ("in", "out")),
    "dense_1/bias": ((64,), ("out",)),
    "dense_2/weight": ((64, 10), ("in", "out")),
    "dense_2/bias": ((10,), ("out",)),
}
STEPS = 400


def estimate(values: list[float | None]) -> dict[str, Any]:
    found = [v for v in values if v is not None]
    if not found:
        return {"mean": None, "se": None, "values": values}
    mean = sum(found) / len(found)
    spread = sum((v - mean) ** 2 for v in found) / max(len(found) - 1, 1)
    return {"mean": mean, "se": math.sqrt(spread / len(found)), "values": values}


def make_curves(rng: random.Random) -> dict[str, Any]:
    curves = {}
    for name, (speed, _) in OPTIMISERS.items():
        mean = [
            2.4 * (1 + speed * t / 12) ** -0.95 * math.exp(rng.gauss(0, 0.05)) for t in range(STEPS)
        ]
        curves[name] = {
            "mean": mean,
            "low": [0.86 * v for v in mean],
            "high": [1.17 * v for v in mean],
        }
    return {"metric": "training loss", "steps": list(range(STEPS)), "curves": curves}


def make_summary(rng: random.Random, curves: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for name, (speed, hyper) in OPTIMISERS.items():
        mean = curves["curves"][name]["mean"]
        final = [sum(mean[-20:]) / 20 * math.exp(rng.gauss(0, 0.04)) for _ in range(3)]
        steps = {}
        for target in (0.3, 0.1):
            first = next((t for t, v in enumerate(mean) if v <= target), None)
            steps[str(target)] = estimate(
                [None if first is None else first + rng.randrange(9) for _ in range(3)]
            )
        rows.append(
            {
                "optimiser": name,
                "hyperparameters": hyper,
                "test_accuracy": estimate(
                    [0.94 + 0.01 * speed + rng.gauss(0, 1e-3) for _ in "abc"]
                ),
                "final_loss": estimate(final),
                "log_loss_area": estimate(
                    [sum(map(math.log, mean)) / STEPS + rng.gauss(0, 0.02) for _ in "abc"]
                ),
                "steps_to": steps,
            }
        )
    return {
        "recipe": "rotated-digits",
        "held_out": "45 degrees",
        "seeds": 3,
        "wall_seconds": 141.7,
        "meta_training_seconds": 95.2,
        "hardware": {"device": "cpu", "cores": 2},
        "comparison": rows,
        "certificate": make_certificate(),
        "notes": ["Baselines were tuned by grid search on the meta-training tasks only."],
    }


def make_certificate() -> dict[str, Any]:
    steps = list(range(1, 201))
    regret = [6 * (1 - math.exp(-t / 30)) for t in steps]
    tight = [3 + 6.5 * (1 - math.exp(-t / 35)) for t in steps]
    lipschitz = [4 + 0.25 * t for t in steps]
    return {
        "comparator": "a reference run of 2,000 steps",
        "steps": 200,
        "rate": 0.1,
        "regret": regret[-1],
        "linearised_regret": 1.1 * regret[-1],
        "bounds": {"local dual norm": tight[-1], "Lipschitz": lipschitz[-1]},
        "assumptions": {
            "convexity": {"holds": False, "why": "the model is a multi-layer network"},
            "Lipschitz gradients": {
                "holds": True,
                "how": "measured",
                "why": "largest norm seen: 3.1",
            },
            "known_comparator": None,
        },
        "by_step": {
            "steps": steps,
            "regret": regret,
            "bounds": {"local dual norm": tight, "Lipschitz": lipschitz},
        },
    }


def make_geometry(rng: random.Random) -> dict[str, Any]:
    leaves = []
    for i, (name, (shape, roles)) in enumerate(LEAVES.items()):
        centre = 0.03 * 3 ** (i % 3)
        rates = sorted(
            centre * math.exp(rng.gauss(0, 0.7)) for _ in range(min(math.prod(shape), 900))
        )
        low, high = rates[0], rates[-1]
        edges = [low * (high / low) ** (k / 24) for k in range(25)]
        edges[-1] = high
        counts = [sum(a <= r < b for r in rates) for a, b in zip(edges, edges[1:], strict=False)]
        counts[-1] += 1
        leaves.append(
            {
                "name": name,
                "shape": list(shape),
                "roles": list(roles),
                "rate_median": rates[len(rates) // 2],
                "rate_low": low,
                "rate_high": high,
                "histogram": {"edges": edges, "counts": counts},
                "spectrum": rates[::-1][:: max(len(rates) // 50, 1)],
            }
        )
    return {"geometry": "MaxOfDiagonals", "rate": 0.1, "leaves": leaves}


def make_rounds(rng: random.Random, count: int = 12) -> list[dict[str, Any]]:
    rounds = []
    for i in range(count):
        first = 0.34 + 0.3 * (1 - math.exp(-i / 4))
        by_step = []
        for t in range(STEPS):
            lead = 0.36 + 0.5 / (1 + math.exp(-(t - 120) / 25)) + rng.gauss(0, 0.012)
            by_step.append([lead, 0.6 * (1 - lead), 0.4 * (1 - lead)])
        rounds.append(
            {
                "round": i,
                "value": 40 * math.exp(-i / 3) + 6 + rng.random(),
                "first_loss": 2.3 + 0.02 * rng.random(),
                "last_loss": 0.06 + 0.2 * math.exp(-i / 3),
                "seconds": 4.2 + rng.random(),
                "activation": [first, 0.62 * (1 - first), 0.38 * (1 - first)],
                "activation_by_step": by_step,
                "tasks": ["0", "15", "30", "60", "75"],
            }
        )
    return rounds


def make_trajectories() -> dict[str, Any]:
    """Gradient descent with four rates on one quadratic, under the names of optimisers."""
    matrix, vector = [[2.0, 0.6], [0.6, 0.35]], [1.0, 1.0]
    paths, steps = {}, {}
    for name, (x_rate, y_rate) in {
        "SGD": (0.2, 0.2),
        "SGD-M": (0.42, 0.42),
        "Adam": (0.1, 0.6),
        "MetaMD": (0.24, 1.2),
    }.items():
        x, y, path = -2.5, 4.0, []
        for _ in range(2000):
            path.append([x, y])
            gx = 2 * (matrix[0][0] * x + matrix[0][1] * y) - vector[0]
            gy = 2 * (matrix[1][0] * x + matrix[1][1] * y) - vector[1]
            if math.hypot(gx, gy) < 1e-6:
                break
            x, y = x - x_rate * gx, y - y_rate * gy
        paths[name], steps[name] = path, len(path)
    metric = [[1 / 0.24, 0.0], [0.0, 1 / 1.2]]
    found = {"matrix": matrix, "vector": vector, "trajectories": paths, "steps": steps}
    return {**found, "metric": metric}


def write_run(folder: Path, seed: int = 0, recipe: str = "rotated-digits") -> Path:
    """Writes a whole run folder; one of quadratics has trajectories too."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    curves = make_curves(rng)
    config = {
        "recipe": recipe,
        "seed": seed,
        "budget": "default",
        "version": "0.1.0",
        "fields": {
            "widths": [128, 64],
            "steps": STEPS,
            "rounds": 12,
            "objective": "regret",
            "components": 3,
        },
        "command": f"mirrax train {recipe} --seed {seed} --out {folder.name}",
    }
    contents = {
        "config": config,
        "summary": make_summary(rng, curves),
        "curves": curves,
        "geometry": make_geometry(rng),
    }
    if recipe == "quadratics":
        contents["trajectories"] = make_trajectories()
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    lines = (json.dumps(record) + "\n" for record in make_rounds(rng))
    (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished run."""
    return write_run(tmp_path / "run")


@pytest.fixture
def edit(run_folder: Path) -> Callable[[str, Callable[[Any], Any]], Path]:
    """Changes one JSON file of the run: `edit("summary", function)`."""

    def change(name: str, function: Callable[[Any], Any]) -> Path:
        path = run_folder / f"{name}.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        changed = function(content)
        path.write_text(json.dumps(content if changed is None else changed), encoding="utf-8")
        return run_folder

    return change


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished runs of different recipes, to be read only."""
    folder = tmp_path_factory.mktemp("runs")
    return [write_run(folder / "run"), write_run(folder / "other", seed=1, recipe="quadratics")]


@pytest.fixture(scope="session")
def page_of_two(two_runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of these runs and of one further table, to be read only."""
    table = report.side_by_side({"SGD": {"0": 90.0}}, report.S000_TABLE2)
    path = tmp_path_factory.mktemp("page") / "report.html"
    return report.html([report.Run.read(folder) for folder in two_runs], path, tables=[table])


@pytest.fixture
def paths() -> dict[str, Any]:
    """Trajectories on a quadratic."""
    return make_trajectories()


# Made up: accuracy, speed of adaptation, numbers learned. No number here is a measurement.
FEW_SHOT = {
    "maml": (0.905, 0.75, 28_597),
    "anil": (0.871, 0.5, 28_597),
    "meta_sgd": (0.912, 0.9, 57_194),
    "t_net": (0.908, 0.8, 60_000),
    "mt_net": (0.902, 0.82, 60_500),
    "warp_maml": (0.915, 0.95, 65_605),
    "warpgrad": (0.918, 1.0, 65_605),
    "meta_curvature": (0.926, 1.15, 35_000),
    "meta_kfo": (0.899, 0.85, 35_040),
    "ecml": (0.907, 0.78, 28_597),
    "block_iaf_official": (0.931, 1.3, 3_568_628),
    "block_iaf_paper": (0.929, 1.25, 3_568_628),
    "convex_potential": (0.934, 1.45, 123_456),
}
PROTOCOL = {
    "name": "standard",
    "way": 5,
    "shot": 1,
    "test_queries": 15,
    "train_queries": 15,
    "statistics": "query",
    "inner_steps": 5,
    "rate": 0.05,
    "rate_unit": "mean cross-entropy",
    "test_tasks": 1000,
    "optimiser": "adam",
    "outer_rate": 0.001,
    "decay": "cosine",
}


def few_shot_interval(mean: float, ci95: float) -> dict[str, Any]:
    return {"mean": mean, "ci95": ci95, "values": [mean, mean, mean]}


def make_few_shot(name: str) -> dict[str, Any]:
    accuracy, speed, learned = FEW_SHOT[name]
    loss = [1.6 * math.exp(-speed * k) + 0.02 for k in range(11)]
    norm = [1.5 * math.exp(-0.8 * speed * k) + 0.01 for k in range(11)]
    steps = list(range(1, 301))
    return {
        "method": name,
        "learned": learned,
        "rate": 0.1,
        "test_accuracy": few_shot_interval(accuracy, 0.004),
        "validation_accuracy": few_shot_interval(accuracy, 0.006),
        "query_loss": few_shot_interval(2.1 - 2 * accuracy, 0.015),
        "train_loss": few_shot_interval(2.0 - 2 * accuracy, 0.011),
        "best_step": [250, 300, 275],
        "seconds_per_step": 0.2 + 0.1 * speed,
        "adaptation": {
            "steps": list(range(11)),
            "support_loss": loss,
            "support_loss_ci95": [0.06 * v for v in loss],
            "gradient_norm": norm,
            "gradient_norm_ci95": [0.07 * v for v in norm],
        },
        "training": {
            "steps": steps,
            "loss": [0.3 + 1.3 * math.exp(-t * speed / 60) + 0.1 * (t % 2) for t in steps],
        },
    }


@pytest.fixture(name="summary")
def few_shot_summary() -> dict[str, Any]:
    """A few-shot run with every method there is."""
    methods = [make_few_shot(name) for name in FEW_SHOT]
    for row in methods[:-1]:  # the last is the best
        row["behind"] = few_shot_interval(
            FEW_SHOT["convex_potential"][0] - FEW_SHOT[row["method"]][0], 0.0035
        )
    return {
        "recipe": "few-shot-glyphs",
        "kind": "few-shot",
        "protocol": dict(PROTOCOL),
        "model": "conv4-32",
        "seeds": 3,
        "meta_steps": 300,
        "hardware": {"device": "cpu", "cores": 2},
        "methods": methods,
        "notes": ["No rate was tuned for one method alone."],
    }


@pytest.fixture(name="folder")
def few_shot_folder(tmp_path: Path, summary: dict[str, Any]) -> Path:
    """The folder of that run."""
    config = {"recipe": "few-shot-glyphs", "command": "mirrax train few-shot-glyphs"}
    for name, content in {"config": config, "summary": summary}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path
