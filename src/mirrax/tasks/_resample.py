"""Linear maps of pixels over whole stacks of images: rotation, resizing, grey.

- Rotation by the angle `α` about the centre `c` reads each output pixel `x` at `R(α)(x − c) + c` by
  bilinear interpolation, zero outside the image: four gathers with fixed weights.
- Resizing is separable, `Y = A X Bᵀ`, with the triangle filter widened by the scale where an image
  shrinks (so that no pixel is skipped).
- Grey is the luma of ITU-R BT.601, `0.299 R + 0.587 G + 0.114 B`.

Bytes are computed in fixed-point integers where that is possible, so that results do not depend on
the machine.
"""

from collections.abc import Iterator

import numpy as np

_CHUNK = 1024  # images at a time: a few MB, near the cache
_BITS = 22  # 255 · 2²² still fits 31 bits
_LUMA = np.array([19595, 38470, 7471], np.uint32)  # (0.299, 0.587, 0.114) · 2¹⁶, sum 2¹⁶


def rotate(images: np.ndarray, angle: float | int) -> np.ndarray:
    """Rotates byte images about their centre, as `scipy.ndimage.rotate(order=1, reshape=False)`.

    **Arguments:**

    - `images`: `(n, height, width, channels)`, uint8.
    - `angle`: degrees, in SciPy's sense (row axis towards column axis).

    **Returns:**

    The same shape and type, rounded to the nearest value.

    **Raises:**

    - `ValueError`: images of another type.

    >>> image = np.zeros((1, 3, 3, 1), np.uint8)
    >>> image[0, 0, 0, 0] = 200
    >>> np.argwhere(rotate(image, 90.0)).tolist()
    [[0, 2, 0, 0]]
    """
    if images.dtype != np.uint8:
        raise ValueError(f"rotate: images is {images.dtype}; uint8 is needed")
    count, height, width, channels = images.shape
    sources, weights = _corners(height, width, angle)
    rotated = np.empty((count, height * width, channels), np.uint8)
    for chunk in _chunks(count):
        size = chunk.stop - chunk.start
        # Pixels first, so that one gathered pixel is one contiguous row of all images.
        pixels = images[chunk].reshape(size, height * width, channels).transpose(1, 0, 2)
        rows = np.ascontiguousarray(pixels, np.int32).reshape(height * width, -1)
        total = np.full(rows.shape, 1 << (_BITS - 1), np.int32)
        for source, weight in zip(sources, weights, strict=True):
            part = rows[source]
            part *= weight[:, None]
            total += part
        total >>= _BITS
        rotated[chunk] = total.reshape(height * width, size, channels).transpose(1, 0, 2)
    return rotated.reshape(images.shape)


def resize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes images with the triangle (bilinear, antialiased) filter.

    **Arguments:**

    - `images`: `(n, h, w, channels)`, any real type.
    - `height`, `width`: the new size.

    **Returns:**

    `(n, height, width, channels)`, float32, in the range of the input.

    >>> resize(np.array([0.0, 1.0]).reshape(1, 1, 2, 1), 1, 4).ravel().tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    count, old_height, old_width, channels = images.shape
    down, across = _triangle(old_height, height), _triangle(old_width, width).T
    resized = np.empty((count, height, width, channels), np.float32)
    for chunk in _chunks(count):
        planes = images[chunk].transpose(0, 3, 1, 2).astype(np.float32)
        resized[chunk] = (down @ planes @ across).transpose(0, 2, 3, 1)
    return resized


def to_grey(images: np.ndarray) -> np.ndarray:
    """Turns RGB bytes into grey bytes, `0.299 R + 0.587 G + 0.114 B` (ITU-R BT.601).

    **Arguments:**

    - `images`: `(n, height, width, 3)`, uint8.

    **Returns:**

    `(n, height, width, 1)`, uint8, rounded to the nearest value.

    >>> to_grey(np.array([255, 0, 0], np.uint8).reshape(1, 1, 1, 3)).ravel().tolist()
    [76]
    """
    grey = np.empty((*images.shape[:3], 1), np.uint8)
    for chunk in _chunks(len(images)):
        luma = images[chunk].astype(np.uint32) @ _LUMA
        grey[chunk] = ((luma + (1 << 15)) >> 16)[..., None]
    return grey


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """Rounds pixels in `[0, 1]` to bytes 0 … 255.

    >>> to_bytes(np.array([0.0, 0.5, 1.0])).tolist()
    [0, 128, 255]
    """
    return np.clip(np.floor(pixels * 255 + 0.5), 0, 255).astype(np.uint8)


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))


def _corners(height: int, width: int, angle: float | int) -> tuple[np.ndarray, np.ndarray]:
    """The four source pixels of each output pixel and their weights, `(4, pixels)` each."""
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    middle = np.array([(height - 1) / 2, (width - 1) / 2])[:, None]
    offsets = np.indices((height, width)).reshape(2, -1) - middle
    # Rounded, so that the last bit of a cosine cannot move a pixel across the border.
    places = np.round(np.array([[cosine, sine], [-sine, cosine]]) @ offsets + middle, 9)
    last = np.array([height - 1, width - 1])[:, None]
    inside = ((places >= 0) & (places <= last)).all(axis=0)
    low = np.clip(np.floor(places), 0, last).astype(np.intp)
    high = np.minimum(low + 1, last)
    part = places - low
    sources, weights = [], []
    for row, row_weight in ((low[0], 1 - part[0]), (high[0], part[0])):
        for column, column_weight in ((low[1], 1 - part[1]), (high[1], part[1])):
            sources.append(row * width + column)
            weights.append(np.where(inside, row_weight * column_weight, 0.0))
    fixed = np.round(np.array(weights) * (1 << _BITS)).astype(np.int32)
    return np.array(sources), fixed


def _triangle(old: int, new: int) -> np.ndarray:
    """Weights `(new, old)` of the triangle filter between the centres of two pixel grids."""
    ratio = old / new
    centres = (np.arange(new) + 0.5) * ratio - 0.5
    distance = np.abs(np.arange(old) - centres[:, None]) / max(ratio, 1.0)
    weights = np.maximum(1 - distance, 0.0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
