"""Omniglot and miniImageNet from small files in exactly the published formats."""

import dataclasses
import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from families import image_of, parts, refused, sizes
from PIL import Image

from mirrax._errors import ConfigError, DataError
from mirrax.tasks import (
    SOURCES,
    cifar_fs,
    fc100,
    fetch,
    load_images,
    mini_imagenet,
    missing,
    omniglot,
    verify,
)
from mirrax.tasks._filed import FiledImages
from mirrax.tasks._omniglot import _BACKGROUND, _EVALUATION
from published import image_bytes, write_filed

NUMBERED = {"background": _BACKGROUND, "evaluation": _EVALUATION}


def blank_character() -> np.ndarray:
    """White paper with one black stroke, as Omniglot's 1-bit PNG."""
    paper = np.ones((105, 105), bool)
    paper[15:90, 48:60] = False
    return paper


def characters(part: str, **changed: bytes) -> dict[str, bytes]:
    data = image_bytes(blank_character())
    return {
        f"images_{part}/{alphabet}/character{number + 1:02}/0001_01.png": data
        for alphabet, count in NUMBERED[part].items()
        for number in range(count)
    } | changed


OMNIGLOT_LAYOUTS = ["images_{}.zip", "images_{}", "images_{}_png_stored.zip"]


def write_omniglot(folder: Path, layout: str, **changed: bytes) -> None:
    for part in NUMBERED:
        files = characters(part, **(changed if part == "background" else {}))
        if not layout.endswith(".zip"):
            files = {name.partition("/")[2]: data for name, data in files.items()}
        write_filed(folder / "omniglot" / layout.format(part), files)


@pytest.mark.parametrize("layout", OMNIGLOT_LAYOUTS)
def test_omniglot(folder, layout):
    write_omniglot(folder, layout)
    family = omniglot(folder)
    assert family.name == "omniglot" and family.note == "" and sizes(family) == [1028, 172, 423]
    alphabets = {name.partition("/")[0] for name in family.validation.class_names}
    assert alphabets == {
        "Armenian",
        "Bengali",
        "Early_Aramaic",
        "Hebrew",
        "Mkhedruli_(Georgian)",
    }
    # The split goes through one alphabet, after its 41st character.
    assert "Gurmukhi/character41" in family.train.class_names
    assert "Gurmukhi/character42" in family.test.class_names
    for part in parts(family):
        assert part.images.shape[1:] == (1, 28, 28, 1) and part.scale == 1 / 255


def test_omniglot_ink_is_one_and_pillow_resizes_alike(folder):
    rng = np.random.default_rng(0)
    paper = np.kron(rng.random((21, 21)) < 0.7, np.ones((5, 5), bool))
    changed = {"images_background/Greek/character07/0001_01.png": image_bytes(paper)}
    write_omniglot(folder, "images_{}.zip", **changed)
    family = omniglot(folder)
    ink = Image.fromarray(np.where(paper, 0, 255).astype(np.uint8))
    theirs = np.asarray(ink.resize((28, 28), Image.Resampling.BILINEAR), np.int32)
    ours = image_of(family, "Greek/character07")[0, ..., 0]
    assert np.abs(ours - theirs).max() <= 1  # Pillow rounds after each axis
    stroke = image_of(family, "Greek/character08")[0, ..., 0]
    assert stroke[14, 14] == 255 and stroke[14, 0] == 0


def test_omniglots_own_parts(folder):
    write_omniglot(folder, "images_{}.zip")
    family = omniglot(folder, "background")
    assert family.name == "omniglot-background" and sizes(family) == [792, 172, 659]
    assert {name.partition("/")[0] for name in family.test.class_names} == set(_EVALUATION)
    assert family.validation.class_names == omniglot(folder).validation.class_names
    with pytest.raises(ConfigError, match="split is 'lake'; 'vinyals' or 'background' is needed"):
        omniglot(folder, "lake")  # pyright: ignore[reportArgumentType]


GREEK = "images_background/Greek/character07/"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({f"{GREEK}0001_01.png": b"no image"}, "0001_01.png is no image or is damaged; get it"),
        ({f"{GREEK}0001_01.png": b""}, "0001_01.png is no image or is damaged"),
        (
            {f"{GREEK}0001_01.png": image_bytes(np.ones((105, 104), bool))},
            r"0001_01.png is of 105 × 104 pixels; all images must be of 105 × 105",
        ),
        (
            {f"{GREEK}0002_01.png": image_bytes(blank_character())},
            "'Greek/character07' has 2 images",
        ),
        ({"images_background/Greek/character25/": b""}, "folder .*character25/ holds no image"),
        (
            {"images_background/Greek/character25/1_1.png": image_bytes(blank_character())},
            "has class 'Greek/character25', which is in no part of the split; Did you mean",
        ),
        ({f"{GREEK}0001_01.png": bytes(2 << 20)}, "0001_01.png is too large for an image"),
        ({"stray.png": image_bytes(blank_character())}, "stray.png is not filed by class"),
    ],
)
def test_omniglot_files_that_cannot_be_right(folder, changed, message):
    write_omniglot(folder, "images_{}.zip", **changed)
    text = refused(omniglot, folder)
    assert re.search(message, text), text


