"""Quadratic tasks `ℓ(θ) = θᵀQθ − bᵀθ` with the solution known in closed form, `θ* = ½ Q⁻¹ b`.

The family of S000 §5.1 (Fig 1): `Q = C Cᵀ` with lower-triangular `C`, `b ~ N((1, 1), I)`, and "the
mean of Q₀₀ and Q₁₁" specified. The paper does not publish the law of `C`. Two laws are offered:

- `"curvature"`: the `flatness` means `μ` are the means of `Qᵢᵢ`, as the paper says. `C` is a random
  triangular matrix near the identity, its rows scaled so that `E Qᵢᵢ = μᵢ`.
- `"factor"`: `μ` are the means of `Cᵢᵢ`, with `N(0, 1)` below the diagonal (spec B6). Then
  `E Q₁₁ ≥ 1` whatever `μ₁` is, and the correlation of the two directions is often near one, which
  no diagonal geometry can undo.

`sample_ill_conditioned` draws the two-dimensional ones of S002 §7.1 (Fig. 2), whose law is not
published either: a rotation, a largest curvature of 1, and the ratio of the curvatures in a range.
"""

import functools
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

_SPREAD = 0.3  # of the diagonal of C around its mean
_FLOOR = 0.1  # keeps C, hence Q, invertible
_EXACT = jax.lax.Precision.HIGHEST  # accelerators would otherwise round the factors of a product


