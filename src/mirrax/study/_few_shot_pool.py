r"""Few-shot results pooled over seeds: means, 95% intervals, and differences between methods.

All runs are tested on the same tasks. Seeds therefore do not narrow an interval over tasks, and a
difference between two methods is taken task by task: what is hard for both cancels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from scipy import stats

_MEASURES = ("test_accuracy", "query_loss", "train_loss")


def compared(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], rates: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The methods of a study in the form of `summary.json`.

    **Arguments:**

    - `runs`: the results of each method, one a seed.
    - `rates`: how each method's inner rate was chosen.
    """
    rows = [_pooled(method, found, rates[method]) for method, found in runs.items()]
    best = max(rows, key=lambda row: row["test_accuracy"]["mean"])["method"]
    for row in rows:
        if row["method"] != best:
            row["behind"] = _difference(runs[best], runs[row["method"]])
    return rows


def moments(values: ArrayLike) -> dict[str, Any]:
    """Mean, standard deviation and number of one figure over tasks.

    Neither mean nor deviation is there (`None`) where a figure is not finite: a mean over the other
    tasks would be that of easier ones.
    """
    mean = sd = None
    if np.isfinite(values).all():
        mean = float(np.mean(values))
        sd = float(np.std(values, ddof=1)) if np.size(values) > 1 else 0.0
    return {"mean": mean, "sd": sd, "tasks": np.size(values)}


def curve(values: ArrayLike) -> list[dict[str, Any]]:
    """Moments of each column."""
    return [moments(column) for column in np.asarray(values).T]


def interval(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and half-width of the 95% interval over tasks, pooled over seeds.

    All seeds are tested on the same tasks, so seeds do not make the interval over tasks narrower:
    its variance is that of the tasks of one seed, `s²/n`, and that between `m` seeds, `v/m`. Its
    half-width is `t √(s²/n + v/m)`, where `t` has the degrees of freedom of Satterthwaite, so that
    a spread seen in two or three seeds is not trusted as one seen in many. There is none (`None`)
    where a seed has no mean.
    """
    means = [m["mean"] for m in runs]
    if None in means:
        return {"mean": None, "ci95": None, "values": means}
    parts = [(float(np.mean([m["sd"] ** 2 / m["tasks"] for m in runs])), runs[0]["tasks"] - 1)]
    if len(means) > 1:
        parts.append((float(np.var(means, ddof=1)) / len(means), len(means) - 1))
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / freedom for part, freedom in parts)
    t = stats.t.ppf(0.975, variance**2 / spread) if spread else 0.0
    half = float(t * np.sqrt(variance))
    return {"mean": float(np.mean(means)), "ci95": half, "values": means}


def _pooled(
    method: str, runs: Sequence[Mapping[str, Any]], rates: Mapping[str, Any]
) -> dict[str, Any]:
    """The runs of a method in the form of `summary.json`."""
    first = runs[0]
    curves: dict[str, Any] = {"steps": first["adaptation"]["steps"]}
    for name in ("support_loss", "gradient_norm"):
        columns = zip(*(run["adaptation"][name] for run in runs), strict=True)
        points = [interval(column) for column in columns]
        curves[name] = [point["mean"] for point in points]
        curves[f"{name}_ci95"] = [point["ci95"] for point in points]
    return {
        "method": method,
        "rate": rates["rate"],
        "pilots": rates["pilots"],
        "learned": first["learned"],
        **{n: interval([run[n] for run in runs]) for n in _MEASURES},
        "validation_accuracy": {
            "values": [run["validation_accuracy"]["mean"] for run in runs],
            "mean": float(np.mean([run["validation_accuracy"]["mean"] for run in runs])),
        },
        "best_step": [run["best_step"] for run in runs],
        # The median: something else may have run beside one of the seeds.
        "seconds_per_step": float(np.median([run["seconds_per_step"] for run in runs])),
        "adaptation": curves,
        "training": _training([run["training"] for run in runs]),
    }


def _training(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean loss where all seeds have one: a seed may have diverged, or have another stride."""
    losses = [dict(zip(run["steps"], run["loss"], strict=True)) for run in runs]
    steps = sorted(set(losses[0]).intersection(*losses[1:]))
    return {"steps": steps, "loss": [float(np.mean([x[s] for x in losses])) for s in steps]}


def _difference(
    best: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """How far a method's test accuracy is behind the best one's, paired by seed and task."""
    pairs = zip(best, other, strict=True)
    gaps = [np.subtract(one["test_accuracies"], two["test_accuracies"]) for one, two in pairs]
    return interval([moments(gap) for gap in gaps])
