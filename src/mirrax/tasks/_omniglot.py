"""Omniglot: 1,623 handwritten characters of 50 alphabets, 20 images each, as 28×28 grey.

Lake, Salakhutdinov and Tenenbaum, *Human-level concept learning through probabilistic program
induction*, 2015. Ink is 1 and paper 0, `1 − pixel`, as in the code of MAML (Finn et al. 2017) and
learn2learn; torchmeta leaves paper 1. Images shrink from 105×105 by the triangle (bilinear,
antialiased) filter, Pillow's `BILINEAR` and so torchvision's `Resize(28)`.

The split of Vinyals et al. 2016 (as filed by torchmeta): characters in the order of parts,
alphabets and numbers; the first 1,200 less five alphabets are for training, the five for
validation, the others for testing.
"""

import contextlib
import itertools
from collections.abc import Mapping
from typing import Literal

import numpy as np

from .._errors import ConfigError
from ._classes import FewShotFamily
from ._few_shot import Split, assemble
from ._filed import file_by_class, open_images, read_entries
from ._resample import resize, to_bytes
from ._sources import Folder, locate, verify_located

_BACKGROUND = {
    "Alphabet_of_the_Magi": 20,
    "Anglo-Saxon_Futhorc": 29,
    "Arcadian": 26,
    "Armenian": 41,
    "Asomtavruli_(Georgian)": 40,
    "Balinese": 24,
    "Bengali": 46,
    "Blackfoot_(Canadian_Aboriginal_Syllabics)": 14,
    "Braille": 26,
    "Burmese_(Myanmar)": 34,
    "Cyrillic": 33,
    "Early_Aramaic": 22,
    "Futurama": 26,
    "Grantha": 43,
    "Greek": 24,
    "Gujarati": 48,
    "Hebrew": 22,
    "Inuktitut_(Canadian_Aboriginal_Syllabics)": 16,
    "Japanese_(hiragana)": 52,
    "Japanese_(katakana)": 47,
    "Korean": 40,
    "Latin": 26,
    "Malay_(Jawi_-_Arabic)": 40,
    "Mkhedruli_(Georgian)": 41,
    "N_Ko": 33,
    "Ojibwe_(Canadian_Aboriginal_Syllabics)": 14,
    "Sanskrit": 42,
    "Syriac_(Estrangelo)": 23,
    "Tagalog": 17,
    "Tifinagh": 55,
}
_EVALUATION = {
    "Angelic": 20,
    "Atemayar_Qelisayer": 26,
    "Atlantean": 26,
    "Aurek-Besh": 26,
    "Avesta": 26,
    "Ge_ez": 26,
    "Glagolitic": 45,
    "Gurmukhi": 45,
    "Kannada": 41,
    "Keble": 26,
    "Malayalam": 47,
    "Manipuri": 40,
    "Mongolian": 30,
    "Old_Church_Slavonic_(Cyrillic)": 45,
    "Oriya": 46,
    "Sylheti": 28,
    "Syriac_(Serto)": 23,
    "Tengwar": 25,
    "Tibetan": 42,
    "ULOG": 26,
}
_VALIDATION = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
_BEFORE_THE_TEST = 1200  # characters for training and validation, in Vinyals et al.
_SIDE = 28


def omniglot(
    folder: Folder = None, split: Literal["vinyals", "background"] = "vinyals"
) -> FewShotFamily:
    """Reads Omniglot, from its zips or the folders in them.

    **Arguments:**

    - `folder`: the folder of data sets; the environment variable `MIRRAX_DATA` by default.
    - `split`: `"vinyals"` has 1,028 characters for training, 172 for validation and 423 for
        testing, of Vinyals et al. 2016; `"background"` tests on the 659 characters of the
        evaluation part of Lake et al. 2015, whose alphabets are all new, and validates on the same
        172 of the 964 background characters, leaving 792 for training.

    **Returns:**

    A `FewShotFamily`: images `(characters, 20, 28, 28, 1)`, ink 255 on paper 0, scale 1/255; a
    character's name is `Greek/character01`.

    **Raises:**

    - `ConfigError`: no such split.
    - `DataError`: missing files, another checksum, an image that does not decode or is not of
        105 × 105 pixels, a character unknown, missing, or without its 20 images.

    >>> omniglot("nowhere")
    Traceback (most recent call last):
        ...
    mirrax._errors.DataError: data folder nowhere does not exist; ...
    """
    if split not in ("vinyals", "background"):
        raise ConfigError(f"omniglot: split is {split!r}; 'vinyals' or 'background' is needed")
    located = locate("omniglot", folder)
    verify_located(located)
    shape = located.source.image_shape
    with contextlib.ExitStack() as stack:
        filed = [stack.enter_context(open_images(path)) for path in located.paths.values()]
        entries = file_by_class(filed, levels=2)

        def read(character: str) -> np.ndarray:
            ink = 255 - read_entries(entries[character], shape).astype(np.float32)
            return to_bytes(resize(ink, _SIDE, _SIDE) / 255)

        name = "omniglot" if split == "vinyals" else "omniglot-background"
        counts = {character: len(images) for character, images in entries.items()}
        return assemble(name, located, _split(split), counts, read)


def _split(split: str) -> Split:
    background, evaluation = _characters(_BACKGROUND), _characters(_EVALUATION)
    validation = [name for name in background if name.partition("/")[0] in _VALIDATION]
    first = _BEFORE_THE_TEST if split == "vinyals" else len(background)
    characters = background + evaluation
    train = [name for name in characters[:first] if name not in set(validation)]
    return {"train": train, "validation": validation, "test": characters[first:]}


def _characters(alphabets: Mapping[str, int]) -> list[str]:
    named = ([f"{name}/character{i + 1:02}" for i in range(n)] for name, n in alphabets.items())
    return list(itertools.chain.from_iterable(named))
