"""What the page says of the online optimisers of S002, Fig. 2, counted from its results."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]

EXTEND = (
    "Online SGD",
    "Optimistic online SGD",
    "Meta-Momentum A",
    "Optimistic Meta-Momentum A",
    "Meta-Momentum B (Alg. 2)",
    "Meta-Momentum B (Alg. 4)",
)
"""The methods that extend descent and momentum."""
RATIOS = {"best": "to_baseline", "one": "to_baseline_with_one", "low": "to_baseline_at_low_rates"}


def rows_of(results: Sequence[Result], method: str) -> Iterator[tuple[dict[str, Any], Result]]:
    """The rows of a method in all settings of some results, and the other rows of the setting."""
    for result in results:
        for setting in result["settings"]:
            by_name = {found["method"]: found for found in setting["methods"]}
            yield by_name[method], by_name


def medians(results: Sequence[Result], method: str, tuning: str = "best") -> list[float]:
    """Median ratios to the baseline, one a setting."""
    return [found[RATIOS[tuning]]["median"] for found, _ in rows_of(results, method)]


def all_medians(results: Sequence[Result], methods: Sequence[str], tuning: str) -> list[float]:
    """Those of several methods."""
    return [value for method in methods for value in medians(results, method, tuning)]


def ratios(results: Sequence[Result], method: str) -> list[float]:
    """Ratios to the baseline on every problem."""
    return [
        value
        for found, _ in rows_of(results, method)
        for value in found["to_baseline"]["by_problem"]
    ]


def worse(results: Sequence[Result], method: str, by: float = 1e-4) -> int:
    """On how many problems a method is worse than its baseline by more than that."""
    return sum(value > 1 + by for value in ratios(results, method))


def first_rates(results: Sequence[Result]) -> dict[str, int]:
    """How many of the best first rates of `EXTEND` lie between 0.9/L and 1.1/L."""
    starts = [
        values["start"]
        for method in EXTEND
        for found, _ in rows_of(results, method)
        for values in found["hyperparameters"]
    ]
    return {"inside": sum(0.9 <= start <= 1.1 for start in starts), "of": len(starts)}


def meta_rates(results: Sequence[Result]) -> list[float]:
    """The best meta rates of `EXTEND`, rising."""
    return sorted(
        values["meta_rate"]
        for method in EXTEND
        for found, _ in rows_of(results, method)
        for values in found["hyperparameters"]
    )


def decays(results: Sequence[Result]) -> list[float]:
    """Momentum's best decay on every problem."""
    return [
        values["decay"]
        for found, _ in rows_of(results, "Momentum")
        for values in found["hyperparameters"]
    ]


def by_decay(results: Sequence[Result], method: str) -> dict[str, float]:
    """Where a method loses to momentum: in all, where its best decay is not 0, at worst."""
    pairs = list(zip(ratios(results, method), decays(results), strict=True))
    lost = [(ratio, decay) for ratio, decay in pairs if ratio > 1 + 1e-4]
    plain = [ratio for ratio, decay in pairs if decay == 0]
    return {
        "lost": len(lost),
        "with_decay": sum(decay != 0 for _, decay in lost),
        "worst": max(ratio for ratio, _ in lost),
        "plain": len(plain),
        "won_plain": sum(ratio <= 1 + 1e-4 for ratio in plain),
    }


def to_descent(result: Result, method: str) -> list[float]:
    """The median of a method's sums of losses over those of plain descent, one a setting."""
    return [
        statistics.median(
            ours / theirs
            for ours, theirs in zip(found["cumulative"], by_name["GD"]["cumulative"], strict=True)
        )
        for found, by_name in rows_of([result], method)
    ]


FACTS = {
    function.__name__: function
    for function in (
        *(medians, all_medians, ratios, worse, first_rates, meta_rates),
        *(decays, by_decay, to_descent),
    )
} | {"EXTEND": EXTEND}
