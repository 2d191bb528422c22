"""Tasks with fewer training images, for smaller budgets."""

import dataclasses

from .._errors import ConfigError
from ..tasks import ImageTask


def shortened(task: ImageTask, examples: int, *, divided: bool) -> ImageTask:
    """The task with only its first so many training images.

    **Arguments:**

    - `task`: the whole task.
    - `examples`: how many at most; 0 for all.
    - `divided`: whether methods will be tuned on some of them that are kept apart.

    **Raises:**

    - `ConfigError`: if they are too few to be divided, before anything is computed.
    """
    if not examples:
        return task
    images, labels = task.train_images[:examples], task.train_labels[:examples]
    short = dataclasses.replace(task, train_images=images, train_labels=labels)
    if divided:
        try:
            short.validation()
        except ValueError as error:
            raise ConfigError(
                "--examples: expected as many as tuning can keep a fifth of apart, got "
                f"{examples}; give more."
            ) from error
    return short
