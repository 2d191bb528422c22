"""Finding, verifying, loading and fetching: small data sets in place of the published ones."""

import dataclasses
import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from mirrax._errors import DataError
from mirrax.tasks import (
    DIVERSE_DIGITS,
    SOURCES,
    DataFile,
    data_folder,
    diverse_digits,
    fetch,
    load_images,
    locate,
    missing,
    verify,
)
from published import idx_bytes, write_idx, write_svhn, write_usps_h5, write_usps_text

TRAIN, TEST = 30, 20


def with_digests(file: DataFile, path: Path) -> DataFile:
    """The row a publisher of the file at `path` would have given."""
    data = path.read_bytes()
    content = gzip.decompress(data) if path.suffix == ".gz" else None
    return dataclasses.replace(
        file,
        size=len(data),
        md5=hashlib.md5(data).hexdigest(),
        sha256=None if file.sha256 is None else hashlib.sha256(data).hexdigest(),
        content=hashlib.sha256(content).hexdigest() if file.content and content else None,
    )


class SmallSets:
    """Small copies of published sets, and the table of data sets made to describe them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.rng = np.random.default_rng(0)

    def describe(self, name: str, number: int, **changes) -> None:
        source = SOURCES[name]
        folder = self.folder / source.folders[0]
        editions = list(source.editions)
        files = tuple(
            with_digests(file, folder / file.name) if file.md5 else file
            for file in editions[number].files
        )
        editions[number] = dataclasses.replace(editions[number], files=files, **changes)
        small = dataclasses.replace(source, editions=tuple(editions))
        self.monkeypatch.setitem(SOURCES, name, small)

    def images(self, count: int, shape: tuple[int, ...]) -> np.ndarray:
        return self.rng.integers(0, 256, (count, *shape), dtype=np.uint8)

    def labels(self, count: int) -> np.ndarray:
        return self.rng.permutation(np.arange(count) % 10).astype(np.uint8)

    def idx(self, name: str, parts=("train", "test"), number: int = 0, **changes) -> dict:
        source, written = SOURCES[name], {}
        names = {file.role: file.name for file in source.editions[number].files}
        for part, count in zip(("train", "test"), (TRAIN, TEST), strict=True):
            if part in parts:
                images, labels = self.images(count, (28, 28)), self.labels(count)
                wide = labels
                if "idx2" in names[f"{part}_labels"]:
                    others = self.rng.integers(0, 1000, (count, 7))
                    wide = np.column_stack([labels, others]).astype(np.int32)
                folder = self.folder / source.folders[0]
                write_idx(folder / names[f"{part}_images"], images)
                write_idx(folder / names[f"{part}_labels"], wide)
                written[part] = images, labels
        self.describe(name, number, **{"train": TRAIN, "test": TEST, **changes})
        return written

    def svhn(self) -> dict:
        written = {}
        for part, count in (("train", TRAIN), ("test", TEST)):
            written[part] = self.images(count, (32, 32, 3)), self.labels(count)
            write_svhn(self.folder / f"svhn/{part}_32x32.mat", *written[part])
        self.describe("svhn", 0, train=TRAIN, test=TEST)
        return written

    def usps(self, number: int) -> dict:
        written = {}
        for part, count in (("train", TRAIN), ("test", TEST)):
            written[part] = self.rng.uniform(-1, 1, (count, 16, 16)), self.labels(count)
            if number == 0:
                write_usps_text(self.folder / f"usps/zip.{part}.gz", *written[part])
        if number == 1:
            scaled = {part: ((x + 1) / 2, y) for part, (x, y) in written.items()}
            write_usps_h5(self.folder / "usps/usps.h5", scaled)
        self.describe("usps", number, train=TRAIN, test=TEST)
        return written


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("MIRRAX_DATA", str(tmp_path))
    return SmallSets(tmp_path, monkeypatch)


def line(raised) -> str:
    text = str(raised.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist", "qmnist"])
def test_idx_sets(small, name):
    written = small.idx(name)
    task = load_images(name)
    assert task.name == name and task.note == "" and task.scale == 1 / 255
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(task, f"{part}_images")[..., 0], written[part][0])
        np.testing.assert_array_equal(getattr(task, f"{part}_labels"), written[part][1])


def test_svhn_set(small):
    written = small.svhn()
    task = load_images("svhn")
    np.testing.assert_array_equal(task.train_images, written["train"][0])
    np.testing.assert_array_equal(task.test_labels, written["test"][1])


@pytest.mark.parametrize("number", [0, 1], ids=["text", "h5"])
def test_usps_set(small, number):
    written = small.usps(number)
    task = load_images("usps")
    assert task.scale == 1.0 and task.image_shape == (16, 16, 1)
    expected = (written["test"][0] + 1) / 2
    np.testing.assert_allclose(task.test_images[..., 0], expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(task.train_labels, written["train"][1])


def test_kmnist_from_its_test_part_alone(small):
    images, labels = small.idx("kmnist", ("test",), 1, train=0, split=10)["test"]
    task = load_images("kmnist")
    assert len(task.train_images) == TEST - 10 and len(task.test_images) == 10
    assert sorted(task.test_labels) == list(range(10))
    assert task.note.startswith("KMNIST: only the published test part is present")
    together = np.concatenate([task.train_images, task.test_images])[..., 0]
    assert {image.tobytes() for image in together} == {image.tobytes() for image in images}
    for image, label in zip(task.test_images[..., 0], task.test_labels, strict=True):
        assert labels[(images == image).all(axis=(1, 2))] == [label]
    again = load_images("kmnist")
    np.testing.assert_array_equal(task.test_images, again.test_images)


def move_to(folder: Path, target: str, uncompressed: bool) -> None:
    (folder / target).mkdir(parents=True)
    for path in list((folder / "mnist").iterdir()):
        if uncompressed:
            name = path.name.removesuffix(".gz")
            (folder / target / name).write_bytes(gzip.decompress(path.read_bytes()))
        else:
            path.rename(folder / target / path.name)
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("uncompressed", [False, True])
@pytest.mark.parametrize("target", ["MNIST/raw", "mnist-elsewhere"])
def test_layouts(small, target, uncompressed):
    written = small.idx("mnist")
    move_to(small.folder, target, uncompressed)
    if target == "mnist-elsewhere":
        with pytest.raises(DataError, match="MNIST is missing train-images"):
            locate("mnist")
        return
    np.testing.assert_array_equal(load_images("mnist").train_labels, written["train"][1])
    evidence = {file.evidence for file in verify("mnist")}
    assert evidence == {"SHA-256 matches"}


def test_uncompressed_file_with_one_changed_byte(small):
    small.idx("mnist")
    move_to(small.folder, "MNIST/raw", uncompressed=True)
    path = small.folder / "MNIST/raw/train-images-idx3-ubyte"
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="train-images-idx3-ubyte is not the published file"):
        load_images("mnist")


def test_uncompressed_file_without_a_published_checksum(small):
    written = small.idx("qmnist")
    (small.folder / "QMNIST/raw").mkdir(parents=True)
    for path in list((small.folder / "qmnist").iterdir()):
        name = path.name.removesuffix(".gz")
        data = gzip.decompress(path.read_bytes())
        (small.folder / "QMNIST/raw" / name).write_bytes(data)
        path.unlink()
    np.testing.assert_array_equal(load_images("qmnist").test_labels, written["test"][1])
    assert all("structure checked on loading" in file.evidence for file in verify("qmnist"))
    images = small.folder / "QMNIST/raw/qmnist-test-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(DataError, match="is cut short"):
        load_images("qmnist")


def test_a_copy_compressed_again_is_the_same_data(small):
    written = small.idx("mnist")
    path = small.folder / "mnist/train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=1))
    np.testing.assert_array_equal(load_images("mnist").train_images[..., 0], written["train"][0])
    assert verify("mnist")[0].evidence == "SHA-256 of the uncompressed content matches"


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "cut short":
        path.write_bytes(data[: len(data) // 2])
    elif how == "changed byte":
        path.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    elif how == "other numbers":
        other = np.random.default_rng(1).integers(0, 256, (TRAIN, 28, 28), dtype=np.uint8)
        path.write_bytes(gzip.compress(idx_bytes(other)))
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "bomb":
        path.write_bytes(gzip.compress(bytes(200 << 20), compresslevel=1))


@pytest.mark.parametrize("how", ["cut short", "changed byte", "other numbers", "empty", "bomb"])
def test_damaged_file(small, how):
    small.idx("mnist")
    damage(small.folder / "mnist/train-images-idx3-ubyte.gz", how)
    for function in (load_images, verify):
        with pytest.raises(DataError) as raised:
            function("mnist")
        text = line(raised)
        assert "mnist/train-images-idx3-ubyte.gz is " in text
        assert "delete it and get it again from https://ossci-datasets" in text
        if how in ("cut short", "empty"):
            assert "cut short" in text


def test_damaged_matlab_files_never_reach_the_parser(small, monkeypatch):
    """SciPy's parser can end the process on a changed byte, so the checksum must come first."""
    small.svhn()
    monkeypatch.setattr("scipy.io.loadmat", lambda *args, **kwargs: pytest.fail("parsed"))
    monkeypatch.setattr("scipy.io.whosmat", lambda *args, **kwargs: pytest.fail("parsed"))
    damage(small.folder / "svhn/test_32x32.mat", "changed byte")
    with pytest.raises(DataError, match="test_32x32.mat is not the published file"):
        load_images("svhn")


