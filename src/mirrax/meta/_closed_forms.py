r"""What `Alternating` knows of a kind of geometry: moments, their bound, the move they call for.

A move goes a share of the way from the geometry to the minimiser of the bound, on a logarithmic
scale, and no farther than a limit. For factors that is the geodesic of positive definite matrices,
`A ← L exp(s log(L⁻¹ A* L⁻ᵀ)) Lᵀ` with `A = L Lᵀ`. Sources: spec B4, B5; derived here.
"""

import abc
import math
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax.tree as vector
from jax.lax import linalg
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from .._tree import Scalar
from ..geometry import (
    AbstractGeometry,
    Diagonal,
    Factors,
    Kronecker,
    cholesky_of,
    is_factors,
    log_cholesky_of,
)
from ..inner import AbstractInner, Prior, Problem, RunSummary
from ..objective import (
    Comparator,
    FactorMoments,
    Moments,
    Side,
    factor_path_moments,
    path_moments,
    tight_diagonal,
    tight_side,
)

LARGEST_CHANGE = math.log(4)
"""Of the logarithm of a rate in one round."""

Pool: TypeAlias = tuple[tuple[int, ...], ...] | None
Share: TypeAlias = Float[Array, ""]
Square: TypeAlias = Float[Array, "size size"]


class Move(NamedTuple):
    """How a geometry is to move.

    **Arguments:**

    - `rate`: the step size `η`.
    - `damping`: how strongly what showed little stays at `η`.
    - `share`: how far to go towards the minimiser, in (0, 1].
    - `gain`: by which any move is made shorter.
    - `descended`: whether runs ended below where they began; if not, rates are lowered by their
      share in the bound's gradient term.
    """

    rate: float
    damping: float
    share: float
    gain: Share
    descended: Bool[Array, ""]

    def changes(self, towards: Array, terms: Array, largest: Array, limit: float) -> Array:
        """Of logarithms: towards the minimiser, within a limit, or upwards by their blame."""
        known = jnp.isfinite(largest) & (largest > 0)
        blame = jnp.where(known, terms / largest, 1)
        within = jnp.clip(self.share * towards, -limit, limit)
        change = jnp.where(self.descended, within, blame * limit / 2)
        return self.gain.astype(change.dtype) * change


class ClosedForm(abc.ABC):
    """The minimiser of the tight bound for one kind of geometry, and how to approach it."""

    @abc.abstractmethod
    def arrays(self, geometry: Any) -> int:
        """How many parameter arrays the geometry is for."""

    @abc.abstractmethod
    def gather(
        self,
        inner: AbstractInner,
        prior: Prior,
        problem: Problem,
        steps: int,
        *,
        comparator: Comparator,
        key: PRNGKeyArray,
    ) -> tuple[Any, RunSummary]:
        """The moments of one run, and its summary."""

    @abc.abstractmethod
    def bound(self, geometry: Any, moments: Any, rate: float) -> Scalar:
        """The tight bound at the geometry that the runs used."""

    @abc.abstractmethod
    def pooled(self, moments: Any, pool: Pool, geometry: Any) -> Any:
        """Moments averaged over exchangeable entries."""

    @abc.abstractmethod
    def moved(self, geometry: Any, moments: Any, move: Move) -> Any:
        """The geometry after a move, from moments that are averaged and pooled."""


class DiagonalForm(ClosedForm):
    """`m_i² = η √(G_i/D_i)`."""

    def arrays(self, geometry: Diagonal) -> int:
        """One a leaf."""
        return len(jax.tree.leaves(geometry.log_diagonal))

    def gather(self, inner, prior, problem, steps, *, comparator, key):
        """See `path_moments`."""
        return path_moments(inner, prior, problem, steps, comparator=comparator, key=key)

    def bound(self, geometry: Diagonal, moments: Moments, rate: float) -> Scalar:
        """`½ Σ m² D/η + ½ η Σ G/m²`."""
        first = jax.tree.map(jnp.multiply, geometry.curvature, moments.displacement)
        second = jax.tree.map(jnp.divide, moments.gradient, geometry.curvature)
        total = vector.sum(first) / rate + rate * vector.sum(second)
        return jnp.asarray(total) / 2

    def pooled(self, moments: Moments, pool: Pool, geometry: Diagonal) -> Moments:
        """Means over the axes."""
        del geometry
        if pool is None:
            return moments

        def means(tree: PyTree[Array]) -> PyTree[Array]:
            leaves, structure = jax.tree.flatten(tree)
            pairs = zip(leaves, pool, strict=True)
            return jax.tree.unflatten(structure, [_mean_over(leaf, axes) for leaf, axes in pairs])

        return Moments(means(moments.displacement), means(moments.gradient))

    def moved(self, geometry: Diagonal, moments: Moments, move: Move) -> Diagonal:
        """A share of the way in `log m`."""
        target = tight_diagonal(moments, move.rate, damping=move.damping)
        terms = jax.tree.map(jnp.divide, moments.gradient, geometry.curvature)
        largest = jnp.max(jnp.stack([jnp.max(term) for term in jax.tree.leaves(terms)]))

        def one(now: Array, then: Array, term: Array) -> Array:
            return now + move.changes(then - now, term, largest, LARGEST_CHANGE / 2)

        return Diagonal(jax.tree.map(one, geometry.log_diagonal, target.log_diagonal, terms))


