"""A folder of one's own images: classes shared out, sizes brought to one, nothing lost."""

import numpy as np
import pytest
from PIL import Image

from mirrax._errors import DataError
from mirrax.tasks import image_folder


def filled(folder, counts=(3, 2, 4, 2, 5), size=(12, 10)):
    """Classes told apart by their grey; images of different sizes."""
    for number, count in enumerate(counts):
        place = folder / f"class-{number}"
        place.mkdir(parents=True)
        for image in range(count):
            width, height = size[0] + image, size[1]
            Image.new("RGB", (width, height), (40 * number,) * 3).save(place / f"{image}.png")
    return folder


def test_every_image_is_in_the_class_of_its_folder(tmp_path):
    family = image_folder(filled(tmp_path / "mine"), shape=(6, 5, 1))
    parts = family.train, family.validation, family.test
    assert [len(part.class_names) for part in parts] == [3, 1, 1]
    assert {name for part in parts for name in part.class_names} == {
        f"class-{number}" for number in range(5)
    }
    for part in parts:
        for name, images, count in zip(part.class_names, part.images, part.counts, strict=True):
            number = int(name.removeprefix("class-"))
            assert count == (3, 2, 4, 2, 5)[number] and images.shape[1:] == (6, 5, 1)
            np.testing.assert_array_equal(images[:count], 40 * number)
    assert family.name == "mine"


def test_seed_and_shares_choose_the_parts(tmp_path):
    folder = filled(tmp_path / "mine", counts=(1,) * 10)
    found = {image_folder(folder, seed=seed).test.class_names for seed in range(5)}
    assert len(found) > 1
    assert image_folder(folder, seed=1).test.class_names in found
    parts = image_folder(folder, shares=(0.5, 0.1, 0.4))
    assert len(parts.validation.class_names) == 1 and len(parts.test.class_names) == 4


def test_what_cannot_be_read_is_said(tmp_path):
    folder = filled(tmp_path / "mine")
    with pytest.raises(ValueError, match="three positive numbers of sum 1, got \\(0.5, 0.5, 0.5"):
        image_folder(folder, shares=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="1 or 3 channels, got"):
        image_folder(folder, shape=(8, 8, 2))
    with pytest.raises(DataError, match="has 2 classes, too few for parts of"):
        image_folder(filled(tmp_path / "two", counts=(1, 1)))
    (folder / "class-0" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="class-0/0.png is no image or is damaged"):
        image_folder(folder)
    (folder / "loose.png").write_bytes(b"")
    with pytest.raises(DataError, match="loose.png is not filed by class"):
        image_folder(folder)
