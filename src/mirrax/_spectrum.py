r"""Both ends of the spectrum of a symmetric operator that is known by its products only.

Lanczos' method: in the Krylov space of a start `u`, an orthonormal basis makes `A` tridiagonal, and
the eigenvalues of that small matrix approach those of `A` from within, the extreme ones first.
Power iteration needs as many products for one end and converges more slowly. With a preconditioner
`P` all of this is done in the inner product `⟨u, P w⟩`, for the eigenvalues of `P A`.
Source: Golub and Van Loan, *Matrix Computations*, §10.1 and §10.3.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ._tree import Dual, Primal, Scalar


def extreme_eigenvalues(
    product: Callable[[Primal], Dual],
    start: Dual,
    steps: int,
    precondition: Callable[[Dual], Primal] = lambda dual: dual,
) -> tuple[Scalar, Scalar]:
    """The smallest and the largest eigenvalue of `P A`, in the Krylov space of a start.

    **Arguments:**

    - `product`: `v ↦ A v`, symmetric.
    - `start`: where the Krylov space begins.
    - `steps`: how many products; as many as there are dimensions are exact but for rounding.
    - `precondition`: `P`, symmetric and positive definite; the identity by default.

    **Returns:**

    Two scalars, at least and at most the true ones.

    >>> diagonal = jnp.array([1.0, 2.0, 5.0])
    >>> ends = extreme_eigenvalues(lambda v: diagonal * v, jnp.ones(3), 3)
    >>> [round(float(end), 6) for end in ends]
    [1.0, 5.0]
    """
    flat, restore = ravel_pytree(start)
    steps = min(steps, len(flat))

    def conditioned(dual: Array) -> Array:
        return ravel_pytree(precondition(restore(dual)))[0]

    def normalised(dual: Array, scale: Array) -> tuple[Array, Array, Array]:
        """A direction, its preconditioned image, and its length: zero if it is but rounding."""
        image = conditioned(dual)
        length = jnp.sqrt(jnp.maximum(dual @ image, 0))
        length = jnp.where(length > 1e3 * jnp.finfo(flat.dtype).eps * scale, length, 0)
        share = jnp.where(length > 0, 1 / jnp.where(length > 0, length, 1), 0)
        return dual * share, image * share, length

    def step(carry: tuple[Array, ...], index: Array):
        duals, images, dual, image, scale = carry
        duals, images = duals.at[index].set(dual), images.at[index].set(image)
        ahead = ravel_pytree(product(restore(image)))[0]
        middle = image @ ahead
        # Twice, because rounding would let directions that were found before come back.
        for _ in range(2):
            ahead = ahead - duals.T @ (images @ ahead)
        scale = jnp.maximum(scale, jnp.abs(middle))
        dual, image, length = normalised(ahead, scale)
        scale = jnp.maximum(scale, length)
        return (duals, images, dual, image, scale), (middle, length, jnp.any(dual != 0))

    dual, image, _ = normalised(flat, jnp.zeros((), flat.dtype))
    blank = jnp.zeros((steps, len(flat)), flat.dtype)
    begin = (blank, blank, dual, image, jnp.zeros((), flat.dtype))
    _, (middles, lengths, goes_on) = jax.lax.scan(step, begin, jnp.arange(steps))
    return _ends(middles, lengths[:-1], goes_on[:-1])


def _ends(
    middles: Float[Array, " steps"], beside: Float[Array, " rest"], goes_on: Array
) -> tuple[Scalar, Scalar]:
    """The ends of the spectrum of a tridiagonal matrix, of which only the part begun counts."""
    begun = jnp.concatenate([jnp.ones(1, bool), jnp.cumprod(goes_on).astype(bool)])
    # Once the Krylov space is exhausted, zeros would follow, which are no eigenvalues.
    middles = jnp.where(begun, middles, middles[0])
    beside = jnp.where(begun[1:], beside, 0)
    small = jnp.diag(middles) + jnp.diag(beside, 1) + jnp.diag(beside, -1)
    values = jnp.linalg.eigvalsh(small)
    return values[0], values[-1]