def _mean_over(leaf: Array, axes: tuple[int, ...]) -> Array:
    return jnp.broadcast_to(jnp.mean(leaf, axis=axes, keepdims=True), leaf.shape)


class KroneckerForm(ClosedForm):
    """The Riccati solutions for `A` and `B`, each with the other fixed; `m²` as of a diagonal."""

    def arrays(self, geometry: Kronecker) -> int:
        """One a leaf or pair of factors."""
        return len(jax.tree.leaves(geometry.factors, is_leaf=is_factors))

    def gather(self, inner, prior, problem, steps, *, comparator, key):
        """See `factor_path_moments`."""
        return factor_path_moments(inner, prior, problem, steps, comparator=comparator, key=key)

    def bound(self, geometry: Kronecker, moments: PyTree, rate: float) -> Scalar:
        """`½ Σ tr(A D_A)/η + ½ η Σ tr(A⁻¹ G_A)`, and the diagonal's for the rest."""

        def one(node: Any, found: FactorMoments | Moments) -> Array:
            if isinstance(found, Moments):
                return DIAGONAL.bound(Diagonal(node), found, rate)
            lower = cholesky_of(node.rows)
            near = jnp.vdot(lower @ lower.T, found.rows.displacement)
            return (near / rate + rate * jnp.trace(_whitened(lower, found.rows.gradient))) / 2

        bounds = jax.tree.map(one, geometry.factors, moments, is_leaf=is_factors)
        return jnp.asarray(vector.sum(bounds))

    def pooled(self, moments: PyTree, pool: Pool, geometry: Kronecker) -> PyTree:
        """Means over all permutations of the exchangeable axes."""
        if pool is None:
            return moments
        nodes, structure = jax.tree.flatten(geometry.factors, is_leaf=is_factors)
        found = structure.flatten_up_to(moments)
        triples = zip(nodes, found, pool, strict=True)
        return jax.tree.unflatten(structure, [_pooled_node(*triple) for triple in triples])

    def moved(self, geometry: Kronecker, moments: PyTree, move: Move) -> Kronecker:
        """A share of the way along the geodesics of `A` and `B`.

        Each factor's minimiser makes up for the whole difference in scale, so of that each goes
        half the way; each has half the limit.
        """
        nodes, structure = jax.tree.flatten(geometry.factors, is_leaf=is_factors)
        proposals = [
            _propose(node, found, move)
            for node, found in zip(nodes, structure.flatten_up_to(moments), strict=True)
        ]
        terms = [jnp.max(one.terms) for parts in proposals for one in parts]
        largest = jnp.max(jnp.stack(terms))
        found = [
            _accept(node, parts, move, largest)
            for node, parts in zip(nodes, proposals, strict=True)
        ]
        return Kronecker(jax.tree.unflatten(structure, found)).fixed_gauge()


class _Proposal(NamedTuple):
    """Where a factor, or entries, are to go, in coordinates in which they are the identity.

    **Arguments:**

    - `towards`: the logarithm of the minimiser's eigenvalues.
    - `terms`: parts of the bound's gradient term along them, for one entry of the parameters.
    - `basis`: `L Q` with the eigenvectors `Q`; `None` for entries.
    """

    towards: Array
    terms: Array
    basis: Square | None = None


def _propose(node: Any, found: FactorMoments | Moments, move: Move) -> list[_Proposal]:
    """One proposal for entries, two for factors."""
    if isinstance(found, Moments):
        target = tight_diagonal(found, move.rate, damping=move.damping).log_diagonal
        return [_Proposal(target - node, found.gradient / jnp.exp(2 * node))]
    high, wide = len(node.rows), len(node.columns)
    sides = [_propose_side(node.rows, found.rows, wide, move)]
    sides.append(_propose_side(node.columns, found.columns, high, move))
    return [side._replace(towards=side.towards - jnp.mean(side.towards) / 2) for side in sides]


