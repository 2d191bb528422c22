r"""The optimisers a learned geometry is compared with, and the grids they are tuned on.

The grids are those of S000 appendix E: rates {.1, .05, .01, .005, .001} for SGD, SGD with momentum
and RMSprop, {.3, .2, .1, .01, .001} for Adam, weight decay {1e-3, 5e-4, 1e-4}. `wide` extends each
rate grid beyond the paper's on both sides, so that no method is judged at the edge of its grid.
Weight decay is added to the gradient, as in the framework the paper used. All updates but SOAP's
are optax's.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array

from .._errors import ConfigError, nearest
from ._soap import soap

Hyperparameters = Mapping[str, Any]
Make = Callable[[Hyperparameters, Any], optax.GradientTransformation]
Read = Callable[[Any, Any], Any]

_DECAYS = (1e-3, 5e-4, 1e-4)
_RATES = (0.1, 0.05, 0.01, 0.005, 0.001)
_ADAM_RATES = (0.3, 0.2, 0.1, 0.01, 0.001)


def as_trained(state: Any, params: Any) -> Any:
    """The parameters as they are."""
    del state
    return params


@dataclasses.dataclass(frozen=True)
class Method:
    """An optimiser and the grid it is tuned on.

    **Arguments:**

    - `name`: as shown in tables.
    - `make`: `(values, context) -> transformation`, from hyper-parameters (numbers or traced
      scalars) to an optax transformation. One function object a method: programs are compiled
      once for each.
    - `grid`: the configurations tried.
    - `wide`: more configurations, beyond the paper's grid.
    - `context`: arrays that `make` needs besides numbers, such as a learned geometry.
    - `read`: `(state, params) -> params`, the parameters to be judged, for optimisers that average.
    """

    name: str
    make: Make
    grid: tuple[Hyperparameters, ...]
    wide: tuple[Hyperparameters, ...] = ()
    context: Any = None
    read: Read = as_trained


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
    def build(values: Hyperparameters, context: Any) -> optax.GradientTransformation:
        del context
        return optax.chain(
            optax.add_decayed_weights(values["weight_decay"]), make(values["learning_rate"])
        )

    return build


def _method(
    name: str,
    make: Callable[[Any], optax.GradientTransformation],
    rates: tuple[float, ...],
    wider: tuple[float, ...],
) -> Method:
    return Method(
        name,
        _decayed(make),
        product(learning_rate=rates, weight_decay=_DECAYS),
        product(learning_rate=wider, weight_decay=_DECAYS),
    )


BASELINES: dict[str, Method] = {
    method.name: method
    for method in (
        _method("SGD", optax.sgd, _RATES, (1.0, 0.5, 0.3)),
        _method("SGD-M", lambda rate: optax.sgd(rate, momentum=0.9), _RATES, (0.3, 0.03)),
        _method("Adam", optax.adam, _ADAM_RATES, (0.03, 0.003, 0.0003)),
        _method("RMSprop", lambda rate: optax.rmsprop(rate, decay=0.99), _RATES, (0.003, 0.0003)),
        _method(
            "Nesterov", lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True), _RATES, (0.3,)
        ),
        Method(
            "AdamW",
            lambda v, _: optax.adamw(v["learning_rate"], weight_decay=v["weight_decay"]),
            product(learning_rate=_ADAM_RATES, weight_decay=_DECAYS),
            product(learning_rate=(0.03, 0.003, 0.0003), weight_decay=_DECAYS),
        ),
        Method(
            "Muon",
            lambda v, _: optax.contrib.muon(v["learning_rate"], weight_decay=v["weight_decay"]),
            product(learning_rate=(0.05, 0.02, 0.01, 0.005, 0.002), weight_decay=_DECAYS),
            product(learning_rate=(0.1, 0.03, 0.001), weight_decay=_DECAYS),
        ),
        Method(
            "AdamW, schedule-free",
            lambda v, _: optax.contrib.schedule_free_adamw(
                v["learning_rate"], weight_decay=v["weight_decay"]
            ),
            product(learning_rate=(0.1, 0.03, 0.01, 0.003, 0.001), weight_decay=_DECAYS),
            product(learning_rate=(0.3, 0.05, 0.0003), weight_decay=_DECAYS),
            read=optax.contrib.schedule_free_eval_params,
        ),
        Method(
            "SOAP",
            lambda v, _: soap(v["learning_rate"], v["weight_decay"]),
            product(learning_rate=(0.03, 0.01, 0.003, 0.001, 0.0003), weight_decay=_DECAYS),
            product(learning_rate=(0.1, 0.02, 0.0001), weight_decay=_DECAYS),
        ),
    )
}
"""Every baseline by name. The first four are those of S000; the last three came after it."""

DEFAULT_BASELINES = ("SGD", "SGD-M", "Adam", "RMSprop")


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
            f"no baseline {name!r}; known are {', '.join(BASELINES)}.{nearest(name, BASELINES)}"
        )
    return by_folded[name.casefold()]
