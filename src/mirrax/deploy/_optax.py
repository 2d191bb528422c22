r"""A learned geometry as an optax optimiser: `∇ψ(x⁺) = ∇ψ(x) − η g`.

Where `∇ψ` is linear with matrix `M` the step is `x⁺ = x − η M⁻¹ g`: one rate a parameter where `M`
is diagonal, triangular solves or products where it is made of factors.
Elsewhere the dual point `z = ∇ψ(x)` is the state, because the parameters alone do not determine it
(on a tie of `MaxOfDiagonals`) or determine it badly (entropies near the boundary). The state also
remembers the parameters it led to: if they are not those of the next call, to rounding, somebody
else moved them, and `z` is derived from them anew. Momentum `v⁺ = g + μ v` acts on gradients, that
is in the dual, before the step. Sources: S000 eq. 1 and appendix A.1; Sutskever et al. 2013.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from ..geometry import AbstractGeometry, AbstractMirrorMap, Blockwise, Diagonal, Euclidean, Scaled
from ._artifact import Artifact, load
from ._checks import check_given, check_learning_rate, check_momentum, check_params
from ._fit import by_name, expected_shapes, flattened, fold, rebuild, unfold
from ._momentum import momentum_trace
from ._state import cast, following, owned, working_dtype

Source: TypeAlias = str | os.PathLike[str] | Artifact | AbstractMirrorMap
LearningRate: TypeAlias = float | Array | Callable[[Int[Array, ""]], Any]


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


def to_optax(
    source: Source,
    learning_rate: LearningRate | None = None,
    *,
    momentum: float | Array | None = None,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Makes an optax optimiser of a geometry: mirror descent `∇ψ(x⁺) = ∇ψ(x) − η g`.

    It chains like any other: clipping and weight decay go before it in `optax.chain`. Its `update`
    needs the parameters, as weight decay does. Parameters are matched by the names of their
    leaves, whatever the containers.

    **Arguments:**

    - `source`: the file of a geometry, an artifact, or a geometry.
    - `learning_rate`: `η`, a positive number or an optax schedule; by default the artifact's.
    - `momentum`: `μ` in `v⁺ = g + μ v`, at least 0 and below 1; none by default.
    - `nesterov`: step along `g + μ v⁺` instead of `v⁺`.

    **Returns:**

    An optax gradient transformation; its state holds arrays only.

    **Raises:**

    - `ValueError`: a learning rate or momentum out of range; a geometry without learning rate; a
        parameter that is not a floating-point array (at `init`); no parameters (at `update`).
    - `ArtifactError`: the file cannot be used; or, at `init`, the parameters are not those the
        geometry was learned for, with both tables.

    >>> import tempfile
    >>> from mirrax.deploy import save, to_optax
    >>> params, grads = {"w": jnp.array([1.0, 1.0])}, {"w": jnp.array([4.0, 4.0])}
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = folder.name + "/geometry.safetensors"
    >>> save(path, Diagonal({"w": jnp.log(jnp.array([1.0, 2.0]))}), rate=0.125)

    >>> optimiser = to_optax(path); state = optimiser.init(params)
    >>> updates, state = optimiser.update(grads, state, params)
    >>> params = optax.apply_updates(params, updates)

    >>> params["w"].tolist()
    [0.5, 0.875]
    >>> folder.cleanup()
    """
    geometry, expected, default = _opened(source)
    rate = default if learning_rate is None else learning_rate
    check_learning_rate(rate)
    check_momentum(momentum, nesterov)
    flat = flattened(geometry)
    step = _step_for(flat)(flat, expected, rate)
    if momentum is None:
        return step
    chained = optax.chain(momentum_trace(momentum, nesterov), step)
    return optax.with_extra_args_support(chained)


def _opened(source: Source) -> tuple[AbstractMirrorMap, Any, float | None]:
    if isinstance(source, str | os.PathLike):
        source = load(source)
    found = source.geometry if isinstance(source, Artifact) else source
    if not isinstance(found, AbstractMirrorMap):
        raise ValueError(
            "to_optax.source: expected a file name, an Artifact or a geometry, got "
            f"{type(found).__name__}."
        )
    if isinstance(source, Artifact):
        return found, source.expected, source.rate
    return found, expected_shapes(found), None


def _rate_at(rate: Any, count: Array, dtype: Any) -> Array:
    return jnp.asarray(rate(count) if callable(rate) else rate).astype(dtype)


def _step_for(geometry: AbstractMirrorMap) -> Callable[..., Any]:
    """The cheapest form of the step that a geometry allows."""
    if _is_diagonal(geometry):
        return _scale_by_rates
    quadratic = isinstance(geometry, AbstractGeometry) and geometry.is_quadratic
    return _linear_step if quadratic else _mirror_step


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


