"""What the table of data sets says of one: its files, their checksums, its editions.

Checksums of files are the published ones. `content` is the SHA-256 of an uncompressed copy, taken
here from files whose published checksum matched; where the format has no uncompressed form in
use, or nobody has published what it should be, it is absent and structure and counts are checked.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class DataFile:
    """One published file and the role it plays.

    **Arguments:**

    - `role`: `train_images`, `train_labels`, `test_images` or `test_labels`; the part it holds
        (`train`, `background`, …), with a number where a part has several files (`train_1`), or
        `all` where images and labels share a file.
    - `name`: the published file name; names that end in `.gz` are also looked for without it, and
        one that ends in `/` is a folder.
    - `size`: bytes, where published.
    - `md5`, `sha256`: of the published file, where published.
    - `content`: SHA-256 of the uncompressed content, where known.
    """

    role: str
    name: str
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    content: str | None = None


@dataclasses.dataclass(frozen=True)
class Edition:
    """A set of files that is enough to load a data set.

    **Arguments:**

    - `reader`: the format: `idx`, `usps_text`, `usps_h5`, `svhn` or `cifar_binary`; `folders` for
        images filed by class, in a folder or a zip, and `listed` where a csv names their class.
    - `files`: the files.
    - `train`, `test`: how many images each part must have, where that is what is counted.
    - `split`: the test images of an edition without a training part; 0 otherwise. That many are
        kept for testing and the others become training images.
    - `per_class`: how many images each class must have, of a set that is read in episodes.
    - `note`: in what the edition differs from what results in print were computed on.
    """

    reader: str
    files: tuple[DataFile, ...]
    train: int = 0
    test: int = 0
    split: int = 0
    per_class: int = 0
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set: its editions in order of preference, and where they come from.

    **Arguments:**

    - `name`: the name on the command line.
    - `title`: the name in print.
    - `folders`: where files are looked for below the data folder; new files go to the first.
    - `editions`: any one of them is enough.
    - `image_shape`, `classes`: of every edition; of photographs of all sizes, the usual crop's.
    - `licence`: as stated by the publisher.
    - `site`: the publisher's page.
    - `base`: the address that, followed by a file name of the first edition, is the file; empty
        where nobody may or does serve it.
    - `streamed`: whether it is too large for memory, and read batch by batch.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    editions: tuple[Edition, ...]
    image_shape: tuple[int, int, int]
    classes: int
    licence: str
    site: str
    base: str
    streamed: bool = False
