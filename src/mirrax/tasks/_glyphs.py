"""Glyphs: hundreds of printed characters, rendered from fonts that every installation has.

A class is a character; its images are the faces that have it, each under a random affine map

    x ↦ R(α) K(κ) diag(s₁, s₂) x + t,    |α| ≤ 12°, |κ| ≤ 0.2, 0.8 ≤ s ≤ 1.05, |t| ≤ 1.5 pixels

of rotation, shear, scale and shift, all uniform. It is to Omniglot what scikit-learn's digits are
to MNIST: real shapes, no download. Fonts are those of matplotlib (DejaVu, STIX).

Characters that print alike (Latin A, Greek Α, Cyrillic А) would be one class with two labels: of
those whose bitmaps, cropped to the ink, correlate too highly in one face, the first is kept.
Classes are assigned to meta-training, validation and test in the order of a hash of the character,
so that a class that another version of the fonts adds or lacks moves at most two others.
"""

import collections
import hashlib
import itertools
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import ConfigError, DataError
from ._classes import FewShotFamily, ImageClasses

FACES = (
    "DejaVuSans",
    "STIXGeneral",
    "DejaVuSerif",
    "DejaVuSansMono",
    "DejaVuSerif-Italic",
    "DejaVuSans-Bold",
    "STIXGeneralItalic",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif-Bold",
    "STIXGeneralBol",
    "DejaVuSans-Oblique",
    "DejaVuSerif-BoldItalic",
    "DejaVuSansMono-Bold",
    "STIXGeneralBolIta",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono-BoldOblique",
)
"""The faces of matplotlib that have letters, neighbours as different as may be."""

_SIDE = 28
_FINE = 2  # pixels are averages of 2×2
_INK = 20  # of 28 pixels: the longer side of an undistorted character
_EM = 40  # pixels of a rendered em, near what the ink fills of the fine grid
_ANGLE, _SHEAR, _SHIFT = math.radians(12), 0.2, 1.5
_SCALES = 0.8, 1.05
_FEWEST_FACES = 6
_COMPARED = 4  # faces, the first ones, in which characters are compared
_ALIKE = 0.88
_SCRIPTS = ("LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN", "HEBREW", "LAO", "LISU")
_KINDS = ("Ll", "Lu", "Lo", "Nd", "Sc", "Sm")
_SHARES = {"train": 0.6, "validation": 0.15, "test": 0.25}


def glyphs(seed: int = 0, faces: Sequence[str] = FACES, variants: int = 20) -> FewShotFamily:
    """Printed characters in several faces, distorted at random; needs no download.

    **Arguments:**

    - `seed`: of the distortions; classes and their parts do not depend on it.
    - `faces`: names of matplotlib's font files; a character must be in six of them, or in all
        where there are fewer.
    - `variants`: images a class; the faces take turns.

    **Returns:**

    A `FewShotFamily` named `glyphs`: images `(characters, variants, 28, 28, 1)`, ink 255 on paper
    0, scale 1/255; 60 % of the characters are for training, 15 % for validation, 25 % for testing.
    Equal arguments give equal images, for equal versions of matplotlib and Pillow.

    **Raises:**

    - `ConfigError`: no face, an unknown face, no variant, or a negative seed.
    - `DataError`: matplotlib's fonts are not there.

    >>> glyphs(faces=["Helvetica"])
    Traceback (most recent call last):
        ...
    mirrax._errors.ConfigError: glyphs: no face 'Helvetica'; known are DejaVuSans, ...
    """
    for field, value, least in (("seed", seed, 0), ("variants", variants, 1)):
        if value < least:
            raise ConfigError(f"glyphs: {field} is {value}; at least {least} is needed")
    if not faces or len(set(faces)) < len(faces):
        raise ConfigError(f"glyphs: faces is {list(faces)}; distinct names are needed")
    for face in faces:
        if face not in FACES:
            raise ConfigError(f"glyphs: no face {face!r}; known are {', '.join(FACES)}")
    bitmaps = _distinct(tuple(faces))
    characters = sorted(bitmaps, key=_hash)
    bounds = np.round(np.cumsum([0, *_SHARES.values()]) * len(characters)).astype(int)
    parts = {}
    for part, start, stop in zip(_SHARES, bounds[:-1], bounds[1:], strict=True):
        chosen = sorted(characters[start:stop])
        images = np.stack([_variants(c, bitmaps[c], seed, variants) for c in chosen])
        names = tuple(f"U+{ord(c):04X} {unicodedata.name(c)}" for c in chosen)
        counts = np.full(len(chosen), variants, np.int32)
        parts[part] = ImageClasses(f"glyphs/{part}", names, images[..., None], counts, 1 / 255)
    return FewShotFamily("glyphs", **parts)


_Bitmaps = dict[str, list[Any]]  # character to its Pillow bitmaps, cropped to the ink, a face each


