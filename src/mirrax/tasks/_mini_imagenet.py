"""miniImageNet: 100 classes of ImageNet, 600 images each, of 84×84 pixels.

Vinyals et al. 2016, with the classes of Ravi and Larochelle, *Optimization as a model for few-shot
learning*, 2017: 64 for training, 16 for validation, 20 for testing. They publish the names of the
images; nobody may publish the images.
"""

import contextlib

from ._classes import FewShotFamily
from ._few_shot import assemble
from ._filed import file_by_class, open_images, read_entries
from ._listed import file_by_list, read_list
from ._sources import Folder, locate, verify_located

_CLASSES = {"train": 64, "validation": 16, "test": 20}
_PARTS = tuple(_CLASSES)
_HEADER = ("filename", "label")


def mini_imagenet(folder: Folder = None) -> FewShotFamily:
    """Reads miniImageNet, from images and the csv that file them, or from images filed by class.

    **Arguments:**

    - `folder`: the folder of data sets; the environment variable `MIRRAX_DATA` by default.

    **Returns:**

    A `FewShotFamily`: images `(classes, 600, 84, 84, 3)`, scale 1/255, 1.3 GB in all; where fewer
    images a class are there, its `note` says so.

    **Raises:**

    - `DataError`: missing files, another checksum, a csv of another form, an image that is damaged,
        not listed, filed where the csv does not say, or not of 84 × 84 pixels, a class in two
        parts, or another number of images or classes.

    >>> mini_imagenet("nowhere")
    Traceback (most recent call last):
        ...
    mirrax._errors.DataError: data folder nowhere does not exist; ...
    """
    located = locate("mini-imagenet", folder)
    verify_located(located)
    paths = located.paths
    with contextlib.ExitStack() as stack:
        if located.edition.reader == "listed":
            listed = {part: read_list(paths[part], _HEADER) for part in _PARTS}
            split = {part: sorted(set(rows.values())) for part, rows in listed.items()}
            images = stack.enter_context(open_images(paths["images"]))
            entries = file_by_list(images, listed)
        else:
            filed = {part: stack.enter_context(open_images(paths[part])) for part in _PARTS}
            split = {part: list(file_by_class([images])) for part, images in filed.items()}
            entries = file_by_class(filed.values())
        counts = {name: len(images) for name, images in entries.items()}
        shape = located.source.image_shape
        return assemble(
            *("mini-imagenet", located, split, counts),
            lambda name: read_entries(entries[name], shape),
            sizes=_CLASSES,
        )
