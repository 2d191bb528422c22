r"""SOAP, Adam in the eigenbasis of Shampoo's factors, as an optax transformation.

A matrix `W` of `m × n` numbers with gradients `G_t` has the factors

`L_t = β₂ L_{t−1} + (1 − β₂) G_t G_tᵀ`, `R_t = β₂ R_{t−1} + (1 − β₂) G_tᵀ G_t`

and steps by `−η Q_L N Q_Rᵀ`, where `N` is what Adam makes of `Q_Lᵀ G_t Q_R`. The bases `Q` begin
as the eigenvectors of the first gradient's factors and follow by one step of orthogonal iteration
every few steps. Arrays of one axis have Adam; of several, all axes but the last count as rows.

It is here because optax has neither SOAP nor Shampoo: a comparison with learned Kronecker factors
wants an optimiser that finds such factors within the run. Source: Vyas et al., "SOAP: Improving and
Stabilizing Shampoo using Adam" (2024), Algorithm 3, with its published code's first step, which
forms the bases and moves nothing, its correction of Adam's bias, and its order of eigenvectors.
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

    left: Float[Array, "m m"]
    right: Float[Array, "n n"]
    left_basis: Float[Array, "m m"]
    right_basis: Float[Array, "n n"]
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
    b1: float = 0.95, b2: float = 0.95, eps: float = 1e-8, every: int = 10
) -> optax.GradientTransformation:
    """Directions of SOAP, to be scaled by a rate.

    **Arguments:**

    - `b1`, `b2`: decays of the mean and of squares and factors.
    - `eps`: added to the root of the squares.
    - `every`: steps between updates of the bases.

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
        leaves = tuple(_empty(leaf) for leaf in jax.tree.leaves(params))
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
        directions, kept = lax.cond(first, begin, go_on, tuple(leaves), state)
        return structure.unflatten(directions), SoapState(state.count + 1, kept)

    return optax.GradientTransformation(init, update)


def soap(
    learning_rate: optax.ScalarOrSchedule, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """SOAP with decoupled weight decay, at its published settings.

    **Arguments:**

    - `learning_rate`: rate or schedule.
    - `weight_decay`: share of the parameters taken off a step, times the rate.
    """
    return optax.chain(
        scale_by_soap(),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def _matrix(array: Array) -> Matrix:
    return array.reshape(-1, array.shape[-1])


def _empty(leaf: Array) -> Rotated | Plain:
    if leaf.ndim < 2:
        return Plain(jnp.zeros_like(leaf), jnp.zeros_like(leaf))
    zero = jnp.zeros_like(_matrix(leaf))
    left, right = (jnp.zeros((n, n), leaf.dtype) for n in zero.shape)
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
    turned = kept.left_basis.T @ matrix @ kept.right_basis
    mean, square, direction = _adam(turned, kept.mean, kept.square, count, b1, b2, eps)
    direction = kept.left_basis @ direction @ kept.right_basis.T
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


def _factors(matrix: Matrix, kept: Rotated, b2: float) -> tuple[Square, Square]:
    left = b2 * kept.left + (1 - b2) * matrix @ matrix.T
    right = b2 * kept.right + (1 - b2) * matrix.T @ matrix
    return left, right


def _eigenbasis(factor: Square) -> Square:
    """Eigenvectors, that of the largest eigenvalue first."""
    return jnp.flip(jnp.linalg.eigh(factor)[1], axis=1)


def _renewed(kept: Rotated) -> Rotated:
    """One step of orthogonal iteration a basis; moments follow, squares by the order alone."""
    left, rows = _iterated(kept.left, kept.left_basis)
    right, columns = _iterated(kept.right, kept.right_basis)
    mean = (left.T @ kept.left_basis) @ kept.mean @ (kept.right_basis.T @ right)
    square = kept.square[rows][:, columns]
    return kept._replace(left_basis=left, right_basis=right, mean=mean, square=square)


def _iterated(factor: Square, basis: Square) -> tuple[Square, Int[Array, " n"]]:
    moved = factor @ basis
    order = jnp.argsort(-jnp.sum(basis * moved, axis=0))
    return jnp.linalg.qr(moved[:, order])[0], order
