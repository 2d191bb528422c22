r"""What becomes of a round some of whose runs failed: stop, skip them, or halve the step before it.

A run fails if its value or the norm of its hypergradient is not finite, and a long one if it
diverges too. `"skip"` averages over the sound runs alone, `g = Σ_{i sound} h_i / #sound`. `"halve"`
takes the failure for that of a step that was too long, and searches backwards along it: with
`M_r = M_{r-1} + Δ_{r-1}` a round that fails at `M_r` is made again, with the same draws, at

    M_{r-1} + 2^{-j} Δ_{r-1},    j = 1, 2, …, 10,

until it is sound, and from then on the outer rate is `2^{-j} ρ`. The outer rate is halved and not
the inner one, at which the geometry before was sound and which the artifact keeps. The first round
has no step before it, and data that are not finite fail at every length: both end as with `"stop"`.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Int, PyTree

from .._tree import Scalar, choose
from ..inner import RunSummary

OnFailure = Literal["stop", "skip", "halve"]
"""What to do where runs fail: end, go on without them, or make the step before shorter."""

_MOST = 10  # halvings a round; a thousandth of a step is as good as none
_BLOWN_UP = 10.0  # a run that ended this many times above its first loss diverged

Result = TypeVar("Result")


def check_on_failure(owner: str, policy: str) -> None:
    """Checks a policy.

    **Arguments:**

    - `owner`: the class whose field `on_failure` it is.
    - `policy`: what is to be one of `OnFailure`.

    **Raises:**

    - `ValueError`: if it is not.
    """
    if policy not in get_args(OnFailure):
        raise ValueError(
            f"{owner}.on_failure: expected one of {get_args(OnFailure)}, got {policy!r}."
        )


def diverged(summary: RunSummary, steps: int) -> Bool[Array, "..."]:
    """Which runs diverged: left the finite numbers, or ended ten times above where they began.

    A run that begins at a loss of zero has no scale to have grown by.

    **Arguments:**

    - `summary`: summaries of runs, jax's or numpy's.
    - `steps`: the length of a run.
    """
    first = abs(summary.first_loss)
    bounded = (summary.last_loss <= _BLOWN_UP * first) | (first == 0)
    return (summary.finite_steps < steps) | ~bounded


def not_finite(values: Array, grads: PyTree) -> Bool[Array, "*runs"]:
    """Which runs have a value, or a hypergradient whose norm, is not finite.

    **Arguments:**

    - `values`, `grads`: of the runs, along the leading axes that `values` has.

    >>> not_finite(jnp.array([1.0, jnp.nan, 1.0]), jnp.array([[1.0], [1.0], [jnp.inf]])).tolist()
    [False, True, True]
    """
    failed = ~jnp.isfinite(values)
    for leaf in filter(eqx.is_inexact_array, jax.tree.leaves(grads)):
        rest = tuple(range(values.ndim, leaf.ndim))
        failed |= ~jnp.isfinite(jnp.sum(jnp.square(leaf), axis=rest))
    return failed


def mean_of_sound(tree: PyTree, failed: Bool[Array, "*runs"]) -> PyTree:
    """The average over the runs that did not fail; over all, so not finite, where all did.

    **Arguments:**

    - `tree`: arrays with the runs' leading axes.
    - `failed`: which runs are left out.

    >>> mean_of_sound(jnp.array([1.0, jnp.nan, 3.0]), jnp.array([False, True, False])).item()
    2.0
    """
    failed &= ~jnp.all(failed)
    count = jnp.sum(~failed)

    def mean(leaf: Array) -> Array:
        number = leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf.astype(float)
        out = failed.reshape(failed.shape + (1,) * (leaf.ndim - failed.ndim))
        kept = jnp.where(out, jnp.zeros_like(number), number)
        return jnp.sum(kept, axis=tuple(range(failed.ndim))) / count.astype(number.dtype)

    return jax.tree.map(mean, tree)


class Trail(eqx.Module):
    """The last outer step, so that it can be made again at half its length.

    **Arguments:**

    - `optimiser`: the outer optimiser's state behind it.
    - `before`: what was learned before it.
    - `step`: the step.
    - `share`: the share of the outer rate that is left.
    """

    optimiser: PyTree[Array]
    before: PyTree[Array]
    step: PyTree[Array]
    share: Scalar

    @staticmethod
    def begin(optimiser: PyTree[Array], learned: PyTree[Array]) -> "Trail":
        """No step is made yet."""
        return Trail(optimiser, learned, jax.tree.map(jnp.zeros_like, learned), jnp.ones(()))


class Attempts(eqx.Module):
    """How a round was come by.

    **Arguments:**

    - `failed_runs`: which runs failed, in whichever attempt; those of `"skip"` are left out.
    - `halved`: how often the step before it was halved.
    - `failed`: whether there is no sound round even so.
    """

    failed_runs: Bool[Array, "*runs"]
    halved: Int[Array, ""]
    failed: Bool[Array, ""]

    @staticmethod
    def once(failed_runs: Bool[Array, "*runs"]) -> "Attempts":
        """A round that goes on without the runs that failed, unless all did."""
        return Attempts(failed_runs, jnp.zeros((), int), jnp.all(failed_runs))


def backtrack(
    attempt: Callable[[PyTree[Array]], tuple[Bool[Array, "*runs"], Result]],
    learned: PyTree[Array],
    trail: Trail,
    project: Callable[[PyTree[Array]], PyTree[Array]],
) -> tuple[PyTree[Array], Result, "Attempts"]:
    """Attempts a round, with half the step before it as often as it fails.

    **Arguments:**

    - `attempt`: makes the round with what is learned, and says which runs failed.
    - `learned`: where the last step led.
    - `trail`: the last step.
    - `project`: what is done to what was learned behind a step, as behind the last one.

    **Returns:**

    What the round was made with at last, its result, and how it came to it.
    """

    def at(count: Array) -> PyTree[Array]:
        def part(before: Array, step: Array) -> Array:
            return before + step * _half(count, step.dtype)

        behind = project(jax.tree.map(part, trail.before, trail.step))
        return choose(count == 0, learned, behind)

    moved = [jnp.any(leaf != 0) for leaf in jax.tree.leaves(trail.step)]
    most = jnp.where(jnp.any(jnp.stack(moved)), _MOST, 0)

    def again(carry: tuple["Attempts", Any]) -> Array:
        so_far, _ = carry
        return so_far.failed & (so_far.halved < most)

    def make(carry: tuple["Attempts", Any]) -> tuple["Attempts", Any]:
        so_far, _ = carry
        failed, result = attempt(at(so_far.halved + 1))
        runs = so_far.failed_runs | failed
        return Attempts(runs, so_far.halved + 1, jnp.any(failed)), result

    # Begun at -1, so that the round is compiled once.
    shapes = jax.eval_shape(attempt, learned)
    runs, blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    begin = Attempts(runs, jnp.array(-1), jnp.array(True)), blank
    found, result = lax.while_loop(again, make, begin)
    return at(found.halved), result, found


def _half(count: Int[Array, ""], dtype: Any) -> Scalar:
    """`2^{-count}`, exactly, which the exponential of a compiled program is not."""
    return jnp.ldexp(jnp.ones((), dtype), -count)


def advanced(
    optimiser: optax.GradientTransformation,
    grads: PyTree[Array],
    learned: PyTree[Array],
    trail: Trail,
    halved: Int[Array, ""],
) -> Trail:
    """The next outer step, at the rate that is left.

    **Arguments:**

    - `optimiser`: the outer optimiser.
    - `grads`: the mean hypergradient.
    - `learned`: what it was taken at.
    - `trail`: the step before.
    - `halved`: how often that was halved this round.
    """
    updates, state = optimiser.update(grads, trail.optimiser, learned)
    share = trail.share * _half(halved, trail.share.dtype)
    step = jax.tree.map(lambda leaf: leaf * share.astype(leaf.dtype), updates)
    return Trail(state, learned, step, share)
