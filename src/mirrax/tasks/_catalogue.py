"""The table of data sets: files, checksums, licences and where each is published."""

from collections.abc import Mapping

from ._digit_sources import DIGIT_SOURCES
from ._editions import Source
from ._few_shot_sources import FEW_SHOT_SOURCES
from ._object_sources import OBJECT_SOURCES

SOURCES: Mapping[str, Source] = {
    source.name: source for source in (*DIGIT_SOURCES, *OBJECT_SOURCES, *FEW_SHOT_SOURCES)
}
"""Every data set mirrax reads, by its name on the command line: S000's, then few-shot sets."""
