r"""Where to look next: a Gaussian process's lower confidence bound of a score that is minimised.

With the mean $m$ and standard deviation $s$ of a process with kernel
$\sigma^2 \exp(-\tfrac12 \sum_i (x_i - x'_i)^2/\ell_i^2) + \tau^2 [x = x']$ the next point minimises
$m(x) - \kappa s(x)$: the upper confidence bound of Srinivas et al. (2010), for the negative score.
Points whose scores are awaited, because other workers try them, stand in with their own means, so
that they lower $s$ and leave $m$ as it is (GP-BUCB, Desautels et al. 2014, eq. 7). The process is
scikit-learn's.
"""

import warnings
from typing import Any

import numpy as np
from scipy.stats import qmc
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Kernel, WhiteKernel

FIRST = 8
"""So many points fill the space evenly before the process is asked: a power of two, see Sobol."""

_ANYWHERE, _NEAR = 1000, 50  # candidates: in the whole cube, and around each of the best
_BEST, _DISTANCES = 3, (0.1, 0.03, 0.01)


def propose(
    points: np.ndarray,
    scores: np.ndarray,
    awaited: np.ndarray,
    *,
    kappa: float,
    seed: int,
) -> np.ndarray:
    """The next point of the unit cube to be tried; it depends on nothing but its arguments.

    **Arguments:**

    - `points`, `scores`: what was tried, `(n, d)`, and what came of it, `(n,)`; infinite where a
      run failed.
    - `awaited`: what is being tried, `(m, d)`.
    - `kappa`: the weight of the standard deviation.
    - `seed`: of the first points and of the candidates.

    **Returns:**

    A point, `(d,)`.
    """
    axes, number = points.shape[1], len(points) + len(awaited)
    if number < FIRST or not len(points):
        evenly = qmc.Sobol(axes, seed=seed)  # type: ignore[call-arg]  # `rng` since SciPy 1.15
        return evenly.random_base2(int(np.ceil(np.log2(max(FIRST, number + 1)))))[number]
    rng = np.random.default_rng((seed, number))
    levelled = level(scores)
    process = _fitted(points, levelled, rng)
    candidates = _candidates(points, levelled, rng)
    mean, deviation = posterior(process, points, levelled, awaited, candidates)
    return candidates[np.argmin(mean - kappa * deviation)]


def level(scores: np.ndarray) -> np.ndarray:
    """Scores with mean 0 and variance 1, of which the bad ones are alike.

    What lies further above the median than the best lies below it is lowered to there, and so is
    what failed: no surface is smooth at the brink of divergence, and only its good part matters.

    **Arguments:**

    - `scores`: numbers, some of them perhaps infinite.

    >>> level(np.array([1.0, 2.0, 3.0, 50.0, np.inf])).round(2).tolist()
    [-1.54, -0.69, 0.17, 1.03, 1.03]
    """
    known = scores[np.isfinite(scores)]
    if not len(known):
        return np.zeros(len(scores))
    least, middle = known.min(), np.median(known)
    capped = np.minimum(scores, middle + (middle - least))
    spread = capped.std()
    return (capped - capped.mean()) / (spread if spread > 0 else 1.0)


def posterior(
    process: Any,
    points: np.ndarray,
    scores: np.ndarray,
    awaited: np.ndarray,
    candidates: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, without noise, given what was tried and what is being tried.

    **Arguments:**

    - `process`: a `GaussianProcessRegressor` fitted to `points` and `scores`.
    - `points`, `scores`: what was tried.
    - `awaited`: what is being tried.
    - `candidates`: where to look.
    """
    mean, noise = process.predict(candidates), process.kernel_.k2.noise_level
    beside: Any = process
    if len(awaited):
        believed = np.concatenate([scores, process.predict(awaited)])
        beside = GaussianProcessRegressor(process.kernel_, optimizer=None)  # type: ignore[arg-type]
        beside.fit(np.concatenate([points, awaited]), believed)
    _, noisy = beside.predict(candidates, return_std=True)
    return mean, np.sqrt(np.maximum(noisy**2 - noise, 0))


def kernel(axes: int) -> Kernel:
    """The kernel, with a length for each axis."""
    lengths: Any = np.full(axes, 0.3)
    smooth = ConstantKernel(1.0, (0.1, 10.0)) * RBF(lengths, (0.05, 3.0))
    return smooth + WhiteKernel(1e-2, (1e-6, 0.3))


def _fitted(
    points: np.ndarray, scores: np.ndarray, rng: np.random.Generator
) -> GaussianProcessRegressor:
    process = GaussianProcessRegressor(
        kernel(points.shape[1]), n_restarts_optimizer=1, random_state=int(rng.integers(2**31))
    )
    with warnings.catch_warnings():
        # A length at its bound is an answer: an axis that matters little has the longest.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return process.fit(points, scores)


def _candidates(points: np.ndarray, scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Points anywhere, and points around the best so far at several distances."""
    best = points[np.argsort(scores, kind="stable")[:_BEST]]
    around = np.repeat(best, _NEAR, axis=0)
    near = [around + distance * rng.normal(size=around.shape) for distance in _DISTANCES]
    anywhere = rng.uniform(size=(_ANYWHERE, points.shape[1]))
    return np.concatenate([anywhere, *(np.clip(part, 0, 1) for part in near)])
