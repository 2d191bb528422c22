r"""Is a mirror map the gradient of a convex potential? Its Jacobian says so, or says no.

A differentiable map `g` is `∇ψ*` of a convex `ψ*` exactly if its Jacobian `J` is symmetric and
positive semi-definite everywhere. A step `z ← z − η ∇ℓ(g(z))` changes the loss by
`−η ∇ℓᵀ J ∇ℓ` to first order, so it descends for small `η` wherever `sym J = (J + Jᵀ)/2` is
positive definite, potential or not; where `sym J` has a negative eigenvalue there are gradients
along which every step ascends. Theorem 1 of S004 claims monotonicity for autoregressive maps with a
positive diagonal; `theorem1_counterexample` computes why it fails. Source: spec A8,
papers.md#s004-theorem-1.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray

from .._spectrum import extreme_eigenvalues
from .._tree import Dual, Primal, Scalar
from ..geometry import AbstractMirrorMap

_DENSE = 256
"""Up to this many parameters the whole Jacobian is formed."""


class MapDiagnosis(eqx.Module):
    """What the Jacobian `J` of a mirror map is like at one dual point.

    **Arguments:**

    - `smallest`: the smallest eigenvalue of `sym J`. Matrix-free it is the smallest Rayleigh
      quotient found: negative proves that `J` is not monotone, positive is evidence only.
    - `largest`: the largest eigenvalue of `sym J`, matrix-free the largest quotient found.
    - `asymmetry`: `‖J − Jᵀ‖_F/‖J‖_F`, zero for a map with a potential and at most two; matrix-free
      it is estimated from random probes.
    """

    smallest: Scalar
    largest: Scalar
    asymmetry: Scalar


def symmetry_of_map(
    mirror_map: AbstractMirrorMap,
    dual: Dual,
    *,
    key: PRNGKeyArray | None = None,
    probes: int = 16,
    steps: int = 32,
) -> MapDiagnosis:
    r"""Measures how far `∇ψ*` is, at one point, from the gradient of a convex potential.

    With a key, nothing larger than `steps` vectors is formed: eigenvalues by Lanczos' method with
    full orthogonalisation on `v ↦ (J v + Jᵀ v)/2`, and `‖A‖_F² = E‖A v‖²` over random signs `v`.
    Everything can be compiled, and vectorised over points: `jax.vmap` over a trajectory's duals.

    **Arguments:**

    - `mirror_map`: the map whose `to_primal` is examined.
    - `dual`: the point `z`.
    - `key`: randomness; without it the Jacobian is formed, which is exact.
    - `probes`: how many random vectors estimate the asymmetry.
    - `steps`: how many steps of Lanczos' method, at most the number of parameters.

    **Raises:**

    - `ValueError`: if there are more than 256 parameters and no key, or no probe or step.

    >>> from mirrax.geometry import Euclidean
    >>> found = symmetry_of_map(Euclidean(), jnp.zeros(3))
    >>> float(found.smallest), float(found.largest), float(found.asymmetry)
    (1.0, 1.0, 0.0)
    """
    point, unravel = ravel_pytree(dual)

    def flat_map(vector: Array) -> Array:
        return ravel_pytree(mirror_map.to_primal(unravel(vector)))[0]

    if key is None:
        if point.size > _DENSE:
            raise ValueError(
                f"symmetry_of_map.key: {point.size} parameters are too many for a dense Jacobian "
                f"(at most {_DENSE}); pass a key for the matrix-free method."
            )
        jacobian = jax.jacfwd(flat_map)(point)
        values = jnp.linalg.eigvalsh((jacobian + jacobian.T) / 2)
        asymmetry = jnp.linalg.norm(jacobian - jacobian.T) / jnp.linalg.norm(jacobian)
        return MapDiagnosis(values[0], values[-1], asymmetry)
    if probes < 1 or steps < 1:
        raise ValueError(
            "symmetry_of_map: expected at least one probe and one step, got "
            f"probes={probes!r}, steps={steps!r}."
        )
    _, push = jax.linearize(flat_map, point)
    pull = jax.linear_transpose(push, point)

    def both(vector: Array) -> tuple[Array, Array]:
        return push(vector), pull(vector)[0]

    probe_key, start_key = jax.random.split(key)
    signs = jax.random.rademacher(probe_key, (probes, point.size), point.dtype)
    ahead, back = jax.vmap(both)(signs)
    asymmetry = jnp.linalg.norm(ahead - back) / jnp.linalg.norm(ahead)
    start = jax.random.normal(start_key, point.shape, point.dtype)
    ends = extreme_eigenvalues(lambda v: sum(both(v)) / 2, start, steps)
    return MapDiagnosis(*ends, asymmetry)


# --- the counterexample -----------------------------------------------------------------------


class _Triangular(AbstractMirrorMap):
    """`g(z) = (s z_1, s z_2 + k relu(z_1))`: two blocks, a constant scale, one learned shift."""

    scale: float
    coupling: float

    def to_primal(self, dual: Dual) -> Primal:
        return self.scale * dual + self._shift(dual[0])

    def to_dual(self, primal: Primal) -> Dual:
        return (primal - self._shift(primal[0] / self.scale)) / self.scale

    def _shift(self, first: Array) -> Array:
        return self.coupling * jnp.maximum(first, 0) * jnp.array([0, 1], first.dtype)


class Counterexample(eqx.Module):
    """The numbers that refute Theorem 1 of S004, and that no potential could give.

    **Arguments:**

    - `monotonicity`: `(z − z')ᵀ(g(z) − g(z'))` for two points; never negative for a gradient of a
      convex function.
    - `eigenvalues`: those of `sym J`; positive for such a gradient.
    - `inverse_eigenvalues`: those of `sym J⁻¹`.
    - `loop_integral`: `∮ g⁻¹(x)·dx` round the unit square; zero for a gradient.
    - `contraction_eigenvalues`: those of `J H` for another map of the class and the Hessian `H` of
      a convex quadratic; a step `z ← z − α ∇ℓ(g(z))` multiplies the distance from the minimiser by
      `I − α J H`, so a negative one makes every rate `α` diverge.
    """

    monotonicity: float
    eigenvalues: tuple[float, float]
    inverse_eigenvalues: tuple[float, float]
    loop_integral: float
    contraction_eigenvalues: tuple[float, float]


def theorem1_counterexample() -> Counterexample:
    """Computes, in two dimensions, why an autoregressive map need not be a mirror map.

    The map `g(z) = (½ z_1, ½ z_2 + 10 relu(z_1))` is of the form of S004 eq. 8, with a positive
    diagonal, as Theorem 1 asks.

    **Returns:**

    The numbers, all of them computed here.

    >>> found = theorem1_counterexample()
    >>> found.monotonicity, round(found.loop_integral, 6)
    (-9.0, -40.0)
    """
    mirror_map = _Triangular(0.5, 10.0)
    first, second = jnp.array([2.0, 0.0]), jnp.array([1.0, 1.0])
    gap = mirror_map.to_primal(first) - mirror_map.to_primal(second)
    jacobian = np.asarray(jax.jacfwd(mirror_map.to_primal)(first))
    inverse = np.asarray(jax.jacfwd(mirror_map.to_dual)(mirror_map.to_primal(first)))
    other = np.asarray(jax.jacfwd(_Triangular(1.0, -10.0).to_primal)(first))
    hessian = np.array([[1.0, 0.5], [0.5, 1.0]])
    return Counterexample(
        float((first - second) @ gap),
        _pair(np.linalg.eigvalsh((jacobian + jacobian.T) / 2)),
        _pair(np.linalg.eigvalsh((inverse + inverse.T) / 2)),
        _loop_integral(mirror_map),
        _pair(np.sort(np.linalg.eigvals(other @ hessian).real)),
    )


def _pair(values: np.ndarray) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _loop_integral(mirror_map: AbstractMirrorMap, points: int = 64) -> float:
    """`∮ g⁻¹(x)·dx` round the unit square by the midpoint rule, exact for straight pieces."""
    corners = jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    shares = (jnp.arange(points, dtype=corners.dtype) + 0.5) / points
    work = 0.0
    for start, end in zip(corners[:-1], corners[1:], strict=True):
        along = start + shares[:, None] * (end - start)
        work += float(jnp.mean(jax.vmap(mirror_map.to_dual)(along) @ (end - start)))
    return work
