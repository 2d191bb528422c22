r"""What few-shot methods have in common, and the register in which each enters its name.

A method is a function `(protocol, *, key, …) -> (learner, prior)`. The protocol is the same for
every method of a comparison; what a method learns, adapts and minimises is its own.
"""

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar
from typing import Protocol as Interface

import equinox as eqx
import optax
import optax.tree as vector
from jaxtyping import PRNGKeyArray, PyTree

from .._errors import ConfigError, nearest
from .._tree import Layers, select
from ..hypergradient import AbstractHypergradient, Reverse
from ..inner import AbstractInner, AbstractObjective, Prior
from ..meta import FewShot, OnFailure, Statistics
from ..models import Model, Warp
from ..objective import ValidationLoss


class Network(Interface):
    """Builds the network of a study, with warp layers where a method has them."""

    def __call__(self, *, warp: Warp | None = None, head_warp: bool = False) -> Model:
        """The network."""
        ...


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What all methods of a comparison share.

    **Arguments:**

    - `network`: builds the network, `network(warp=…, head_warp=…) -> Model`.
    - `optimiser`: the outer optimiser.
    - `steps`: inner steps a task, `K`.
    - `rate`: the inner step size `α`, in units of the mean cross-entropy.
    - `tasks`: tasks a meta-step.
    - `statistics`: whose batch statistics normalise query images.
    - `devices`: over how many devices the tasks are spread.
    - `on_failure`: what becomes of steps some of whose tasks fail, see `mirrax.meta.FewShot`.
    """

    network: Network
    optimiser: optax.GradientTransformation
    steps: int = 5
    rate: float = 0.01
    tasks: int = 4
    statistics: Statistics = "query"
    devices: int = 1
    on_failure: OnFailure = "stop"

    def learner(
        self,
        model: Model,
        inner: AbstractInner,
        *,
        wrt: tuple[str, ...] = ("start",),
        objective: AbstractObjective | None = None,
        estimator: AbstractHypergradient | None = None,
        optimiser: optax.GradientTransformation | None = None,
    ) -> FewShot:
        """The learner of this protocol with a method's own parts.

        **Arguments:**

        - `model`, `inner`: the network and the rule.
        - `wrt`: the parts of the prior that are learned.
        - `objective`: the validation loss by default.
        - `estimator`: reverse mode through the whole run by default.
        - `optimiser`: the protocol's by default.
        """
        return FewShot(
            model,
            inner,
            ValidationLoss() if objective is None else objective,
            Reverse(self.steps, wrt=wrt) if estimator is None else estimator,  # type: ignore[arg-type]
            self.optimiser if optimiser is None else optimiser,
            self.tasks,
            self.statistics,
            self.devices,
            self.on_failure,
        )


Method = Callable[..., tuple[FewShot, Prior]]
"""`(protocol, *, key, …) -> (learner, prior)`."""

FEW_SHOT: dict[str, Method] = {}
"""Every few-shot method by name."""

Registered = TypeVar("Registered", bound=Method)


def few_shot(method: Registered) -> Registered:
    """Enters a method in the register under its own name.

    **Arguments:**

    - `method`: the function.
    """
    FEW_SHOT[method.__name__] = method
    return method


def find_method(name: str) -> Method:
    """The few-shot method of a name, or of another module.

    **Arguments:**

    - `name`: such as `"maml"`; or `module:function` for one that is not of this library.

    **Raises:**

    - `ConfigError`: if there is none.

    >>> find_method("mamal")
    Traceback (most recent call last):
    ...
    mirrax._errors.ConfigError: no few-shot method 'mamal'. Did you mean 'maml'? ...
    """
    if name in FEW_SHOT:
        return FEW_SHOT[name]
    module, colon, function = name.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), function)):
        raise ConfigError(
            f"no few-shot method {name!r}.{nearest(name, FEW_SHOT)} Known are "
            f"{', '.join(FEW_SHOT)}; one of your own is module:function."
        )
    try:
        found: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"no few-shot method {name!r}: {error}; is its folder in PYTHONPATH?"
        ) from error
    try:
        signature = inspect.signature(found)
        signature.bind(None, key=None)
        signature.parameters["key"]
    except (TypeError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{name!r} is no function (protocol, *, key) -> (learner, prior)."
        ) from error
    return found  # type: ignore[return-value]


def options_of(method: Method) -> tuple[str, ...]:
    """The names of a method's own options, which are its keywords besides `key`.

    >>> from mirrax.methods import maml
    >>> options_of(maml)
    ('first_order',)
    """
    keywords = inspect.signature(method).parameters.values()
    return tuple(k.name for k in keywords if k.kind is k.KEYWORD_ONLY and k.name != "key")


@functools.cache
def scaled(
    optimiser: optax.GradientTransformation, part: str, factor: float
) -> optax.GradientTransformation:
    """The outer optimiser with the updates of a part of the prior multiplied by a number.

    Equal arguments give one object, so that what is compiled for it is used again.

    **Arguments:**

    - `optimiser`: over priors.
    - `part`: the part of a prior, such as `geometry`.
    - `factor`: the number.
    """
    return optax.chain(optimiser, _multiplied(part, factor))


@functools.cache
def in_units(
    optimiser: optax.GradientTransformation, part: str, unit: float
) -> optax.GradientTransformation:
    """The outer optimiser over `θ/u` where a part of the prior is `θ`.

    The derivative with respect to `θ/u` is `u` times that with respect to `θ`, and so is the step
    of `θ` to that of `θ/u`. Equal arguments give one object, as in `scaled`.

    **Arguments:**

    - `optimiser`: over priors; of the part it may look at derivatives alone, as all do that have
      no weight decay there.
    - `part`: the part of a prior.
    - `unit`: `u`.
    """
    return optax.chain(_multiplied(part, unit), optimiser, _multiplied(part, unit))


def _multiplied(part: str, factor: float) -> optax.GradientTransformation:
    """Multiplies a part of what passes through by a number."""
    product = functools.partial(vector.scale, factor)

    def multiply(updates: Prior, params: PyTree) -> Prior:
        del params
        return eqx.tree_at(attrgetter(part), updates, replace_fn=product)

    return optax.stateless(multiply)  # type: ignore[arg-type]


def initial(
    model: Model, key: PRNGKeyArray, adapted: Callable[[str], bool] = lambda name: True
) -> tuple[Layers, Layers | None]:
    """Initial parameters: those that a task adapts, and the others (`None` if there are none).

    **Arguments:**

    - `model`: the network.
    - `key`: randomness of the parameters.
    - `adapted`: whether a task adapts the parameters of a name; all by default.
    """
    start, shared = select(model.init(key), adapted)
    return start, shared or None


def is_warp(name: str) -> bool:
    """Whether a parameter belongs to a warp layer, which no task adapts."""
    return "warp" in name


def is_norm(name: str) -> bool:
    """Whether a parameter belongs to a normalisation."""
    return name.startswith("norm_")
