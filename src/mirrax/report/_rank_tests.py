r"""Tests of paired ranks: Friedman's, Wilcoxon's signed-rank test, and Holm's correction."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import friedmanchisquare, rankdata

from ._ranks import Runs


def mean_ranks(runs: Runs) -> list[float]:
    """Mean ranks over cells, 1 for the lowest; equal entries share theirs.

    >>> mean_ranks([[1.0, 3.0], [2.0, 1.0], [2.0, 2.0]])
    [2.0, 1.75, 2.25]
    """
    return [float(rank) for rank in rankdata(runs, axis=0).mean(axis=1)]


def friedman(runs: Runs) -> float:
    """The p-value of Friedman's test, 1 where all rows are equal everywhere."""
    if all(row == runs[0] for row in runs):
        return 1.0
    return float(friedmanchisquare(*runs).pvalue)


def signed_rank(first: Sequence[float], second: Sequence[float]) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test, exact with ties too.

    Zero differences are ranked and then left out (Pratt). Given the ranks each sign is a coin's, so
    the distribution of the positive ones' sum is a product of polynomials. SciPy has an exact one
    only without ties, and those of accuracies abound.

    **Arguments:**

    - `first`, `second`: paired numbers; two that are infinite are equal.

    >>> signed_rank([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
    0.25
    """
    left, right = np.asarray(first), np.asarray(second)
    alike = left == right
    difference = np.subtract(left, right, where=~alike, out=np.zeros(len(left)))
    ranks = np.rint(2 * rankdata(np.abs(difference)))[~alike].astype(int)  # halves become whole
    total = np.zeros(ranks.sum() + 1)
    total[0] = 1.0
    for rank in ranks:
        total[rank:] += total[: len(total) - rank].copy()
        total /= 2
    positive = ranks[difference[~alike] > 0].sum()
    tails = total[: positive + 1].sum(), total[positive:].sum()
    return float(min(1.0, 2 * min(tails)))


def holm(chances: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are, in the same order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(chances, kind="stable")
    corrected, least = np.zeros(len(chances)), 0.0
    for left, position in zip(range(len(chances), 0, -1), order, strict=True):
        least = max(least, min(1.0, left * chances[position]))
        corrected[position] = least
    return [float(p) for p in corrected]
