"""ImageNet in its published layouts, what of an image is shown, and what is refused."""

import os
import shutil
import threading
import time

import numpy as np
import pytest
from families import refused
from PIL import Image

from mirrax.tasks import SOURCES, StreamedTask, fetch, imagenet, load_images, missing, verify
from mirrax.tasks._crops import central_box, crop, random_box
from mirrax.tasks._filed import FiledImages
from small_imagenet import CLASSES, HEIGHT, TEST, TRAIN, WIDTH, jpeg, photograph, write_small

SIDE = 16


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_small(tmp_path_factory.mktemp("data"))


@pytest.fixture
def data(published, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(published, tmp_path / "data")


def read(folder, side=SIDE, classes=4) -> StreamedTask:
    return imagenet(folder, side=side, classes=classes)


@pytest.mark.parametrize("layout", ["folders", "listed", "kaggle"])
def test_layouts(tmp_path, layout):
    """Labels are the order of the classes' names, wherever the images lie."""
    root = write_small(tmp_path, layout != "folders") / "imagenet"
    if layout == "kaggle":
        below = root / "ILSVRC" / "Data" / "CLS-LOC"
        below.mkdir(parents=True)
        for part in ("train", "val"):
            (root / part).rename(below / part)
    task = read(tmp_path)
    assert (task.name, task.classes, task.image_shape) == ("imagenet", 4, (SIDE, SIDE, 3))
    for labels, entries, count in (
        (task.train_labels, task.train, TRAIN),
        (task.test_labels, task.test, TEST),
    ):
        np.testing.assert_array_equal(labels, np.repeat(np.arange(4), count))
        assert labels.dtype == np.int32 and len(entries) == len(labels)
    for label, (_, path) in zip(task.train_labels, task.train, strict=True):
        assert path.startswith(CLASSES[label])
    assert "48 of the 1,281,167 training images" in task.note and "4 of the 1,000" in task.note
    assert {file.size for file in verify("imagenet", tmp_path)[:2]} == {0}


def test_labels_of_the_list_are_those_of_the_images(tmp_path):
    task = read(write_small(tmp_path, listed=True))
    images, labels = task.sample("test", 99)
    tints = np.random.default_rng(9).integers(0, 200, (4, 3))[labels]
    np.testing.assert_allclose(images.mean(axis=(1, 2)), tints + 27.5, rtol=0, atol=12)


def test_folders_must_agree_with_the_list(tmp_path):
    """`val/` filed by class, and Kaggle's list beside it."""
    root = write_small(tmp_path, listed=True) / "imagenet"
    for number, path in enumerate(sorted((root / "val").iterdir())):
        below = root / "val" / CLASSES[number // TEST]
        below.mkdir(exist_ok=True)
        path.rename(below / path.name)
    np.testing.assert_array_equal(read(tmp_path).test_labels, np.repeat(np.arange(4), TEST))
    name = "ILSVRC2012_val_00000001.JPEG"
    (root / "val" / CLASSES[0] / name).rename(root / "val" / CLASSES[1] / name)
    message = f"val: {CLASSES[1]}/{name} is of class {CLASSES[0]} by the csv; get it again"
    assert message in refused(read, tmp_path)


def test_what_is_missing_is_said(tmp_path):
    (line,) = missing(tmp_path, ["imagenet"]).values()
    assert line.startswith(
        "ImageNet is missing train/, val/ and LOC_val_solution.csv (or train/ and"
    )
    assert "get it from https://image-net.org/download-images (an account is needed) into" in line
    assert "ImageNet is not served for download" in refused(fetch, "imagenet", tmp_path)
    assert "use mirrax.tasks.imagenet" in refused(load_images, "imagenet", tmp_path)


# What cannot be right


def spoil(root, how):
    train, val = root / "train", root / "val"
    first = train / CLASSES[1] / f"{CLASSES[1]}_0.JPEG"
    if how == "empty class":
        for path in (train / CLASSES[1]).iterdir():
            path.unlink()
    elif how == "class without val":
        shutil.rmtree(val / CLASSES[2])
    elif how == "unknown class in val":
        shutil.copytree(val / CLASSES[0], val / "n09999999")
    elif how == "loose in val":
        (val / "ILSVRC2012_val_00000001.JPEG").write_bytes(first.read_bytes())
    elif how == "loose in train":
        (train / "n1.JPEG").write_bytes(first.read_bytes())
    elif how == "not in the list":
        (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\nx,n01440764 1\n")
    elif how == "no list":
        (root / "LOC_val_solution.csv").write_text("ILSVRC2012_val_00000001 490\n")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("empty class", "train: folder n01443537/ holds no image; get it again"),
        ("class without val", "val lacks class 'n01484850'; get it again"),
        ("unknown class in val", "val has no business with class 'n09999999'; get it again"),
        ("loose in val", "the class of ILSVRC2012_val_00000001.JPEG is not known; put LOC_val_"),
        ("loose in train", "train: n1.JPEG is not filed by class; get it again"),
        ("not in the list", "ILSVRC2012_val_00000001.JPEG is not listed in the csv; remove it"),
        ("no list", "is not a list of images (ImageId,PredictionString and a line an image)"),
    ],
)
def test_folders_that_cannot_be_right(data, how, message):
    spoil(data / "imagenet", how)
    assert message in refused(read, data)


@pytest.mark.parametrize("classes", [None, 3])
def test_another_number_of_classes(published, classes):
    text = refused(read, published, classes=classes)
    assert f"train holds 4 classes and {3 if classes else '1,000'} are expected; get it" in text


@pytest.mark.parametrize("field", ["side", "classes"])
def test_impossible_sizes(published, field):
    with pytest.raises(ValueError, match=f"imagenet.{field}: expected a positive .*, got 0"):
        read(published, **{field: 0})


@pytest.mark.parametrize("content", [b"", b"no image", "cut"])
def test_an_image_that_does_not_decode(data, content):
    name = f"{CLASSES[1]}/{CLASSES[1]}_0.JPEG"
    path = data / "imagenet" / "train" / name
    path.write_bytes(path.read_bytes()[:400] if content == "cut" else content)
    task, message = read(data), f"train: {name} is no image or is damaged; get it again"
    assert message in refused(task.sample, "train", 99)
    assert message in refused(list, task.batches(8, 6, seed=(0,), chunk=2))


@pytest.mark.parametrize(
    ("mode", "form"), [("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("RGBA", "PNG")]
)
def test_other_colours_and_a_png_by_the_name_of_a_jpeg(data, mode, form):
    """ImageNet has all of these but the last; grey stays grey, CMYK keeps its colours."""
    image = photograph(0, 1).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST, (0, 0, 1, 1))
    path = data / "imagenet" / "train" / CLASSES[1] / f"{CLASSES[1]}_0.JPEG"
    path.write_bytes(jpeg(image.convert(mode), form))
    task = read(data)
    index = [path for _, path in task.train].index(f"{CLASSES[1]}/{CLASSES[1]}_0.JPEG")
    images, labels = StreamedTask(
        "one", task.train[index : index + 1], task.train_labels[:1], [], labels_of(0), 4, SIDE
    ).sample("train", 1)
    assert images.shape == (1, SIDE, SIDE, 3) and images.dtype == np.uint8
    expected = np.asarray(image.convert("L").convert("RGB") if mode == "L" else image)[0, 0]
    np.testing.assert_allclose(
        images[0], np.broadcast_to(expected, (SIDE, SIDE, 3)), rtol=0, atol=3
    )


def labels_of(count):
    return np.zeros(count, np.int32)


# Which part of an image


def test_the_middle_is_that_of_a_resized_image():
    """Shorter side to 256/224 of the side, then the middle: two steps of Pillow's."""
    ramp = np.add.outer(np.arange(120) * 1.1, np.arange(150) * 0.7).astype(np.uint8)
    image = Image.fromarray(np.stack([ramp, 255 - ramp, ramp // 2], axis=-1))
    found = crop(image, central_box(120, 150), 56)
    resized = np.asarray(image.resize((80, 64), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(found, resized[4:60, 12:68].astype(float), rtol=0, atol=1.5)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (40, 48)])
def test_random_parts_have_the_stated_laws(height, width):
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(rng, height, width) for _ in range(2000)])
    left, top, right, bottom = boxes.T
    assert (left >= 0).all() and (top >= 0).all()
    assert (right <= width).all() and (bottom <= height).all()
    across, down = right - left, bottom - top
    area, ratio = across * down / (height * width), across / down
    edge = 1 + 2 / min(across.min(), down.min())  # of rounding to whole pixels
    assert 0.08 / edge <= area.min() < 0.1 and 0.8 < area.max() <= 1
    assert 3 / 4 / edge <= ratio.min() < 0.8 and 1.25 < ratio.max() <= 4 / 3 * edge
    # Where it fits everywhere it stands everywhere: uniform in what is left of the width.
    small = area < 0.4
    places = left[small] / np.maximum(width - across[small], 1)
    assert abs(places.mean() - 0.5) < 4 * 0.3 / np.sqrt(small.sum())


@pytest.mark.parametrize(("height", "width"), [(1, 100), (100, 1), (1, 1), (3, 500)])
def test_strips_have_parts_too(height, width):
    left, top, right, bottom = random_box(np.random.default_rng(0), height, width)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert crop(photograph(0, size=(height, width)), (left, top, right, bottom), 8).shape[0] == 8


def test_left_and_right_are_swapped():
    image, box = photograph(0), (4.0, 2.0, 30.0, 36.0)
    np.testing.assert_array_equal(crop(image, box, 8, flip=True), crop(image, box, 8)[:, ::-1])


def areas_and_ratios(rng, height, width, tries):
    """Shares of the area and logarithms of ratios, all drawn at once; those that fit are left."""
    area = rng.uniform(0.08, 1, tries) * height * width
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), tries))
    across, down = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (across <= width) & (down <= height)
    assert fits.mean() > 0.4  # ten tries are enough
    return (across * down / (height * width))[fits], np.log(across / down)[fits]


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (40, 48)])
def test_random_parts_have_the_means_of_the_laws(height, width):
    """Of area and of log ratio, within four standard errors of the difference."""
    rng = np.random.default_rng(1)
    boxes = np.array([random_box(rng, height, width) for _ in range(4000)])
    across, down = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    found = across * down / (height * width), np.log(across / down)
    laws = areas_and_ratios(np.random.default_rng(2), height, width, 200_000)
    for values, law in zip(found, laws, strict=True):
        error = np.sqrt(values.var() / len(values) + law.var() / len(law))
        assert abs(values.mean() - law.mean()) < 4 * error


