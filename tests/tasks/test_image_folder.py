"""A folder of one's own images: classes shared out, sizes brought to one, nothing lost."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mirrax._errors import DataError
from mirrax.tasks import image_folder
from published import image_bytes, write_filed


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


def class_names(family) -> list[str]:
    parts = family.train, family.validation, family.test
    return sorted(name for part in parts for name in part.class_names)


def of_paths(*paths) -> dict[str, bytes]:
    """The same small image at every path."""
    return dict.fromkeys(paths, image_bytes(np.zeros((4, 4), np.uint8)))


@pytest.mark.parametrize(
    "layout",
    ["train/{}/a.png test/{}/a.png", "mine/Train/{}/a.png mine/valid/{}/a.png extra/{}/a.png"]
    + ["{}/test/a.png {}/val/a.png", "train/Greek/{}/a.png validation/Greek/{}/a.png"],
)
def test_a_class_in_two_parts_is_refused(tmp_path, layout):
    """Or one class would be two, one of them learned from and the other tested on."""
    names = [path.format(name) for path in layout.split() for name in ("cat", "dog", "emu")]
    with pytest.raises(DataError, match="are one class in two parts.*; give the folder of") as told:
        image_folder(write_filed(tmp_path / "mine.zip", of_paths(*names)))
    assert "cat" in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    "names",
    [
        ["train/cat", "train/dog", "val/emu", "test/fox"],  # no class is in two
        ["train/front", "bus/front", "car/front", "ship/front"],  # a vehicle
        ["train", "test", "valid", "val"],  # classes themselves
        ["Greek/a", "Latin/a", "Thai/a", "Thai/b"],
    ],
)
def test_other_names_that_recur_are_classes(tmp_path, names):
    paths = [f"{name}/a.png" for name in names]
    assert class_names(image_folder(write_filed(tmp_path / "a", of_paths(*paths)))) == sorted(names)


def test_entries_of_a_zip_may_begin_with_a_dot_and_a_slash(tmp_path):
    names = ["./a/1.png", "b/1.png", "./c//1.png", "./d/1.png", "./.git/1.png", "__MACOSX/a/1.png"]
    files = {"./": b"", "./a/": b"", **of_paths(*names)}
    family = image_folder(write_filed(tmp_path / "mine.zip", files))
    assert class_names(family) == ["a", "b", "c", "d"]
    twice = of_paths("./a/1.png", "a/1.png")
    with pytest.raises(DataError, match="two files 'a/1.png'"):
        image_folder(write_filed(tmp_path / "twice.zip", twice))


def test_images_of_other_names_are_not_lost(tmp_path):
    folder = filled(tmp_path / "mine", counts=(1,) * 4)
    (folder / "__g").mkdir()
    for name in ("a.jpe", "b.JFIF"):
        Image.new("L", (4, 4)).save(folder / "__g" / name, "JPEG")
    family = image_folder(folder)
    assert "__g" in class_names(family)
    assert sum(part.counts.sum() for part in (family.train, family.validation, family.test)) == 6
    for ending in ("heic", "HEIF", "avif", "ppm", "pgm", "jp2", "jxl"):
        extra = folder / "class-0" / f"a.{ending}"
        extra.touch()
        with pytest.raises(DataError, match=f"class-0/a.{ending} is not read; make a PNG or JPEG"):
            image_folder(folder)
        extra.unlink()


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


@pytest.mark.parametrize(
    ("entries", "turned"),
    [
        ([(0x0112, 3, 6), (0x0100, 2, 0x616263)], True),  # a width in letters
        ([(0x0112, 3, 6), (0x011A, 11, 0x7FC00000)], True),  # a resolution that is no number
        ([(0x0112, 2, 0x616263)], False),
        ([], False),
    ],
)
def test_what_a_camera_says_may_be_damaged(tmp_path, entries, turned):
    block = b"".join(struct.pack("<HHLL", tag, kind, 1, value) for tag, kind, value in entries)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + block + b"\0" * 4
    stored = np.zeros((16, 8), np.uint8)
    stored[:8] = 255
    image = Image.fromarray(stored)
    found = of_one_image(tmp_path, lambda to: image.save(to / "a.jpg", exif=exif), (16, 16, 1))
    white = found[:, 8:] if turned else found[:8]
    assert white.min() > 250 and found.sum() < 1.05 * white.sum()


@pytest.mark.parametrize("side", [10_000, 20_000])  # Pillow warns of the one and refuses the other
def test_more_pixels_than_bytes_can_hold_are_counted(tmp_path, side):
    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">L", len(data)) + whole + struct.pack(">L", zlib.crc32(whole))

    folder = filled(tmp_path / "mine", counts=(1,) * 5)
    header = chunk(b"IHDR", struct.pack(">LLBBBBB", side, side, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    (folder / "class-0" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels)
    with pytest.raises(DataError, match=rf"0.png states {side**2:,} pixels, more than its"):
        image_folder(folder)


def test_folders_that_are_closed_to_us_are_said(tmp_path, monkeypatch):
    folder, scan = filled(tmp_path / "mine"), os.scandir

    def closed(path):
        if Path(path).name == "class-3":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(DataError, match="cannot read .*class-3: Permission denied; check the path"):
        image_folder(folder)
    with pytest.raises(DataError, match="cannot read .*: File name too long"):
        image_folder(tmp_path / ("long" * 100))


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
