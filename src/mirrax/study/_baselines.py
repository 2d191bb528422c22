r"""The optimisers a learned geometry is compared with, and where each of them is tuned.

The grids are those of S000 appendix E: rates {.1, .05, .01, .005, .001} for SGD, SGD with momentum
and RMSprop, {.3, .2, .1, .01, .001} for Adam, weight decay {1e-3, 5e-4, 1e-4}. `wide` extends each
rate grid beyond the paper's on both sides, so that no method is judged at the edge of its grid.
Ranges for a tuner that is not bound to a grid reach a factor 3 beyond the widened rates. Weight
decay is added to the gradient, as in the framework the paper used, but where it is decoupled from
it by design. All updates but SOAP's are optax's.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array

from .._errors import ConfigError, nearest
from ._ranges import Range, Space, around
from ._soap import soap

Hyperparameters = Mapping[str, Any]
Make = Callable[[Hyperparameters, Any], optax.GradientTransformation]
Read = Callable[[Any, Any], Any]

_DECAYS = (1e-3, 5e-4, 1e-4)
_RATES = (0.1, 0.05, 0.01, 0.005, 0.001)
_ADAM_RATES = (0.3, 0.2, 0.1, 0.01, 0.001)
_ADAM_WIDER = (0.03, 0.003, 0.0003)
_ADDED, _DECOUPLED = Range(1e-5, 1e-2), Range(1e-5, 1e-1)  # decays; the latter act times a rate
BEYOND = 3.0
"""How far beyond a widened grid its range reaches, as a factor on both sides."""


def as_trained(state: Any, params: Any) -> Any:
    """The parameters as they are."""
    del state
    return params


@dataclasses.dataclass(frozen=True)
class Method:
    """An optimiser, and the grid or the ranges in which it is tuned.

    **Arguments:**

    - `name`: as shown in tables.
    - `make`: `(values, context) -> transformation`, from hyper-parameters (numbers or traced
      scalars) to an optax transformation. One function object a method: programs are compiled
      once for each.
    - `grid`: the configurations tried.
    - `wide`: more configurations, beyond the paper's grid.
    - `context`: arrays that `make` needs besides numbers, such as a learned geometry.
    - `read`: `(state, params) -> params`, the parameters to be judged, for optimisers that average.
    - `space`: the ranges of a search that is not bound to the grid.
    """

    name: str
    make: Make
    grid: tuple[Hyperparameters, ...]
    wide: tuple[Hyperparameters, ...] = ()
    context: Any = None
    read: Read = as_trained
    space: Space = dataclasses.field(default_factory=dict)


def product(**axes: tuple[float, ...]) -> tuple[Hyperparameters, ...]:
    """All combinations of the values of each axis.

    >>> product(learning_rate=(0.1, 0.2), weight_decay=(0.0,))
    ({'learning_rate': 0.1, 'weight_decay': 0.0}, {'learning_rate': 0.2, 'weight_decay': 0.0})
    """
    return tuple(
        dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
    )


def columns(grid: Sequence[Hyperparameters]) -> dict[str, Array]:
    """A grid as arrays of one entry a configuration, to be mapped over.

    **Arguments:**

    - `grid`: configurations with the same names.
    """
    return {name: jnp.asarray([row[name] for row in grid], float) for name in grid[0]}


def _decayed(make: Callable[[Any], optax.GradientTransformation]) -> Make:
    """An optimiser of a rate, with weight decay added to the gradient."""

    def build(values: Hyperparameters, context: Any) -> optax.GradientTransformation:
        del context
        return optax.chain(
            optax.add_decayed_weights(values["weight_decay"]), make(values["learning_rate"])
        )

    return build


def _baseline(
    name: str,
    make: Make,
    rates: tuple[float, ...],
    wider: tuple[float, ...],
    read: Read = as_trained,
    decays: Range = _DECOUPLED,
) -> Method:
    """An optimiser tuned over its rate and weight decay."""
    return Method(
        name,
        make,
        product(learning_rate=rates, weight_decay=_DECAYS),
        product(learning_rate=wider, weight_decay=_DECAYS),
        read=read,
        space={"learning_rate": around((*rates, *wider), BEYOND), "weight_decay": decays},
    )


BASELINES: dict[str, Method] = {
    method.name: method
    for method in (
        _baseline("SGD", _decayed(optax.sgd), _RATES, (1.0, 0.5, 0.3), decays=_ADDED),
        _baseline(
            "SGD-M",
            _decayed(lambda rate: optax.sgd(rate, momentum=0.9)),
            _RATES,
            (0.3, 0.03),
            decays=_ADDED,
        ),
        _baseline("Adam", _decayed(optax.adam), _ADAM_RATES, _ADAM_WIDER, decays=_ADDED),
        _baseline(
            "RMSprop",
            _decayed(lambda rate: optax.rmsprop(rate, decay=0.99)),
            _RATES,
            (0.003, 0.0003),
            decays=_ADDED,
        ),
        _baseline(
            "Nesterov",
            _decayed(lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True)),
            _RATES,
            (0.3,),
            decays=_ADDED,
        ),
        _baseline(
            "AdamW",
            lambda v, _: optax.adamw(v["learning_rate"], weight_decay=v["weight_decay"]),
            _ADAM_RATES,
            _ADAM_WIDER,
        ),
        _baseline(
            "Muon",
            lambda v, _: optax.contrib.muon(v["learning_rate"], weight_decay=v["weight_decay"]),
            (0.05, 0.02, 0.01, 0.005, 0.002),
            (0.1, 0.03, 0.001),
        ),
        _baseline(
            "AdamW, schedule-free",
            lambda v, _: optax.contrib.schedule_free_adamw(
                v["learning_rate"], weight_decay=v["weight_decay"]
            ),
            (0.1, 0.03, 0.01, 0.003, 0.001),
            (0.3, 0.05, 0.0003),
            optax.contrib.schedule_free_eval_params,
        ),
        _baseline(
            "SOAP",
            lambda v, _: soap(v["learning_rate"], v["weight_decay"]),
            (0.03, 0.01, 0.003, 0.001, 0.0003),
            (0.1, 0.02, 0.0001),
        ),
    )
}
"""Every baseline by name. The first four are those of S000; the last three came after it."""

DEFAULT_BASELINES = ("SGD", "SGD-M", "Adam", "RMSprop")

ALL = "all"
"""What stands for every baseline where names are given."""


def find_baseline(name: str) -> Method:
    """The baseline of a name.

    **Arguments:**

    - `name`: such as `"SGD-M"`; case does not matter.

    **Raises:**

    - `ConfigError`: if there is none, with the nearest names.

    >>> find_baseline("adam").name
    'Adam'
    """
    by_folded = {known.casefold(): method for known, method in BASELINES.items()}
    if name.casefold() not in by_folded:
        raise ConfigError(
            f"no baseline {name!r}; known are {', '.join(map(repr, BASELINES))}."
            f"{nearest(name, BASELINES)}"
        )
    return by_folded[name.casefold()]


def named(names: Sequence[str]) -> tuple[str, ...]:
    """Names of baselines with `all` written out.

    **Arguments:**

    - `names`: as a user gave them.

    **Raises:**

    - `ConfigError`: if one is unknown, with the nearest names.

    >>> named(["SGD", "adam"]), len(named(["all"])) == len(BASELINES)
    (('SGD', 'adam'), True)
    """
    if ALL in (name.casefold() for name in names):
        return tuple(BASELINES)
    for name in names:
        find_baseline(name)
    return tuple(names)
