"""A small ImageNet in the published layouts, for tests of its reader and its users."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("n01440764", "n01443537", "n01484850", "n01491361")
TRAIN, TEST = 12, 3
"""Images a class."""

HEIGHT, WIDTH = 40, 48


def photograph(seed: int, label: int = 0, mode: str = "RGB", size=(HEIGHT, WIDTH)) -> Image.Image:
    """A smooth tint that tells the class, and a little noise."""
    rng = np.random.default_rng((seed, label))
    tint = np.random.default_rng(9).integers(0, 200, (len(CLASSES), 3))[label]
    pixels = tint + rng.integers(0, 56, (*size, 3))
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def jpeg(image: Image.Image, form: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, quality=95)
    return stream.getvalue()


def write_small(data: Path, listed: bool = False, classes=CLASSES) -> Path:
    """Writes `train/` by class, and `val/` by class or in one folder with Kaggle's csv."""
    root, rows, number = data / "imagenet", ["ImageId,PredictionString"], 0
    for label, name in enumerate(classes):
        (root / "train" / name).mkdir(parents=True)
        for image in range(TRAIN):
            path = root / "train" / name / f"{name}_{image}.JPEG"
            path.write_bytes(jpeg(photograph(image, label)))
        for image in range(TEST):
            number += 1
            stem = f"ILSVRC2012_val_{number:08}"
            rows.append(f"{stem},{name} 85 1 499 272 {name} 1 1 9 9 ")
            folder = root / "val" / ("" if listed else name)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{stem}.JPEG").write_bytes(jpeg(photograph(1000 + image, label)))
    if listed:
        (root / "LOC_val_solution.csv").write_text("\n".join(rows) + "\n")
    return data
