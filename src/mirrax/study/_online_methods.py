r"""The optimisers of S002's Fig. 2, and the units in which their rates are swept.

With `L = 2 λ_max`, `G = ∇f(x_0)` and `g = ‖G‖_∞`, the unit

- of a rate, and of the first rate of a learned one, is `1/L`;
- of AdaGrad's rate is `g/L`, which makes its first step one of the rate `1/L` along the steepest
  coordinate, and of its initial accumulator `g²`;
- of the meta rate `β` is `w_1/g²`, with which the first product `β g²` doubles `w_1`;
- of Meta-AdaGrad's is `2 w_1^{5/2}/g²`, with which the first product `β ½ w_1^{−3/2} g²` is `w_1`.
  Its `w_1 = (L/r)²` gives the first rate `1/√w_1 = r/L`. Begun with AdaGrad's own first step, at
  `w_1 = (L G/(r g))²`, the unit is that of the smallest `w_1`, `2 (L/(r g))⁵ min_i |G_i|³`.

Every baseline's rates contain the first rates of those that learn. Online SGD and Meta-Momentum A
with a meta rate as good as zero therefore begin, and stay, at a rate that their baseline tries as
well; Meta-Momentum B begins there, Meta-AdaGrad at a rate of plain descent.

Meta-Momentum is ambiguous in the paper. (A) is `x⁺ = x + d (x − x_prev) − w ⊙ ∇f(x)` with the
meta-gradient of its last term; (B) is Algorithm 2 or 4 with `Φ(x, w) = x − w ⊙ ∇f(x)`.
Source: S002 §7.1; spec C6. The paper's own grid (its Table 2) is not published.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..online import FTRL, ConvexMeta, Hint, last_gradient, no_hint, online_adagrad, online_sgd
from ..tasks import QuadraticTask
from ._baselines import Hyperparameters, product

LOW = 0.1
"""The largest of spec C6's first rates, in units of `1/L`."""

STARTS = (1e-3, 1e-2, LOW, 0.5, 0.9, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0)
"""The first rates of those that learn: spec C6's, and others to beyond 2, where descent diverges.

They are close to each other near 1, the rate that removes the steepest direction in one step.
"""

_FASTEST = 8.0  # AdaGrad's rates fall, and momentum is stable up to nearly 4
_META_RATES = (1e-3, 1e7)

_DECAYS = (0.0, 0.5, 0.9, 0.95, 0.99)
_POWERS = (0.0, 0.5, 1.0, 1.5, 2.0)
_ACCUMULATORS = (0.0, 0.1, 1.0)
_FLOOR = 1e-8  # of an accumulator, as by default
PER_RATE = len(STARTS) * len(_DECAYS)
"""How many configurations every method has for each meta rate of Meta-Momentum."""


class Units(NamedTuple):
    """What the rates of a problem are measured in: `L`, `g` and `G`."""

    smoothness: Array
    slope: Array
    gradient: Array


Path: TypeAlias = Float[Array, "points 2"]
Follow: TypeAlias = Callable[[Any, QuadraticTask, Float[Array, " 2"], int], Path]
"""`(values, problem, x_0, T) ↦ x_0, …, x_T`, where values are numbers or traced scalars."""


@dataclasses.dataclass(frozen=True)
class Learner:
    """One optimiser of the comparison.

    **Arguments:**

    - `name`: as shown.
    - `follow`: the points it makes.
    - `grid`: the configurations it is tuned on.
    - `baseline`: the name of the one it is measured against, if it is learned.
    """

    name: str
    follow: Follow
    grid: tuple[Hyperparameters, ...]
    baseline: str | None = None

    @property
    def rate(self) -> str:
        """The hyper-parameter that is its rate in the first step."""
        return "rate" if self.baseline is None else "start"


def units_of(task: QuadraticTask, start: Float[Array, " 2"]) -> Units:
    """The units of a problem.

    **Arguments:**

    - `task`: one problem.
    - `start`: `x_0`.
    """
    smoothness = 2 * jnp.linalg.eigvalsh(task.matrix)[-1]
    gradient = task.gradient(start)
    return Units(smoothness, jnp.max(jnp.abs(gradient)), gradient)


