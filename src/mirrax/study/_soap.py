r"""SOAP, Adam in the eigenbasis of Shampoo's factors, as an optax transformation.

A matrix `W` of `m × n` numbers with gradients `G_t` has the factors

`L_t = β₂ L_{t−1} + (1 − β₂) G_t G_tᵀ`, `R_t = β₂ R_{t−1} + (1 − β₂) G_tᵀ G_t`

and steps by `−η Q_L N Q_Rᵀ`, where `N` is what Adam makes of `Q_Lᵀ G_t Q_R`. The bases `Q` begin
as the eigenvectors of the first gradient's factors and follow by one step of orthogonal iteration
every few steps. Arrays of one axis have Adam; of several, all axes but the last count as rows. A
side longer than 10 000 has no factor and keeps its own coordinates, `Q = I`. Factors, bases and
moments are of at least 32 bits.

It is here because optax has neither SOAP nor Shampoo: a comparison with learned Kronecker factors
wants an optimiser that finds such factors within the run. Source: Vyas et al., "SOAP: Improving and
Stabilizing Shampoo using Adam" (2024), Algorithm 3, with its published code's first step, which
forms the bases and moves nothing, its correction of Adam's bias, its order of eigenvectors and its
limit. Weights decay beside the step, as in optax, from `x` and not from where the step led.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

Matrix = Float[Array, "m n"]
Square = Float[Array, "n n"]


class Rotated(NamedTuple):
    """What is kept of a matrix: factors, their bases, and Adam's moments in the bases."""

    left: Float[Array, "m m"] | None
    right: Float[Array, "n n"] | None
    left_basis: Float[Array, "m m"] | None
    right_basis: Float[Array, "n n"] | None
    mean: Matrix
    square: Matrix


class Plain(NamedTuple):
    """What is kept of an array of one axis: Adam's moments."""

    mean: Float[Array, " n"]
    square: Float[Array, " n"]


class SoapState(NamedTuple):
    """The number of gradients seen, and what is kept of each array, in their order."""

    count: Int[Array, ""]
    leaves: tuple[Rotated | Plain, ...]


def scale_by_soap(
    b1: float = 0.95, b2: float = 0.95, eps: float = 1e-8, every: int = 10, longest: int = 10_000
) -> optax.GradientTransformation:
    """Directions of SOAP, to be scaled by a rate.

    **Arguments:**

    - `b1`, `b2`: decays of the mean and of squares and factors.
    - `eps`: added to the root of the squares.
    - `every`: steps between updates of the bases.
    - `longest`: side of a matrix that has a factor, which takes its square in memory.

    **Returns:**

    An optax transformation; its first update is zero.

    >>> soap = scale_by_soap()
    >>> params = {"w": jnp.zeros((3, 2))}
    >>> state = soap.init(params)
    >>> gradient = {"w": jnp.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])}
    >>> _, state = soap.update(gradient, state)
    >>> jnp.abs(soap.update(gradient, state)[0]["w"]).round(3).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    """

    def init(params: optax.Params) -> SoapState:
        leaves = tuple(_empty(leaf, longest) for leaf in jax.tree.leaves(params))
        return SoapState(jnp.zeros((), jnp.int32), leaves)

    def begin(gradients: tuple[Array, ...], state: SoapState):
        kept = tuple(_begun(g, s, b2) for g, s in zip(gradients, state.leaves, strict=True))
        return tuple(jnp.zeros_like(g) for g in gradients), kept

    def go_on(gradients: tuple[Array, ...], state: SoapState):
        renew = state.count % every == 0
        pairs = zip(gradients, state.leaves, strict=True)
        found = [_step(g, s, state.count, renew, b1, b2, eps) for g, s in pairs]
        return tuple(direction for direction, _ in found), tuple(kept for _, kept in found)

    def update(updates: optax.Updates, state: Any, params: Any = None):
        del params
        leaves, structure = jax.tree.flatten(updates)
        first = state.count == 0
        pairs = zip(leaves, state.leaves, strict=True)
        wide = tuple(leaf.astype(kept.mean.dtype) for leaf, kept in pairs)
        directions, kept = lax.cond(first, begin, go_on, wide, state)
        found = [d.astype(leaf.dtype) for d, leaf in zip(directions, leaves, strict=True)]
        return structure.unflatten(found), SoapState(state.count + 1, kept)

    return optax.GradientTransformation(init, update)