# Batches


def collected(batches):
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return images, labels


def test_a_run_that_goes_on_sees_the_same_batches(published):
    """Whatever the chunks, and from any step on."""
    task = read(published)
    whole = collected(task.batches(5, 12, seed=(3, 1), chunk=4))
    assert whole[0].shape == (12, 5, SIDE, SIDE, 3) and whole[1].shape == (12, 5)
    for first, chunk in ((0, 5), (7, 4), (11, 1)):
        rest = collected(task.batches(5, 12, seed=(3, 1), first=first, chunk=chunk))
        for one, other in zip(whole, rest, strict=True):
            np.testing.assert_array_equal(one[first:], other)
    other = collected(task.batches(5, 12, seed=(3, 2), chunk=4))
    assert not np.array_equal(whole[1], other[1])


def test_an_epoch_has_every_image_once(published):
    """In an order of its own; images are told apart by which entry is asked for."""
    task = read(published)
    seen = [task._places(np.arange(k * 48, k * 48 + 48), (0,)) for k in range(3)]
    for order in seen:
        np.testing.assert_array_equal(np.sort(order), np.arange(48))
    assert not np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[1], seen[2])
    straddling = task._places(np.arange(40, 100), (0,))
    np.testing.assert_array_equal(straddling, np.concatenate(seen)[40:100])


