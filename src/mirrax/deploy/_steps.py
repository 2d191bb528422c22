r"""The three forms of a step in a geometry `ψ`, as transformations of optax.

- `M` diagonal: `x⁺ = (1 − η λ) x − η M⁻¹ d`, one rate a parameter.
- `∇ψ` linear: `x⁺ = (1 − η λ) x − η ∇ψ*(d)`, triangular solves or products.
- else `x⁺ = ∇ψ*(z − η d)` with `z = ∇ψ((1 − η λ) x)`, which is the state.

Sources: S000 eq. 1 and appendix A.1; weight decay: Loshchilov & Hutter 2019, algorithm 1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from .._tree import check_floating
from ..geometry import AbstractGeometry, AbstractMirrorMap, Blockwise, Diagonal, Euclidean, Scaled
from ._align import Alignment, Table, align
from ._checks import check_given, check_gradients
from ._decay import Decay, check_mask, decayed, kept_share
from ._fit import fold, unfold
from ._state import (
    cast,
    following,
    map_given,
    owned,
    placed_like,
    stands_for_params,
    to_dual,
    to_primal,
    working_dtype,
)


class RatesState(NamedTuple):
    """The state of a step that is linear in the gradient.

    **Arguments:**

    - `count`: how many steps have been made.
    - `rates`: `1/M`, shaped like the parameters (scalars where all are equal). They are state, not
        constants of the program, so that they are sharded, donated and compiled as parameters are.
    """

    count: Int[Array, ""]
    rates: PyTree[Float[Array, "..."]]


class LinearState(NamedTuple):
    """The state of a step that applies a matrix to the gradient.

    **Arguments:**

    - `count`: how many steps have been made.
    - `geometry`: the arrays of the geometry.
    """

    count: Int[Array, ""]
    geometry: tuple[Array, ...]


class MirrorState(NamedTuple):
    """The state of a step through the dual.

    **Arguments:**

    - `count`: how many steps have been made.
    - `geometry`: the arrays of the geometry.
    - `dual`: `z`, shaped like the parameters, of at least 32 bits.
    - `primal`: the parameters as they are if nobody but `optax.apply_updates` moves them.
    """

    count: Int[Array, ""]
    geometry: tuple[Array, ...]
    dual: PyTree[Float[Array, "..."]]
    primal: PyTree[Float[Array, "..."]]


def step_for(
    geometry: AbstractMirrorMap, table: Table, learning_rate: Any, decay: Decay | None = None
) -> optax.GradientTransformationExtraArgs:
    """The cheapest form of the step that a geometry allows.

    **Arguments:**

    - `geometry`: `ψ`, over flat mappings from names to arrays.
    - `table`: the parameters it was learned for.
    - `learning_rate`: `η`, or its schedule.
    - `decay`: `λ` and what decays; `None` for nothing.

    >>> table = Table({"": None}, None, {"names": {}, "axes": {}, "flatten": {}})
    >>> step = step_for(Euclidean(), table, 0.5)
    >>> state = step.init(jnp.array(1.0))
    >>> step.update(jnp.array(3.0), state, jnp.array(1.0))[0].item()
    -1.5
    """
    if _is_diagonal(geometry):
        form = _by_rates
    elif isinstance(geometry, AbstractGeometry) and geometry.is_quadratic:
        form = _linear
    else:
        form = _mirror
    return form(geometry, table, learning_rate, decay)


def _check(params: PyTree, decay: Decay | None) -> None:
    """Refuses parameters that cannot be moved, and a mask that is not theirs."""
    check_floating("to_optax", params)
    if decay is not None:
        decay.of(params)


def _rate_at(rate: Any, count: Array, dtype: Any) -> Array:
    return jnp.asarray(rate(count) if callable(rate) else rate).astype(dtype)


def _is_diagonal(geometry: Any) -> bool:
    """Whether the mirror map is a positive diagonal matrix."""
    if isinstance(geometry, Scaled):
        return _is_diagonal(geometry.geometry)
    if isinstance(geometry, Blockwise):
        return all(map(_is_diagonal, geometry.blocks.values()))
    return isinstance(geometry, Diagonal | Euclidean)


def _rates(geometry: Any, folded: Any) -> Any:
    """The diagonal of `∇ψ*`, one array or scalar a leaf."""
    if isinstance(geometry, Scaled):
        inner = _rates(geometry.geometry, folded)
        return jax.tree.map(lambda rate: rate / geometry.scale, inner)
    if isinstance(geometry, Blockwise):
        return {name: _rates(block, folded[name]) for name, block in geometry.blocks.items()}
    if isinstance(geometry, Diagonal):
        return jax.tree.map(lambda r: jnp.exp(-2 * r), geometry.log_diagonal)
    return jax.tree.map(lambda leaf: jnp.ones((), leaf.dtype), folded)


def _moves(
    directions: PyTree, updates: PyTree, params: PyTree, rate: Array, decay: Decay | None
) -> PyTree:
    """`−η d − η λ x`, of the types of the gradients; none of those that are frozen."""
    share = rate * jnp.asarray(0 if decay is None else decay.rate).astype(rate.dtype)

    def move(gradient: Array, direction: Array, leaf: Array, decays: bool) -> Array:
        step = rate.astype(direction.dtype) * direction
        if decays:
            step = step + share.astype(direction.dtype) * leaf.astype(direction.dtype)
        return -step.astype(gradient.dtype)

    mask = jax.tree.map(lambda _: False, params) if decay is None else decay.of(params)
    return map_given(move, updates, directions, params, mask)


def _by_rates(
    geometry: AbstractMirrorMap, table: Table, learning_rate: Any, decay: Decay | None
) -> optax.GradientTransformationExtraArgs:
    """`x⁺ = (1 − η λ) x − η M⁻¹ d`."""

    def init(params: PyTree) -> RatesState:
        if stands_for_params(params):
            return RatesState(jnp.zeros((), jnp.int32), params)
        _check(params, decay)
        here, dtype = align(table, params), working_dtype(params)
        rates = _rates(owned(geometry, dtype), fold(geometry, here.arrays(cast(params, dtype))))
        placed = placed_like(here.tree(unfold(geometry, rates), params), params)
        return RatesState(jnp.zeros((), jnp.int32), placed)

    def update(updates: PyTree, state: Any, params: Any = None, **extra: Any):
        del extra
        check_given("to_optax", params)
        dtype = working_dtype(state.rates)
        rate = _rate_at(learning_rate, state.count, dtype)
        directions = map_given(lambda g, r: r * g.astype(r.dtype), updates, state.rates)
        moves = _moves(directions, updates, params, rate, decay)
        return moves, RatesState(following(state.count), state.rates)

    return optax.GradientTransformationExtraArgs(init, update)


def _linear(
    geometry: AbstractMirrorMap, table: Table, learning_rate: Any, decay: Decay | None
) -> optax.GradientTransformationExtraArgs:
    """`x⁺ = (1 − η λ) x − η ∇ψ*(d)`: no dual is kept, and none loses digits."""
    structure = jax.tree.structure(geometry)

    def init(params: PyTree) -> LinearState:
        if not stands_for_params(params):
            _check(params, decay)
            align(table, params)
        dtype = working_dtype(params)
        leaves = jax.tree.leaves(owned(geometry, dtype))
        return LinearState(jnp.zeros((), jnp.int32), tuple(leaves))

    def update(updates: PyTree, state: Any, params: Any = None, **extra: Any):
        del extra
        check_given("to_optax", params)
        return step(updates, state, params)

    @jax.jit
    def step(updates: PyTree, state: LinearState, params: PyTree) -> tuple[PyTree, LinearState]:
        check_gradients(updates, params)
        own, here = jax.tree.unflatten(structure, state.geometry), align(table, params)
        dtype = working_dtype(state.geometry)
        found = to_primal(own, fold(geometry, here.arrays(cast(updates, dtype))))
        rate = _rate_at(learning_rate, state.count, dtype)
        directions = here.tree(unfold(geometry, found), params)
        moves = _moves(directions, updates, params, rate, decay)
        return moves, LinearState(following(state.count), state.geometry)

    return optax.GradientTransformationExtraArgs(init, update)


def _mirror(
    geometry: AbstractMirrorMap, table: Table, learning_rate: Any, decay: Decay | None
) -> optax.GradientTransformationExtraArgs:
    """`x⁺ = ∇ψ*(z − η d)`, with `z` as the state."""
    structure = jax.tree.structure(geometry)

    def folded(here: Alignment, tree: PyTree) -> dict[str, Any]:
        return fold(geometry, here.arrays(tree))

    def masked(decay: Decay, here: Alignment, params: PyTree) -> dict[str, Any]:
        mask = folded(here, decay.of(params))
        check_mask(geometry, mask)
        return mask

    def init(params: PyTree) -> MirrorState:
        if stands_for_params(params):
            own = owned(geometry, working_dtype(params))
            return MirrorState(jnp.zeros((), jnp.int32), (*jax.tree.leaves(own),), params, params)
        _check(params, decay)
        here, dtype = align(table, params), working_dtype(params)
        if decay is not None:
            masked(decay, here, params)
        own = owned(geometry, dtype)
        dual = to_dual(own, folded(here, owned(params, dtype)))
        primal = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
        return MirrorState(
            jnp.zeros((), jnp.int32),
            tuple(jax.tree.leaves(own)),
            placed_like(here.tree(unfold(geometry, dual), params), params),
            primal,
        )

    def update(updates: PyTree, state: Any, params: Any = None, **extra: Any):
        del extra
        check_given("to_optax", params)
        return step(updates, state, params)

    # Compiled here, so that a loop that does not compile does not trace the branches at each step.
    @jax.jit
    def step(updates: PyTree, state: MirrorState, params: PyTree) -> tuple[PyTree, MirrorState]:
        check_gradients(updates, params)
        dtype, here = working_dtype(state.dual), align(table, params)
        own = jax.tree.unflatten(structure, state.geometry)
        start = cast(params, dtype)
        rate = _rate_at(learning_rate, state.count, dtype)
        moved = folded(here, jax.tree.map(_was_moved, params, state.primal))
        point = folded(here, start)
        dual = _current_dual(own, folded(here, state.dual), point, moved)
        if decay is not None:
            share = kept_share(rate, decay.rate)
            dual = decayed(own, dual, point, share, masked(decay, here, params))
        slopes = folded(here, cast(updates, dtype))
        dual = jax.tree.map(lambda z, g: z - rate * g, dual, slopes)
        there = here.tree(unfold(geometry, to_primal(own, dual)), params)
        moves = jax.tree.map(
            lambda new, old, gradient: (new - old).astype(gradient.dtype), there, start, updates
        )
        # The same operation that the caller applies: what the parameters will be to the bit, while
        # `there` is what they should be.
        primal = optax.apply_updates(params, moves)
        kept = here.tree(unfold(geometry, dual), params)
        return moves, MirrorState(following(state.count), state.geometry, kept, primal)

    return optax.GradientTransformationExtraArgs(init, update)


def _was_moved(params: Array, expected: Array) -> Array:
    """Whether parameters differ from what the last step led to, by more than rounding.

    The caller's sum and ours are the same operation, but compiled apart they may round apart.
    """
    resolution = 2 * jnp.finfo(params.dtype).eps
    size = jnp.maximum(jnp.abs(params), jnp.abs(expected))
    near = jnp.abs(params - expected) <= resolution * size
    # Equality counts infinities as near themselves; NaN is never near, and spreads.
    return ~jnp.all(near | (params == expected))


def _current_dual(geometry: Any, dual: Any, here: Any, moved: Any) -> Any:
    """The dual as kept, or as derived from the parameters if they were moved; block by block."""
    if isinstance(geometry, Blockwise):
        return {
            name: _current_dual(block, dual[name], here[name], moved[name])
            for name, block in geometry.blocks.items()
        }
    anywhere = jnp.any(jnp.stack(jax.tree.leaves(moved)))
    return lax.cond(anywhere, lambda x: to_dual(geometry, x), lambda _: dual, here)
