"""What the tests of the few-shot readers ask of a family and of a refusal."""

import numpy as np
import pytest

from mirrax._errors import DataError


def parts(family):
    return family.train, family.validation, family.test


def sizes(family) -> list[int]:
    return [len(part.class_names) for part in parts(family)]


def image_of(family, name: str) -> np.ndarray:
    part = next(part for part in parts(family) if name in part.class_names)
    return part.images[part.class_names.index(name)]


def refused(read, *arguments, **keywords) -> str:
    with pytest.raises(DataError) as raised:
        read(*arguments, **keywords)
    text = str(raised.value)
    assert "\n" not in text
    return text