class QuadraticTask(eqx.Module):
    """One quadratic `ℓ(θ) = θᵀQθ − bᵀθ`, or a stack of them along leading axes.

    A pytree: `jax.vmap` over a stack gives single tasks, and every method also takes the stack
    itself with equally stacked `θ`.

    **Arguments:**

    - `matrix`: `Q`, symmetric positive definite, shape `(…, d, d)`.
    - `vector`: `b`, shape `(…, d)`.

    **Raises:**

    - `ValueError`: shapes that do not belong together.

    >>> task = QuadraticTask(jnp.array([[2.0, 0.0], [0.0, 1.0]]), jnp.array([4.0, 4.0]))
    >>> task.optimum.tolist(), float(task.minimum)
    ([1.0, 2.0], -6.0)
    """

    matrix: Float[Array, "*batch d d"]
    vector: Float[Array, "*batch d"]

    def __check_init__(self) -> None:
        shape = jnp.shape(self.vector)
        if not shape or jnp.shape(self.matrix) != (*shape, shape[-1]):
            raise ValueError(
                f"QuadraticTask: matrix has shape {jnp.shape(self.matrix)} and vector {shape};"
                " (…, d, d) and (…, d) are needed"
            )

    def loss(self, theta: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """The loss `θᵀQθ − bᵀθ`.

        **Arguments:**

        - `theta`: `(…, d)`.

        **Returns:**

        One number a task.

        >>> task = QuadraticTask(jnp.eye(2), jnp.array([2.0, 0.0]))
        >>> float(task.loss(jnp.array([1.0, 0.0])))
        -1.0
        """
        curvature = jnp.sum(theta * self._times(theta), axis=-1)
        return curvature - jnp.sum(self.vector * theta, axis=-1)

    def gradient(self, theta: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        """The gradient `2Qθ − b` (`Q` is symmetric).

        **Arguments:**

        - `theta`: `(…, d)`.

        **Returns:**

        `(…, d)`.

        >>> task = QuadraticTask(jnp.eye(2), jnp.array([2.0, 0.0]))
        >>> task.gradient(task.optimum).tolist()
        [0.0, 0.0]
        """
        return 2 * self._times(theta) - self.vector

    def excess(self, theta: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """The loss above the least, `(θ − θ*)ᵀQ(θ − θ*)`, without the cancellation of a difference.

        **Arguments:**

        - `theta`: `(…, d)`.

        **Returns:**

        One number a task.

        >>> task = QuadraticTask(jnp.eye(2), jnp.array([2.0, 0.0]))
        >>> float(task.excess(jnp.array([1.0, 3.0])))
        9.0
        """
        offset = theta - self.optimum
        return jnp.sum(offset * self._times(offset), axis=-1)

    @property
    def optimum(self) -> Float[Array, "*batch d"]:
        """The solution `θ* = ½ Q⁻¹ b`."""
        return jnp.linalg.solve(self.matrix, self.vector[..., None])[..., 0] / 2

    @property
    def minimum(self) -> Float[Array, "*batch"]:
        """The least loss, `ℓ(θ*) = −½ bᵀθ*`."""
        return -jnp.sum(self.vector * self.optimum, axis=-1) / 2

    def _times(self, theta: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        return jnp.einsum("...ij,...j->...i", self.matrix, theta, precision=_EXACT)


def sample_quadratics(
    key: PRNGKeyArray,
    count: int,
    *,
    flatness: tuple[float | int, ...] = (5.0, 0.5),
    law: Literal["curvature", "factor"] = "curvature",
) -> QuadraticTask:
    """Draws a stack of quadratic tasks that share how steep each direction is.

    `Q = C Cᵀ` with `C` lower triangular and `b ~ N(1, I)` (S000 §5.1). With `law="curvature"`,
    `C = √(μ/(1.09 + 0.09 i)) L` by rows, `Lᵢᵢ = max(|N(1, 0.3)|, 0.1)`, `Lᵢⱼ ~ N(0, 0.3)` below, so
    that `E Qᵢᵢ = μᵢ`; with `law="factor"`, `Cᵢᵢ = |N(μᵢ, 0.3)| + 0.1` and `Cᵢⱼ ~ N(0, 1)` below.

    **Arguments:**

    - `key`: a JAX random key.
    - `count`: number of tasks, at least 1.
    - `flatness`: the means `μ`; as many as the problem has dimensions. S000's two settings are
        mirrored by `(5, 0.5)` and, much flatter, `(20, 0.02)`.
    - `law`: whose means they are, those of `Q`'s diagonal or of `C`'s.

    **Returns:**

    A `QuadraticTask` with leading axis `count`: `matrix` `(count, d, d)`, `vector` `(count, d)`, in
    JAX's current default precision.

    **Raises:**

    - `ValueError`: `count` below 1, `flatness` empty, not finite or, for the curvature's law, not
        positive, or an unknown `law`.

    >>> tasks = sample_quadratics(jax.random.key(0), 8, flatness=(5.0, 0.5, 0.1))
    >>> tasks.matrix.shape, jax.vmap(QuadraticTask.loss)(tasks, tasks.optimum).shape
    ((8, 3, 3), (8,))
    """
    if count < 1:
        raise ValueError(f"sample_quadratics: count is {count}; at least 1 is needed")
    means = jnp.asarray(flatness, dtype=jnp.result_type(float))
    if means.ndim != 1 or means.size == 0 or not all(abs(mean) < float("inf") for mean in flatness):
        raise ValueError(
            f"sample_quadratics: flatness is {flatness!r}; one finite mean a dimension is needed"
        )
    if law not in ("curvature", "factor"):
        raise ValueError(f"sample_quadratics: law is {law!r}; 'curvature' or 'factor' is needed")
    if law == "curvature" and not all(mean > 0 for mean in flatness):
        raise ValueError(
            f"sample_quadratics: flatness is {flatness!r}; means of curvatures must be positive"
        )
    return _draw(key, means, count, law)


@functools.partial(jax.jit, static_argnames=("count", "law"))
def _draw(key: PRNGKeyArray, means: Float[Array, " d"], count: int, law: str) -> QuadraticTask:
    dimension = means.size
    below_key, diagonal_key, vector_key = jax.random.split(key, 3)
    below = jnp.tril(jax.random.normal(below_key, (count, dimension, dimension)), k=-1)
    noise = jax.random.normal(diagonal_key, (count, dimension))
    if law == "factor":
        diagonal = jnp.abs(means + _SPREAD * noise) + _FLOOR
        factor = below + diagonal[..., None] * jnp.eye(dimension)
    else:
        diagonal = jnp.maximum(jnp.abs(1 + _SPREAD * noise), _FLOOR)
        near_identity = _SPREAD * below + diagonal[..., None] * jnp.eye(dimension)
        square_of_rows = 1 + _SPREAD**2 * (1 + jnp.arange(dimension, dtype=means.dtype))
        factor = jnp.sqrt(means / square_of_rows)[:, None] * near_identity
    vector = 1 + jax.random.normal(vector_key, (count, dimension))
    matrix = jnp.matmul(factor, jnp.swapaxes(factor, -1, -2), precision=_EXACT)
    return QuadraticTask(matrix, vector)


def sample_ill_conditioned(
    key: PRNGKeyArray,
    count: int,
    *,
    condition: tuple[float | int, float | int] = (10.0, 1000.0),
    shift: float | int = 0.0,
) -> QuadraticTask:
    """Draws a stack of two-dimensional quadratics with one steep and one flat direction.

    `ℓ(θ) = (θ − s)ᵀQ(θ − s) − sᵀQs` with `Q = R diag(1, 1/κ) Rᵀ`, `R` the rotation by an angle
    uniform over the circle, `log κ` uniform over the range, and `s ~ N(0, shift² I)`. One key gives
    the same `Q` whatever the shift. The law of S002's Fig. 2 is not published; this is spec C6's.

    **Arguments:**

    - `key`: a JAX random key.
    - `count`: number of tasks, at least 1.
    - `condition`: the least and the largest `κ`.
    - `shift`: the standard deviation of the minimiser's coordinates; 0 puts it at the origin, as
        the paper does, where rules that shrink towards the origin have an unfair advantage.

    **Returns:**

    A `QuadraticTask` with leading axis `count`, in JAX's current default precision.

    **Raises:**

    - `ValueError`: `count` below 1, a range that does not begin at 1 or above and rise, or a shift
        that is negative or not finite.

    >>> tasks = sample_ill_conditioned(jax.random.key(0), 3, condition=(10, 10))
    >>> [round(float(number), 4) for number in jnp.linalg.cond(tasks.matrix)]
    [10.0, 10.0, 10.0]
    """
    if count < 1:
        raise ValueError(f"sample_ill_conditioned: count is {count}; at least 1 is needed")
    if not (len(condition) == 2 and 1 <= condition[0] <= condition[1] < float("inf")):
        raise ValueError(
            f"sample_ill_conditioned: condition is {condition!r}; a range from 1 or above is needed"
        )
    if not 0 <= shift < float("inf"):
        raise ValueError(f"sample_ill_conditioned: shift is {shift!r}; 0 or more is needed")
    angle_key, condition_key, shift_key = jax.random.split(key, 3)
    angle = jax.random.uniform(angle_key, (count,), maxval=2 * jnp.pi)
    low, high = jnp.log(jnp.asarray(condition, angle.dtype))
    flat = jnp.exp(-jax.random.uniform(condition_key, (count,), minval=low, maxval=high))
    steep = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    across = jnp.stack([-jnp.sin(angle), jnp.cos(angle)], axis=-1)
    matrix = _outer(steep) + flat[:, None, None] * _outer(across)
    minimiser = shift * jax.random.normal(shift_key, (count, 2))
    vector = 2 * jnp.einsum("nij,nj->ni", matrix, minimiser, precision=_EXACT)
    return QuadraticTask(matrix, vector)


def _outer(vectors: Float[Array, "n d"]) -> Float[Array, "n d d"]:
    return vectors[:, :, None] * vectors[:, None, :]