def test_omniglot_without_a_character(folder):
    write_omniglot(folder, "images_{}")
    shutil.rmtree(folder / "omniglot/images_background/Greek/character07")
    assert "lacks class 'Greek/character07' of the split" in refused(omniglot, folder)


def test_an_empty_folder_of_a_class(folder):
    write_omniglot(folder, "images_{}")
    (folder / "omniglot/images_background/Greek/character07/0001_01.png").unlink()
    assert "folder Greek/character07/ holds no image" in refused(omniglot, folder)


def test_system_files_beside_the_images_are_no_images(folder):
    stray = {"__MACOSX/images_background/._a.png": b"?", "images_background/Greek/.DS_Store": b"?"}
    write_omniglot(folder, "images_{}.zip", **stray)
    assert sizes(omniglot(folder)) == [1028, 172, 423]


def test_names_that_stand_twice_in_a_zip():
    """Some programs enter folders twice; of two images one would be lost."""
    entries = ["c/", "c/", "note", "note", "c/x.png"]
    assert FiledImages("a.zip", entries, None).paths == ["c/x.png"]
    with pytest.raises(DataError, match="a.zip has two files 'c/x.png'; remove one of them"):
        FiledImages("a.zip", [*entries, "c/x.png"], None)


@pytest.mark.parametrize("kept", [0.5, 0.0])
def test_a_zip_cut_short(folder, kept):
    write_omniglot(folder, "images_{}.zip")
    path = folder / "omniglot/images_evaluation.zip"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    text = refused(omniglot, folder)
    assert "images_evaluation.zip is no zip or is cut short" in text and "get it again" in text


def test_a_zip_with_a_changed_byte(folder):
    write_omniglot(folder, "images_{}.zip")
    path = folder / "omniglot/images_evaluation.zip"
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 1
    path.write_bytes(data)
    assert "cannot read images_evaluation/Angelic/character01/0001_01.png" in refused(
        omniglot, folder
    )


def test_another_checksum(folder, monkeypatch):
    write_omniglot(folder, "images_{}.zip")
    source = SOURCES["omniglot"]
    path = folder / "omniglot/images_background.zip"
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    files = source.editions[0].files
    described = (dataclasses.replace(files[0], md5=digest), files[1])
    editions = (dataclasses.replace(source.editions[0], files=described), *source.editions[1:])
    monkeypatch.setitem(SOURCES, "omniglot", dataclasses.replace(source, editions=editions))
    assert [file.evidence for file in verify("omniglot", folder)][0] == "MD5 matches"
    path.write_bytes(path.read_bytes() + b"x")
    text = refused(omniglot, folder)
    assert "images_background.zip is not the published file" in text
    assert text.endswith(
        "get it again from https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
        "images_background.zip"
    )


WNIDS = [f"n{number:08}" for number in range(100)]
RAVI = {"train": WNIDS[:64], "val": WNIDS[64:80], "test": WNIDS[80:]}


def mini_files(rng) -> dict[str, dict[str, bytes]]:
    """`<part>/<class>/<file>`: two 84×84 JPEGs a class."""
    smooth = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
    data = image_bytes(np.kron(smooth, np.ones((12, 12, 1), np.uint8)), "JPEG")
    return {
        part: {f"{wnid}/{wnid}{member:08}.jpg": data for wnid in wnids for member in (1, 2)}
        for part, wnids in RAVI.items()
    }


def write_mini(folder: Path, layout: str, files=None) -> Path:
    files = mini_files(np.random.default_rng(0)) if files is None else files
    root = folder / "mini-imagenet"
    if layout == "folders":
        for part, images in files.items():
            write_filed(root / part, images)
        return root
    prefix = "ravi_" if layout == "zip" else ""
    for part, images in files.items():
        lines = [f"{Path(name).name},{name.partition('/')[0]}\n" for name in images]
        write_filed(root, {f"{prefix}{part}.csv": "".join(["filename,label\n", *lines]).encode()})
    if layout == "zip":
        filed = {f"{part}/{name}": d for part, each in files.items() for name, d in each.items()}
        write_filed(root / "mini_imagenet_subset100_jpg84_stored.zip", filed)
    else:
        flat = {Path(name).name: data for each in files.values() for name, data in each.items()}
        write_filed(root / "images", flat)
    return root


