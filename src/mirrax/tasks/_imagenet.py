"""ImageNet: 1,281,167 photographs of 1,000 classes for training, 50,000 for testing.

Russakovsky et al. 2015 (ILSVRC 2012). The training images are filed by class, `train/n01440764/`.
Those of `val/` lie in one folder as published, and Kaggle's `LOC_val_solution.csv` names their
classes; or they have been filed by class as well. They serve for testing, as in results in print:
the labels of the test images were never published.
"""

from collections.abc import Mapping

import numpy as np

from .._errors import DataError
from ._filed import Entry, file_by_class, open_images
from ._listed import file_by_list, read_list
from ._sources import Folder, Located, locate, verify_located
from ._streamed import StreamedTask

_HEADER = ("ImageId", "PredictionString")
_SUFFIX = ".JPEG"


def imagenet(folder: Folder = None, *, side: int = 224, classes: int | None = None) -> StreamedTask:
    """Finds ImageNet's images, or those of some of its classes; none is decoded yet.

    **Arguments:**

    - `folder`: the folder of data sets; the environment variable `MIRRAX_DATA` by default.
    - `side`: height and width in pixels of what is decoded.
    - `classes`: how many classes must be there; all 1,000 by default.

    **Returns:**

    A `StreamedTask` with classes in the order of their folders' names; where classes or images are
    fewer than published, its `note` says so.

    **Raises:**

    - `DataError`: missing folders, another number of classes, a class without images, an image of
        `val/` whose class is not known, a class that only one of the parts has.
    - `ValueError`: if `side` or `classes` is not positive.

    >>> imagenet("nowhere")
    Traceback (most recent call last):
        ...
    mirrax._errors.DataError: data folder nowhere does not exist; ...
    """
    for name, value in (("side", side), ("classes", classes)):
        if value is not None and value < 1:
            raise ValueError(f"imagenet.{name}: expected a positive whole number, got {value!r}.")
    located = locate("imagenet", folder)
    verify_located(located)
    with open_images(located.paths["train"]) as images:  # a folder, which needs no closing
        train = file_by_class([images])
    needed = located.source.classes if classes is None else classes
    if len(train) != needed:
        raise DataError(
            f"{located.paths['train']} holds {len(train):,} classes and {needed:,} are expected;"
            f" get it again from {located.source.site}, or name another number (--classes)"
        )
    test = _test(located)
    for name in sorted(train.keys() ^ test.keys()):
        problem = "lacks class" if name in train else "has no business with class"
        raise DataError(f"{located.paths['test']} {problem} {name!r}; get it again")
    return StreamedTask(
        "imagenet",
        *_in_order(train),
        *_in_order(test),
        classes=len(train),
        side=side,
        note=_note(located, train, test),
    )


def _test(located: Located) -> Mapping[str, list[Entry]]:
    """The images of `val/` by class."""
    path = located.paths["test"]
    with open_images(path) as images:
        if located.edition.reader == "listed":
            rows = read_list(located.paths["test_labels"], _HEADER)
            # Behind the class there are boxes, of which nobody asks here.
            classes = {f"{name}{_SUFFIX}": text.partition(" ")[0] for name, text in rows.items()}
            return file_by_list(images, {"val": classes})
        loose = [name for name in images.paths if "/" not in name]
        if loose:
            raise DataError(
                f"{path}: the class of {loose[0]} is not known; put LOC_val_solution.csv (Kaggle)"
                f" into {path.parent}, or file the images by class"
            )
        return file_by_class([images])


def _in_order(filed: Mapping[str, list[Entry]]) -> tuple[list[Entry], np.ndarray]:
    """Images and labels, class by class."""
    entries = [entry for name in sorted(filed) for entry in filed[name]]
    counts = [len(filed[name]) for name in sorted(filed)]
    return entries, np.repeat(np.arange(len(filed), dtype=np.int32), counts)


def _note(
    located: Located, train: Mapping[str, list[Entry]], test: Mapping[str, list[Entry]]
) -> str:
    edition, classes = located.edition, located.source.classes
    found = [sum(map(len, part.values())) for part in (train, test)]
    if (*found, len(train)) == (edition.train, edition.test, classes):
        return ""
    return (
        f"{located.source.title}: {found[0]:,} of the {edition.train:,} training images,"
        f" {found[1]:,} of the {edition.test:,} for testing and {len(train):,} of the"
        f" {classes:,} classes are present, so accuracies are not those of the published set"
    )