def _scale_by_rates(
    geometry: AbstractMirrorMap, expected: Any, learning_rate: Any
) -> optax.GradientTransformationExtraArgs:
    """`x⁺ = x − η M⁻¹ g`."""

    def init(params: PyTree) -> RatesState:
        check_params(params, expected)
        dtype = working_dtype(params)
        rates = _rates(owned(geometry, dtype), fold(geometry, by_name(cast(params, dtype))))
        return RatesState(jnp.zeros((), jnp.int32), rebuild(unfold(geometry, rates), params))

    def update(updates: PyTree, state: Any, params: Any = None, **extra: Any):
        del extra
        check_given("to_optax", params)

        def scaled(gradient: Array, rate: Array) -> Array:
            step = _rate_at(learning_rate, state.count, rate.dtype) * gradient.astype(rate.dtype)
            return -(rate * step).astype(gradient.dtype)

        return jax.tree.map(scaled, updates, state.rates), RatesState(
            following(state.count), state.rates
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _linear_step(
    geometry: AbstractMirrorMap, expected: Any, learning_rate: Any
) -> optax.GradientTransformationExtraArgs:
    """`x⁺ = x − η ∇ψ*(g)` with a linear `∇ψ*`: no dual is kept, and none loses digits."""
    structure = jax.tree.structure(geometry)

    def init(params: PyTree) -> LinearState:
        check_params(params, expected)
        dtype = working_dtype(params)
        leaves = jax.tree.leaves(owned(geometry, dtype))
        return LinearState(jnp.zeros((), jnp.int32), tuple(leaves))

    def update(updates: PyTree, state: Any, params: Any = None, **extra: Any):
        del extra
        check_given("to_optax", params)
        return step(updates, state, params)

    @jax.jit
    def step(updates: PyTree, state: LinearState, params: PyTree) -> tuple[PyTree, LinearState]:
        own = jax.tree.unflatten(structure, state.geometry)
        dtype = working_dtype(state.geometry)
        direction = own.to_primal(fold(geometry, by_name(cast(updates, dtype))))
        rate = _rate_at(learning_rate, state.count, dtype)
        moves = jax.tree.map(
            lambda d, gradient: -(rate * d).astype(gradient.dtype),
            rebuild(unfold(geometry, direction), params),
            updates,
        )
        return moves, LinearState(following(state.count), state.geometry)

    return optax.GradientTransformationExtraArgs(init, update)


def _mirror_step(
    geometry: AbstractMirrorMap, expected: Any, learning_rate: Any
) -> optax.GradientTransformationExtraArgs:
    """`x⁺ = ∇ψ*(z − η g)`, with `z` as the state."""
    structure = jax.tree.structure(geometry)

    def folded(tree: PyTree) -> dict[str, Any]:
        return fold(geometry, by_name(tree))

    def init(params: PyTree) -> MirrorState:
        check_params(params, expected)
        dtype = working_dtype(params)
        own = owned(geometry, dtype)
        dual = own.to_dual(folded(owned(params, dtype)))
        primal = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
        return MirrorState(
            jnp.zeros((), jnp.int32),
            tuple(jax.tree.leaves(own)),
            rebuild(unfold(geometry, dual), params),
            primal,
        )

    def update(updates: PyTree, state: Any, params: Any = None, **extra: Any):
        del extra
        check_given("to_optax", params)
        return step(updates, state, params)

    # Compiled here, so that a loop that does not compile does not trace the branches at each step.
    @jax.jit
    def step(updates: PyTree, state: MirrorState, params: PyTree) -> tuple[PyTree, MirrorState]:
        dtype = working_dtype(state.dual)
        own = jax.tree.unflatten(structure, state.geometry)
        here = cast(params, dtype)
        rate = _rate_at(learning_rate, state.count, dtype)
        moved = jax.tree.map(_was_moved, params, state.primal)
        dual = _current_dual(own, folded(state.dual), folded(here), folded(moved))
        dual = jax.tree.map(lambda z, g: z - rate * g, dual, folded(cast(updates, dtype)))
        there = rebuild(unfold(geometry, own.to_primal(dual)), params)
        moves = jax.tree.map(
            lambda new, old, gradient: (new - old).astype(gradient.dtype), there, here, updates
        )
        # The same operation that the caller applies: what the parameters will be to the bit, while
        # `there` is what they should be.
        primal = optax.apply_updates(params, moves)
        kept = rebuild(unfold(geometry, dual), params)
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
    return lax.cond(anywhere, lambda x: geometry.to_dual(x), lambda _: dual, here)