def test_an_image_is_cut_and_flipped_anew_in_every_epoch(published):
    """Against the law itself, drawn again from seed and position."""
    task, seed = read(published), (5,)
    images, _ = collected(task.batches(48, 2, seed=seed, chunk=1))
    for position in (0, 7, 50, 95):
        index = task._places(np.array([position]), seed)[0]
        rng = np.random.default_rng((*seed, 1, position))
        box = random_box(rng, HEIGHT, WIDTH)
        filed, path = task.train[index]
        expected = filed.convert(
            path, lambda image, box=box, rng=rng: crop(image, box, SIDE, bool(rng.random() < 0.5))
        )
        np.testing.assert_array_equal(images.reshape(-1, *task.image_shape)[position], expected)


def test_nothing_runs_on_when_batches_are_not_wanted_any_more(published, monkeypatch):
    """Of the second chunk, only what two threads have begun is decoded; then they end."""
    convert, wanted, before = FiledImages.convert, [], set(threading.enumerate())

    def slow(*arguments):
        wanted.append(arguments)
        if len(wanted) > 32:
            time.sleep(0.05)
        return convert(*arguments)

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(FiledImages, "convert", slow)
    batches = read(published).batches(16, 100, seed=(0,), chunk=2)
    next(batches)
    batches.close()
    assert set(threading.enumerate()) <= before
    assert 32 <= len(wanted) < 64
    assert list(read(published).batches(4, 3, seed=(0,), first=3)) == []


def test_images_kept_apart_are_training_images_and_no_others(published):
    task = read(published)
    part = task.validation(0.25, seed=1)
    assert (len(part.train), len(part.test)) == (36, 12)
    together = sorted(path for _, path in (*part.train, *part.test))
    assert together == sorted(path for _, path in task.train)
    for (_, path), label in zip(part.test, part.test_labels, strict=True):
        assert path.startswith(CLASSES[label])
    with pytest.raises(ValueError, match="StreamedTask.validation.share: .* of 48 images"):
        task.validation(0)


def test_a_sample_is_the_same_at_every_call(published):
    task = read(published)
    images, labels = task.sample("train", 10)
    again, _ = task.sample("train", 10)
    np.testing.assert_array_equal(images, again)
    assert len(set(labels.tolist())) > 1
    assert not np.array_equal(images, task.sample("train", 10, seed=1)[0])


def test_the_table_says_that_it_is_streamed():
    assert [name for name, source in SOURCES.items() if source.streamed] == ["imagenet"]
