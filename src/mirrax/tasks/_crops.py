r"""Which part of a photograph is looked at: a random one in training, the middle one in testing.

Training draws the share `a ~ U(0.08, 1)` of the image's area and the ratio `r`, width to height,
with `log r ~ U(log 3/4, log 4/3)`, and any place where such a rectangle fits. Testing takes the
central square whose side is 7/8 of the shorter one: what is left where the shorter side is brought
to 256 pixels and the middle 224 of them are kept. Either is resized once, by the triangle filter.
Source: Szegedy et al., 2015, "Going Deeper with Convolutions", §6; Krizhevsky et al., 2012, §4.1.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_LEAST_AREA = 0.08
_WIDEST = 4 / 3
_TRIES = 10
_CENTRAL = 224 / 256

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""


def random_box(rng: np.random.Generator, height: int, width: int) -> Box:
    """Part of an image for training.

    Where ten rectangles in a row do not fit, as they may not in a strip, it is the largest central
    one with a ratio within the bounds.

    **Arguments:**

    - `rng`: what is drawn from.
    - `height`, `width`: of the image.

    **Returns:**

    The box, whole pixels within the image.

    >>> random_box(np.random.default_rng(0), 3, 300)
    (148.0, 0.0, 152.0, 3.0)
    """
    for _ in range(_TRIES):
        area = height * width * rng.uniform(_LEAST_AREA, 1)
        ratio = _WIDEST ** rng.uniform(-1, 1)
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left = int(rng.integers(0, width - across, endpoint=True))
            top = int(rng.integers(0, height - down, endpoint=True))
            break
    else:
        across = min(width, max(1, round(height * _WIDEST)))
        down = min(height, max(1, round(width * _WIDEST)))
        left, top = (width - across) // 2, (height - down) // 2
    return float(left), float(top), float(left + across), float(top + down)


def central_box(height: int, width: int) -> Box:
    """Part of an image for testing, a square.

    >>> central_box(256, 300)
    (38.0, 16.0, 262.0, 240.0)
    """
    side = _CENTRAL * min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def crop(image: "Picture", box: Box, side: int, flip: bool = False) -> np.ndarray:
    """Resizes a part of an image; grey images and those in CMYK become RGB.

    **Arguments:**

    - `image`: the image.
    - `box`: which part.
    - `side`: height and width of what comes out.
    - `flip`: swap left and right.

    **Returns:**

    `(side, side, 3)`, uint8.
    """
    from PIL.Image import Resampling

    colour = image if image.mode == "RGB" else image.convert("RGB")
    pixels = np.asarray(colour.resize((side, side), Resampling.BILINEAR, box=box))
    return pixels[:, ::-1] if flip else pixels