def soap(
    learning_rate: optax.ScalarOrSchedule, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """SOAP with decoupled weight decay, at its published settings; the first step moves nothing.

    **Arguments:**

    - `learning_rate`: rate or schedule.
    - `weight_decay`: share of the parameters taken off a step, times the rate.
    """
    return optax.chain(
        scale_by_soap(),
        _decay_after_the_first(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def _decay_after_the_first(weight_decay: float) -> optax.GradientTransformation:
    def init(params: optax.Params) -> Any:
        del params
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates: optax.Updates, state: Any, params: Any = None):
        share = jnp.where(state.count > 0, weight_decay, 0.0)
        updates = jax.tree.map(lambda g, x: g + share.astype(g.dtype) * x, updates, params)
        return updates, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)


def _matrix(array: Array) -> Matrix:
    return array.reshape(-1, array.shape[-1])


def _empty(leaf: Array, longest: int) -> Rotated | Plain:
    wide = leaf.dtype if jnp.finfo(leaf.dtype).bits >= 32 else jnp.float32
    zero = jnp.zeros(leaf.shape, wide)
    if leaf.ndim < 2:
        return Plain(zero, zero)
    zero = _matrix(zero)
    left, right = (jnp.zeros((n, n), zero.dtype) if n <= longest else None for n in zero.shape)
    return Rotated(left, right, left, right, zero, zero)


def _begun(gradient: Array, kept: Rotated | Plain, b2: float) -> Rotated | Plain:
    """The first gradient gives factors and bases, and is used for nothing else."""
    if isinstance(kept, Plain):
        return kept
    left, right = _factors(_matrix(gradient), kept, b2)
    return kept._replace(
        left=left, right=right, left_basis=_eigenbasis(left), right_basis=_eigenbasis(right)
    )


def _step(
    gradient: Array,
    kept: Rotated | Plain,
    count: Int[Array, ""],
    renew: Array,
    b1: float,
    b2: float,
    eps: float,
) -> tuple[Array, Rotated | Plain]:
    if isinstance(kept, Plain):
        mean, square, direction = _adam(gradient, kept.mean, kept.square, count, b1, b2, eps)
        return direction, Plain(mean, square)
    matrix = _matrix(gradient)
    turned = _turned(matrix, kept.left_basis, kept.right_basis)
    mean, square, direction = _adam(turned, kept.mean, kept.square, count, b1, b2, eps)
    direction = _turned_back(direction, kept)
    left, right = _factors(matrix, kept, b2)
    kept = kept._replace(left=left, right=right, mean=mean, square=square)
    kept = lax.cond(renew, _renewed, lambda same: same, kept)
    return direction.reshape(gradient.shape), kept


def _adam(
    gradient: Array, mean: Array, square: Array, count: Array, b1: float, b2: float, eps: float
) -> tuple[Array, Array, Array]:
    mean = b1 * mean + (1 - b1) * gradient
    square = b2 * square + (1 - b2) * gradient**2
    steps = count.astype(mean.dtype)
    ratio = jnp.sqrt(1 - b2**steps) / (1 - b1**steps)
    return mean, square, ratio * mean / (jnp.sqrt(square) + eps)


def _turned(matrix: Matrix, left: Square | None, right: Square | None) -> Matrix:
    """`leftᵀ matrix right`; a side without a basis stays."""
    matrix = matrix if left is None else left.T @ matrix
    return matrix if right is None else matrix @ right


def _turned_back(matrix: Matrix, kept: Rotated) -> Matrix:
    left, right = (None if q is None else q.T for q in (kept.left_basis, kept.right_basis))
    return _turned(matrix, left, right)


def _factors(matrix: Matrix, kept: Rotated, b2: float) -> tuple[Square | None, Square | None]:
    def following(factor: Square | None, rows: Matrix) -> Square | None:
        return None if factor is None else b2 * factor + (1 - b2) * rows @ rows.T

    return following(kept.left, matrix), following(kept.right, matrix.T)


def _eigenbasis(factor: Square | None) -> Square | None:
    """Eigenvectors, that of the largest eigenvalue first."""
    return None if factor is None else jnp.flip(jnp.linalg.eigh(factor)[1], axis=1)


def _renewed(kept: Rotated) -> Rotated:
    """One step of orthogonal iteration a basis; moments follow, squares by the order alone."""
    left, rows = _iterated(kept.left, kept.left_basis)
    right, columns = _iterated(kept.right, kept.right_basis)
    mean = _turned(_turned_back(kept.mean, kept), left, right)
    square = kept.square if rows is None else kept.square[rows]
    square = square if columns is None else square[:, columns]
    return kept._replace(left_basis=left, right_basis=right, mean=mean, square=square)


def _iterated(
    factor: Square | None, basis: Square | None
) -> tuple[Square | None, Int[Array, " n"] | None]:
    if factor is None or basis is None:
        return None, None
    moved = factor @ basis
    order = jnp.argsort(-jnp.sum(basis * moved, axis=0))
    return jnp.linalg.qr(moved[:, order])[0], order