@functools.cache  # programs are compiled once for each method
def learners(rates: int) -> tuple[Learner, ...]:
    """Every method with a grid of `60 × rates` configurations, baselines before what they are for.

    **Arguments:**

    - `rates`: how many meta rates Meta-Momentum tries with each decay and first rate; methods with
        fewer other hyper-parameters try more of them.
    """

    def spaced(count: int) -> tuple[float, ...]:
        """The first rates, and others evenly between the lowest of them and the fastest."""
        others = np.geomspace(STARTS[0], _FASTEST, count - len(STARTS) + 1)[1:]
        return tuple(sorted((*STARTS, *others.tolist())))

    def learned(**others: tuple[float, ...]) -> tuple[Hyperparameters, ...]:
        count = PER_RATE * rates // len(product(start=STARTS, **others))
        return product(
            meta_rate=tuple(np.geomspace(*_META_RATES, count).tolist()), start=STARTS, **others
        )

    tuned, decayed, weighted = learned(), learned(decay=_DECAYS), learned(power=_POWERS)
    momentum = product(rate=spaced(len(STARTS) * rates), decay=_DECAYS)
    adagrad = product(
        rate=spaced(PER_RATE // len(_ACCUMULATORS) * rates), accumulator=_ACCUMULATORS
    )
    return (
        Learner("GD", _descent(_gd), product(rate=spaced(PER_RATE * rates))),
        Learner("Online SGD", _descent(_online(False)), tuned, "GD"),
        Learner("Optimistic online SGD", _descent(_online(True)), tuned, "GD"),
        Learner("Momentum", _descent(_momentum), momentum),
        Learner("Meta-Momentum A", _descent(_traced(False)), decayed, "Momentum"),
        Learner("Optimistic Meta-Momentum A", _descent(_traced(True)), decayed, "Momentum"),
        Learner("Meta-Momentum B (Alg. 2)", _rounds(no_hint), weighted, "Momentum"),
        Learner("Meta-Momentum B (Alg. 4)", _rounds(last_gradient), weighted, "Momentum"),
        Learner("AdaGrad", _descent(_adagrad), adagrad),
        Learner("Meta-AdaGrad", _descent(_meta_adagrad), tuned, "AdaGrad"),
        Learner("Meta-AdaGrad, AdaGrad's start", _descent(_as_adagrad), tuned, "AdaGrad"),
    )


_Make: TypeAlias = Callable[[Any, Units], optax.GradientTransformation]


def _gd(values: Any, units: Units) -> optax.GradientTransformation:
    return optax.sgd(values["rate"] / units.smoothness)


def _momentum(values: Any, units: Units) -> optax.GradientTransformation:
    return optax.sgd(values["rate"] / units.smoothness, momentum=values["decay"])


def _adagrad(values: Any, units: Units) -> optax.GradientTransformation:
    return optax.adagrad(
        values["rate"] * units.slope / units.smoothness,
        initial_accumulator_value=values["accumulator"] * units.slope**2,
    )


def _online(optimistic: bool) -> _Make:
    def make(values: Any, units: Units) -> optax.GradientTransformation:
        start, meta_rate = _first(values, units)
        return online_sgd(start, meta_rate, optimistic=optimistic)

    return make


def _traced(optimistic: bool) -> _Make:
    online = _online(optimistic)
    return lambda values, units: optax.chain(online(values, units), optax.trace(values["decay"]))


def _meta_adagrad(values: Any, units: Units) -> optax.GradientTransformation:
    start = (units.smoothness / values["start"]) ** 2
    return online_adagrad(start, values["meta_rate"] * 2 * start**2.5 / units.slope**2)


def _as_adagrad(values: Any, units: Units) -> optax.GradientTransformation:
    """Meta-AdaGrad whose first step is AdaGrad's."""
    factor = units.smoothness / (values["start"] * units.slope)
    start = jnp.maximum((factor * units.gradient) ** 2, _FLOOR)
    unit = 2 * factor**5 * jnp.min(jnp.abs(units.gradient)) ** 3
    return online_adagrad(start, values["meta_rate"] * unit, floor=_FLOOR)


def _first(values: Any, units: Units) -> tuple[Array, Array]:
    """`w_1` and `β`."""
    start = values["start"] / units.smoothness
    return start, values["meta_rate"] * start / units.slope**2


def _descent(make: _Make) -> Follow:
    """The points of an optax transformation."""

    def follow(values: Any, task: QuadraticTask, start: Array, steps: int) -> Path:
        optimiser = make(values, units_of(task, start))

        def advance(carry: Any, _: None) -> tuple[Any, Array]:
            point, state = carry
            updates, state = optimiser.update(task.gradient(point), state, point)
            point = point + updates
            return (point, state), point

        begin = (start, optimiser.init(start))
        points = jax.lax.scan(advance, begin, None, length=steps)[1]
        return jnp.concatenate([start[None], points])

    return follow


def _rounds(hint: Hint) -> Follow:
    """The averages of Algorithm 2, or 4 with a hint; rates stay non-negative, as in Algorithm 1.

    The weights `α_t = t^p` are what this form has in place of a decay.
    """

    def follow(values: Any, task: QuadraticTask, start: Array, steps: int) -> Path:
        first, meta_rate = _first(values, units_of(task, start))
        leader = FTRL(
            meta_rate,
            lambda count, before: count ** values["power"],
            optax.projections.projection_non_negative,
        )
        method = ConvexMeta(lambda x, w: x - w * task.gradient(x), leader, hint)
        state = method.init(start, jnp.full_like(start, first))
        _, made = method.run(task.loss, state, steps)
        return jnp.concatenate([start[None], made.average])

    return follow
