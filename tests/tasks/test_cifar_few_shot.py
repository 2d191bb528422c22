"""CIFAR-FS and FC100 from small files in the published binary form, and from images by class."""

from pathlib import Path

import numpy as np
import pytest
from families import parts, refused, sizes

from mirrax._errors import DataError
from mirrax.tasks import cifar_fs, fc100
from mirrax.tasks._cifar_classes import CLASSES, SUPERCLASSES
from published import cifar_records, image_bytes, write_cifar_tar, write_filed


def cifar_images() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three images a class, two for the training file; superclasses and classes as published."""
    images = np.random.default_rng(0).integers(0, 256, (100, 3, 32, 32, 3), dtype=np.uint8)
    above = {name: i for i, names in enumerate(SUPERCLASSES.values()) for name in names}
    return images, np.array([above[name] for name in CLASSES]), np.arange(100)


def cifar_parts() -> dict[str, bytes]:
    images, coarse, fine = cifar_images()
    order = np.random.default_rng(1).permutation(200)
    train = images[:, :2].reshape(200, 32, 32, 3)
    both = [np.repeat(labels, 2)[order] for labels in (coarse, fine)]
    return {
        "train": cifar_records(*both, train[order]),
        "test": cifar_records(coarse, fine, images[:, 2]),
    }


def write_cifar(folder: Path, layout: str) -> None:
    images, _, _ = cifar_images()
    if layout == "tar":
        write_cifar_tar(folder / "cifar-100/cifar-100-binary.tar.gz", cifar_parts())
    elif layout == "bin":
        write_filed(
            folder / "cifar-100-binary",
            {f"{part}.bin": data for part, data in cifar_parts().items()},
        )
    else:
        for part, members in (("train_subset100perclass", (0, 1)), ("test", (2,))):
            files = {
                f"{part[:5].rstrip('_')}/{name}/{member}.png": image_bytes(images[label, member])
                for label, name in enumerate(CLASSES)
                for member in members
            }
            write_filed(folder / f"cifar-100/cifar-100_{part}_png_stored.zip", files)


@pytest.mark.parametrize("layout", ["tar", "bin", "png"])
@pytest.mark.parametrize("read", [cifar_fs, fc100])
def test_cifar(folder, layout, read):
    write_cifar(folder, layout)
    family = read(folder)
    images, _, _ = cifar_images()
    found = {}
    for part in parts(family):
        assert part.images.shape[1:] == (3, 32, 32, 3) and part.scale == 1 / 255
        found |= dict(zip(part.class_names, part.images, strict=True))
    for label, name in enumerate(CLASSES):
        expected = sorted(image.tobytes() for image in images[label])
        assert sorted(image.tobytes() for image in found[name]) == expected
    assert ("accuracies are not those of the published set" in family.note) == (layout == "png")


def test_splits_of_cifar(folder):
    """Sizes and characteristic classes of the two papers."""
    write_cifar(folder, "bin")
    bertinetto, oreshkin = cifar_fs(folder), fc100(folder)
    assert (bertinetto.name, sizes(bertinetto)) == ("cifar-fs", [64, 16, 20])
    assert (oreshkin.name, sizes(oreshkin)) == ("fc100", [60, 20, 20])
    for name in ("baby", "bed", "bicycle", "chimpanzee", "whale", "worm"):
        assert name in bertinetto.test.class_names
    assert {"maple_tree", "otter", "television"} < set(bertinetto.validation.class_names)
    for part, above in (("validation", "small_mammals"), ("test", "people"), ("train", "fish")):
        assert set(SUPERCLASSES[above]) < set(getattr(oreshkin, part).class_names)


def test_names_of_cifars_classes():
    """As in the published `fine_label_names.txt` and `coarse_label_names.txt`, in part."""
    assert len(CLASSES) == len(set(CLASSES)) == 100
    assert [CLASSES[label] for label in (0, 19, 49, 58, 99)] == [
        "apple",
        "cattle",
        "mountain",
        "pickup_truck",
        "worm",
    ]
    above = list(SUPERCLASSES)
    assert [above[label] for label in (0, 9, 14, 19)] == [
        "aquatic_mammals",
        "large_man-made_outdoor_things",
        "people",
        "vehicles_2",
    ]
    assert SUPERCLASSES["trees"] == (
        "maple_tree",
        "oak_tree",
        "palm_tree",
        "pine_tree",
        "willow_tree",
    )


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (slice(0, 1), b"\x20", "record 0 has the labels 32, .*, no superclass and class of CIFAR"),
        (slice(3074 + 1, 3074 + 2), b"\xc8", "record 1 has the labels .*, 200, no superclass"),
        (slice(-1, None), b"", "is cut short"),
        (slice(0, 0), b"x", "more bytes follow"),
    ],
)
@pytest.mark.parametrize("layout", ["tar", "bin"])
def test_cifar_records_that_cannot_be_right(folder, layout, place, value, message):
    data = cifar_parts()
    changed = bytearray(data["test"])
    changed[place] = value
    data["test"] = bytes(changed)
    if layout == "tar":
        write_cifar_tar(folder / "cifar-100/cifar-100-binary.tar.gz", data)
    else:
        files = {f"{part}.bin": records for part, records in data.items()}
        write_filed(folder / "cifar-100", files)
    with pytest.raises(DataError, match=message) as raised:
        cifar_fs(folder)
    assert "test.bin" in str(raised.value) and "\n" not in str(raised.value)


def test_cifar_records_of_uneven_classes(folder):
    data = cifar_parts()
    records = bytearray(data["test"])
    records[:3074] = records[3074 : 2 * 3074]
    write_filed(folder / "cifar-100", {"train.bin": data["train"], "test.bin": bytes(records)})
    assert "class 'apple' has 2 images, and 3 are published" in refused(fc100, folder)


@pytest.mark.parametrize("how", ["no gzip", "cut", "no member"])
def test_damaged_tars(folder, how):
    path = folder / "cifar-100/cifar-100-binary.tar.gz"
    if how == "no member":
        write_cifar_tar(path, {"train": cifar_parts()["train"]})
        assert "has no file cifar-100-binary/test.bin; get it again" in refused(cifar_fs, folder)
        return
    write_cifar(folder, "tar")
    path.write_bytes(b"not a tar" * 99 if how == "no gzip" else path.read_bytes()[:100_000])
    text = refused(cifar_fs, folder)
    assert "cifar-100-binary.tar.gz" in text and "get " in text