def test_a_damaged_set_is_never_skipped(small):
    small.idx("mnist")
    small.idx("fashion-mnist")
    damage(small.folder / "fashion-mnist/t10k-labels-idx1-ubyte.gz", "cut short")
    with pytest.raises(DataError, match="fashion-mnist/t10k-labels-idx1-ubyte.gz is cut short"):
        diverse_digits()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ((TRAIN - 1, 28, 28), TRAIN, r"images \(29, 28, 28, 1\) and labels \(30,\)"),
        ((TRAIN, 28, 27), TRAIN, r"images \(30, 28, 27, 1\)"),
        ((TRAIN, 28, 28), TRAIN + 1, r"labels \(31,\)"),
    ],
)
def test_counts_other_than_published(small, images, labels, message):
    """Where no checksum is published, structure is what protects the user."""
    small.idx("mnist")
    folder = small.folder / "mnist"
    write_idx(folder / "train-images-idx3-ubyte.gz", np.zeros(images, np.uint8))
    write_idx(folder / "train-labels-idx1-ubyte.gz", np.zeros(labels, np.uint8))
    small.describe("mnist", 0)
    with pytest.raises(DataError, match=message) as raised:
        load_images("mnist")
    assert "are published; get it again from" in line(raised)


@pytest.mark.parametrize(
    ("file", "array", "message"),
    [
        ("train-images-idx3-ubyte.gz", np.zeros((30, 784), np.uint8), "2 dimensions where 3"),
        ("train-images-idx3-ubyte.gz", np.zeros((30, 28, 28), np.float32), "holds float32"),
        ("train-labels-idx1-ubyte.gz", np.full(30, 10, np.uint8), "label 0 of the train part .*10"),
    ],
)
def test_contents_other_than_published(small, file, array, message):
    small.idx("mnist")
    write_idx(small.folder / "mnist" / file, array)
    small.describe("mnist", 0)
    with pytest.raises(DataError, match=message) as raised:
        load_images("mnist")
    line(raised)


