r"""The inverse of a sum of ridge functions, as a system with one unknown for each of them.

To invert `z ↦ C z + Wᵀ(a ⊙ σ(W z + b))` at `p`, write `y = a ⊙ σ(W z + b)`. Then
`z = C⁻¹(p − Wᵀ y)`, and `y` solves

    y = a ⊙ σ(q − K y)    with    K = W C⁻¹ Wᵀ,    q = b + W C⁻¹ p,

in `r` unknowns, however many parameters there are. It is the stationarity of the convex function
`½ yᵀK y + Σ a softplus(q − K y)`, the potential's own minimisation seen through `W`, on which
Newton's method with backtracking converges from anywhere: the step in `y` is the step of Newton's
method in `z`, whose objective is strongly convex. Source: spec A8; derived here.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

Units = Float[Array, " units"]
Gram = Float[Array, "units units"]

_MAX_STEPS = 64


class _Search(NamedTuple):
    """Where Newton's method stands, and whether it goes on."""

    here: Units
    steps: Int[Array, ""]
    unfinished: Bool[Array, ""]


class _Trial(NamedTuple):
    """A step of some length, and whether it is too long."""

    length: Float[Array, ""]
    rejected: Bool[Array, ""]


def _slopes(amplitudes: Units, gram: Gram, offset: Units, here: Units) -> tuple[Units, Units]:
    """`σ(s)` and `a ⊙ σ'(s)` at `s = q − K y`."""
    share = jax.nn.sigmoid(offset - gram @ here)
    return share, amplitudes * share * (1 - share)


def _linear_solve(curvature: Units, gram: Gram, right: Units) -> Units:
    """`(I + diag(a σ') K)⁻¹` times a vector; the eigenvalues of the matrix are at least one."""
    return jnp.linalg.solve(jnp.eye(len(gram), dtype=gram.dtype) + curvature[:, None] * gram, right)


@jax.jit
def _newton(amplitudes: Units, gram: Gram, offset: Units) -> Units:
    resolution = 4 * jnp.finfo(gram.dtype).eps
    largest = jnp.max(amplitudes)

    def value(here: Units) -> Array:
        return here @ gram @ here / 2 + amplitudes @ jax.nn.softplus(offset - gram @ here)

    def step(search: _Search) -> _Search:
        here = search.here
        share, curvature = _slopes(amplitudes, gram, offset, here)
        miss = amplitudes * share - here
        move = _linear_solve(curvature, gram, miss)
        now, descent = value(here), miss @ gram @ move

        def attempt(length: Array) -> _Trial:
            # The slack forgives rounding, so that the last, tiny Newton steps are accepted.
            enough = now + resolution * jnp.abs(now) - 1e-4 * length * descent
            return _Trial(length, ~(value(here + length * move) <= enough) & (length > 1e-9))

        first = attempt(jnp.ones((), gram.dtype))
        last = lax.while_loop(lambda t: t.rejected, lambda t: attempt(t.length / 2), first)
        moved = last.length * jnp.max(jnp.abs(move))
        # Flags, not comparisons in the loop's condition: under vmap a condition is evaluated twice.
        goes_on = (moved > resolution * largest) & (search.steps < _MAX_STEPS - 1)
        return _Search(here + last.length * move, search.steps + 1, goes_on)

    start = _Search(amplitudes / 2, jnp.array(0), largest > 0)
    return lax.while_loop(lambda search: search.unfinished, step, start).here


@jax.custom_jvp
def balance(amplitudes: Units, gram: Gram, offset: Units) -> Units:
    r"""The solution of `y = a ⊙ σ(q − K y)`, differentiable to any order.

    **Arguments:**

    - `amplitudes`: `a ≥ 0`.
    - `gram`: `K`, symmetric and positive semi-definite.
    - `offset`: `q`.

    **Returns:**

    `y`, with `0 ≤ y ≤ a`.

    >>> solution = balance(jnp.array([2.0]), jnp.array([[0.0]]), jnp.array([0.0]))
    >>> solution.tolist()
    [1.0]
    """
    return _newton(amplitudes, gram, offset)


@balance.defjvp
def _balance_jvp(primals, tangents):
    """Differentiates the equation: `(I + D K) dy = σ da + D (dq − dK y)`, `D = diag(a σ')`.

    The rule is written in the differentiable `balance` itself, so it can be differentiated again;
    transposing it gives reverse mode.
    """
    amplitudes, gram, offset = primals
    solution = balance(amplitudes, gram, offset)
    share, curvature = _slopes(amplitudes, gram, offset, solution)
    to_amplitudes, to_gram, to_offset = tangents
    change = share * to_amplitudes + curvature * (to_offset - to_gram @ solution)
    return solution, _linear_solve(curvature, gram, change)
