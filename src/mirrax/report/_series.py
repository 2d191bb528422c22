"""Series of numbers as arrays, and the limits of the axes that show them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._axes import log_axis
from ._format import finite

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

    from ._style import Stroke

_DEEPEST = 1e6  # a logarithmic axis shows no smaller part of its largest value
_POINTS = 800  # more than the pixels across; thinning keeps files small


def to_array(values: Sequence[Any]) -> "np.ndarray":
    """Numbers as an array, `null` and infinity as NaN, so that lines break there.

    **Arguments:**

    - `values`: a list from JSON, or an array.

    **Returns:**

    A float array of the same length.

    >>> to_array([1, None])
    array([ 1., nan])
    """
    import numpy as np

    array = np.asarray([np.nan if v is None else v for v in values], dtype=float)
    return np.where(np.isfinite(array), array, np.nan)


def mean_over_tasks(tasks: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Curves of the methods of all tasks, averaged over these, within the range of all runs.

    **Arguments:**

    - `tasks`: for each the curves by method, `{"mean", "low", "high"}`; without the last two the
        range is that of the means.

    >>> tasks = [{"SGD": {"mean": [1.0, None]}}, {"SGD": {"mean": [3.0, 2.0], "low": [2.0, 1.0]}}]
    >>> found = mean_over_tasks(tasks)["SGD"]
    >>> found["mean"], found["low"]
    ([2.0, nan], [1.0, nan])
    """
    import numpy as np

    def stacked(name: str, key: str) -> np.ndarray:
        return np.stack([to_array(task[name].get(key) or task[name]["mean"]) for task in tasks])

    return {
        name: {
            "mean": stacked(name, "mean").mean(axis=0).tolist(),
            "low": stacked(name, "low").min(axis=0).tolist(),
            "high": stacked(name, "high").max(axis=0).tolist(),
        }
        for name in tasks[0]
        if all(name in task for task in tasks)
    }


def thin(count: int) -> "np.ndarray":
    """Indices of at most 800 of `count` entries, evenly, with both ends.

    **Arguments:**

    - `count`: how many entries there are.

    **Returns:**

    Increasing integer indices.

    >>> thin(5)
    array([0, 1, 2, 3, 4])
    """
    import numpy as np

    return np.unique(np.linspace(0, max(count - 1, 0), min(count, _POINTS)).round().astype(int))


def positive(
    values: "np.ndarray", limits: tuple[float, float] | None, floor: bool = False
) -> "np.ndarray":
    """Values for a logarithmic axis: those that are not positive become NaN, or the axis' floor.

    **Arguments:**

    - `values`: any array.
    - `limits`: of the axis; `None` where there is nothing to show.
    - `floor`: whether a band is cut at the lower limit instead of being interrupted.

    **Returns:**

    An array of the same shape.

    >>> import numpy as np
    >>> positive(np.array([-1.0, 2.0]), (0.1, 3.0), floor=True)
    array([0.1, 2. ])
    """
    import numpy as np

    least = limits[0] if floor and limits else np.nan
    return np.where(values > 0, values, np.where(np.isnan(values), np.nan, least))


def band(
    axes: "Axes",
    steps: "np.ndarray",
    low: "np.ndarray",
    high: "np.ndarray",
    stroke: "Stroke",
    limits: tuple[float, float] | None,
) -> None:
    """The spread of one line, cut at the floor of a logarithmic axis.

    **Arguments:**

    - `axes`: what is drawn on.
    - `steps`, `low`, `high`: arrays of one length.
    - `stroke`: of the line.
    - `limits`: of a logarithmic axis; `None` where it is linear.
    """
    if limits:
        low, high = (positive(edge, limits, floor=True) for edge in (low, high))
    axes.fill_between(steps, low, high, color=stroke.colour, alpha=0.15, linewidth=0)


def loss_limits(means: Sequence["np.ndarray"]) -> tuple[float, float] | None:
    """Limits that show every line but do not follow one that diverges or vanishes."""
    import numpy as np

    found = [mean[mean > 0] for mean in means]
    found = [mean for mean in found if mean.size]
    if not found:
        return None
    start = max(float(mean[0]) for mean in found)
    low = min(float(mean.min()) for mean in found)
    high = min(max(float(mean.max()) for mean in found), 3 * start)
    low = max(low, high / _DEEPEST)
    margin = (high / low) ** 0.06 if high > low else 1.5
    return float(np.float64(low) / margin), high * margin


def value_axis(axes: Any, values: Sequence["np.ndarray"]) -> None:
    """A logarithmic axis where the data are positive and span more than a factor of ten."""
    import numpy as np

    joined = np.concatenate(values) if values else np.zeros(0)
    joined = joined[np.isfinite(joined)]
    if joined.size and joined.min() > 0 and joined.max() / joined.min() > 10:
        margin = (joined.max() / joined.min()) ** 0.06
        axes.set_ylim(joined.min() / margin, joined.max() * margin)
        log_axis(axes.yaxis)


def whole_numbers(axes: Any, numbers: "np.ndarray") -> None:
    """An axis of counts, whose ticks are whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if len(numbers) == 1:
        axes.set_xlim(numbers[0] - 1, numbers[0] + 1)


def span(steps: "np.ndarray") -> tuple[float, float]:
    """Limits from the first step to the last, never of no width."""
    if not len(steps):
        return 0.0, 1.0
    low, high = float(steps[0]), float(steps[-1])
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def last(values: "np.ndarray") -> float:
    """The last value; infinity where there is none or it diverged."""
    return finite(float(values[-1])) or float("inf") if len(values) else float("inf")


def any_finite(values: "np.ndarray") -> bool:
    """Whether there is anything to draw."""
    return bool((values == values).any())
