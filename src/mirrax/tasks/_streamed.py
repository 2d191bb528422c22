"""A classification task too large for memory: image files, decoded batch by batch.

Which image stands where, and which part of it, depends on the seed and the number of the position
only: a run that goes on later sees what it would have seen, and so does every method. Each epoch
has an order of its own, and every image once.

Threads decode, since Pillow lets others run while it decodes and resizes, and since results are
addressed by their position there is no queue, no process and no state to be kept. Loaders such as
grain give the same order at the cost of a dependency larger than what it would replace here.
"""

import dataclasses
import os
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ClassVar, Literal

import numpy as np

from ._crops import central_box, crop, random_box
from ._filed import Entry
from ._types import kept_apart

_MOST_BYTES = 1 << 25  # of one photograph
_ORDER, _CROP, _SAMPLE = range(3)
"""What is drawn, behind the seed."""

Part = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class StreamedTask:
    r"""One image classification task whose images stay on disk.

    Pixels are bytes and scaled where they are used, `pixels = images * scale`, as an `ImageTask`'s.

    **Arguments:**

    - `name`: of the task.
    - `train`, `test`: images of either part.
    - `train_labels`, `test_labels`: `(n,)`, int32, each in `0 … classes - 1`.
    - `classes`: number of classes.
    - `side`: height and width in pixels of what is decoded.
    - `note`: what a reader of results must know about these data; empty where nothing.

    >>> none = np.zeros(0, np.int32)
    >>> StreamedTask("toy", [], none, [], none, classes=4, side=32).image_shape
    (32, 32, 3)
    """

    scale: ClassVar[float] = 1 / 255

    name: str
    train: Sequence[Entry]
    train_labels: np.ndarray
    test: Sequence[Entry]
    test_labels: np.ndarray
    classes: int
    side: int
    note: str = ""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        return self.side, self.side, 3

    def validation(self, share: float = 0.2, seed: int = 0) -> "StreamedTask":
        """The same task within its training part, as `ImageTask.validation`.

        **Arguments:**

        - `share`: of the training images, strictly between 0 and 1, that become the test part.
        - `seed`: chooses which.

        **Raises:**

        - `ValueError`: if `share` leaves one of the parts without an image.
        """
        train, test = kept_apart("StreamedTask", len(self.train), share, seed)
        return dataclasses.replace(
            self,
            train=[self.train[i] for i in train],
            train_labels=self.train_labels[train],
            test=[self.train[i] for i in test],
            test_labels=self.train_labels[test],
        )

    def sample(self, part: Literal["train", "test"], rows: int, *, seed: int = 0) -> Part:
        """Images of a part as testing shows them: the middle of each.

        **Arguments:**

        - `part`: which.
        - `rows`: how many at most.
        - `seed`: chooses which; equal seeds choose the same ones.

        **Returns:**

        Images `(rows, side, side, 3)`, uint8, and labels `(rows,)`, int32.

        **Raises:**

        - `DataError`: an image that is unreadable or damaged.
        """
        entries, labels = getattr(self, part), getattr(self, f"{part}_labels")
        chosen = np.random.default_rng((seed, _SAMPLE)).permutation(len(entries))[:rows]

        def decode(index: int) -> np.ndarray:
            images, path = entries[index]
            return images.convert(
                path,
                lambda image: crop(image, central_box(image.height, image.width), self.side),
                _MOST_BYTES,
            )

        images = np.empty((len(chosen), *self.image_shape), np.uint8)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for row, pixels in zip(images, pool.map(decode, chosen), strict=True):
                row[:] = pixels
        return images, labels[chosen]

    def batches(
        self,
        size: int,
        steps: int,
        *,
        seed: Sequence[int],
        first: int = 0,
        chunk: int = 1,
    ) -> Generator[Part, None, None]:
        """Training batches, a chunk of them at a time, the next chunk being decoded meanwhile.

        **Arguments:**

        - `size`: images a batch.
        - `steps`: how many batches a whole run has.
        - `seed`: numbers that are not negative; equal seeds give equal batches.
        - `first`: the number of the first batch that is wanted.
        - `chunk`: batches a chunk; the last chunk has what is left.

        **Returns:**

        An iterator of images `(chunk, size, side, side, 3)`, uint8, random parts of which half are
        flipped, and labels `(chunk, size)`, int32.

        **Raises:**

        - `DataError`: an image that is unreadable or damaged.
        """
        starts = range(first, steps, chunk)
        counts = [min(chunk, steps - start) for start in starts]
        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            pending: list[tuple[np.ndarray, np.ndarray, list[Future[None]]]] = []
            for start, count in zip(starts, counts, strict=True):
                pending.append(self._begin(pool, start * size, (count, size), seed))
                if len(pending) > 1:
                    yield _finish(*pending.pop(0))
            for rest in pending:
                yield _finish(*rest)
        finally:
            pool.shutdown(cancel_futures=True)

    def _begin(
        self, pool: ThreadPoolExecutor, first: int, shape: tuple[int, int], seed: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray, list[Future[None]]]:
        """Room for some batches, and what is filling it."""
        positions = np.arange(first, first + shape[0] * shape[1])
        chosen = self._places(positions, seed)
        # Not the room of chunks before: a device may still read from it.
        images = np.empty((len(positions), *self.image_shape), np.uint8)

        def decode(row: int) -> None:
            rng = np.random.default_rng((*seed, _CROP, positions[row]))
            filed, path = self.train[chosen[row]]
            images[row] = filed.convert(
                path,
                lambda image: crop(
                    *(image, random_box(rng, image.height, image.width), self.side),
                    flip=bool(rng.random() < 0.5),
                ),
                _MOST_BYTES,
            )

        futures = [pool.submit(decode, row) for row in range(len(positions))]
        labels = self.train_labels[chosen].reshape(shape)
        return images.reshape(*shape, *self.image_shape), labels, futures

    def _places(self, positions: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        """The image that stands at each position."""
        epochs, places = np.divmod(positions, len(self.train))
        chosen = np.empty_like(positions)
        for epoch in np.unique(epochs):
            order = np.random.default_rng((*seed, _ORDER, epoch)).permutation(len(self.train))
            chosen[epochs == epoch] = order[places[epochs == epoch]]
        return chosen


def _finish(images: np.ndarray, labels: np.ndarray, futures: list[Future[None]]) -> Part:
    for future in futures:
        future.result()
    return images, labels
