"""The rows of the table of data sets that are read as one task each: digits, letters, clothes."""

from ._editions import DataFile, Edition, Source

_IDX_ROLES = {
    "train_images": "train-images-idx3-ubyte.gz",
    "train_labels": "train-labels-idx1-ubyte.gz",
    "test_images": "t10k-images-idx3-ubyte.gz",
    "test_labels": "t10k-labels-idx1-ubyte.gz",
}


def _idx(role: str, size: int, md5: str, sha256: str, content: str | None) -> DataFile:
    return DataFile(role, _IDX_ROLES[role], size, md5, sha256, content)


_MNIST = Source(
    name="mnist",
    title="MNIST",
    folders=("mnist", "MNIST/raw", "MNIST"),
    editions=(
        Edition(
            "idx",
            (
                _idx(
                    "train_images",
                    9912422,
                    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                ),
                _idx(
                    "train_labels",
                    28881,
                    "d53e105ee54ea40749a09fcbcd1e9432",
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                ),
                _idx(
                    "test_images",
                    1648877,
                    "9fb629c4189551a2d022fa330f9573f3",
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                ),
                _idx(
                    "test_labels",
                    4542,
                    "ec29112dd5afa0611ce80d1b7f02629c",
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                ),
            ),
            train=60_000,
            test=10_000,
        ),
    ),
    image_shape=(28, 28, 1),
    classes=10,
    licence="usually cited as CC BY-SA 3.0 (LeCun, Cortes, Burges)",
    site="http://yann.lecun.com/exdb/mnist/",
    base="https://ossci-datasets.s3.amazonaws.com/mnist/",
)

