"""A reader as the fuzzers see it: valid files to begin with, and what it must promise."""

import dataclasses
from collections.abc import Callable
from pathlib import Path


def as_it_is(data: bytes) -> bytes:
    """No change."""
    return data


@dataclasses.dataclass(frozen=True)
class Target:
    """A reader of files that anybody may have written.

    **Arguments:**

    - `name`: of the file that it reads.
    - `seeds`: makes small valid files.
    - `read`: reads the file in a folder, and asserts what the reader promises of what it accepts.
    - `mended`: makes checksums right again, so that damages reach what lies behind them.
    """

    name: str
    seeds: Callable[[], tuple[bytes, ...]]
    read: Callable[[Path], None]
    mended: Callable[[bytes], bytes] = as_it_is

    def write(self, folder: Path, data: bytes) -> Path:
        """Writes an input where the reader expects it."""
        path = folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.mended(data))
        return path
