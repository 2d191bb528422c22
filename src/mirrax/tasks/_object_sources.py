"""The rows of the table of data sets with photographs of things: CIFAR-10, ImageNet."""

from ._editions import DataFile, Edition, Source

_BATCHES = tuple(DataFile(f"train_{i}", f"data_batch_{i}.bin") for i in range(1, 6))

_CIFAR_10 = Source(
    name="cifar-10",
    title="CIFAR-10",
    folders=(
        "cifar-10",
        "cifar-10/cifar-10-batches-bin",
        "cifar-10-batches-bin",
        "CIFAR-10-dataset",
    ),
    editions=(
        Edition(
            "cifar_binary",
            (
                DataFile(
                    "all",
                    "cifar-10-binary.tar.gz",
                    170052171,
                    "c32a1d4ab5d03f1284b67883e8d87530",
                    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                ),
            ),
            train=50_000,
            test=10_000,
        ),
        Edition(
            "cifar_binary",
            (*_BATCHES, DataFile("test", "test_batch.bin")),
            train=50_000,
            test=10_000,
        ),
        Edition(
            "folders",
            (DataFile("train", "train/"), DataFile("test", "test/")),
            train=50_000,
            test=10_000,
        ),
        Edition(
            "folders",
            (
                DataFile(
                    "train",
                    "cifar-10_train_subset1000perclass_png_stored.zip",
                    24035968,
                    "7b291c4bfb01bbeb2c3adf4ac879790b",
                    "0b8d12fd4e72888c11cc60f8de4d0184bb1769599b66d176fdb772049392cd95",
                ),
                DataFile(
                    "test",
                    "cifar-10_test_png_stored.zip",
                    24037948,
                    "8e1df8d0ad9c6f7290bd1bb8bd012149",
                    "5e8b260fb36a56ea41ac8c2f0dc4c3aa2a918ef52b72d94cee0092e5768c79ad",
                ),
            ),
            train=10_000,
            test=10_000,
            note=(
                "CIFAR-10: 1,000 of the 5,000 training images of a class are present, so accuracies"
                " are not those of the published set"
            ),
        ),
    ),
    image_shape=(32, 32, 3),
    classes=10,
    licence="none stated (Krizhevsky)",
    site="https://www.cs.toronto.edu/~kriz/cifar.html",
    base="https://www.cs.toronto.edu/~kriz/",
)

_IMAGES = (DataFile("train", "train/"), DataFile("test", "val/"))

_IMAGENET = Source(
    name="imagenet",
    title="ImageNet",
    folders=("imagenet", "imagenet/ILSVRC/Data/CLS-LOC", "ILSVRC/Data/CLS-LOC", "ILSVRC2012"),
    editions=(
        Edition(
            "listed",
            (*_IMAGES, DataFile("test_labels", "LOC_val_solution.csv")),
            train=1_281_167,
            test=50_000,
        ),
        Edition("folders", _IMAGES, train=1_281_167, test=50_000),
    ),
    image_shape=(224, 224, 3),
    classes=1000,
    licence="ImageNet terms, non-commercial research and education",
    site="https://image-net.org/download-images (an account is needed)",
    base="",
    streamed=True,
)

OBJECT_SOURCES = (_CIFAR_10, _IMAGENET)
"""Sets of photographs that are one task each."""