_FASHION = Source(
    name="fashion-mnist",
    title="FashionMNIST",
    folders=("fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
    editions=(
        Edition(
            "idx",
            (
                _idx(
                    "train_images",
                    26421880,
                    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                ),
                _idx(
                    "train_labels",
                    29515,
                    "25c81989df183df01b3e8a0aad5dffbe",
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                ),
                _idx(
                    "test_images",
                    4422102,
                    "bef4ecab320f06d8554ea6380940ec79",
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                ),
                _idx(
                    "test_labels",
                    5148,
                    "bb300cfdad3c16e7a12a480ee83cd310",
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                ),
            ),
            train=60_000,
            test=10_000,
        ),
    ),
    image_shape=(28, 28, 1),
    classes=10,
    licence="MIT (Zalando)",
    site="https://github.com/zalandoresearch/fashion-mnist",
    base="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)

_KMNIST_TEST = (
    _idx(
        "test_images",
        3041136,
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        "76fbd229ce87db80dd281af5e6670de4ad0e42fb30a7bd643972994c47c1f42e",
    ),
    _idx(
        "test_labels",
        5120,
        "7320c461ea6c1c855c0b718fb2a4b134",
        "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        "a11dc742be8e781a40a92f53d6a4957e7b7d36df2faa097659131ebfd8fd60c6",
    ),
)

_KMNIST = Source(
    name="kmnist",
    title="KMNIST",
    folders=("kmnist", "KMNIST/raw", "KMNIST"),
    editions=(
        Edition(
            "idx",
            (
                _idx(
                    "train_images",
                    18165135,
                    "bdb82020997e1d708af4cf47b453dcf7",
                    "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
                    None,
                ),
                _idx(
                    "train_labels",
                    29497,
                    "e144d726b3acfaa3e44228e80efcd344",
                    "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
                    "2a16eeae62da984b8bd24fa32e31d47291f01dac3fe84d5594f304f71e7d374b",
                ),
                *_KMNIST_TEST,
            ),
            train=60_000,
            test=10_000,
        ),
        # The training images are the one large file of the set, and often the one that is missing.
        Edition("idx", _KMNIST_TEST, train=0, test=10_000, split=2_000),
    ),
    image_shape=(28, 28, 1),
    classes=10,
    licence="CC BY-SA 4.0 (ROIS-DS Center for Open Data in the Humanities)",
    site="http://codh.rois.ac.jp/kmnist/",
    base="http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
)

_QMNIST = Source(
    name="qmnist",
    title="QMNIST",
    folders=("qmnist", "QMNIST/raw", "QMNIST", "."),
    editions=(
        Edition(
            "idx",
            (
                DataFile(
                    "train_images",
                    "qmnist-train-images-idx3-ubyte.gz",
                    9704059,
                    "ed72d4157d28c017586c42bc6afe6370",
                    "9e26a7bf1683614e065d7b76460ccd52807165b3f22561fb782bd9f38c52b51d",
                ),
                DataFile(
                    "train_labels",
                    "qmnist-train-labels-idx2-int.gz",
                    463024,
                    "0058f8dd561b90ffdd0f734c6a30e5e4",
                    "2c05dc77f6b916b38e455e97ab129a42a444f3dbef09b278a366f82904e0dd9f",
                ),
                DataFile(
                    "test_images",
                    "qmnist-test-images-idx3-ubyte.gz",
                    9742279,
                    "1394631089c404de565df7b7aeaf9412",
                    "43fc22bf7498b8fc98de98369d72f752d0deabc280a43a7bcc364ab19e57b375",
                ),
                DataFile(
                    "test_labels",
                    "qmnist-test-labels-idx2-int.gz",
                    526800,
                    "5b5b05890a5e13444e108efe57b788aa",
                    "9fbcbe594c3766fdf4f0b15c5165dc0d1e57ac604e01422608bb72c906030d06",
                ),
            ),
            train=60_000,
            test=60_000,
        ),
    ),
    image_shape=(28, 28, 1),
    classes=10,
    licence="BSD-style (Yadav and Bottou)",
    site="https://github.com/facebookresearch/qmnist",
    base="https://raw.githubusercontent.com/facebookresearch/qmnist/master/",
)

_USPS = Source(
    name="usps",
    title="USPS",
    folders=("usps", "USPS", "."),
    editions=(
        Edition(
            "usps_text",
            (
                DataFile(
                    "train",
                    "zip.train.gz",
                    1829071,
                    "206835541ea704bcfb4b6eea872678bf",
                    "66ebf231ab51f2cf6ac1a892d0f98ccffee1079d7a5db638c1f11f366046ca16",
                    "abc9f5c75b997cabe66b5d01727d5a681c69298e1641a8d37b55433a52129dc0",
                ),
                DataFile(
                    "test",
                    "zip.test.gz",
                    439208,
                    "f9350e940232b89f1dc8f8eacac88625",
                    "8dacc3c6e136af6c3488de9e5113a7daf140c8c2f1f0b61c54ee02f03f1a962f",
                    "6bde17b4f1cd68e0630cd2751d6495b5795d9165ab2dc4a0be8b7002b732f4cc",
                ),
            ),
            train=7_291,
            test=2_007,
        ),
        Edition("usps_h5", (DataFile("all", "usps.h5"),), train=7_291, test=2_007),
    ),
    image_shape=(16, 16, 1),
    classes=10,
    licence="none stated; research use (AT&T)",
    site="https://hastie.su.domains/ElemStatLearn/ (usps.h5: Kaggle, bistaumanga/usps-dataset)",
    base="https://hastie.su.domains/ElemStatLearn/datasets/",
)

_SVHN = Source(
    name="svhn",
    title="SVHN",
    folders=("svhn", "SVHN", "."),
    editions=(
        Edition(
            "svhn",
            (
                DataFile(
                    "train",
                    "train_32x32.mat",
                    182040794,
                    "e26dedcc434d2e4c54c9b2d4a06d8373",
                    "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
                ),
                DataFile(
                    "test",
                    "test_32x32.mat",
                    64275384,
                    "eb5a983be6a315427106f1b164d9cef3",
                    "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
                ),
            ),
            train=73_257,
            test=26_032,
        ),
    ),
    image_shape=(32, 32, 3),
    classes=10,
    licence="non-commercial use (Netzer et al.)",
    site="http://ufldl.stanford.edu/housenumbers/",
    base="http://ufldl.stanford.edu/housenumbers/",
)

DIGIT_SOURCES = (_MNIST, _QMNIST, _KMNIST, _FASHION, _USPS, _SVHN)
"""In S000's order."""