def test_missing_files_are_named(small):
    small.idx("mnist")
    (small.folder / "mnist/t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as raised:
        load_images("mnist")
    assert line(raised) == (
        f"MNIST is missing t10k-labels-idx1-ubyte.gz in {small.folder} (looked in mnist/,"
        " MNIST/raw/, MNIST/); run `mirrax data mnist --fetch`, or get it from"
        f" http://yann.lecun.com/exdb/mnist/ into {small.folder / 'mnist'}"
    )


def test_missing_sets_are_listed(small):
    small.idx("mnist")
    small.usps(1)
    lines = missing()
    others = ["cifar-10", "imagenet", "omniglot", "cifar-100", "mini-imagenet"]
    assert list(lines) == ["qmnist", "kmnist", "fashion-mnist", "svhn", *others]
    assert "train_32x32.mat and test_32x32.mat" in lines["svhn"]
    assert "http://ufldl.stanford.edu/housenumbers/" in lines["svhn"]
    assert missing(names=["mnist", "usps"]) == {}


def test_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MIRRAX_DATA", raising=False)
    with pytest.raises(DataError, match="no data folder is given; pass --data DIR or set MIRRAX_"):
        load_images("mnist")
    monkeypatch.setenv("MIRRAX_DATA", str(tmp_path / "absent"))
    with pytest.raises(DataError, match="data folder .*absent does not exist"):
        data_folder()
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is not a folder"):
        data_folder(tmp_path / "file")
    assert data_folder(tmp_path) == tmp_path


def test_unknown_name(tmp_path):
    with pytest.raises(DataError, match="unknown data set 'fashion'.*Known are: mnist, qmnist"):
        load_images("fashion", tmp_path)


def test_diverse_digits_of_all_six(small):
    for name in ("mnist", "qmnist", "kmnist", "fashion-mnist"):
        small.idx(name)
    small.usps(0)
    small.svhn()
    family = diverse_digits()
    assert tuple(task.name for task in family) == DIVERSE_DIGITS
    for task in family:
        assert task.image_shape == (28, 28, 1) and task.train_images.dtype == np.uint8
        assert (task.classes, task.scale, len(task.test_labels)) == (10, 1 / 255, TEST)


def test_diverse_digits_against_pillow(small):
    """Grey at the published size, then resized, as Pillow does both."""
    from PIL import Image

    images = small.svhn()["train"][0]
    ours = diverse_digits(names=["svhn"])[0].train_images[..., 0]
    for image, resized in zip(images, ours, strict=True):
        grey = Image.fromarray(image).convert("L")
        theirs = np.asarray(grey.resize((28, 28), Image.Resampling.BILINEAR), np.int32)
        assert np.abs(resized - theirs).max() <= 1  # Pillow rounds after each axis


def test_diverse_digits_uses_what_is_present(small):
    small.idx("mnist")
    small.usps(1)
    assert [task.name for task in diverse_digits()] == ["mnist", "usps"]
    assert [task.name for task in diverse_digits(names=["usps", "mnist"])] == ["usps", "mnist"]
    with pytest.raises(DataError, match="SVHN is missing train_32x32.mat"):
        diverse_digits(names=["mnist", "svhn"])
    with pytest.raises(ValueError, match="names is empty"):
        diverse_digits(names=[])


def test_diverse_digits_of_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match="none of the DiverseDigits data sets") as raised:
        diverse_digits(tmp_path)
    assert "QMNIST: https://github.com/facebookresearch/qmnist" in line(raised)