def _propose_side(raw: Square, side: Side, others: int, move: Move) -> _Proposal:
    """The spectrum of the minimiser, or after a run that diverged that of the gradients' moments.

    Those may be no numbers at all then; neither Riccati's equation nor `eigh` is asked about them.
    """
    lower, eye = cholesky_of(raw), jnp.eye(len(raw), dtype=raw.dtype)
    sound = move.descended | jnp.all(jnp.isfinite(side.gradient))
    gradient = _whitened(lower, jnp.where(sound, side.gradient, eye))
    known = jax.tree.map(lambda matrix: jnp.where(move.descended, matrix, eye), side)
    target = _whitened(lower, tight_side(known, move.rate, damping=move.damping))
    values, vectors = jnp.linalg.eigh(jnp.where(move.descended, target, gradient))
    # Rounding may leave a value that is not positive; it is beyond any limit anyway.
    towards = jnp.log(jnp.maximum(values, jnp.finfo(values.dtype).tiny))
    terms = jnp.where(sound, values / others, jnp.nan)
    return _Proposal(towards, terms, lower @ vectors)


def _accept(node: Any, parts: list[_Proposal], move: Move, largest: Array) -> Any:
    """Factors, or `log m`, after their moves."""
    if not is_factors(node):
        (entries,) = parts
        return node + move.changes(entries.towards, entries.terms, largest, LARGEST_CHANGE / 2)
    rows, columns = (
        _stretched(side, move.changes(side.towards, side.terms, largest, LARGEST_CHANGE / 2))
        for side in parts
    )
    return Factors(rows, columns, node.shape)


def _stretched(side: _Proposal, change: Array) -> Square:
    """Log-Cholesky parameters of `L Q exp(change) Qᵀ Lᵀ`, without forming it."""
    assert side.basis is not None
    half = side.basis * jnp.exp(change / 2)
    upper = jnp.linalg.qr(half.T, mode="r")
    return log_cholesky_of(upper.T * jnp.sign(jnp.diag(upper)))


def _whitened(lower: Square, matrix: Square) -> Square:
    """`L⁻¹ M L⁻ᵀ`."""
    left = linalg.triangular_solve(lower, matrix, left_side=True, lower=True)
    return linalg.triangular_solve(lower, left, left_side=False, lower=True, transpose_a=True)


def _pooled_node(node: Any, found: Any, axes: tuple[int, ...]) -> Any:
    """Moments of one array of which some axes are exchangeable."""
    if isinstance(found, Moments):
        return Moments(_mean_over(found.displacement, axes), _mean_over(found.gradient, axes))
    *high, wide = node.shape
    axes = tuple(axis % len(node.shape) for axis in axes)

    def pool(side: Side, sizes: tuple[int, ...], axes: tuple[int, ...]) -> Side:
        return Side(*(_exchanged(matrix, sizes, axes) for matrix in side))

    last = len(high)
    rows = pool(found.rows, tuple(high), tuple(axis for axis in axes if axis < last))
    return FactorMoments(rows, pool(found.columns, (wide,), (0,) if last in axes else ()))


def _exchanged(matrix: Square, sizes: tuple[int, ...], axes: tuple[int, ...]) -> Square:
    """The mean of `P M Pᵀ` over all permutations `P` of the index along each axis.

    >>> _exchanged(jnp.array([[1.0, 2.0], [4.0, 5.0]]), (2,), (0,)).tolist()
    [[3.0, 3.0], [3.0, 3.0]]
    """
    whole = matrix.reshape(*sizes, *sizes)
    for axis in axes:
        size, pair = sizes[axis], (axis, axis + len(sizes))
        if size == 1:
            continue
        own = jnp.trace(whole, axis1=pair[0], axis2=pair[1]) / size
        other = (jnp.sum(whole, axis=pair) / size - own) / (size - 1)
        eye = jnp.eye(size, dtype=matrix.dtype).reshape(
            [size if i in pair else 1 for i in range(whole.ndim)]
        )
        own, other = jnp.expand_dims(own, pair), jnp.expand_dims(other, pair)
        whole = other + (own - other) * eye
    return whole.reshape(matrix.shape)


DIAGONAL, KRONECKER = DiagonalForm(), KroneckerForm()


def closed_form(geometry: AbstractGeometry) -> ClosedForm:
    """The closed form for a geometry.

    **Raises:**

    - `ValueError`: if there is none.
    """
    if isinstance(geometry, Diagonal):
        return DIAGONAL
    if isinstance(geometry, Kronecker):
        return KRONECKER
    raise ValueError(
        "Alternating: the closed form exists for Diagonal and Kronecker geometries, got "
        f"{type(geometry).__name__}; use Descent."
    )
