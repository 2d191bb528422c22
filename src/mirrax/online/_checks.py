"""What the online optimisers refuse, each in one line that names function, field and value."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from .._tree import leaf_names

LEAST_FLOOR = 1e-20


def check_word(field: str, word: Any, known: tuple[str, ...]) -> None:
    """Refuses a word that is not known."""
    if word not in known:
        raise ValueError(f"{field}: expected one of {', '.join(map(repr, known))}, got {word!r}.")


def check_bounds(field: str, lower: Any, upper: Any) -> None:
    """Refuses bounds with nothing between them; `-inf` and `inf` mean that there is none."""
    if isinstance(lower, Tracer) or isinstance(upper, Tracer):
        return
    low, high = _number(lower), _number(upper)
    if not (low <= high and low < np.inf and high > -np.inf):
        raise ValueError(f"{field}: expected lower <= upper, got lower={lower}, upper={upper}.")


def check_floor(field: str, value: Any) -> None:
    """Refuses a floor at which the slope of `1/√w` is not a number of 32 bits."""
    if not isinstance(value, Tracer) and not LEAST_FLOOR <= _number(value) < np.inf:
        raise ValueError(
            f"{field}: expected a number of at least {LEAST_FLOOR}, below which w^(-3/2) may "
            f"overflow, got {value!r}."
        )


def check_rates(field: str, rates: PyTree, lower: Any, upper: Any) -> None:
    """Refuses rates that are not positive, finite and between the bounds."""
    whole = {"is_leaf": lambda node: node is rates} if rates is None else {}
    for name, leaf in zip(leaf_names(rates, **whole), jax.tree.leaves(rates, **whole), strict=True):
        if callable(leaf):
            raise ValueError(
                f"{field}: expected a number or one rate for each parameter, got a function; for "
                "a schedule put optax.scale_by_schedule after it in optax.chain."
            )
        if isinstance(leaf, Tracer):
            continue
        values, where = _array(leaf), f" for {name!r}" if name else ""
        if wrong := values[~((values > 0) & (values < np.inf))].tolist():
            shown = leaf if values.ndim == 0 else wrong[0]
            raise ValueError(f"{field}: expected positive finite rates, got {shown!r}{where}.")
        _check_within(field, values, where, lower, upper)


def _check_within(field: str, values: np.ndarray, where: str, lower: Any, upper: Any) -> None:
    if isinstance(lower, Tracer) or isinstance(upper, Tracer):
        return
    low, high = _number(lower), _number(upper)
    if outside := values[(values < low) | (values > high)].tolist():
        raise ValueError(
            f"{field}: expected rates from {low} to {high}, the bounds, got {outside[0]}{where}."
        )


def check_gradients(function: str, gradients: PyTree, previous: PyTree) -> None:
    """Refuses gradients that are not like the parameters that `init` saw."""
    given, known = _shapes(gradients), _shapes(previous)
    if given != known:
        odd = [f"{name} {shape}" for name, shape in given.items() if known.get(name) != shape]
        absent = [f"{name} absent" for name in known if name not in given]
        raise ValueError(
            f"{function}.update: expected gradients like the parameters of init, got "
            f"{_listed(odd + absent)}."
        )
    if jax.tree.structure(gradients) != jax.tree.structure(previous):
        raise ValueError(
            f"{function}.update: expected gradients in the containers of the parameters, got "
            f"{jax.tree.structure(gradients)}."
        )


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    return dict(zip(leaf_names(tree), map(jnp.shape, jax.tree.leaves(tree)), strict=True))


def spread(field: str, rates: PyTree, params: PyTree) -> PyTree:
    """One rate for each leaf of the parameters; a rate may stand for a whole subtree."""
    try:
        return jax.tree.map(lambda rate, part: jax.tree.map(lambda _: rate, part), rates, params)
    except ValueError:
        names = (_listed(leaf_names(tree)) for tree in (rates, params))
        raise ValueError(
            "{}: expected one number or rates named like the parameters, got {} for {}.".format(
                field, *names
            )
        ) from None


def check_shape(field: str, rate: Any, allowed: tuple[tuple[int, ...], ...]) -> None:
    """Refuses a rate that is neither a number nor (where allowed) shaped like its parameter."""
    if jnp.shape(rate) not in allowed:
        shapes = " or ".join(map(str, dict.fromkeys(allowed)))
        raise ValueError(f"{field}: expected a rate of shape {shapes}, got {jnp.shape(rate)}.")


def check_single(field: str, rate: Any) -> None:
    """Refuses anything but one number."""
    if jax.tree.structure(rate) != jax.tree.structure(0):
        raise ValueError(
            f"{field}: expected one number for all parameters, got a {type(rate).__name__}."
        )
    check_shape(field, rate, ((),))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "") or "nothing"


def _array(value: Any) -> np.ndarray:
    """The numbers of an array, or NaN where they are none."""
    try:
        return np.asarray(np.nan if isinstance(value, str) else value, dtype=float)
    except (TypeError, ValueError):
        return np.asarray(np.nan)


def _number(value: Any) -> float:
    array = _array(value)
    return float(array) if array.ndim == 0 else float("nan")