@pytest.fixture
def publisher(small, monkeypatch):
    """Stands in for the network: serves the files of `small` from another folder."""
    import pooch

    small.idx("mnist")
    served = small.folder / "served"
    (small.folder / "mnist").rename(served)

    class Downloader:
        def __init__(self, **options) -> None:
            self.options = options

        def __call__(self, url, output_file, pooch_instance, check_only=False):
            data = (served / url.rpartition("/")[2]).read_bytes()
            Path(output_file).write_bytes(data)

    monkeypatch.setattr(pooch, "HTTPDownloader", Downloader)
    return served


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_fetch(small, publisher):
    names = files_below(publisher)
    assert {file.evidence for file in fetch("mnist")} == {"SHA-256 matches"}
    assert files_below(small.folder / "mnist") == names
    assert len(load_images("mnist").train_labels) == TRAIN


def test_fetch_only_what_is_missing(small, publisher):
    fetch("mnist")
    (small.folder / "mnist/t10k-images-idx3-ubyte.gz").unlink()
    for path in publisher.iterdir():
        if path.name != "t10k-images-idx3-ubyte.gz":
            path.unlink()
    assert len(fetch("mnist")) == 4


def test_fetch_of_other_bytes_leaves_nothing(small, publisher):
    damage(publisher / "train-images-idx3-ubyte.gz", "changed byte")
    with pytest.raises(DataError, match="has another checksum than published; try again") as raised:
        fetch("mnist")
    line(raised)
    assert files_below(small.folder / "mnist") == []


def test_fetch_on_a_full_disk(small, publisher, monkeypatch):
    import errno

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.move", full)
    with pytest.raises(DataError, match="cannot write .*: the disk is full; free some") as raised:
        fetch("mnist")
    line(raised)
    assert files_below(small.folder / "mnist") == []


def test_fetch_without_network(tmp_path, monkeypatch):
    """A port on this machine that nobody listens on stands for any unreachable server."""
    monkeypatch.setenv("NO_PROXY", "*")
    mnist = dataclasses.replace(SOURCES["mnist"], base="http://127.0.0.1:9/")
    monkeypatch.setitem(SOURCES, "mnist", mnist)
    with pytest.raises(DataError, match="cannot fetch .*9/train-images.*ConnectionError") as raised:
        fetch("mnist", tmp_path)
    assert line(raised).endswith(
        f"check the network, or get the files from http://yann.lecun.com/exdb/mnist/ into"
        f" {tmp_path / 'mnist'} by hand"
    )
    assert files_below(tmp_path) == []


def test_table_is_consistent():
    for source in SOURCES.values():
        assert source.base.endswith("/") or not source.base
        assert source.licence and source.site
        for edition in source.editions:
            roles = [file.role for file in edition.files]
            assert len(set(roles)) == len(roles)
            for file in edition.files:
                assert file.md5 is None or len(file.md5) == 32
                assert file.sha256 is None or len(file.sha256) == 64
                assert file.content is None or len(file.content) == 64
