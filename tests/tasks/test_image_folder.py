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


def test_a_class_is_the_whole_path_of_its_folder(tmp_path):
    for script in ("Greek", "Latin", "Thai"):
        filled(tmp_path / "mine" / script, counts=(1, 1))
    family = image_folder(tmp_path / "mine")
    names = [*family.train.class_names, *family.validation.class_names, *family.test.class_names]
    scripts = ("Greek", "Latin", "Thai")
    assert sorted(names) == [f"{s}/class-{number}" for s in scripts for number in range(2)]


def of_one_image(folder, save, shape):
    """The pixels of an image that is alone in its class."""
    filled(folder, counts=(1,) * 5)
    save(folder / "class-0")
    (folder / "class-0" / "0.png").unlink()
    family = image_folder(folder, shape=shape)
    for part in (family.train, family.validation, family.test):
        if "class-0" in part.class_names:
            return part.images[part.class_names.index("class-0"), 0]
    raise AssertionError("the class is lost")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_ink_on_nothing_is_ink_on_white(tmp_path, mode):
    """Left half black, right half transparent black."""
    alpha = np.zeros((4, 4), np.uint8)
    alpha[:, :2] = 255
    ink, options = Image.fromarray(np.stack([0 * alpha] * 3 + [alpha], -1)), {}
    if mode == "P":
        ink, options = Image.fromarray(alpha // 255), {"transparency": 0}
        ink.putpalette([0, 0, 0] * 256)
    elif mode == "LA":
        ink = ink.convert("LA")
    found = of_one_image(tmp_path, lambda to: ink.save(to / "a.png", **options), (4, 4, 1))
    np.testing.assert_array_equal(found[..., 0], 255 - alpha)


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    wide = (np.arange(16, dtype=np.uint16) * 17 * 257).reshape(4, 4)
    image = Image.fromarray(wide)
    found = of_one_image(tmp_path, lambda to: image.save(to / "a.png"), (4, 4, 1))
    np.testing.assert_array_equal(found[..., 0], wide // 257)


def test_a_photograph_is_turned_as_the_camera_says(tmp_path):
    """Orientation 6: the first row of the file is the right edge."""
    stored = np.zeros((16, 8), np.uint8)
    stored[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(stored)
    found = of_one_image(tmp_path, lambda to: image.save(to / "a.jpg", exif=exif), (8, 16, 1))
    assert found[:, 8:].min() > 250 and found[:, :8].max() < 5


def test_links_are_followed_and_loops_are_said(tmp_path):
    filled(tmp_path / "elsewhere", counts=(1,) * 5)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "linked").symlink_to(tmp_path / "elsewhere")
    assert "linked/class-" in image_folder(tmp_path / "mine").test.class_names[0]
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "mine")
    with pytest.raises(DataError, match="loop is a link to a folder that is in it; remove"):
        image_folder(tmp_path / "mine")


def test_what_cannot_be_read_is_said(tmp_path):
    folder = filled(tmp_path / "mine")
    with pytest.raises(ValueError, match="three positive numbers of sum 1, got \\(0.5, 0.5, 0.5"):
        image_folder(folder, shares=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="three positive numbers of sum 1, got \\(0.5, 0.5\\)"):
        image_folder(folder, shares=(0.5, 0.5))  # pyright: ignore[reportArgumentType]
    for shape in ((8, 8, 2), (28, 28.0, 1)):
        with pytest.raises(ValueError, match="1 or 3 channels, got"):
            image_folder(folder, shape=shape)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="has 2 classes, too few for parts of"):
        image_folder(filled(tmp_path / "two", counts=(1, 1)))
    (folder / "class-0" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="class-0/0.png is no image or is damaged; mend it"):
        image_folder(folder)
    (folder / "loose.png").write_bytes(b"")
    with pytest.raises(DataError, match="loose.png is not filed by class"):
        image_folder(folder)
    (folder / "class-0" / "1.webp").write_bytes(b"")
    with pytest.raises(DataError, match="class-0/1.webp is not read; make a PNG or JPEG"):
        image_folder(folder)
