"""The network of a study, by the name that the command line was given."""

from typing import Any

from .._errors import ConfigError
from ..models import Model, build


def network(name: str, image_shape: tuple[int, ...], classes: int, **warps: Any) -> Model:
    """As `build`, for a name from the command line.

    **Arguments:**

    - `name`, `image_shape`, `classes`: as there.
    - `warps`: warp layers, as there.

    **Raises:**

    - `ConfigError`: if there is no such model, or it does not take such images.

    >>> network("lenet5", (8, 8, 1), 10)
    Traceback (most recent call last):
        ...
    mirrax._errors.ConfigError: --model: lenet5.input_shape: needs images of at least 12 by 12 ...
    """
    try:
        return build(name, image_shape, classes, **warps)
    except ValueError as error:
        raise ConfigError(f"--model: {error}") from error