def _distinct(faces: tuple[str, ...]) -> _Bitmaps:
    """The characters that exist in enough faces and look like no other, and their bitmaps."""
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font

    folder = Path(get_data_path(), "fonts", "ttf")
    paths = {face: str(folder / f"{face}.ttf") for face in faces}
    try:
        maps = {face: FT2Font(path).get_charmap().keys() for face, path in paths.items()}
    except OSError as error:
        raise DataError(
            f"glyphs: cannot read matplotlib's fonts in {folder}: {error.strerror or error};"
            " install matplotlib again, with its data"
        ) from error
    everywhere = collections.Counter(itertools.chain.from_iterable(maps.values()))
    enough = min(_FEWEST_FACES, len(faces))
    codes = sorted(code for code, n in everywhere.items() if n >= enough and _is_glyph(chr(code)))
    bitmaps: dict[str, dict[str, Any]] = {chr(code): {} for code in codes}
    for face in faces:
        render = _renderer(paths[face])
        for character, by_face in bitmaps.items():
            if ord(character) in maps[face]:
                by_face[face] = render(character)
    sound = {c: by_face for c, by_face in bitmaps.items() if all(by_face.values())}
    kept = _first_of_alike(sound, faces[:_COMPARED])
    return {character: list(sound[character].values()) for character in kept}


def _is_glyph(character: str) -> bool:
    """Letters of the scripts that several faces have, digits and signs; none with accents."""
    kind = unicodedata.category(character)
    if kind not in _KINDS or unicodedata.decomposition(character):
        return False
    return not kind.startswith("L") or unicodedata.name(character, "").split(" ")[0] in _SCRIPTS


def _renderer(path: str) -> Callable[[str], Any]:
    """Renders a character as a bitmap cropped to its ink; `None` where there is next to none."""
    from PIL import Image, ImageFont

    # The basic layout, since the other depends on what the machine has installed.
    font = ImageFont.truetype(path, _EM, layout_engine=ImageFont.Layout.BASIC)

    def render(character: str) -> Any:
        mask: Any = font.getmask(character, mode="L")
        if 0 in mask.size:
            return None
        image = Image.frombytes("L", mask.size, bytes(mask))
        box = image.getbbox()
        if box is None or max(box[2] - box[0], box[3] - box[1]) < _EM / 4:
            return None
        # One pixel of paper around it, so that its edge is interpolated as well.
        return image.crop((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1))

    return render


def _first_of_alike(bitmaps: Mapping[str, Mapping[str, Any]], faces: Sequence[str]) -> list[str]:
    """Greedily, the characters unlike every one kept before them, in each of the faces."""
    upright = np.eye(2), np.zeros(2)
    characters = [c for c, by_face in bitmaps.items() if not by_face.keys().isdisjoint(faces)]
    alike = np.zeros((len(characters), len(characters)))
    for face in faces:
        rows = [i for i, c in enumerate(characters) if face in bitmaps[c]]
        # 2×2 means forgive a stroke one pixel beside another.
        images = [_placed(bitmaps[characters[i]][face], *upright).reduce(2) for i in rows]
        flat = np.stack([np.asarray(image, np.float64).ravel() for image in images])
        flat -= flat.mean(axis=1, keepdims=True)
        flat /= np.linalg.norm(flat, axis=1, keepdims=True)
        where = np.ix_(rows, rows)
        alike[where] = np.maximum(alike[where], flat @ flat.T)
    kept: list[int] = []
    for index in range(len(characters)):
        if not (alike[index, kept] > _ALIKE).any():
            kept.append(index)
    return [characters[index] for index in kept]


def _variants(character: str, bitmaps: list[Any], seed: int, variants: int) -> np.ndarray:
    """Distorted images of a character, `(variants, 28, 28)`, its faces in turn."""
    rng = np.random.default_rng([seed, ord(character)])
    angle, shear = rng.uniform(-1, 1, (2, variants)) * [[_ANGLE], [_SHEAR]]
    one, zero = np.ones(variants), np.zeros(variants)
    rotations = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shears = np.array([[one, shear], [zero, one]])
    scales = rng.uniform(*_SCALES, (variants, 1, 2))
    matrices = np.einsum("ijn,jkn->nik", rotations, shears) * scales
    shifts = rng.uniform(-_SHIFT, _SHIFT, (variants, 2))
    maps = zip(itertools.cycle(bitmaps), np.linalg.inv(matrices), shifts, strict=False)
    return np.stack([np.asarray(_placed(*each)) for each in maps])


def _placed(bitmap: Any, inverse: np.ndarray, shift: np.ndarray) -> Any:
    """A bitmap brought to size, then mapped about the centre: output `x` reads `A⁻¹ (x − t)`."""
    from PIL import Image

    fine = _SIDE * _FINE
    inverse = inverse * ((max(bitmap.size) - 2) / (_INK * _FINE))
    offset = np.array(bitmap.size) / 2 - inverse @ (fine / 2 + _FINE * shift)
    coefficients = (*inverse[0], offset[0], *inverse[1], offset[1])
    bilinear = Image.Resampling.BILINEAR
    image = bitmap.transform((fine, fine), Image.Transform.AFFINE, coefficients, bilinear)
    return image.reduce(_FINE)


def _hash(character: str) -> bytes:
    return hashlib.sha256(f"U+{ord(character):04X}".encode()).digest()