@pytest.mark.parametrize("layout", ["zip", "images", "folders"])
def test_mini_imagenet(folder, layout):
    write_mini(folder, layout)
    family = mini_imagenet(folder)
    assert family.name == "mini-imagenet" and sizes(family) == [64, 16, 20]
    for part, wnids in zip(parts(family), RAVI.values(), strict=True):
        assert part.class_names == tuple(wnids)
        assert part.images.shape[1:] == (2, 84, 84, 3) and part.scale == 1 / 255
    assert ("100 of the 600 images" in family.note) == (layout == "zip")
    # Blocks of 12 pixels survive JPEG but for a few grey levels.
    smooth = np.random.default_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    centres = family.test.images[0, 0, 6::12, 6::12].astype(int)
    assert np.abs(centres - smooth).mean() < 30


def test_mini_imagenets_parts_have_the_published_numbers_of_classes(folder):
    """A split of one's own would be printed beside figures of the published one."""
    files = mini_files(np.random.default_rng(0))
    moved = {name: data for name, data in files["test"].items() if name.startswith(WNIDS[99])}
    files["val"] |= moved
    files["test"] = {name: data for name, data in files["test"].items() if name not in moved}
    write_mini(folder, "images", files)
    message = refused(mini_imagenet, folder)
    assert "the validation part has 17 classes, and 16 are published" in message


def test_mini_imagenets_lists_must_fit(folder):
    root = write_mini(folder, "images")
    (root / "images/extra.jpg").write_bytes((root / f"images/{WNIDS[0]}00000001.jpg").read_bytes())
    assert "image extra.jpg is not listed in the csv; remove it" in refused(mini_imagenet, folder)
    (root / "images/extra.jpg").unlink()
    (root / f"images/{WNIDS[0]}00000001.jpg").unlink()
    assert f"class '{WNIDS[0]}' has 1 images, and 2 are published" in refused(mini_imagenet, folder)
    (root / f"images/{WNIDS[0]}00000002.jpg").unlink()
    assert f"lacks class '{WNIDS[0]}' of the split" in refused(mini_imagenet, folder)


def test_mini_imagenets_folders_must_agree_with_the_lists(folder):
    files = mini_files(np.random.default_rng(0))
    root = write_mini(folder, "zip", files)
    first = next(iter(files["train"]))
    files["train"][f"{WNIDS[1]}/{Path(first).name}"] = files["train"].pop(first)
    filed = {f"{part}/{name}": d for part, each in files.items() for name, d in each.items()}
    write_filed(root / "mini_imagenet_subset100_jpg84_stored.zip", filed)
    assert f"is of class {WNIDS[0]} by the csv" in refused(mini_imagenet, folder)


@pytest.mark.parametrize("layout", ["images", "folders"])
def test_mini_imagenet_with_a_class_in_two_parts(folder, layout):
    files = mini_files(np.random.default_rng(0))
    name, data = next(iter(files["test"].items()))
    files["val"][name.replace(".jpg", "x.jpg")] = data
    write_mini(folder, layout, files)
    message = f"its split: class '{WNIDS[80]}' is in validation and in test; a class may be in one"
    assert message in refused(mini_imagenet, folder)


def test_mini_imagenet_of_the_original_size(folder):
    files = mini_files(np.random.default_rng(0))
    first = next(iter(files["train"]))
    files["train"][first] = image_bytes(np.zeros((375, 500, 3), np.uint8), "JPEG")
    write_mini(folder, "folders", files)
    assert "is of 375 × 500 pixels; all images must be of 84 × 84" in refused(mini_imagenet, folder)


@pytest.mark.parametrize("text", ["", "filename,label\n", "a,b\nc,d\n", "filename,label\nx\n"])
def test_lists_of_another_form(folder, text):
    root = write_mini(folder, "images")
    (root / "val.csv").write_text(text)
    assert "val.csv is not a list of images (filename,label and a line" in refused(
        mini_imagenet, folder
    )


def test_what_is_missing_is_said(folder):
    lines = missing(folder, ["omniglot", "cifar-100", "mini-imagenet"])
    assert (
        "Omniglot is missing images_background.zip and images_evaluation.zip (or images_"
        in (lines["omniglot"])
    )
    assert (
        "run `mirrax data omniglot --fetch`, or get it from https://github.com/brendenlake"
        in (lines["omniglot"])
    )
    assert "cifar-100-binary.tar.gz (or train.bin and test.bin)" in lines["cifar-100"]
    assert (
        "images/, train.csv, val.csv and test.csv (or train/, val/ and test/)"
        in (lines["mini-imagenet"])
    )
    assert "--fetch" not in lines["mini-imagenet"]
    for read, name in ((omniglot, "omniglot"), (cifar_fs, "cifar-100"), (fc100, "cifar-100")):
        assert refused(read, folder) == lines[name]
    text = refused(fetch, "mini-imagenet", folder)
    assert text.startswith("miniImageNet is not served for download; get the files from https://")
    write_mini(folder, "folders")
    assert all("a folder" in file.evidence for file in fetch("mini-imagenet", folder))


def test_sets_of_episodes_are_no_tasks(folder):
    text = refused(load_images, "omniglot", folder)
    assert "Omniglot is read in episodes, not as one task; use mirrax.tasks.omniglot" in text
