"""The rows of the table of data sets that are read in episodes: Omniglot, CIFAR-100, miniImageNet.

The `…_stored.zip` editions hold the published image files unchanged, filed again without
compression; their SHA-256 is of that zip.
"""

from ._editions import DataFile, Edition, Source

_OMNIGLOT = Source(
    name="omniglot",
    title="Omniglot",
    folders=("omniglot", "omniglot-py", "Omniglot"),
    editions=(
        Edition(
            "folders",
            (
                DataFile(
                    "background",
                    "images_background.zip",
                    md5="68d2efa1b9178cc56df9314c21c6e718",
                ),
                DataFile(
                    "evaluation",
                    "images_evaluation.zip",
                    md5="6b91aef0f799c5bb55b94e3f2daec811",
                ),
            ),
            per_class=20,
        ),
        Edition(
            "folders",
            (
                DataFile("background", "images_background/"),
                DataFile("evaluation", "images_evaluation/"),
            ),
            per_class=20,
        ),
        Edition(
            "folders",
            (
                DataFile(
                    "background",
                    "images_background_png_stored.zip",
                    8394302,
                    "6d8672515caf06fa09cd0a916f634960",
                    "12f28f39d6d0baaa9b94998e145067e51cc8bdac385d5b3c8994ade9a99f11a2",
                ),
                DataFile(
                    "evaluation",
                    "images_evaluation_png_stored.zip",
                    5732517,
                    "c258df7bd94af9ff08daad10071421db",
                    "7fd4f63de21cc4a4e0abb7d2f4b8d5491637b42651c1817c538392ae00186206",
                ),
            ),
            per_class=20,
        ),
    ),
    image_shape=(105, 105, 1),
    classes=1623,
    licence="MIT (Brenden Lake)",
    site="https://github.com/brendenlake/omniglot",
    base="https://raw.githubusercontent.com/brendenlake/omniglot/master/python/",
)

_CIFAR_100 = Source(
    name="cifar-100",
    title="CIFAR-100",
    folders=("cifar-100", "cifar-100/cifar-100-binary", "cifar-100-binary"),
    editions=(
        Edition(
            "cifar_binary",
            (
                DataFile(
                    "all",
                    "cifar-100-binary.tar.gz",
                    md5="03b5dce01913d631647c71ecec9e9cb8",
                ),
            ),
            train=50_000,
            test=10_000,
            per_class=600,
        ),
        Edition(
            "cifar_binary",
            (DataFile("train", "train.bin"), DataFile("test", "test.bin")),
            train=50_000,
            test=10_000,
            per_class=600,
        ),
        Edition(
            "folders",
            (
                DataFile(
                    "train",
                    "cifar-100_train_subset100perclass_png_stored.zip",
                    23738513,
                    "f80e9461b9f3abb55e7f2aea5b8b2f59",
                    "338631f0a1d3f09681091a5f7e31dd29e3b43bf75f91019f52b5a516eaa0888c",
                ),
                DataFile(
                    "test",
                    "cifar-100_test_png_stored.zip",
                    23809533,
                    "f7059b09977c38dfb5d227a0d05a8f2a",
                    "80771a13f6fb5c487462c8abaf1b7cbf5ce7f45ca40d216ea4f89e116776dc05",
                ),
            ),
            per_class=200,
            note=(
                "CIFAR-100: 200 of the 600 images of a class are present (100 of its 500 training"
                " images and its 100 test images), so accuracies are not those of the published set"
            ),
        ),
    ),
    image_shape=(32, 32, 3),
    classes=100,
    licence="none stated (Krizhevsky)",
    site="https://www.cs.toronto.edu/~kriz/cifar.html",
    base="https://www.cs.toronto.edu/~kriz/",
)

_RAVI_LAROCHELLE = (
    DataFile(
        "train",
        "ravi_train.csv",
        1228815,
        "9525e1538f67719f18f1936bf8d0782d",
        "498519cd8e49ce97ed26a4a3638966698ae41ab35e9c68538319fc9b46ba7d2f",
    ),
    DataFile(
        "validation",
        "ravi_val.csv",
        307215,
        "ce315ce99b41fbf84fa6acd69315d918",
        "5658a59921ca027ee76af92949869c5d6f41d77592ff3b18db325a9d10c893b9",
    ),
    DataFile(
        "test",
        "ravi_test.csv",
        384015,
        "5b89df877c6cbe5d291e43118a2a9591",
        "2b7cfa78342995761a572a8158e539bc4e0a80f9bbd7d00c1e17a460fbbb93fa",
    ),
)

_MINI_IMAGENET = Source(
    name="mini-imagenet",
    title="miniImageNet",
    folders=("mini-imagenet", "mini_imagenet", "miniimagenet", "miniImagenet"),
    editions=(
        Edition(
            "listed",
            (
                DataFile("images", "images/"),
                DataFile("train", "train.csv"),
                DataFile("validation", "val.csv"),
                DataFile("test", "test.csv"),
            ),
            per_class=600,
        ),
        Edition(
            "folders",
            (
                DataFile("train", "train/"),
                DataFile("validation", "val/"),
                DataFile("test", "test/"),
            ),
            per_class=600,
        ),
        Edition(
            "listed",
            (
                DataFile(
                    "images",
                    "mini_imagenet_subset100_jpg84_stored.zip",
                    42680520,
                    "ca9b813416ca042667c8a7a52ef8f6bb",
                    "a62a54d550c37c4159d745873ca7b8036fda2ea1e44dad81395378971fd6be4f",
                ),
                *_RAVI_LAROCHELLE,
            ),
            per_class=100,
            note=(
                "miniImageNet: 100 of the 600 images of a class are present, so accuracies are not"
                " those of the published set"
            ),
        ),
    ),
    image_shape=(84, 84, 3),
    classes=100,
    licence="ImageNet terms, non-commercial research and education; csv: MIT (Ravi and Larochelle)",
    site="https://github.com/twitter-research/meta-learning-lstm",
    base="",
)

FEW_SHOT_SOURCES = (_OMNIGLOT, _CIFAR_100, _MINI_IMAGENET)
"""Sets of many classes with few images each."""
