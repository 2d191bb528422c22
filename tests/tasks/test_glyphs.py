"""Glyphs: real characters, unlike one another, in several faces; the same at every call."""

import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.ttLib import TTFont

from mirrax._errors import ConfigError, DataError
from mirrax.tasks import FACES, glyphs


@pytest.fixture(scope="module")
def family():
    return glyphs()


def parts(family):
    return family.train, family.validation, family.test


def characters(family) -> list[str]:
    names = [name for part in parts(family) for name in part.class_names]
    return [chr(int(name.split()[0].removeprefix("U+"), 16)) for name in names]


def stacked(family) -> np.ndarray:
    return np.concatenate([part.images for part in parts(family)])[..., 0]


def test_hundreds_of_characters_in_three_parts(family):
    sizes = [len(part.class_names) for part in parts(family)]
    total = sum(sizes)
    assert total > 500 and family.name == "glyphs" and family.note == ""
    for size, share in zip(sizes, (0.6, 0.15, 0.25), strict=True):
        assert abs(size - share * total) <= 1
    for part in parts(family):
        assert part.images.shape[1:] == (20, 28, 28, 1) and set(part.counts) == {20}
    found = characters(family)
    for text in ("0123456789", "ABCDE", "ΣΦΨ", "ДЖЮЯ"):
        assert len(set(text) & set(found)) >= len(text) - 1  # a look-alike may stand for one
    assert all(not unicodedata.decomposition(character) for character in found)


def test_every_character_exists_in_the_fonts(family):
    """By another reader of fonts: nothing is drawn as the box of a missing character."""
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    maps = [TTFont(folder / f"{face}.ttf").getBestCmap().keys() for face in FACES]
    for character in characters(family):
        assert sum(ord(character) in codes for codes in maps) >= 6


def test_images_are_inked_and_whole(family):
    images = stacked(family).reshape(-1, 28, 28) / 255
    ink = images.mean(axis=(1, 2))
    # A stroke of one pixel along 10 of them, and all but a margin of 3.
    assert ink.min() > 10 / 28**2 and ink.max() < (22 / 28) ** 2
    border = np.concatenate([images[:, [0, -1]].max((1, 2)), images[:, :, [0, -1]].max((1, 2))])
    assert (border > 0.5).mean() < 0.01  # corners of full squares, turned


def test_look_alikes_are_one_class(family):
    found = set(characters(family))
    for alike in ("AΑА", "OoΟοОо", "PΡР", "HНΗ", "TΤТ", "cCсС", "sS", "xXχх"):
        assert len(found & set(alike)) <= (2 if "χ" in alike else 1)


def test_classes_are_unlike_in_a_common_face():
    """In one face, undistorted but for the shift: the greatest correlation of means of classes."""
    family = glyphs(faces=("DejaVuSans",), variants=30)
    means = stacked(family).mean(axis=1).reshape(len(characters(family)), -1)
    correlations = np.corrcoef(means) - np.eye(len(means))
    # 0.88 is what single images may have; means over distortions are smoother, never identical.
    assert correlations.max() < 0.98


def test_a_nearest_mean_tells_classes_apart(family):
    """Half of the images give the means, the other half are classified: far above chance."""
    images = family.test.images[..., 0].reshape(len(family.test.class_names), 20, -1) / 255
    means = images[:, ::2].mean(axis=1)
    distances = (means**2).sum(-1) - 2 * images[:, 1::2] @ means.T
    right = distances.argmin(-1) == np.arange(len(means))[:, None]
    assert right.mean() > 0.4  # chance is below 0.01


def test_equal_seeds_give_equal_images():
    one, again, other = (glyphs(seed, FACES[:2], variants=2) for seed in (0, 0, 1))
    np.testing.assert_array_equal(stacked(one), stacked(again))
    assert characters(one) == characters(other)
    assert not any((a == b).all() for a, b in zip(stacked(one), stacked(other), strict=True))


def test_faces_take_turns():
    """Of two faces, even variants are the one's and odd ones the other's."""
    two = glyphs(faces=("DejaVuSans", "DejaVuSans-Bold"), variants=8)
    ink = stacked(two).mean(axis=(0, 2, 3))
    assert ink[1::2].min() > 1.1 * ink[::2].max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variants": 0}, "glyphs: variants is 0; at least 1 is needed"),
        ({"seed": -1}, "glyphs: seed is -1; at least 0 is needed"),
        ({"faces": ()}, r"glyphs: faces is \[\]; distinct names are needed"),
        ({"faces": ("DejaVuSans", "DejaVuSans")}, "distinct names are needed"),
        ({"faces": ("Arial",)}, "glyphs: no face 'Arial'; known are DejaVuSans, STIXGeneral"),
    ],
)
def test_arguments_that_cannot_be_right(arguments, message):
    with pytest.raises(ConfigError, match=message):
        glyphs(**arguments)


def test_missing_fonts(tmp_path, monkeypatch):
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(DataError, match="cannot read matplotlib's fonts in .*; install"):
        glyphs()
