"""Episodes: small classification problems drawn from many classes of few images.

An episode of `way` classes and `shot` examples is `C ~ U(way-subsets of the classes)`, and for each
`c ∈ C` a uniform subset of `shot + query` of its images; the first `shot` are its support `S`, the
others its query `Q` (Vinyals et al., *Matching networks for one shot learning*, 2016, §2.2). With
rotations, each class is four, one a quarter turn (Santoro et al., *Meta-learning with
memory-augmented neural networks*, 2016, §4.1).

Choosing `k` of `n` uniformly is taking the `k` largest of `n` independent uniform numbers; ties,
one in 2²³ a pair, go to the first. One call of the generator gives all numbers of an episode:
compiling it is most of what a draw costs.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from .._errors import ConfigError, DataError

_TURNS = 4


class Episode(eqx.Module):
    """One few-shot problem: learn the classes from the support, be judged on the query.

    Images are grouped by class, in the order of the labels `0 … way - 1`.

    **Arguments:**

    - `support_images`: `(way · shot, height, width, channels)`, in `[0, 1]`.
    - `support_labels`: `(way · shot,)`, int32.
    - `query_images`: `(way · query, height, width, channels)`, in `[0, 1]`.
    - `query_labels`: `(way · query,)`, int32.
    """

    support_images: Float[Array, "*batch support height width channels"]
    support_labels: Int[Array, "*batch support"]
    query_images: Float[Array, "*batch query height width channels"]
    query_labels: Int[Array, "*batch query"]


def _as_counts(counts: Any) -> Array:
    """Whole numbers of any type as int32, and what is none as it is."""
    found = np.asarray(counts)
    if found.dtype == np.int32 or not np.issubdtype(found.dtype, np.integer):
        return jnp.asarray(counts)
    limits = np.iinfo(np.int32)  # beyond them no number may become a small one
    return jnp.asarray(np.clip(found, limits.min, limits.max), jnp.int32)


class Episodes(eqx.Module):
    """A set of classes, wholly resident as bytes, from which episodes are drawn.

    It must be made outside of `jax.jit`; `draw` works inside `jit`, `vmap` and `scan`.

    **Arguments:**

    - `images`: `(classes, per_class, height, width, channels)`, uint8.
    - `counts`: `(classes,)`, whole numbers, kept as int32: how many images each class really has;
      what follows is padding.
    - `way`, `shot`, `query`: classes, support images a class and query images a class.
    - `scale`: the factor that brings raw pixels to `[0, 1]`.
    - `rotations`: whether each quarter turn of a class is a class of its own.
    - `allowed`: `(classes,)`, which classes are drawn; all by default. Sets of episodes that differ
      in it alone share their images and whatever is compiled for them.

    **Raises:**

    - `ConfigError`: numbers that are not positive, more ways than classes, more shots plus queries
        than a class has images, rotations of images that are not square.
    - `DataError`: arrays of another type, or of shapes that do not belong together.

    >>> images, counts = np.zeros((5, 20, 28, 28, 1), np.uint8), np.full(5, 20, np.int32)
    >>> Episodes(images, counts, way=6, shot=1, query=5, scale=1 / 255)
    Traceback (most recent call last):
        ...
    mirrax._errors.ConfigError: episodes of 6 ways need 6 classes, and there are 5; lower way
    """

    images: UInt8[Array, "classes per_class height width channels"] = eqx.field(
        converter=jnp.asarray
    )
    counts: Int[Array, " classes"] = eqx.field(converter=_as_counts)
    way: int = eqx.field(static=True)
    shot: int = eqx.field(static=True)
    query: int = eqx.field(static=True)
    scale: float = eqx.field(static=True)
    rotations: bool = eqx.field(static=True, default=False)
    allowed: Bool[Array, " classes"] | None = eqx.field(
        default=None, converter=lambda mask: None if mask is None else jnp.asarray(mask)
    )

    def __check_init__(self) -> None:
        shape = jnp.shape(self.images)
        if len(shape) != 5 or 0 in shape or self.images.dtype != jnp.uint8:
            raise DataError(
                f"Episodes: images is {self.images.dtype} of shape {shape}; uint8 of shape"
                " (classes, per_class, height, width, channels) is needed"
            )
        if jnp.shape(self.counts) != shape[:1] or self.counts.dtype != jnp.int32:
            raise DataError(
                f"Episodes: counts is {self.counts.dtype} of shape {jnp.shape(self.counts)}; int32"
                f" of shape ({shape[0]},) is needed"
            )
        counts = np.asarray(self.counts)
        allowed = self.allowed
        if allowed is not None and (allowed.dtype, allowed.shape) != (jnp.bool_, counts.shape):
            raise DataError(
                f"Episodes: allowed is {allowed.dtype} of shape {allowed.shape}; bool of shape"
                f" {counts.shape} is needed"
            )
        if counts.max() > shape[1]:
            raise DataError(
                f"Episodes: counts has {counts.max()}, and there is room for {shape[1]} images"
            )
        drawn = np.arange(len(counts)) if allowed is None else np.flatnonzero(allowed)
        numbers = (self.way, self.shot, self.query)
        check_episodes(counts[drawn], shape[2:4], *numbers, self.rotations, drawn.tolist())

    @eqx.filter_jit
    def draw(self, *, key: PRNGKeyArray) -> Episode:
        """Draws an episode; equal keys draw equal episodes, whatever JAX's default precision.

        Quarter turns are counter-clockwise, as `numpy.rot90`. With rotations, two turns of one
        character may meet in an episode, as in the published protocol.

        **Arguments:**

        - `key`: a JAX random key.

        **Returns:**

        An `Episode` in JAX's current default precision.

        >>> images = np.arange(3 * 4, dtype=np.uint8).reshape(3, 4, 1, 1, 1)
        >>> counts = np.full(3, 4, np.int32)
        >>> episodes = Episodes(images, counts, way=3, shot=2, query=1, scale=1.0)
        >>> episodes.draw(key=jax.random.key(0)).support_labels.tolist()
        [0, 0, 1, 1, 2, 2]
        """
        classes, per_class, height, width, channels = self.images.shape
        turns = _TURNS if self.rotations else 1
        # float32 always, so that an episode does not depend on the default precision.
        shape = (classes * turns + self.way * per_class,)
        numbers = jax.random.uniform(key, shape, dtype=jnp.float32)
        of_classes, of_images = jnp.split(numbers, [classes * turns])
        if self.allowed is not None:
            of_classes = jnp.where(jnp.repeat(self.allowed, turns), of_classes, -1.0)
        _, kinds = jax.lax.top_k(of_classes, self.way)
        chosen = kinds // turns
        is_real = jnp.arange(per_class, dtype=jnp.int32) < self.counts[chosen][:, None]
        of_images = jnp.where(is_real, of_images.reshape(self.way, per_class), -1.0)
        _, members = jax.lax.top_k(of_images, self.shot + self.query)
        drawn = self.images[chosen[:, None], members]
        if self.rotations:
            pixels = np.arange(height * width).reshape(height, width)
            sources = np.stack([np.rot90(pixels, turn).ravel() for turn in range(turns)])
            order = jnp.asarray(sources)[kinds % turns][:, None, :, None]
            flat = drawn.reshape(*drawn.shape[:2], -1, channels)
            drawn = jnp.take_along_axis(flat, order, axis=2).reshape(drawn.shape)
        drawn = drawn.astype(jnp.result_type(float)) * self.scale
        support, query = drawn[:, : self.shot], drawn[:, self.shot :]
        labels = jnp.arange(self.way, dtype=jnp.int32)
        return Episode(
            support.reshape(-1, height, width, channels),
            jnp.repeat(labels, self.shot),
            query.reshape(-1, height, width, channels),
            jnp.repeat(labels, self.query),
        )


def check_episodes(
    counts: np.ndarray,
    size: tuple[int, ...],
    way: int,
    shot: int,
    query: int,
    rotations: bool,
    names: Sequence[str | int],
) -> None:
    """Checks that a set of classes is large enough for episodes.

    **Arguments:**

    - `counts`: images of each class.
    - `size`: height and width of an image.
    - `way`, `shot`, `query`, `rotations`: see `Episodes`.
    - `names`: of the classes, or their numbers.

    **Raises:**

    - `ConfigError`: as `Episodes`.
    """
    for field, value in {"way": way, "shot": shot, "query": query}.items():
        if value < 1:
            raise ConfigError(f"episodes: {field} is {value}; it must be at least 1")
    kinds = len(counts) * (_TURNS if rotations else 1)
    if way > kinds:
        raise ConfigError(
            f"episodes of {way} ways need {way} classes, and there are {kinds}; lower way"
        )
    if not len(counts):
        raise ConfigError("episodes need classes, and none is allowed; allow some")
    smallest = int(np.argmin(counts))
    if shot + query > counts[smallest]:
        raise ConfigError(
            f"episodes of {shot} shots and {query} queries need {shot + query} images a class, and"
            f" class {names[smallest]!r} has {counts[smallest]}; lower shot or query"
        )
    if rotations and size[0] != size[1]:
        raise ConfigError(
            f"episodes with rotations need square images, and these are {size[0]} × {size[1]};"
            " leave rotations out"
        )
